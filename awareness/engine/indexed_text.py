"""The lines of an indexed file, as they are now: what a front end may show, and nothing else of the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.corpus import Corpus
from awareness.engine.structure import indexed_path
from awareness.errors import UsageError
from awareness.index.chunks.languages import language_of
from awareness.types import printable


class NotIndexed(UsageError):
    """No index has such a file, or the file is gone."""


@dataclass(frozen=True)
class IndexedText:
    """A file of a corpus. path: from the top folder, with `/`. language: as languages.yaml names it; None for others.
    rows: (line from 1, its text), ascending; lines of data that is not indexed are left out. total: the number of the
    last line."""

    corpus: Corpus
    path: str
    language: str | None
    rows: tuple[tuple[int, str], ...]

    @property
    def total(self) -> int:
        return self.rows[-1][0] if self.rows else 0

    def between(self, start: int, end: int) -> list[tuple[int, str]]:
        """The rows on these lines, both from 1 and inclusive."""
        return [(number, text) for number, text in self.rows if start <= number <= end]

    def lines(self, start: int, end: int) -> list[str]:
        """A text for each of these lines; those that are left out are empty."""
        found: dict[int, list[str]] = {}
        for number, text in self.between(start, end):
            found.setdefault(number, []).append(text)
        return ["\n".join(found.get(number, ())) for number in range(start, end + 1)]


def read_indexed(
    corpora: Sequence[Corpus], roots: Sequence[Path], path: str, origin: str | None = None, *, is_exact: bool = False
) -> IndexedText:
    """A file of the first corpus that has it, read again; of a pack, its chunks. roots: of the repositories. origin:
    the name of the corpus, where several may have such a path. is_exact: take the path as it is, not as a user may mean
    it. Raises NotIndexed."""
    for corpus in corpora:
        if origin not in (None, corpus.name):
            continue
        in_scope = corpus.build_scope(None)
        files = {path: file for file, path, _ in corpus.store.files(corpus.snapshot)}
        known = [path for path in files if in_scope is None or in_scope(path)]
        found = (path if path in known else None) if is_exact else indexed_path(path, known, roots)
        if found is None:
            continue
        if corpus.read is None:
            return IndexedText(corpus, found, language_of(found), _rows_of_chunks(corpus, files[found]))
        document = corpus.read(found)
        if document is None:
            raise NotIndexed(f"{printable(found)} is gone, or left out now", hint="awareness index, or another file")
        rows = tuple((document.line_of(row), text) for row, text in enumerate(document.text.split("\n")))
        if rows and not rows[-1][1]:  # after the last line break
            rows = rows[:-1]
        return IndexedText(corpus, found, language_of(found, document.text), rows)
    raise NotIndexed(f"{printable(path[:200])} is not indexed", hint="the path of a search result")


def _rows_of_chunks(corpus: Corpus, file: int) -> tuple[tuple[int, str], ...]:
    """What the chunks of a file hold, by line."""
    with corpus.blaming_the_pack():
        chunks = corpus.store.chunks_by_id(corpus.store.chunk_ids([file])).values()
        lines: dict[int, str] = {}
        for stored in chunks:
            for offset, text in enumerate(stored.chunk.text.split("\n")):
                lines.setdefault(stored.chunk.start_line + offset, text)
    return tuple(sorted(lines.items()))
