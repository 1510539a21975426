"""Markdown and reStructuredText -> sections, as parts: a heading, its paragraphs, then its subsections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from awareness.index.chunks.syntax import Part


def markdown_sections(lines: list[str]) -> list[Part]:
    return _sections(lines, _markdown_headings(lines), fenced=True)


def rst_sections(lines: list[str]) -> list[Part]:
    return _sections(lines, _rst_headings(lines), fenced=False)


@dataclass(frozen=True)
class _Heading:
    start: int  # first row of the heading
    stop: int  # first row after it
    level: int
    title: str


def _sections(lines: list[str], headings: Iterable[_Heading], *, fenced: bool) -> list[Part]:
    """A section reaches from its heading to the next one of its level. fenced: the text may have fenced code blocks."""
    root: list[Part] = []
    open_sections: list[tuple[_Heading, list[Part]]] = []
    body = (0, 0)  # the text being read: row of its heading, row after its heading

    def close(level: int, row: int) -> None:
        siblings = open_sections[-1][1] if open_sections else root
        siblings.extend(_blocks(lines, *body, row, fenced=fenced))
        while open_sections and open_sections[-1][0].level >= level:
            heading, parts = open_sections.pop()
            outer = open_sections[-1][1] if open_sections else root
            outer.append(Part(heading.start, row, heading.title, children=partial(list, parts)))

    for heading in headings:
        close(heading.level, heading.start)
        open_sections.append((heading, []))
        body = (heading.start, heading.stop)
    close(0, len(lines))
    return root


def _blocks(lines: list[str], start: int, after: int, stop: int, *, fenced: bool) -> Iterator[Part]:
    """Paragraphs and fenced blocks of rows `[start, stop)`. The heading, `[start, after)`, stays with the first one."""
    row = after
    while row < stop:
        while row < stop and not lines[row].strip():
            row += 1
        fence = ""
        while row < stop and (fence or lines[row].strip()):
            fence = _fence(lines[row], fence) if fenced else ""
            row += 1
        yield Part(start, row)
        start = row
    if start < after:
        yield Part(start, after)


_FENCE = re.compile(r"\s*(?:[-*+>]\s+)?(`{3,}|~{3,})([^\n]*)$")


def _fence(line: str, fence: str) -> str:
    """The marks of the fence that is open after this line, "" if none is. fence: the same before the line."""
    match = _FENCE.match(line)
    if not match:
        return fence
    marks, info = match[1], match[2]
    if fence:
        return "" if marks[0] == fence[0] and len(marks) >= len(fence) and not info.strip() else fence
    return "" if "`" in info and marks[0] == "`" else marks


MAX_TITLE = 500  # characters of a line that are read: a megabyte of "# # # " must not take an hour
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t\r]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)\s*$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]+>|[`*]")


def _markdown_headings(lines: list[str]) -> Iterator[_Heading]:
    row, fence = 0, ""
    if lines[0].strip() == "---":  # front matter, whose last line would underline a title
        row = next((i + 1 for i in range(1, len(lines)) if lines[i].strip() == "---"), 0)
    first = row
    for row in range(first, len(lines)):
        before, fence = fence, _fence(lines[row], fence)
        line = lines[row][:MAX_TITLE]
        if before or fence:
            continue
        if atx := _ATX.match(line):
            yield _Heading(row, row + 1, len(atx[1]), _title(atx[2] or ""))
        elif (underline := _SETEXT.match(line)) and row > first:
            title = lines[row - 1]
            alone = row - 1 == first or not lines[row - 2].strip()
            if alone and title.strip() and title[0] not in " \t>-*+|#<`~" and not _SETEXT.match(title):
                yield _Heading(row - 1, row + 1, 1 if underline[1][0] == "=" else 2, _title(title))


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*\s*$")


def _rst_headings(lines: list[str]) -> Iterator[_Heading]:
    """Underlined titles. Levels follow the first appearance of their adornments, with or without an overline."""
    levels: dict[tuple[str, bool], int] = {}
    for row in range(1, len(lines)):
        under, title = lines[row].rstrip(), lines[row - 1]
        if not _ADORNMENT.match(under) or not title.strip() or _ADORNMENT.match(title):
            continue
        over = row > 1 and lines[row - 2].rstrip() == under
        alone = over or row == 1 or not lines[row - 2].strip()
        if alone and len(under) >= max(3, len(title.strip())) and (over or not title[0].isspace()):
            level = levels.setdefault((under[0], over), len(levels) + 1)
            yield _Heading(row - 2 if over else row - 1, row + 1, level, _title(title))


def _title(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text[:MAX_TITLE]).split())[:60].strip()
