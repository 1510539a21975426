"""Lines that are data and not text: minified code, base64, paths of drawings, dumps on one line.

Such a line is shortened to its start, a remark and its last characters, so that the rows of a file stay where they are
and a quotation mark or bracket that it opens is mostly closed again. A long line of words stays whole: a paragraph, a
query, a signature, a text in a language without spaces. The lines of a wrapped block of base64 or hex (a certificate, a
picture in a text) count as one: the first stays, the others are empty. So are the rows of a table of numbers after its
first ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONG = 1000  # characters; about one chunk. A shorter line costs little, whatever it is
LONG_RUN = 500  # characters without a space
HEAD, TAIL = 120, 12  # characters of a line that are kept
BLOCK = 4  # lines of wrapped data that are a block
TABLE, TABLE_HEAD = 8, 2  # lines of numbers that are a table, and how many of them are kept
SAMPLE = 4000  # characters, from each end of a line, that are judged

_SPACES = re.compile(r"\s")
_DIGITS_AND_SIGNS = re.compile(r"[\d_\W]")
_WRAPPED = re.compile(  # a line of base64, or of hex
    r"[ \t]*(?=.*\d)(?:(?=.*[a-z])(?=.*[A-Z])[\w+/-]{60,1000}={0,2}|[0-9a-f]{60,1000}|[0-9A-F]{60,1000})[ \t]*",
    re.ASCII,
)
_MAY_BE_NUMBERS = re.compile(r"(?=[^\d]*\d)[\da-fA-FxXuUlL.,;:{}()\[\]+\-*/ \t]+", re.ASCII)
_NUMBER = re.compile(r"0[xX][\da-fA-F]+[uUlL]*|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?[uUlLfF]*", re.ASCII)
_LETTER = re.compile(r"[A-Za-z]")
_RUN = re.compile(rf"\S{{{LONG_RUN},}}")


@dataclass(frozen=True)
class LongLine:
    """A line of which a part is left out. line: from 1. characters: that are left out."""

    line: int
    characters: int


def shorten_long_lines(text: str) -> tuple[str, tuple[LongLine, ...]]:
    """The text with every line of data shortened, and where that is. The number of lines stays."""
    if len(text) <= LONG:
        return text, ()
    lines = text.split("\n")
    shortened: list[LongLine] = []
    block = table = 0  # rows of wrapped data, and of numbers, above this one
    for row, line in enumerate((*lines, "")):
        if is_wrapped := 60 <= len(line) <= LONG and _WRAPPED.fullmatch(line) is not None:
            block += 1
        elif block:
            shortened += _leave_out(lines, row - block, row, kept=1) if block >= BLOCK else ()
            block = 0
        if not is_wrapped and len(line) <= LONG and _is_numbers(line):
            table += 1
        elif table:
            shortened += _leave_out(lines, row - table, row, kept=TABLE_HEAD) if table >= TABLE else ()
            table = 0
        if len(line) > LONG:
            short, left_out = _shorten(line)
            if left_out:
                lines[row] = short
                shortened.append(LongLine(row + 1, left_out))
    return ("\n".join(lines), tuple(shortened)) if shortened else (text, ())


def _leave_out(lines: list[str], start: int, stop: int, *, kept: int) -> list[LongLine]:
    """Empties rows `[start, stop)` but the first `kept`; the last of these gets the remark."""
    last = start + kept - 1
    left_out = sum(map(len, lines[last + 1 : stop]))
    lines[last:stop] = [_remark(lines[last], left_out), *[""] * (stop - last - 1)]
    return [LongLine(last + 1, left_out)]


def _is_numbers(line: str) -> bool:
    """Is a line a row of a table of numbers: `0x1F, 2.5e-3,`, nothing else?"""
    return _MAY_BE_NUMBERS.fullmatch(line) is not None and _LETTER.search(_NUMBER.sub("", line)) is None


def is_text(line: str) -> bool:
    """Is a long line made of words? Measured on the long lines of 43 repositories and packages.

    Prose has a space every six to ten characters and few signs. Minified code has fewer spaces, JSON more signs, a path
    of a drawing few letters. In a language without spaces most characters are letters, and they come back: in a table
    of characters each is there once.
    """
    if len(line) > 2 * SAMPLE:
        line = line[:SAMPLE] + line[-SAMPLE:]
    length = len(line)
    if not line.isascii():
        wide = [character for character in line if character > "\x7f" and character.isalpha()]
        if len(wide) > 0.3 * length:
            return len(set(wide)) < 0.6 * len(wide) or length < LONG_RUN
    spaces = len(_SPACES.findall(line))
    others = len(_DIGITS_AND_SIGNS.findall(line)) - spaces
    if length - spaces - others < 0.45 * length:
        return False
    signs = others - sum(map(line.count, "0123456789.-"))
    return (spaces >= 0.1 * length and signs <= 0.2 * length) or (spaces >= 0.06 * length and signs <= 0.12 * length)


def _shorten(line: str) -> tuple[str, int]:
    """The line without the inside of its long runs of data, or without its own if it is data as a whole; and the
    number of characters that are left out."""
    short, left_out, end = "", 0, 0
    for run in _RUN.finditer(line):
        if not is_text(run[0]):
            short += line[end : run.start()] + _cut(run[0])
            left_out += len(run[0]) - HEAD - TAIL
            end = run.end()
    short += line[end:]
    if len(short) <= LONG or is_text(short):
        return short, left_out
    line = line.rstrip()
    return _cut(line), len(line) - HEAD - TAIL


def _cut(data: str) -> str:
    return f"{_remark(data[:HEAD], len(data) - HEAD - TAIL)} {data[-TAIL:]}"


def _remark(start: str, left_out: int) -> str:
    return f"{start} … [{left_out:,} characters left out]"
