"""The chunks of a snapshot as text, a line of JSON each: what packs and fleets hold beside latents.

Nothing of it is trusted when it is read: every field is checked.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from awareness.index.chunks.data_files import count_lines
from awareness.index.files.safe_read import is_safe
from awareness.index.store.store import IndexedFile, StoredChunk
from awareness.index.store.tensorfile import Malformed
from awareness.types import Chunk


def files_of(lines: Iterable[bytes], token_counts: dict[str, int]) -> Iterator[IndexedFile]:
    """The files of a table, each field checked. Fills token_counts: chunk digest -> tokens. Raises Malformed."""
    paths: set[str] = set()
    for (path, file_digest), group in itertools.groupby(map(from_line, lines), key=lambda row: row[:2]):
        if path in paths:
            raise Malformed("it has a file twice")
        paths.add(path)
        chunks = [(chunk, tokens) for _, _, chunk, tokens in group]
        token_counts.update((chunk.digest, tokens) for chunk, tokens in chunks)
        yield IndexedFile(path, file_digest, chunks)


def to_line(stored: StoredChunk, file_digest: str, **more: Any) -> bytes:
    """more: fields that the reader takes from the line itself."""
    chunk = stored.chunk
    row = {
        "path": chunk.path,
        "file": file_digest,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "tokens": stored.tokens,
        "text": chunk.text,
        **more,
    }
    return json.dumps(row).encode() + b"\n"


def from_line(line: bytes) -> tuple[str, str, Chunk, int]:
    """(path, file digest, chunk, tokens). Raises Malformed."""
    try:
        row = json.loads(line)
        path, file_digest, symbol, text = row["path"], row["file"], row["symbol"], row["text"]
        start, end, tokens = row["start_line"], row["end_line"], row["tokens"]
        has_texts = all(type(value) is str for value in (path, file_digest, symbol, text))
        has_numbers = all(type(value) is int and 0 <= value < 1 << 31 for value in (start, end, tokens))
        for value in (text, symbol, file_digest):  # only paths may hold surrogates
            value.encode()
        path.encode("utf-8", "surrogateescape")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Malformed("a chunk cannot be read") from None
    if not has_texts or not has_numbers or not 1 <= start <= end:
        raise Malformed("a chunk has a field of the wrong type")
    rows = text.split("\n")
    is_parsed = path.lower().endswith(".ipynb")
    if not is_parsed and end - start + 1 not in (len(rows), count_lines(rows)):
        raise Malformed("a chunk does not have its number of lines")
    if not is_safe(path):
        raise Malformed("a path leads out of the repository")
    return path, file_digest, Chunk(path, start, end, symbol, text), tokens
