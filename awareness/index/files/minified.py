"""Is a file minified: code without line breaks, or data on one line, with nothing else to read in it?

A file with a long line above its functions is not minified; long_lines.py shortens that line.
"""

from __future__ import annotations

from awareness.index.chunks.long_lines import LONG, is_text

SMALLEST = 5000  # bytes; below it a file costs little
DENSE = 200  # characters: a longer line of code with few spaces is not written by hand
WRAPPERS = 3  # other lines of code that may stand around the long ones; more if there are many long ones
SHARE = 0.9  # of the characters, in long lines

_CODE = (".js", ".mjs", ".cjs", ".css", ".html", ".htm")
_COMMENTS = ((b"/*", b"*/"), (b"<!--", b"-->"))
_LINE_COMMENTS = (b"//", b"#", b"--", b";")


def is_minified(path: str, data: bytes) -> bool:
    """Is nearly all of a file in long lines of data, apart from comments? data: the whole file."""
    name = path.rpartition("/")[2].lower()
    shortest = DENSE if ".min." in name or "-min." in name else SMALLEST
    if len(data) < shortest:
        return False
    is_code = name.endswith(_CODE)
    limit = DENSE if is_code else LONG
    lines = data.split(b"\n")
    if not any(len(line) > limit for line in lines) or len(data) < limit * len(lines) * (0.2 if is_code else 0.4):
        return False
    long, longs, other, others = 0, 0, 0, 0
    for line in _without_blocks(data).split(b"\n"):
        line = line.strip()
        if len(line) > limit and not is_text(line.decode("utf-8", errors="replace")):
            long += len(line)
            longs += 1
        elif line and not line.startswith(_LINE_COMMENTS):
            other += len(line)
            others += 1
    return long >= SHARE * (long + other) > 0 and others <= max(WRAPPERS, longs // 10)


def _without_blocks(data: bytes) -> bytes:
    """The code without its block comments."""
    for opening, close in _COMMENTS:
        pieces, end = [], 0
        while (start := data.find(opening, end)) >= 0 and (stop := data.find(close, start)) >= 0:
            pieces.append(data[end:start])
            end = stop + len(close)
        data = b"".join((*pieces, data[end:]))
    return data
