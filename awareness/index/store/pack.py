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
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, StorageFailed, UsageError
from awareness.index.files.safe_read import is_safe
from awareness.index.store.latent_table import PACK
from awareness.index.store.layout import IndexLayout, indexes_dir
from awareness.index.store.lock import writing
from awareness.index.store.manifest import delete as delete_manifest
from awareness.index.store.shards import SHARD_BYTES, ShardContent, content_of, describe, read_places, tensor_info
from awareness.index.store.store import IndexedFile, Store, StoredChunk
from awareness.index.store.tensorfile import Header, Malformed, TensorInfo, checksum_of, read_header, write
from awareness.types import SINK, Buffer, Chunk, Latent, MemorySpec, Progress, digest, printable, silent

SNAPSHOT = "pack"
_Item = TypeVar("_Item")
_AGAIN = "get or make the pack again"


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

    encode: makes the latents that the store does not have, in the order given, the longest first.
    """
    with store.reading():
        chunks = [chunk for chunk in store.chunks(snapshot) if in_scope(chunk.chunk.path)]
        files = {path: file_digest for _, path, file_digest in store.files(snapshot)}
    table = b"".join(_to_line(chunk, files[chunk.chunk.path]) for chunk in chunks)
    unique = {chunk.chunk.digest: chunk for chunk in chunks}
    ordered = sorted(unique.values(), key=lambda chunk: (-chunk.tokens, chunk.chunk.digest))
    tokens = {chunk.chunk.digest: chunk.tokens for chunk in ordered}
    if not tokens:
        raise UsageError(f"{about.repository} has nothing to pack", hint="a wider --scope")
    names = {spec.latent_key(key): key for key in tokens}
    sink_info = tensor_info(spec.raw, SINK, sink.tokens)
    infos = [TensorInfo("chunks", "U8", (len(table),)), TensorInfo("sink", sink_info.dtype, sink_info.shape)]
    infos += [tensor_info(spec, key, count) for key, count in tokens.items()]

    def data() -> Iterator[Buffer]:
        yield table
        yield sink.data
        missing = set(store.latents.missing(spec, tokens))
        made = iter(encode([chunk for chunk in ordered if chunk.chunk.digest in missing]))
        done = 0
        for batch in _batches(ordered, lambda chunk: spec.latent_bytes(chunk.tokens)):
            found = store.latents.read(spec, [chunk.chunk.digest for chunk in batch])
            for chunk in batch:
                progress("packing", done := done + 1, len(tokens))
                latent = found.get(chunk.chunk.digest) or next(made)[1]
                yield latent.data

    def said(checksums: Any) -> dict[str, str]:
        latents = {names[name]: checksum for name, checksum in checksums.items() if name in names}
        metadata = {
            **describe(spec, tokens, latents, kind="pack"),
            "chunks": digest(table),
            "sink": json.dumps([sink.tokens, checksums["sink"]]),
            "model": printable(about.model),
            "repository": printable(about.repository),
            "rev": about.rev or "",
            "chunking": about.chunking,
        }
        return {**metadata, "metadata": metadata_digest(metadata)}

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
        if len(header.tensors) != len(content.latents) + 2:
            raise Malformed("it holds what it does not tell of")
        about = _about(said)
        layout = IndexLayout(indexes_dir() / "packs" / _identity(descriptor, header)[:32])
        if not _is_imported(layout):
            _forget_gone_packs()
            with writing(layout):
                try:
                    with Store.create(layout, pack=path) as store:
                        _import(descriptor, path, header, content, about, store, progress)
                except BaseException:
                    shutil.rmtree(layout.root, ignore_errors=True)
                    raise
    except (Malformed, UnicodeError) as error:  # a lone surrogate is a character of JSON, but not of SQLite
        reason = "it has text that is none" if isinstance(error, UnicodeError) else str(error)
        raise IndexCorrupt(f"{path} is not a sound pack: {reason}", hint=_AGAIN) from error
    except KeyError as error:
        raise IndexCorrupt(f"{path} is not a sound pack: it lacks {error!s:.40}", hint=_AGAIN) from error
    except OSError as error:
        raise IndexCorrupt(f"{path}: {error.strerror}", hint=_AGAIN) from error
    except IndexCorrupt as error:
        raise IndexCorrupt(error.message, hint=_AGAIN) from error
    finally:
        os.close(descriptor)
    store = Store.open(layout, pack=path)
    snapshot = store.snapshot(SNAPSHOT)
    assert snapshot
    return OpenPack(path, about, content.spec, store, snapshot.id)


def metadata_digest(metadata: dict[str, str]) -> str:
    """Of all other fields: the header is where the checksums stand, so it has to have one for itself."""
    return digest(*(text for field in sorted(metadata.items()) if field[0] != "metadata" for text in field))


def _about(said: dict[str, str]) -> About:
    """Raises Malformed, so that none of it can spoil a terminal or pass for another line of the answer."""
    if said["metadata"] != metadata_digest(said):
        raise Malformed("its description is damaged")
    about = About(said["model"], said["repository"], said["rev"] or None, said["chunking"])
    if not all(text.isprintable() for text in (about.model, about.repository, about.chunking)):
        raise Malformed("it has control characters in its description")
    if about.rev is not None and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", about.rev):
        raise Malformed("its commit is none")
    return about


def _identity(descriptor: int, header: Header) -> str:
    """What the pack is known by in the cache. Unlike a checksum, it can't be had by another header or chunk table."""
    return digest(os.pread(descriptor, min(header.offsets.values(), default=0), 0))


