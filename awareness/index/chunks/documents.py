"""The readable text of a file: what is chunked, searched, encoded, and compared with the file when it is cited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awareness.index.chunks.long_lines import LongLine, shorten_long_lines


@dataclass(frozen=True)
class Document:
    """The rows of a file that are worth reading.

    text: the rows, joined by `\\n`. line_numbers: the line of the file, from 1, that each row stands on, ascending;
    None if row r is line r + 1, as in most files. shortened: the lines of which a part is left out, ascending.
    """

    text: str
    line_numbers: Sequence[int] | None = None
    shortened: tuple[LongLine, ...] = ()

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


def document_of(path: str, text: str) -> Document:
    """The document of a file. text: the whole file, decoded."""
    text, shortened = shorten_long_lines(text)
    return Document(text, shortened=shortened)
