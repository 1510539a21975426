"""What was made of sources, kept in a disk cache: their chunks, and which of them are near duplicates.

A key is a digest of everything that decides the value: paths and bytes of the files, size of a chunk, tokenizer, and
the code and the libraries that cut and compare. So what is found is what would be made now; it is never out of date.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from awareness.config.environment import cache_dir
from awareness.index.chunks.languages import LANGUAGES
from awareness.train.data.disk_cache import DiskCache
from awareness.types import Chunk, digest

_PACKAGE = Path(__file__).parents[2]
_CODE = ("index", "train/data", "model/token_offsets.py", "types.py")
_LIBRARIES = ("tree-sitter", "tokenizers", "charset-normalizer", "rensa")

Dropped = list[tuple[int, str]]
"""(place among the chunks of its source, the chunk that it duplicates) of each near duplicate of a source."""


@dataclass(frozen=True)
class PreparedSources:
    """cache: where the values are. tokenizer: digest of the one that counts the tokens of chunks."""

    cache: DiskCache
    tokenizer: str

    def chunks_key(self, content: str, chunk_tokens: int) -> str:
        """content: `content_digest` of a source."""
        return digest("chunks", making(), self.tokenizer, str(chunk_tokens), content)

    def chunks(self, key: str) -> tuple[int, tuple[Chunk, ...]] | None:
        """(number of files of source code, their chunks), None if they are not kept."""
        try:
            kept = self.cache.get(key)
            return int(kept["files"]), tuple(_chunk(*row) for row in kept["chunks"])  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None

    def keep_chunks(self, key: str, files: int, chunks: Sequence[Chunk]) -> None:
        rows = [(c.path, c.start_line, c.end_line, c.symbol, c.text) for c in chunks]
        self.cache.put(key, {"files": files, "chunks": rows})

    def duplicates_key(self, sources: Sequence[tuple[str, Sequence[Chunk]]], threshold: float) -> str:
        """sources: (name, chunks) in the order in which they are compared. threshold: Jaccard index."""
        own = [digest(name, *(part for c in chunks for part in (c.place, c.text))) for name, chunks in sources]
        return digest("near duplicates", making(), repr(threshold), *own)

    def duplicates(self, key: str) -> list[Dropped] | None:
        """The near duplicates of each source, None if they are not kept."""
        try:
            return [[_dropped(*pair) for pair in pairs] for pairs in self.cache.get(key)["dropped"]]  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None

    def keep_duplicates(self, key: str, dropped: Sequence[Dropped]) -> None:
        self.cache.put(key, {"dropped": dropped})


def prepared_sources(model: Path) -> PreparedSources:
    """What this user's cache keeps for the tokenizer in a model's folder."""
    return PreparedSources(DiskCache(cache_dir() / "sources-prepared"), digest((model / "tokenizer.json").read_bytes()))


def content_digest(files: Mapping[str, bytes]) -> str:
    """Of all files that were read of a source. files: path -> bytes."""
    return digest(*(part for path in sorted(files) for part in (path, files[path])))


@cache
def making() -> str:
    """Digest of the code and the versions of the libraries that make chunks of files and compare them."""
    parts: list[bytes | str] = [platform.python_version()]
    for path in (_PACKAGE / name for name in _CODE):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".yaml"):
                parts += [str(file.relative_to(_PACKAGE)), file.read_bytes()]
    grammars = sorted({language.module for language in LANGUAGES.values()})
    return digest(*parts, *(f"{name} {_version(name)}" for name in (*_LIBRARIES, *grammars)))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _chunk(path: Any, start_line: Any, end_line: Any, symbol: Any, text: Any) -> Chunk:
    texts, numbers = (path, symbol, text), (start_line, end_line)
    if not all(type(t) is str for t in texts) or not all(type(n) is int for n in numbers):
        raise TypeError("not a chunk")
    return Chunk(path, start_line, end_line, symbol, text)


def _dropped(place: Any, original: Any) -> tuple[int, str]:
    if type(place) is not int or type(original) is not str:
        raise TypeError("not a near duplicate")
    return place, original
