"""What is in memory, file by file, without any text: for a map of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from awareness.engine.corpus import Corpus
from awareness.index.files.repository import is_below


@dataclass(frozen=True)
class FileOutline:
    """An indexed file. origin: the repository or pack, None for the only one. bytes: of the text of its chunks. chunks:
    the first and the last line of each, ascending."""

    path: str
    origin: str | None
    bytes: int
    chunks: tuple[tuple[int, int], ...]


def outline(corpora: Sequence[Corpus]) -> list[FileOutline]:
    """The files of each corpus that are searched and have a chunk, by path."""
    files = []
    for corpus in corpora:
        with corpus.blaming_the_pack(), corpus.store.reading():
            for path, rows in groupby(corpus.store.outline(corpus.snapshot), itemgetter(0)):
                if is_below(path, corpus.below):
                    chunks = [(start, end, size) for _, start, end, size in rows]
                    lines = tuple((start, end) for start, end, _ in chunks)
                    files.append(FileOutline(path, corpus.name, sum(size for _, _, size in chunks), lines))
    return files
