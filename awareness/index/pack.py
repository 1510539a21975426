"""A pack: one file that holds a snapshot with its latents, to be asked where the sources are not.

A safetensors file. Its header says the format version, the model, the MemorySpec, where the code comes from, and the
checksum of everything else: `chunks` (JSON Lines of path, file, lines, symbol, tokens and text), `sink`, and a latent
for each chunk, under its latent key. The same snapshot gives the same bytes.

Whoever opens a pack trusts nothing in it. The first time, every digest and every path is checked and the routing index
is made from the chunks' text, in a folder of the cache named by the digest of the header: a search index that a
stranger made could not be checked. Latents stay in the pack, and are checked against the header's checksums whenever
they are read. Nothing is ever unpacked to a path that the pack names.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, StorageFailed, UsageError
from awareness.index.latents import PACK
from awareness.index.layout import IndexLayout, indexes_dir
from awareness.index.lock import writing
from awareness.index.manifest import delete as delete_manifest
from awareness.index.safe_read import is_safe
from awareness.index.shards import SHARD_BYTES, ShardContent, content_of, describe, read_places, tensor_info
from awareness.index.store import IndexedFile, Store, StoredChunk
from awareness.index.tensorfile import Header, Malformed, TensorInfo, checksum_of, read_header, write
from awareness.types import SINK, Buffer, Chunk, Latent, MemorySpec, Progress, digest, silent

SNAPSHOT = "pack"
_CHECKED_AT_ONCE = 256  # latents


@dataclass(frozen=True)
class About:
    """Where a pack comes from: the model's name, the repository's, the commit or None, the chunking rules."""

    model: str
    repository: str
    rev: str | None
    chunking: str


@dataclass(frozen=True)
class Written:
    """What went into a pack. bytes: size of the file."""

    files: int
    chunks: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class OpenPack:
    """A pack that was checked. snapshot: its id in `store`. spec: of its latents."""

    path: Path
    about: About
    spec: MemorySpec
    store: Store
    snapshot: int


def write_pack(
    path: Path,
    store: Store,
    snapshot: int,
    spec: MemorySpec,
    sink: Latent,
    encode: Callable[[Sequence[StoredChunk]], Iterable[tuple[Chunk, Latent]]],
    about: About,
    *,
    in_scope: Callable[[str], bool] = lambda path: True,
    progress: Progress = silent,
) -> Written:
    """Writes a snapshot, or what of it is in scope, into a new file at `path`. Call inside `writing(store.layout)`.

    encode: makes the latents that the store does not have.
    """
    with store.reading():
        chunks = [chunk for chunk in store.chunks(snapshot) if in_scope(chunk.chunk.path)]
        files = {path: file_digest for _, path, file_digest in store.files(snapshot)}
    table = b"".join(_to_line(chunk, files[chunk.chunk.path]) for chunk in chunks)
    unique = {chunk.chunk.digest: chunk for chunk in chunks}
    missing = set(store.latents.missing(spec, unique))
    absent = sorted((unique[name] for name in missing), key=lambda chunk: (-chunk.tokens, chunk.chunk.digest))
    ordered = sorted((unique[n] for n in unique.keys() - missing), key=lambda chunk: chunk.chunk.digest)
    tokens = {chunk.chunk.digest: chunk.tokens for chunk in (*ordered, *absent)}
    if not tokens:
        raise UsageError(f"{about.repository} has nothing to pack", hint="a wider --scope")
    names = {spec.latent_key(key): key for key in tokens}
    sink_info = tensor_info(spec.raw, SINK, sink.tokens)
    infos = [TensorInfo("chunks", "U8", (len(table),)), TensorInfo("sink", sink_info.dtype, sink_info.shape)]
    infos += [tensor_info(spec, key, count) for key, count in tokens.items()]

    def data() -> Iterator[Buffer]:
        yield table
        yield sink.data
        done = 0
        for batch in _batches(ordered, spec):
            found = store.latents.read(spec, [chunk.chunk.digest for chunk in batch])
            for chunk in batch:
                progress("packing", done := done + 1, len(tokens))
                yield found[chunk.chunk.digest].data
        for _, latent in encode(absent):
            progress("packing", done := done + 1, len(tokens))
            yield latent.data

    def said(checksums: Any) -> dict[str, str]:
        latents = {names[name]: checksum for name, checksum in checksums.items() if name in names}
        return {
            **describe(spec, tokens, latents, kind="pack"),
            "chunks": checksums["chunks"],
            "sink": json.dumps([sink.tokens, checksums["sink"]]),
            "model": about.model,
            "repository": about.repository,
            "rev": about.rev or "",
            "chunking": about.chunking,
        }

    header = write(path, infos, data(), said)
    in_pack = {chunk.chunk.path for chunk in chunks}
    return Written(len(in_pack), len(chunks), sum(chunk.tokens for chunk in chunks), header.file_bytes)


def open_pack(path: Path, *, progress: Progress = silent) -> OpenPack:
    """Opens a pack, checked whole the first time. Raises UsageError, or IndexCorrupt if it is damaged or lies."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="awareness pack FILE makes one") from error
    try:
        header = read_header(descriptor)
        content = content_of(header, kind="pack")
        said = header.metadata
        about = About(said["model"], said["repository"], said["rev"] or None, said["chunking"])
        layout = IndexLayout(indexes_dir() / "packs" / digest(header.checksum, *sorted(said.values()))[:32])
        if not _is_imported(layout):
            _forget_gone_packs()
            with writing(layout), Store.create(layout, pack=path) as store:
                _import(descriptor, path, header, content, about, store, progress)
    except (Malformed, KeyError) as error:
        raise IndexCorrupt(f"{path} is not a sound pack: {error}", hint="get or make the pack again") from error
    except OSError as error:
        raise IndexCorrupt(f"{path}: {error.strerror}", hint="get or make the pack again") from error
    finally:
        os.close(descriptor)
    store = Store.open(layout, pack=path)
    snapshot = store.snapshot(SNAPSHOT)
    assert snapshot
    return OpenPack(path, about, content.spec, store, snapshot.id)


