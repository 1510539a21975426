"""A Jupyter notebook -> the source of its cells. Outputs, pictures, attachments and the state of widgets are left out.

The JSON is read token by token, because the lines of the file are needed, a notebook with a merge conflict or a cut end
still has readable cells, and deep nesting must not matter. A duplicate key replaces the first one, as in `json`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from awareness.index.chunks.embedded import code_parts, language_named, shifted
from awareness.index.chunks.headings import markdown_sections
from awareness.index.chunks.syntax import Part

_TINY = 160  # characters of a cell that is read together with its neighbours
_TOGETHER = 800  # characters of cells that are read together
_HALF = re.compile("[\ud800-\udfff]")  # of a pair of UTF-16, alone: no encoder takes it
_DEPTH = 6  # of the deepest key that is read: worksheets, 0, cells, 0, source, 0
_TOKEN = re.compile(r'\s*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([{}\[\]:,])|[^\s{}\[\]:,"]+)', re.DOTALL)
_CELL_MAGIC = re.compile(r"%%(\w+)")
_MAGICS = {"javascript": "js", "js": "js", "sh": "sh", "script": "sh", "html": "html", "r": "r", "sql": "sql"}
_PYTHON_MAGICS = frozenset(["time", "timeit", "capture", "prun", "memit", "writefile", "cython"])
_LINE_MAGIC = re.compile(r"^(\s*)[%!?]")

Path = tuple[str | int, ...]


@dataclass
class Notebook:
    """rows: of all cells. lines: the line of the file, from 1, of each row. parts: cells, or tiny ones together."""

    rows: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def read_notebook(text: str) -> Notebook | None:
    """The notebook of a file's text; None if no cell with a source can be read."""
    cells, language = _read(text)
    cells = [cell for cell in cells if any(row.strip() for row in cell.rows)]
    if not cells:
        return None
    notebook = Notebook()
    for group in _together(cells):
        start, members = len(notebook.rows), []
        for cell in group:
            if cell is not group[0]:  # a blank row between cells
                notebook.rows.append("")
                notebook.lines.append(notebook.lines[-1])
            members.append((cell, len(notebook.rows)))
            notebook.rows += cell.rows
            notebook.lines += cell.lines
        first, last = group[0].number, group[-1].number
        name = f"cell {first}" if first == last else f"cells {first}-{last}"
        children = partial(_parts, members, language)
        notebook.parts.append(Part(start, len(notebook.rows), name, open=True, prose=True, children=children))
    return notebook


@dataclass
class _Cell:
    """number: from 1, in the order of the file. kind: `code`, `markdown`, `raw` or `heading`."""

    number: int
    kind: str = ""
    language: str = ""
    level: int = 1
    rows: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, text: str, line: int) -> None:
        """Adds a string of the source, which goes on with the last row. line: that the string stands on."""
        first, *others = text.replace("\r\n", "\n").split("\n")
        if not self.rows:
            self.rows, self.lines = [""], [line]
        if not self.rows[-1]:
            self.lines[-1] = line
        self.rows[-1] += first
        self.rows += others
        self.lines += [line] * len(others)

    @property
    def size(self) -> int:
        """Characters."""
        return sum(map(len, self.rows))

    def trim(self) -> None:
        while self.rows and not self.rows[-1].strip():
            self.rows.pop()
            self.lines.pop()
        if self.kind == "heading" and self.rows:
            self.rows[0] = f"{'#' * self.level} {self.rows[0]}"


def _together(cells: Sequence[_Cell]) -> Iterator[list[_Cell]]:
    """The cells in order, with tiny neighbours together; a tiny text (a title) is read with the cell below it."""
    group: list[_Cell] = []
    size = 0
    for cell in cells:
        if group and not _joins(group[-1], size, cell):
            yield group
            group, size = [], 0
        group.append(cell)
        size += cell.size
    if group:
        yield group


def _joins(above: _Cell, size: int, cell: _Cell) -> bool:
    """Is a cell read together with those above it, which have `size` characters?"""
    if above.size > _TINY or size + cell.size > _TOGETHER:
        return False
    return above.kind != "code" or (cell.kind == "code" and cell.size <= _TINY)


def _parts(members: Sequence[tuple[_Cell, int]], language: str) -> list[Part]:
    """The parts of cells, each with the row where it starts."""
    parts: list[Part] = []
    for cell, start in members:
        if cell.kind == "code":
            of_cell, rows = _code(cell, language)
            parts += code_parts(of_cell, rows, start) or [Part(start, start + len(cell.rows))]
        else:
            parts += shifted(markdown_sections(cell.rows), start)
    return parts


