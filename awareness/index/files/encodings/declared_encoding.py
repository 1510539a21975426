"""The encoding that a file names itself, and the codecs that a name stands for.

Names come from files, so only those of encodings of plain text are accepted; nothing is looked up by them.
"""

from __future__ import annotations

import functools
import re
from encodings.aliases import aliases

_TOP_BYTES, _END_BYTES = 1024, 512
_NAME = rb"[\"']?([A-Za-z0-9][\w.-]{1,30})"
_TOP = re.compile(
    rb"-\*-[^\n]{0,200}?\bcoding:[ \t]*"
    + _NAME  # Emacs
    + rb"|\A(?:[^\n]*\n)?[ \t\f]*#[^\n]{0,200}?coding[:=][ \t]*"
    + _NAME  # PEP 263, Ruby
    + rb"|\A\s*<\?xml[^>\n]{0,200}?\bencoding[ \t]*=[ \t]*"
    + _NAME
    + rb"|<meta[^>]{0,200}?\bcharset[ \t]*=[ \t]*"
    + _NAME
    + rb"|\A@charset[ \t]+"
    + _NAME
)
_VIM = re.compile(rb"\b(?:vim?|ex):[^\n]{0,200}?\b(?:fileencoding|fenc)=" + _NAME)

# The codecs to try for a name of the older standards: what was really written is mostly their extension.
_EXTENDED = {
    "utf_8": ("utf-8",),
    "latin_1": ("cp1252", "latin_1"),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "big5": ("cp950", "big5hkscs"),
    "shift_jis": ("cp932", "shift_jis_2004"),
    "euc_jp": ("euc_jp", "euc_jis_2004"),
    "iso2022_jp": ("iso2022_jp_ext",),
    "euc_kr": ("cp949",),
    "tis_620": ("cp874",),
    "iso8859_9": ("cp1254", "iso8859_9"),
    "utf_16": ("utf_16_le", "utf_16_be"),
    "utf_32": ("utf_32_le", "utf_32_be"),
}
_MULTIBYTE = frozenset(
    "gb18030 cp950 big5hkscs cp932 shift_jis_2004 shift_jisx0213 euc_jp euc_jis_2004 euc_jisx0213 cp949 johab".split()
)
_ACCEPTED = frozenset(
    [
        *_MULTIBYTE,
        *_EXTENDED,
        *"utf_16_le utf_16_be utf_32_le utf_32_be iso2022_jp_ext iso2022_jp_2 iso2022_kr koi8_r koi8_u".split(),
        *(f"iso8859_{part}" for part in range(2, 17)),
        *(f"cp{page}" for page in (437, 737, 775, *range(850, 867), 869, 874, *range(1250, 1259))),
        *"mac_roman mac_cyrillic mac_greek mac_latin2 mac_turkish mac_iceland".split(),
    ]
)
_EXTRA = {
    "x_sjis": "shift_jis",
    "windows_949": "cp949",
    "windows_936": "gbk",
    "windows_874": "cp874",
}


def declared_in(data: bytes) -> str | None:
    """The encoding that a file names in its first or last lines, as written; None if it names none."""
    match = _TOP.search(data[:_TOP_BYTES]) or _VIM.search(data[:_TOP_BYTES]) or _VIM.search(data[-_END_BYTES:])
    return next(group for group in match.groups() if group).decode("ascii") if match else None


@functools.lru_cache(maxsize=256)
def codecs_of(name: str) -> tuple[str, ...]:
    """Python's codecs to try for an encoding, in order; empty for a name that is not accepted."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"-(?:unix|dos|mac|bom)$", "", name.lower())).strip("_")
    plain = _EXTRA.get(plain, plain)
    codec = aliases.get(plain, plain)
    return _EXTENDED.get(codec, (codec,)) if codec in _ACCEPTED else ()


def is_multibyte(name: str) -> bool:
    """Has the encoding characters of several bytes, so that a few of its words may be valid UTF-8?"""
    return not _MULTIBYTE.isdisjoint(codecs_of(name))