def _is_imported(layout: IndexLayout) -> bool:
    try:
        with Store.open(layout) as store:
            return store.snapshot(SNAPSHOT) is not None
    except NoIndex:
        return False
    except IndexCorrupt:  # it is only a cache
        delete_manifest(layout)
        return False


def _forget_gone_packs() -> None:
    """Deletes what the cache holds of packs whose file is no longer where it was."""
    for root in sorted(indexes_dir().glob("packs/*")):
        layout = IndexLayout(root)
        with contextlib.suppress(IndexLocked, NoIndex, IndexCorrupt, StorageFailed), writing(layout):
            with Store.open(layout) as store:
                path = store.setting("pack")
            if path is None or not os.path.exists(path):
                shutil.rmtree(root, ignore_errors=True)


def _import(
    descriptor: int, path: Path, header: Header, content: ShardContent, about: About, store: Store, progress: Progress
) -> None:
    """Checks every byte, and makes the index; the snapshot is written last, and says that all was sound."""
    table = _read(descriptor, header, "chunks", header.metadata["chunks"])
    sink = _sink(descriptor, header, content.spec.raw)
    store.latents.adopt(PACK, content, eager=True)
    places = list(store.latents.places(content.spec, list(content.latents)).values())
    for start in range(0, len(places), _CHECKED_AT_ONCE):
        read_places(places[start : start + _CHECKED_AT_ONCE])
        progress("checking the pack", start, len(places))
    store.latents.write(content.spec.raw, {SINK: sink}, eager=True)
    store.remember("quant", content.spec.quant)
    store.remember("pack", os.path.abspath(path))
    shown: set[str] = set()
    with store.changing():
        files = _files(table, shown)
        store.write_snapshot(SNAPSHOT, files, chunking=about.chunking, model=about.model, rev=about.rev)
        if shown != set(content.latents):
            raise Malformed("its latents are not those of its chunks")


def _read(descriptor: int, header: Header, name: str, checksum: str) -> bytes:
    """The bytes of a tensor, which are in the file, as the header's sizes were compared with its size."""
    data = os.pread(descriptor, header.tensors[name].nbytes, header.offsets[name])
    if checksum_of(data) != checksum:
        raise Malformed(f"its {name} is damaged")
    return data


def _sink(descriptor: int, header: Header, spec: MemorySpec) -> Latent:
    try:
        tokens, checksum = json.loads(header.metadata["sink"])
        fits = header.tensors["sink"] == replace(tensor_info(spec, SINK, tokens), name="sink")
    except (ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise Malformed("its sink is not what its spec says")
    return Latent(tokens, _read(descriptor, header, "sink", checksum))


def _files(table: bytes, shown: set[str]) -> Iterator[IndexedFile]:
    """The files of the chunk table, each field checked; fills `shown` with the digests of the chunks."""
    for (path, file_digest), group in itertools.groupby(map(_from_line, table.splitlines()), key=lambda row: row[:2]):
        chunks = [(chunk, tokens) for _, _, chunk, tokens in group]
        shown.update(chunk.digest for chunk, _ in chunks)
        yield IndexedFile(path, file_digest, chunks)


def _batches(chunks: Sequence[StoredChunk], spec: MemorySpec) -> Iterator[list[StoredChunk]]:
    """Some at a time, so that no more than a shard's worth of latents is in memory."""
    size = max(1, SHARD_BYTES // max(1, spec.latent_bytes(256)))
    return (list(chunks[start : start + size]) for start in range(0, len(chunks), size))


def _to_line(stored: StoredChunk, file_digest: str) -> bytes:
    chunk = stored.chunk
    row = {
        "path": chunk.path,
        "file": file_digest,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "tokens": stored.tokens,
        "text": chunk.text,
    }
    return json.dumps(row).encode() + b"\n"


def _from_line(line: bytes) -> tuple[str, str, Chunk, int]:
    """(path, file digest, chunk, tokens). Raises Malformed."""
    try:
        row = json.loads(line)
        path, file_digest, symbol, text = row["path"], row["file"], row["symbol"], row["text"]
        start, end, tokens = row["start_line"], row["end_line"], row["tokens"]
        texts_are = all(type(value) is str for value in (path, file_digest, symbol, text))
        numbers_are = all(type(value) is int and 0 <= value < 1 << 31 for value in (start, end, tokens))
        text.encode()  # only paths may hold surrogates
        symbol.encode()
        path.encode("utf-8", "surrogateescape")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Malformed("a chunk cannot be read") from None
    if not texts_are or not numbers_are or not 1 <= start <= end:
        raise Malformed("a chunk has a field of the wrong kind")
    if not is_safe(path):
        raise Malformed("a path leads out of the repository")
    return path, file_digest, Chunk(path, start, end, symbol, text), tokens