def _is_imported(layout: IndexLayout) -> bool:
    try:
        with Store.open(layout) as store:
            terms = store.routing.terms
            same_vectors = terms is not None and store.routing.made_by in (None, terms.fingerprint)
            return same_vectors and store.snapshot(SNAPSHOT) is not None
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
    table = _read(descriptor, header, "chunks")
    if digest(table) != header.metadata["chunks"]:
        raise Malformed("its chunks are damaged")
    sink = _sink(descriptor, header, content.spec.raw)
    store.latents.adopt(PACK, content, eager=True)
    places = list(store.latents.places(content.spec, list(content.latents)).values())
    done = 0
    for batch in _batches(places, lambda place: place.length):
        read_places(batch)
        progress("checking the pack", done := done + len(batch), len(places))
    store.latents.write(content.spec.raw, {SINK: sink}, eager=True)
    store.remember("quant", content.spec.quant)
    store.remember("pack", os.path.abspath(path))
    shown: dict[str, int] = {}
    with store.changing():
        files = _files(table, shown)
        store.write_snapshot(SNAPSHOT, files, chunking=about.chunking, model=about.model, rev=about.rev)
        if shown != {name: tokens for name, (_, _, tokens, _) in content.latents.items()}:
            raise Malformed("its latents are not those of its chunks")


def _read(descriptor: int, header: Header, name: str) -> bytes:
    """The bytes of a tensor, which are in the file, as the header's sizes were compared with its size."""
    return os.pread(descriptor, header.tensors[name].nbytes, header.offsets[name])


def _sink(descriptor: int, header: Header, spec: MemorySpec) -> Latent:
    try:
        tokens, checksum = json.loads(header.metadata["sink"])
        fits = header.tensors["sink"] == replace(tensor_info(spec, SINK, tokens), name="sink")
    except (ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise Malformed("its sink is not what its spec says")
    data = _read(descriptor, header, "sink")
    if checksum_of(data) != checksum:
        raise Malformed("its sink is damaged")
    return Latent(tokens, data)


def _files(table: bytes, shown: dict[str, int]) -> Iterator[IndexedFile]:
    """The files of the chunk table, each field checked; fills `shown` with the chunks' digests and their tokens."""
    paths: set[str] = set()
    for (path, file_digest), group in itertools.groupby(map(_from_line, io.BytesIO(table)), key=lambda row: row[:2]):
        if path in paths:
            raise Malformed("a file stands in it twice")
        paths.add(path)
        chunks = [(chunk, tokens) for _, _, chunk, tokens in group]
        shown.update((chunk.digest, tokens) for chunk, tokens in chunks)
        yield IndexedFile(path, file_digest, chunks)


def _batches(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Some at a time, so that no more than a shard's worth of latents is in memory."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        if batch and size + size_of(item) > SHARD_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch


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
        for value in (text, symbol, file_digest):  # only paths may hold surrogates
            value.encode()
        path.encode("utf-8", "surrogateescape")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Malformed("a chunk cannot be read") from None
    if not texts_are or not numbers_are or not 1 <= start <= end:
        raise Malformed("a chunk has a field of the wrong kind")
    if text.count("\n") != end - start:
        raise Malformed("a chunk does not have the lines that it says")
    if not is_safe(path):
        raise Malformed("a path leads out of the repository")
    return path, file_digest, Chunk(path, start, end, symbol, text), tokens
