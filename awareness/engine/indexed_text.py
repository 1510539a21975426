"""The text of one indexed file, as it is now, and of no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awareness.engine.corpus import Corpus
from awareness.index.chunks.languages import language_of
from awareness.index.files.repository import is_below


@dataclass(frozen=True)
class IndexedText:
    """language: as languages.yaml names it; None for others. lines: of the whole file, without their ends."""

    path: str
    language: str | None
    lines: tuple[str, ...]


def read_indexed(corpora: Sequence[Corpus], path: str, origin: str | None = None) -> IndexedText | None:
    """origin: the name of the corpus, needed where several have such a path. None for a path that no index has, for
    a file that is gone, and for one that would not be indexed now, such as one that holds a key since."""
    for corpus in corpora:
        if origin not in (None, corpus.name) or not is_below(path, corpus.below):
            continue
        with corpus.store.reading():
            file_id = corpus.store.paths(corpus.snapshot).ids.get(path)
            if file_id is None:
                continue
            text = corpus.read(path) if corpus.spec is None else _joined(corpus, file_id)
        if text is not None:
            return IndexedText(path, language_of(path, text), tuple(text.removesuffix("\n").split("\n")))
    return None


def _joined(corpus: Corpus, file_id: int) -> str:
    """The lines of a pack's file that its chunks have; lines that no chunk has are empty."""
    lines: list[str] = []
    for stored in corpus.store.chunks_by_id(corpus.store.chunk_ids([file_id])).values():
        chunk = stored.chunk
        rows = chunk.text.split("\n")
        lines += [""] * (chunk.start_line - 1 + len(rows) - len(lines))
        lines[chunk.start_line - 1 : chunk.start_line - 1 + len(rows)] = rows
    return "\n".join(lines)
