"""The readable text of a file: what is chunked, searched, encoded, and compared with the file when it is cited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from awareness.index.chunks.data_files import summarised
from awareness.index.chunks.long_lines import shorten_long_lines

if TYPE_CHECKING:
    from awareness.index.chunks.syntax import Part


@dataclass(frozen=True)
class Omission:
    """Lines of a file, both from 1 and inclusive, of which not all is indexed. reason: what they hold."""

    first_line: int
    last_line: int
    reason: str


@dataclass(frozen=True)
class Document:
    """The rows of a file that are worth reading.

    text: the rows, joined by `\\n`. line_numbers: the line of the file, from 1, that each row stands on, ascending;
    None if row r is line r + 1, as in most files. cells: parts that are cut one by one and never join each other, if
    the document brings its own. omissions: the lines of the file of which not all is read, ascending.
    """

    text: str
    line_numbers: Sequence[int] | None = None
    cells: Sequence[Part] = ()
    omissions: Sequence[Omission] = ()

    def line_of(self, row: int) -> int:
        """The line of the file, from 1, that this row, from 0, stands on."""
        return row + 1 if self.line_numbers is None else self.line_numbers[row]

    def between(self, start_line: int, end_line: int) -> str:
        """The rows on these lines of the file, both from 1 and inclusive."""
        rows = self.text.split("\n")
        if self.line_numbers is None:
            return "\n".join(rows[start_line - 1 : end_line])
        numbered = zip(rows, self.line_numbers, strict=True)
        return "\n".join(row for row, line in numbered if start_line <= line <= end_line)

    def shows(self, start_line: int, end_line: int, text: str) -> bool:
        """Are these the rows on these lines? Part of a line is enough, or some of the rows where a line has several."""
        now = self.between(start_line, end_line)
        if now == text or (start_line == end_line and text in now):
            return True
        return self.line_numbers is not None and f"\n{text}\n" in f"\n{now}\n"


def document_of(path: str, text: str) -> Document:
    """The document of a file. text: the whole file, decoded."""
    lines: list[int] | None = None
    cells: Sequence[Part] = ()
    omissions: list[Omission] = []
    notebook = None
    if PurePosixPath(path).suffix.lower() == ".ipynb":
        from awareness.index.chunks.notebooks import read_notebook  # imported late: it loads the table of languages

        notebook = read_notebook(text)
    if notebook:
        text, lines, cells = "\n".join(notebook.rows), notebook.lines, notebook.parts
    elif summary := summarised(path, text):
        text, lines = "\n".join(summary.rows), summary.lines
        omissions = [Omission(first, last, "data") for first, last in summary.gaps]
    text, shortened = shorten_long_lines(text)
    for long in shortened:
        line = long.line if lines is None else lines[long.line - 1]
        omissions.append(Omission(line, line, f"{long.characters:,} characters of data"))
    return Document(text, lines, cells, tuple(sorted(omissions, key=lambda omission: omission.first_line)))
