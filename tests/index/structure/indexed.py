"""A small repository as an index, chunked like any other, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from awareness.index.chunks.chunking import sized_chunks
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import IndexedFile, Store


@contextmanager
def indexed(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[Store, int]]:
    """The store with the files as its only snapshot, and the id of that. A token is a word or another character."""
    layout = IndexLayout(folder / "index")
    with writing(layout), Store.create(layout) as store:
        listed = [
            IndexedFile(path, path, sized_chunks(path, text, lambda t: [m.start() for m in re.finditer(r"\w+|\S", t)]))
            for path, text in sorted(files.items())
        ]
        yield store, store.write_snapshot("s", listed, chunking="1", model="m", rev=None)
