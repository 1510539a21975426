"""The places of code that a text names: stack frames, `path/to/file.py:120`, names of files.

Frames are read in the forms that Python, JavaScript, Java, Go, Rust, Ruby, PHP, C# and others print. Patterns are tried
line by line, on lines of limited length, so that a long text costs little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINES, _LENGTH = 2_000, 400  # of a text that are read
_FILE = r"(?:[A-Za-z]:)?[\w@.+~\\/-]*[\w@+~-]\.[A-Za-z]\w{0,9}"
_PYTHON = re.compile(r'File "([^"]+)", line (\d+)(?:, in (\S+))?')
_JAVA = re.compile(r"\bat ([\w$]+(?:\.[\w$]+)*)\.([\w$<>]+)\((\w+\.\w+):(\d+)\)")
_SCRIPT = re.compile(
    rf"\bat (?:async )?(?:(?:new )?([\w$.<>#]+)(?: \[as [\w$]+\])? \()?(?:file://)?({_FILE}):(\d+)(?::\d+)?\)?\s*$"
)
_RUBY = re.compile(rf"({_FILE}):(\d+):in [`'\"]([^'\"`]+)['\"`]")
_SHARP = re.compile(rf"\bat ([\w.`<>]+)\(.*\) in ({_FILE}):line (\d+)")
_PHP = re.compile(rf"#\d+ ({_FILE})\((\d+)\)(?:: (?:[\w\\]+(?:->|::))?(\w+))?")
_NUMBERED = re.compile(rf"({_FILE})(?::(\d+)\b|\((\d+)\)| on line (\d+)\b|#L(\d+)\b|, line (\d+)\b)")
_NAME = re.compile(rf"(?<![\w@./\\-]){_FILE}(?![\w/-])")
_FRAME_HINT = re.compile(r'^\s*(?:at |File "|#\d+ |\d+: |-->|from )|:in [`\']|^\s+\S+\.(?:go|rs):\d+')
_NOT_FILES = re.compile(r"^(?:https?:|www\.)|^\d+(?:\.\d+)+|^(?:e\.g|i\.e|etc)\b", re.IGNORECASE)
_ENDINGS = frozenset(  # of what counts as a file without a line number: `a.b` is mostly code
    "py pyi pyx js jsx mjs cjs ts tsx mts cts vue svelte go rs java kt kts scala c h cc cpp cxx hh hpp hxx cs rb php sh"
    " bash swift m mm lua pl pm r jl ex exs erl hs ml clj dart sql proto graphql zig cu ipynb md mdx rst txt adoc json"
    " yaml yml toml ini cfg conf xml html css scss less gradle cmake tf nix lock env properties csv mk bat ps1".split()
)


@dataclass(frozen=True)
class Mention:
    """A place that a text names. parts: of its path, the last one is the file's name. line: from 1, 0 for none.
    function: of a frame, may be empty. is_frame: it is from a stack trace."""

    parts: tuple[str, ...]
    line: int = 0
    function: str = ""
    is_frame: bool = False

    def fits(self, path: str) -> int:
        """How many parts at the end of `path` are those of the mention; 0 if it can't be the same file."""
        own = path.split("/")
        if own[-1] != self.parts[-1]:
            return 0
        same = 0
        for a, b in zip(reversed(own), reversed(self.parts), strict=False):
            if a != b:
                break
            same += 1
        return same


def mentions_in(text: str) -> list[Mention]:
    """The places in a text, in order, each once."""
    found: dict[Mention, None] = {}
    for line in text.split("\n", _LINES)[:_LINES]:
        for mention in _of_line(line[:_LENGTH]):
            found.setdefault(mention)
    return list(found)


def _of_line(line: str) -> Iterator[Mention]:
    if "." not in line:
        return
    if match := _PYTHON.search(line):
        yield _mention(match[1], match[2], match[3], is_frame=True)
    elif match := _JAVA.search(line):
        package = match[1].split(".")[:-1]
        yield _mention("/".join([*package, match[3]]), match[4], match[2], is_frame=True)
    elif match := _SHARP.search(line):
        yield _mention(match[2], match[3], match[1].rpartition(".")[2], is_frame=True)
    elif match := _SCRIPT.search(line):
        yield _mention(match[2], match[3], (match[1] or "").rpartition(".")[2], is_frame=True)
    elif match := _RUBY.search(line):
        yield _mention(match[1], match[2], re.split(r"[#. ]", match[3])[-1], is_frame=True)
    elif match := _PHP.search(line):
        yield _mention(match[1], match[2], match[3] or "", is_frame=True)
    else:
        is_frame = _FRAME_HINT.search(line) is not None
        numbered = {match.start(): match for match in _NUMBERED.finditer(line)}
        for match in _NAME.finditer(line):
            if _NOT_FILES.match(match.group()) or "://" in line[max(0, match.start() - 12) : match.start() + 8]:
                continue
            if with_line := numbered.get(match.start()):
                number = next(group for group in with_line.groups()[1:] if group)
                yield _mention(with_line[1], number, "", is_frame=is_frame)
            elif match.group().rpartition(".")[2].lower() in _ENDINGS:
                yield _mention(match.group(), "0", "", is_frame=False)


def _mention(path: str, line: str, function: str | None, *, is_frame: bool) -> Mention:
    parts = tuple(part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..", "~"))
    return Mention(parts or (path,), int(line[:9]), function or "", is_frame)