def _code(cell: _Cell, language: str) -> tuple[str | None, list[str]]:
    """The language of a cell and its rows for the grammar: the lines of IPython's own commands become comments."""
    named = language_named(cell.language or language)
    magic = _CELL_MAGIC.match(cell.rows[0].lstrip())
    if magic and magic[1].lower() not in _PYTHON_MAGICS:
        named = language_named(_MAGICS.get(magic[1].lower(), magic[1]))
    return named, [_LINE_MAGIC.sub(r"\1#", row[:400]) + row[400:] for row in cell.rows]


# --- JSON ---------------------------------------------------------------------------------------------------------


def _read(text: str) -> tuple[list[_Cell], str]:
    """The cells of the JSON, and the name of their language."""
    ends = [match.start() for match in re.finditer("\n", text)]
    cells: dict[Path, _Cell] = {}
    languages: dict[Path, str] = {}
    for path, value, offset in _scalars(text):
        cell_path, key, rest = _place(path)
        if cell_path is None:
            if path[:1] == ("metadata",) and path[1:] in (("kernelspec", "language"), ("language_info", "name")):
                languages[path] = value
            continue
        cell = cells.setdefault(cell_path, _Cell(len(cells) + 1))
        if key in ("source", "input") and len(rest) <= 1:
            if value is _NEW:
                cell.rows, cell.lines = [], []
            elif not (rest and isinstance(rest[0], str)):
                cell.add(value, bisect_right(ends, offset) + 1)
        elif value is _NEW or rest:
            continue
        elif key == "cell_type":
            cell.kind = value
        elif key == "language":
            cell.language = value
        elif key == "level":
            cell.level = int(value) if value in ("1", "2", "3", "4", "5", "6") else 1
    for cell in cells.values():
        cell.trim()
    return list(cells.values()), next(iter(languages.values()), "python")


def _place(path: Path) -> tuple[Path | None, str, Path]:
    """The path of the cell that holds a value, its key in the cell, and the path below that."""
    at = 2 if path[:1] == ("worksheets",) else 0
    if len(path) < at + 3 or path[at] != "cells":
        return None, "", ()
    return path[: at + 2], str(path[at + 2]), path[at + 3 :]


_NEW = "\0key"  # the value that announces a key, so that a duplicate starts again


def _scalars(text: str) -> Iterator[tuple[Path, str, int]]:
    """(path, value, offset) of each string down to `_DEPTH`, and of a `level`; `_NEW` for each key before its value.

    Lenient: what does not belong is passed over, and an end without a start is ignored. Linear, and without recursion.
    """
    stack: list[list[str | int]] = []  # of each open object: its key, of an array: its index
    is_object: list[bool] = []
    wants_key = False
    at, end = 0, len(text)
    while at < end:
        token = _TOKEN.match(text, at)
        if token is None:  # only white space is left, or a string without an end
            return
        at = token.end()
        mark = token[2]
        if mark is None:
            shallow = len(stack) <= _DEPTH
            if token[1] is None:
                if shallow and stack and stack[-1][0] == "level" and not wants_key:  # the only number that is read
                    yield tuple(frame[0] for frame in stack), token[0].strip(), token.start()
            elif wants_key:
                stack[-1][0] = _string(token[1]) if shallow else ""
                wants_key = False
                if shallow:
                    yield tuple(frame[0] for frame in stack), _NEW, token.start(1)
            elif shallow and stack and _is_read(stack):
                yield tuple(frame[0] for frame in stack), _string(token[1]), token.start(1)
        elif mark in "{[":
            stack.append([0 if mark == "[" else ""])
            is_object.append(mark == "{")
            wants_key = mark == "{"
        elif mark in "}]":
            if is_object and is_object[-1] == (mark == "}"):
                stack.pop()
                is_object.pop()
            wants_key = False
        elif mark == "," and stack:
            wants_key = is_object[-1]
            if not wants_key:
                stack[-1][0] = int(stack[-1][0]) + 1


def _is_read(stack: list[list[str | int]]) -> bool:
    """May a string here be one that is read? Pictures, most of many notebooks, are not decoded."""
    return "outputs" not in (frame[0] for frame in stack)


def _string(token: str) -> str:
    """The value of a JSON string without its quotes; as it is if its escapes are not JSON's.

    Half a character becomes U+FFFD.
    """
    if "\\" not in token:
        return token
    try:
        value = str(json.loads(f'"{token}"', strict=False))
    except ValueError:
        return token
    return _HALF.sub("\ufffd", value)
