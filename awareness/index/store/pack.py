"""A pack: one file with a snapshot and its latents, for questions where the sources are not.

It is a safetensors file. The header holds the format version, the model, the MemorySpec, the source of the code, and a
checksum of everything else: `chunks` (JSON Lines of path, file, lines, symbol, tokens and text), `sink`, and one latent
for each chunk, under its latent key. Equal snapshots give equal bytes.

Nothing in a pack is trusted. When it is opened for the first time, every digest and path is checked, and the routing
index is made from the text of the chunks, in a cache folder named by the digest of the header; a search index made by a
stranger could not be checked. Latents stay in the pack and are checked against the header whenever they are read.
Nothing is ever written to a path that the pack names.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, StorageFailed, UsageError
from awareness.index.store.chunk_table import files_of, to_line
from awareness.index.store.latent_table import PACK
from awareness.index.store.layout import IndexLayout, indexes_dir
from awareness.index.store.lock import writing
from awareness.index.store.manifest import delete as delete_manifest
from awareness.index.store.shards import SHARD_BYTES, ShardContent, content_of, describe, read_places, tensor_info
from awareness.index.store.store import Store, StoredChunk
from awareness.index.store.tensorfile import Header, Malformed, TensorInfo, checksum_of, read_header, write
from awareness.types import SINK, Buffer, Chunk, Latent, MemorySpec, Progress, digest, printable, silent

SNAPSHOT = "pack"
_Item = TypeVar("_Item")
_HINT = "download or create the pack again"


@dataclass(frozen=True)
class About:
    """The source of a pack. model, repository: names. rev: the commit or None. chunking: the chunking rules."""

    model: str
    repository: str
    rev: str | None
    chunking: str


@dataclass(frozen=True)
class Written:
    """The content of a new pack. bytes: size of the file."""

    files: int
    chunks: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class OpenPack:
    """A pack that was checked. spec: of its latents. snapshot: its id in `store`."""

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
    """Writes the files of a snapshot that are in scope into a new file. Call inside `writing(store.layout)`.

    encode: chunks, the longest first -> their latents, in this order; called for those that the store does not have.
    Raises UsageError if nothing is in scope.
    """
    with store.reading():
        chunks = [chunk for chunk in store.chunks(snapshot) if in_scope(chunk.chunk.path)]
        files = {path: file_digest for _, path, file_digest in store.files(snapshot)}
    table = b"".join(to_line(chunk, files[chunk.chunk.path]) for chunk in chunks)
    unique = {chunk.chunk.digest: chunk for chunk in chunks}
    ordered = sorted(unique.values(), key=lambda chunk: (-chunk.tokens, chunk.chunk.digest))
    tokens = {chunk.chunk.digest: chunk.tokens for chunk in ordered}
    if not tokens:
        raise UsageError(f"{about.repository} has nothing to pack", hint="a wider --scope, or another folder of it")
    names = {spec.latent_key(key): key for key in tokens}
    sink_info = tensor_info(spec.raw, SINK, sink.tokens)
    infos = [TensorInfo("chunks", "U8", (len(table),)), TensorInfo("sink", sink_info.dtype, sink_info.shape)]
    infos += [tensor_info(spec, key, count) for key, count in tokens.items()]

    def data() -> Iterator[Buffer]:
        yield table
        yield sink.data
        missing = set(store.latents.missing(spec, tokens))
        encoded = iter(encode([chunk for chunk in ordered if chunk.chunk.digest in missing]))
        done = 0
        for batch in _batches(ordered, lambda chunk: spec.latent_bytes(chunk.tokens)):
            stored = store.latents.read(spec, [chunk.chunk.digest for chunk in batch])
            for chunk in batch:
                progress("packing", done := done + 1, len(tokens))
                yield (stored.get(chunk.chunk.digest) or next(encoded)[1]).data

    def describe_pack(checksums: Any) -> dict[str, str]:
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

    header = write(path, infos, data(), describe_pack)
    in_pack = {chunk.chunk.path for chunk in chunks}
    return Written(len(in_pack), len(chunks), sum(chunk.tokens for chunk in chunks), header.file_bytes)


def open_pack(path: Path, *, progress: Progress = silent) -> OpenPack:
    """Opens a pack; checks all of it the first time. Raises UsageError, or IndexCorrupt if it is damaged or forged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="awareness pack FILE") from error
    try:
        header = read_header(descriptor)
        content = content_of(header, kind="pack")
        if len(header.tensors) != len(content.latents) + 2:
            raise Malformed("it holds tensors that its metadata does not list")
        about = _about(header.metadata)
        layout = IndexLayout(indexes_dir() / "packs" / _identity(descriptor, header)[:32])
        if not is_imported(layout, SNAPSHOT):
            _forget_missing_packs()
            with writing(layout):
                try:
                    with Store.create(layout, pack=path) as store:
                        _import(descriptor, path, header, content, about, store, progress)
                except BaseException:
                    shutil.rmtree(layout.root, ignore_errors=True)
                    raise
    except (Malformed, UnicodeError) as error:  # JSON allows a lone surrogate, SQLite does not
        reason = "it has text that is not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise IndexCorrupt(f"{path} is not a sound pack: {reason}", hint=_HINT) from error
    except KeyError as error:
        raise IndexCorrupt(f"{path} is not a sound pack: it lacks {error!s:.40}", hint=_HINT) from error
    except OSError as error:
        raise IndexCorrupt(f"{path}: {error.strerror}", hint=_HINT) from error
    except IndexCorrupt as error:
        raise IndexCorrupt(error.message, hint=_HINT) from error
    finally:
        os.close(descriptor)
    store = Store.open(layout, pack=path)
    snapshot = store.snapshot(SNAPSHOT)
    assert snapshot
    return OpenPack(path, about, content.spec, store, snapshot.id)


