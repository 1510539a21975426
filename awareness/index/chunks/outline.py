"""Code without a grammar -> its parts: the lines that look like definitions, each with the rows that belong to it.

A definition needs a word that defines (`func`, `struct`, `CREATE TABLE`, …), a name, and what follows a name in code.
It holds the comments right above it and what is indented below it, or what follows without a blank line.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath

from awareness.index.chunks.syntax import Part

_LONGEST = 300  # characters of a line that are looked at
_NOT_CODE = frozenset(
    ". .txt .text .log .csv .tsv .json .jsonl .json5 .yaml .yml .toml .ini .cfg .conf .properties .env .xml .svg .adoc"
    " .org .tex .bib .po .pot .lock .diff .patch .srt .html .htm .ipynb .map .pem .eml .mbox .lst .out .list".split()
)
_NAME = r"(?P<name>[^\W\d][\w.:$'!?-]*)"
_BEFORE = (
    r"(?:(?:export|public|private|protected|internal|open|static|abstract|final|sealed|virtual|override|async|inline|pub"
    r"|local|default|partial|pure|extern|unsafe|recursive|cdef|cpdef|data|enum|companion|case)\s+)*"
)
_WORDS = (
    r"(?:defp?|define|func|function|fn|fun|sub|proc|procedure|method|class|struct|interface|contract|module|package|type"
    r"|trait|impl|rule|task|macro|enum|union|record|protocol|namespace|message|service|rpc|error|event|modifier|library"
    r"|object|mixin|component|resource|template|iterator|input|scalar|fragment|model|exception|actor|cdef|cpdef|let)"
)
_AFTER = r"(?:\s*(?:<[^<>]*>)?\s*(?:[({\[;=]|:(?!\S)|->)|\s+(?:is|extends|implements|of|with|inherits|begin|do)\b|\s*$)"
_RULES = [
    re.compile(rf"\s*{_BEFORE}{_WORDS}\s+(?:rec\s+|inline\s+)*{_NAME}(?P<after>{_AFTER})"),
    re.compile(
        r"\s*create\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+|unique\s+|materialized\s+|virtual\s+)*"
        r"(?:table|view|function|procedure|trigger|index|type|sequence|schema)\s+(?:if\s+not\s+exists\s+)?"
        r"[\"`\[]?(?P<name>[^\W\d][\w.]*)",
        re.IGNORECASE,
    ),
    re.compile(r"\((?:def[\w*!-]*)\s+\(?(?P<name>[^\s()'\"]+)"),
    re.compile(r"\s*(?P<name>[^\W\d][\w.]*)\s*(?:<-|=)\s*function\s*\("),
    re.compile(r"(?:function|macro)\s*\(\s*(?P<name>\w+)", re.IGNORECASE),
    re.compile(r"-(?:module|record)\((?P<name>\w+)"),
    re.compile(r"(?P<name>[a-z]\w*)\(.*\)\s*(?:when\b.*)?->"),  # a clause of a function in Erlang
    re.compile(r"\s*(?P<name>\w+)\s*::\s*(?:proc|struct|enum|union)\b"),
]
_COMMENT = re.compile(r"\s*(?:#|//|--|;|%|/\*|\*|\(\*|!|'|@)")
_CLOSES = re.compile(r"\s*(?:[)}\]{]|end\b|begin\b|as\b|is\b|\$\$|else\b)", re.IGNORECASE)


def outline(path: str, lines: list[str]) -> list[Part]:
    """The definitions of a text in an unknown language, ascending; empty for prose and data."""
    name = PurePosixPath(path).name.lower()
    if name != "cmakelists.txt" and (PurePosixPath(name).suffix or ".") in _NOT_CODE:
        return []
    indents: list[int] = []
    names: list[str] = []
    for line in lines:
        head = line[:_LONGEST].expandtabs(4)
        indents.append(len(head) - len(head.lstrip()))
        names.append(_defined(head))
    root: list[Part] = []
    opened: list[tuple[int, Part, list[Part]]] = []  # indentation, part, its members
    blank = False
    for row, line in enumerate(lines):
        if not line[:_LONGEST].strip():
            blank = True
            continue
        indent = indents[row]
        closes = _CLOSES.match(line, 0, _LONGEST) is not None
        while opened and (indent < opened[-1][0] or (indent == opened[-1][0] and not closes and (names[row] or blank))):
            opened.pop()
        blank = False
        for _, part, _ in opened:
            part.stop = row + 1
        if names[row]:
            members: list[Part] = []
            part = Part(row, row + 1, names[row], children=partial(list, members))
            (opened[-1][2] if opened else root).append(part)
            if len(opened) < 20:
                opened.append((indent, part, members))
        elif _COMMENT.match(line, 0, _LONGEST):
            (opened[-1][2] if opened else root).append(Part(row, row + 1, leads=True))
    return root


def _defined(head: str) -> str:
    """The name that a line defines, or ""."""
    for rule in _RULES:
        if match := rule.match(head):
            plain = match.groupdict().get("after") is not None and not match["after"].strip()
            prose = plain and len(head.split()) > 3
            return "" if prose else match["name"].replace("::", ".").rstrip(":.-")[:100]
    return ""
