"""Texts for people (Markdown, reStructuredText, AsciiDoc, Org) -> sections, as parts.

A section is a heading, its paragraphs, then its subsections. A listing (a fenced block of code) stays with the lines
around it; if it has to be split, it is cut at the syntax of its language. What it defines is no definition of the
repository, so its names are left out, except where the listing is run: in R Markdown, Quarto and Org.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from awareness.index.chunks.embedded import code_parts, language_named, led_by
from awareness.index.chunks.syntax import Part


def markdown_sections(lines: list[str]) -> list[Part]:
    return sections_of("markdown", lines)


def sections_of(language: str, lines: list[str]) -> list[Part]:
    """The sections of a text. language: one of `PROSE` in languages.py."""
    headings, listing = _MARKUPS[language]
    return _sections(lines, headings(lines), listing)


@dataclass(frozen=True)
class _Listing:
    """Rows `[start, stop)` of code with the rows that mark it; the code itself is `[first, last)`."""

    start: int
    first: int
    last: int
    stop: int
    language: str
    is_run: bool = False

    def parts(self, lines: list[str]) -> list[Part]:
        code = code_parts(language_named(self.language), lines[self.first : self.last], self.first, named=self.is_run)
        return led_by(self.start, code, self.stop)


_FindListing = Callable[[list[str], int, int], "_Listing | None"]
"""(lines, row, stop) -> the listing that starts on this row, with all its rows before stop."""


@dataclass(frozen=True)
class _Heading:
    start: int  # first row of the heading
    stop: int  # first row after it
    level: int
    title: str


def _sections(lines: list[str], headings: Iterable[_Heading], listing: _FindListing) -> list[Part]:
    """A section reaches from its heading to the next one of its level."""
    root: list[Part] = []
    open_sections: list[tuple[_Heading, list[Part]]] = []
    body = (0, 0)  # the text being read: row of its heading, row after its heading

    def close(level: int, row: int) -> None:
        siblings = open_sections[-1][1] if open_sections else root
        siblings.extend(_blocks(lines, *body, row, listing))
        while open_sections and open_sections[-1][0].level >= level:
            heading, parts = open_sections.pop()
            outer = open_sections[-1][1] if open_sections else root
            outer.append(Part(heading.start, row, heading.title, children=partial(list, parts), prose=True))

    for heading in headings:
        close(heading.level, heading.start)
        open_sections.append((heading, []))
        body = (heading.start, heading.stop)
    close(0, len(lines))
    return root


def _blocks(lines: list[str], start: int, after: int, stop: int, find_listing: _FindListing) -> Iterator[Part]:
    """Paragraphs and listings of rows `[start, stop)`. The heading, `[start, after)`, stays with the first one."""
    row = after
    while row < stop:
        while row < stop and not lines[row].strip():
            row += 1
        listings: list[_Listing] = []
        while row < stop and lines[row].strip():
            listing = find_listing(lines, row, stop)
            if listing:
                listings.append(listing)
            row = listing.stop if listing else row + 1
        yield Part(start, row, children=partial(_listed, lines, listings) if listings else list, prose=True)
        start = row
    if start < after:
        yield Part(start, after, prose=True)


def _listed(lines: list[str], listings: list[_Listing]) -> list[Part]:
    return [part for listing in listings for part in listing.parts(lines)]


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


_INFO = re.compile(r"\s*(?:[-*+>]\s+)?[`~]+\s*(\{?)\s*[.=]?([\w+#-]*)")


def _fenced(lines: list[str], row: int, stop: int) -> _Listing | None:
    """A block between fences, to `stop` if it is not closed: ```` ```python ````, ```` ```{r setup} ````."""
    fence = _fence(lines[row], "")
    if not fence:
        return None
    info = _INFO.match(lines[row][:MAX_TITLE])
    last = row + 1
    while last < stop and _fence(lines[last], fence):
        last += 1
    is_run, language = (bool(info[1]), info[2]) if info else (False, "")
    return _Listing(row, row + 1, last, min(last + 1, stop), language, is_run)


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


_DIRECTIVE = re.compile(r"(\s*)\.\. +(?:code-block|code|sourcecode|ipython)::[ \t]*([\w+#-]*)\s*$")


def _directive(lines: list[str], row: int, stop: int) -> _Listing | None:
    """A directive for code, its options, and all rows that are indented more."""
    match = _DIRECTIVE.match(lines[row][:MAX_TITLE])
    if not match:
        return None
    end = row + 1
    first = 0  # after the options, which end at the first blank row
    for at in range(row + 1, stop):
        text = lines[at].lstrip()
        if text and len(lines[at]) - len(text) <= len(match[1]):
            break
        if text:
            end = at + 1
        elif not first:
            first = at + 1
    first = first or row + 1
    return _Listing(row, first, end, end, match[2]) if first < end else None


_ASCIIDOC_HEADING = re.compile(r"(={1,6})[ \t]+(\S.*)$")
_ASCIIDOC_SOURCE = re.compile(r"\[source[^,\]]*,\s*([\w+#-]+)", re.IGNORECASE)
_ASCIIDOC_FENCE = re.compile(r"(-{4,}|\.{4,}|={4,}|`{3,})(\w*)\s*$")


def _asciidoc_block(lines: list[str], row: int, stop: int) -> _Listing | None:
    """A block between two equal delimiters; `[source,LANGUAGE]` stands above it."""
    fence = _ASCIIDOC_FENCE.match(lines[row][:MAX_TITLE])
    if not fence or fence[1][0] == "=":
        return None
    last = next((at for at in range(row + 1, stop) if lines[at].rstrip() == fence[1]), stop)
    source = _ASCIIDOC_SOURCE.match(lines[row - 1][:MAX_TITLE]) if row else None
    return _Listing(row, row + 1, last, min(last + 1, stop), source[1] if source else fence[2])


_ORG_HEADING = re.compile(r"(\*+)[ \t]+(\S.*)$")
_ORG_SOURCE = re.compile(r"\s*#\+begin_(src|example)[ \t]*([\w+#-]*)", re.IGNORECASE)


def _org_block(lines: list[str], row: int, stop: int) -> _Listing | None:
    """`#+begin_src LANGUAGE` to `#+end_src`."""
    source = _ORG_SOURCE.match(lines[row][:MAX_TITLE])
    if not source:
        return None
    end = f"#+end_{source[1]}".lower()
    last = next((at for at in range(row + 1, stop) if lines[at].strip().lower() == end), stop)
    return _Listing(row, row + 1, last, min(last + 1, stop), source[2], is_run=True)


def _marked_headings(heading: re.Pattern[str], listing: _FindListing, lines: list[str]) -> Iterator[_Heading]:
    """Headings that start with one mark a level, outside of listings."""
    row = 0
    while row < len(lines):
        if block := listing(lines, row, len(lines)):
            row = block.stop
            continue
        if match := heading.match(lines[row][:MAX_TITLE]):
            yield _Heading(row, row + 1, len(match[1]), _title(match[2]))
        row += 1


_MARKUPS: dict[str, tuple[Callable[[list[str]], Iterable[_Heading]], _FindListing]] = {
    "markdown": (_markdown_headings, _fenced),
    "rst": (_rst_headings, _directive),
    "asciidoc": (partial(_marked_headings, _ASCIIDOC_HEADING, _asciidoc_block), _asciidoc_block),
    "org": (partial(_marked_headings, _ORG_HEADING, _org_block), _org_block),
}


def _title(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text[:MAX_TITLE]).split())[:60].strip()
