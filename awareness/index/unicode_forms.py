"""One form for all Unicode forms of a text: composed or not, of full or half width, in any case."""

from __future__ import annotations

import functools
import re
import unicodedata

_INVISIBLE = re.compile("[\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """`text` in the one form that all Unicode forms of it have (NFKC), without invisible characters."""
    if text.isascii():
        return text
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\uff3f", "_")
    if unicodedata.is_normalized("NFKC", text):
        return text
    # words only: elsewhere it would join what is apart, as in Name™
    return _WORD.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)


def fold(name: str) -> str:
    """A word in the case that all its cases have: `Straße` and `STRASSE`, `İ`, `I` and `ı`."""
    return name.lower() if name.isascii() else name.casefold().replace("i\u0307", "i").replace("ı", "i")


@functools.lru_cache(maxsize=512)
def folded_text(text: str) -> str:
    """`fold` of the plain form of a text. A search asks for that of the same chunks many times."""
    return fold(plain(text))