def is_pack(path: Path) -> bool:
    """Does the file say that it is a pack? Nothing else of it is checked."""
    try:
        with open(path, "rb") as file:
            return read_header(file.fileno()).metadata.get("format") == "awareness-pack"
    except (OSError, Malformed):
        return False


def metadata_digest(metadata: dict[str, str]) -> str:
    """The digest of all other fields: the metadata holds the checksums, so it needs one of its own."""
    return digest(*(text for field in sorted(metadata.items()) if field[0] != "metadata" for text in field))


def _about(metadata: dict[str, str]) -> About:
    """Raises Malformed for text that could change a terminal or look like another line of the answer."""
    if metadata["metadata"] != metadata_digest(metadata):
        raise Malformed("its description is damaged")
    about = About(metadata["model"], metadata["repository"], metadata["rev"] or None, metadata["chunking"])
    if not all(text.isprintable() for text in (about.model, about.repository, about.chunking)):
        raise Malformed("it has control characters in its description")
    if about.rev is not None and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", about.rev):
        raise Malformed("its commit is not a hash")
    return about


def _identity(descriptor: int, header: Header) -> str:
    """Identifies the pack in the cache: a cryptographic digest, which another header or chunk table cannot share."""
    return digest(os.pread(descriptor, min(header.offsets.values(), default=0), 0))


def is_imported(layout: IndexLayout, snapshot: str) -> bool:
    """Is there an index with this snapshot, which can be searched as it is? A damaged one is emptied: it is a cache."""
    try:
        with Store.open(layout) as store:
            terms = store.routing.terms
            is_current = terms is not None and store.routing.made_by in (None, terms.fingerprint)
            return is_current and store.snapshot(snapshot) is not None
    except NoIndex:
        return False
    except IndexCorrupt:  # it is only a cache, which is created again
        delete_manifest(layout)
        return False


def _forget_missing_packs() -> None:
    """Deletes the cached indexes of packs whose file no longer exists."""
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
    """Checks every byte and creates the index. The snapshot is written last and marks the pack as sound."""
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
    token_counts: dict[str, int] = {}
    with store.changing():
        files = files_of(io.BytesIO(table), token_counts)
        store.write_snapshot(SNAPSHOT, files, chunking=about.chunking, model=about.model, rev=about.rev)
        if token_counts != {name: tokens for name, (_, _, tokens, _) in content.latents.items()}:
            raise Malformed("its latents are not those of its chunks")


def _read(descriptor: int, header: Header, name: str) -> bytes:
    """The bytes of a tensor. `read_header` has compared all sizes with that of the file."""
    return os.pread(descriptor, header.tensors[name].nbytes, header.offsets[name])


def _sink(descriptor: int, header: Header, spec: MemorySpec) -> Latent:
    try:
        tokens, checksum = json.loads(header.metadata["sink"])
        fits = header.tensors["sink"] == replace(tensor_info(spec, SINK, tokens), name="sink")
    except (ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise Malformed("its sink does not match its spec")
    data = _read(descriptor, header, "sink")
    if checksum_of(data) != checksum:
        raise Malformed("its sink is damaged")
    return Latent(tokens, data)


def _batches(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Groups of items of at most `SHARD_BYTES` together, to limit the memory."""
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
