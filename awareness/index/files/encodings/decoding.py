"""Bytes -> text, everywhere the same way, or the reason why they are not text.

The encoding is the one that a byte order mark tells, else the declared one, else UTF-8, else UTF-16 or UTF-32 where the
zero bytes show it, else what legacy_encoding.py makes of it. UTF-8 with a few broken bytes stays UTF-8, with U+FFFD for
them. Lines end as in editors: at LF, CRLF or CR, and at no other character; the text has LF only. A byte order mark is
no part of the text.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from awareness.index.files.safe_read import Skip

START_BYTES = 8192  # that tell text from binary
_MOST_CONTROLS = 0.1  # share of control characters in a text that is UTF-8
_MOST_CONTROLS_ELSE = 0.003  # in any other
_MOST_ODD, _MOST_ODD_UNMARKED = 0.06, 0.002  # share of odd characters in UTF-16 with and without a byte order mark
_BLANKS = "\t\n\v\f\r\x85"
_MOST_BROKEN = 0.3  # share of U+FFFD in a text whose few odd bytes are in no encoding
_FEW = 4  # characters beyond ASCII that may be valid UTF-8 by chance

_MARKS = (  # UTF-32 first: its mark starts with the mark of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(sorted({*range(32), 127} - set(b"\b\t\n\v\f\r\x1b")))  # that text does not have
_JAPANESE_IN_7_BITS = re.compile(rb"\x1b\$(?:[@B]|\(D)[!-~]")
_SPACE = re.compile(r"[ \n\r\t\u3000]")
_TWO_BYTES, _MORE_BYTES = re.compile("[\x80-\u07ff]"), re.compile("[\u0800-\ufffc\ufffe-\U0010ffff]")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of a file, with `\\n` at the end of its lines. declared: its encoding by `.gitattributes`.

    Raises Skip for bytes that are not text.
    """
    return decode_as(data, encoding_of(data, declared))


def decode_as(data: bytes, encoding: str) -> str:
    """The text of bytes whose encoding is known; U+FFFD where they are broken."""
    text = data.decode(encoding, errors="replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def encoding_of(data: bytes, declared: str | None = None) -> str:
    """The encoding of a file, as the name of a codec. Arguments and errors as of `decode`."""
    start = data[:START_BYTES]
    for mark, name in _MARKS:
        if data.startswith(mark) and (name == "utf-8" or _is_wide_text(data, name, _MOST_ODD)):
            return name
    if declared and (fitting := _decodes(data, declared)):
        return fitting
    if b"\0" in start:
        if wide := _wide(data):
            return wide
        raise Skip("binary")
    controls = (len(start) - len(start.translate(None, _CONTROLS))) / max(1, len(start))
    if controls > _MOST_CONTROLS or start.startswith(b"%PDF-"):
        raise Skip("binary")
    if data.isascii():
        return "iso2022_jp_ext" if _JAPANESE_IN_7_BITS.search(data) and _decodes(data, "iso2022_jp_ext") else "utf-8"
    return _beyond_ascii(data, controls)


def _beyond_ascii(data: bytes, controls: float) -> str:
    """controls: share of control characters at the start of `data`."""
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    two, more = len(_TWO_BYTES.findall(text)), len(_MORE_BYTES.findall(text)) if broken or len(text) < 1 << 16 else _FEW
    if not broken and two + more >= _FEW:
        return "utf-8"
    from awareness.index.files.encodings.declared_encoding import declared_in, is_multibyte

    declared = declared_in(data)
    if not broken:  # the bytes may mean something else in an encoding of several bytes a character
        return (declared and is_multibyte(declared) and _decodes(data, declared)) or "utf-8"
    if controls > _MOST_CONTROLS_ELSE or b"\0" in data:
        raise Skip("binary")
    if declared and (name := _decodes(data, declared)):
        return name
    if two + 6 * more >= 4 * broken:
        return "utf-8"
    from awareness.index.files.encodings.legacy_encoding import detect

    if name := detect(data):
        return name
    if broken > _MOST_BROKEN * len(text):
        raise Skip("in no encoding that is known")
    return "utf-8"


def _decodes(data: bytes, name: str) -> str | None:
    """The codec, of those that `name` stands for, that makes text of all of `data`; None if none does."""
    from awareness.index.files.encodings.declared_encoding import codecs_of

    for codec in codecs_of(name):
        try:
            text = data.decode(codec)
        except UnicodeError:
            continue
        if "\0" not in text:
            return codec
    return None


# --- UTF-16 and UTF-32 -----------------------------------------------------------------------------------------


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark: zero bytes at one place of each unit, and the text is plain."""
    start = data[:START_BYTES]
    zeros = [start[place::4].count(0) for place in range(4)]
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    units = len(start) // 4
    if units and min(zeros[2], zeros[3]) > 0.9 * units:
        order = ["utf-32-le"]
    elif units and min(zeros[0], zeros[1]) > 0.9 * units:
        order = ["utf-32-be"]
    else:
        order = ["utf-16-le"] if odd > 4 * even else ["utf-16-be"] if even > 4 * odd else []
    return next(
        (name for name in order if _is_wide_text(data, name, _MOST_ODD_UNMARKED) and _has_space(data, name)), None
    )


def _has_space(data: bytes, name: str) -> bool:
    return _SPACE.search(data.decode(name, errors="replace")) is not None


def _is_wide_text(data: bytes, name: str, most_odd: float) -> bool:
    """Is the start of `data`, decoded, text: letters of few scripts, spaces and ends of lines?

    most_odd: share of controls and unassigned characters, in [0, 1].
    """
    text = data[:START_BYTES].decode(name, errors="replace").removeprefix("\ufeff")
    plain = sum(character.isascii() and (character.isprintable() or character in _BLANKS) for character in text)
    odd = text.count("\ufffd") + sum(unicodedata.category(character) in ("Cc", "Cn", "Co") for character in text)
    blocks = {ord(character) >> 8 for character in text if not 0x2E80 <= ord(character) < 0xD7B0}
    return odd - sum(map(text.count, _BLANKS)) <= most_odd * len(text) and (plain > 0.7 * len(text) or len(blocks) <= 8)
