"""Is a file minified: code without line breaks, or data on one line, with nothing else to read in it?

A file with a long line above its functions is not minified; long_lines.py shortens that line.
"""

from __future__ import annotations

import re

from awareness.index.chunks.long_lines import LONG, is_text

SMALLEST = 5000  # bytes; below it a file costs little, unless its name says that it is minified
DENSE = 200  # characters: a longer line of code with few spaces is not written by hand
SHARE, SHARE_IF_NAMED = 0.9, 0.6  # of the characters, in long lines
WRAPPERS = (
    3  # other lines that may stand around the long ones; in code and JSON also half as many as there are long ones
)

_CODE = (".js", ".mjs", ".cjs", ".css", ".html", ".htm")
_COMMENTS = ((b"/*", b"*/"), (b"<!--", b"-->"))
_LINE_COMMENTS = (b"//", b"#", b"--", b";")
_DEFINITION = re.compile(  # of a function or a type that has a name
    rb"(?:\w+ ){0,4}(?:def|func|function|fn|fun|sub|proc|class|struct|interface|trait|enum|module|contract) [^\W\d]"
    rb"|(?:export )?(?:const|let) \w+ = (?:async )?\([^()]*\) =>"
)
_TYPED = re.compile(rb"(?:[\w*&]+ ){1,4}\*?[\w:]+\([^();]*\) ?\{?$")  # the same in C and its relatives


def is_minified(path: str, data: bytes) -> bool:
    """Is nearly all of a file in long lines of data, apart from comments? data: the whole file."""
    name = path.rpartition("/")[2].lower()
    if name.endswith(".ipynb"):  # its cells are read wherever they stand, and its pictures are not
        return False
    is_named = ".min." in name or "-min." in name
    is_code = is_named or name.endswith(_CODE)
    limit = DENSE if is_code else LONG // 2 if name.endswith(".json") else LONG
    if len(data) < (DENSE if is_named else SMALLEST) or len(data) < 0.3 * limit * (data.count(b"\n") + 1):
        return False
    longs, others, defines = [], [], False
    for line in _without_blocks(data).split(b"\n"):
        line = line.strip()
        if len(line) > limit and not is_text(line.decode("utf-8", errors="replace")):
            longs.append(len(line))
        elif line.strip(b"{}()[];,") and not line.startswith(_LINE_COMMENTS):
            others.append(len(line))
            defines = defines or bool(_DEFINITION.match(line) or (not is_code and _TYPED.match(line)))
    share = sum(longs) / (sum(longs) + sum(others) or 1)
    if is_named:
        return share >= SHARE_IF_NAMED
    if defines and len(longs) <= WRAPPERS:
        return False
    return share >= SHARE and len(others) <= max(WRAPPERS, 0 if limit == LONG else len(longs) // 2)


def _without_blocks(data: bytes) -> bytes:
    """The code without its block comments."""
    for opening, close in _COMMENTS:
        pieces, end = [], 0
        while (start := data.find(opening, end)) >= 0 and (stop := data.find(close, start)) >= 0:
            pieces.append(data[end:start])
            end = stop + len(close)
        data = b"".join((*pieces, data[end:]))
    return data
