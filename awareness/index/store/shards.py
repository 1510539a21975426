"""One shard: a safetensors file of many latents, written once, named by its content, never changed.

A shard describes itself: its header holds the MemorySpec, and for each latent the chunk's digest and a checksum, so
that a lost manifest can be rebuilt without encoding anything. The manifest holds the same checksums, which are compared
whenever a latent is read. Files are read, not mapped: a truncated file is an error, never a SIGBUS.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from awareness.errors import IndexCorrupt
from awareness.index.store.layout import FORMAT_VERSION
from awareness.index.store.tensorfile import Header, Malformed, TensorInfo, checksum_of, read_header, write
from awareness.types import Latent, MemorySpec, digest

REPAIR = "awareness repair"
SHARD_BYTES = 64 << 20
"""The approximate size of a shard, in bytes."""
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class LatentPlace:
    """Where a latent is stored. file_bytes: size of the whole file. offset, length: of the latent, in bytes."""

    path: Path
    file_bytes: int
    offset: int
    length: int
    tokens: int
    checksum: str


@dataclass(frozen=True)
class ShardContent:
    """The content of a shard by its header. latents: chunk digest -> (offset, bytes, tokens, checksum)."""

    spec: MemorySpec
    latents: dict[str, tuple[int, int, int, str]]
    header_checksum: str
    file_bytes: int


def tensor_info(spec: MemorySpec, chunk_digest: str, tokens: int) -> TensorInfo:
    """The tensor of a latent in a file: named by its latent key; bytes if it is quantised, else numbers."""
    name = spec.latent_key(chunk_digest)
    if spec.quant == "none":
        return TensorInfo(name, _DTYPES[spec.dtype], spec.shape(tokens))
    return TensorInfo(name, "U8", (spec.latent_bytes(tokens),))


def shard_name(spec: MemorySpec, checksums: Mapping[str, str]) -> str:
    """The name of a shard, derived from its content. checksums: chunk digest -> checksum of its latent."""
    return digest(spec.key, *(f"{key} {value}" for key, value in sorted(checksums.items())))


def write_shard(folder: Path, spec: MemorySpec, latents: Mapping[str, Latent]) -> tuple[str, ShardContent]:
    """Writes latents (chunk digest -> latent) into a new shard in `folder`; returns its name and content."""
    tokens = {key: latent.tokens for key, latent in latents.items()}
    checksums = {key: checksum_of(latent.data) for key, latent in latents.items()}
    name = shard_name(spec, checksums)
    header = write(
        folder / f"{name}.safetensors",
        [tensor_info(spec, key, latent.tokens) for key, latent in latents.items()],
        (latent.data for latent in latents.values()),
        lambda _: describe(spec, tokens, checksums, kind="shard"),
    )
    return name, content_of(header, kind="shard")


def describe(spec: MemorySpec, tokens: Mapping[str, int], checksums: Mapping[str, str], *, kind: str) -> dict[str, str]:
    """The metadata of a file of latents. kind: `shard` or `pack`."""
    return {
        "format": f"awareness-{kind}",
        "version": str(FORMAT_VERSION),
        "spec": spec.to_json(),
        "latents": json.dumps({key: [tokens[key], checksums[key]] for key in tokens}),
    }


def content_of(header: Header, *, kind: str) -> ShardContent:
    """The content by the header, with every field checked against the others. Raises Malformed."""
    metadata = header.metadata
    if metadata.get("format") != f"awareness-{kind}":
        raise Malformed(f"it is not a {kind} of awareness")
    if metadata.get("version") != str(FORMAT_VERSION):
        raise Malformed(f"it has format version {metadata.get('version')!r:.20}, this program reads {FORMAT_VERSION}")
    try:
        spec = MemorySpec.from_json(metadata["spec"])
        latents = {}
        for chunk_digest, (tokens, checksum) in json.loads(metadata["latents"]).items():
            if type(tokens) is not int or not 0 <= tokens < 1 << 31:
                raise Malformed("a latent has no number of tokens")
            info = tensor_info(spec, chunk_digest, tokens)
            if header.tensors[info.name] != info or not isinstance(checksum, str):
                raise Malformed("a latent does not match its description")
            latents[chunk_digest] = (header.offsets[info.name], info.nbytes, tokens, checksum)
    except Malformed:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise Malformed("its metadata cannot be read") from None
    return ShardContent(spec, latents, header.checksum, header.file_bytes)


def read_content(path: Path, *, kind: str = "shard") -> ShardContent:
    """The content of the file at `path`. Raises Malformed or OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return content_of(read_header(descriptor), kind=kind)
    finally:
        os.close(descriptor)


def read_places(places: Sequence[LatentPlace]) -> list[Latent]:
    """The latents at these places, every byte checked. Raises IndexCorrupt, which names the file."""
    with contextlib.ExitStack() as stack:
        files: dict[Path, int] = {}
        for place in places:
            if place.path not in files:
                files[place.path] = _open(place)
                stack.callback(os.close, files[place.path])

        def read(place: LatentPlace) -> Latent:
            data = bytearray(place.length)
            try:
                is_whole = os.preadv(files[place.path], [data], place.offset) == place.length
            except OSError as error:
                raise _damaged(f"{place.path}: {error.strerror}") from error
            if not is_whole or checksum_of(data) != place.checksum:
                raise _damaged(f"a latent in {place.path} is damaged")
            return Latent(place.tokens, data)

        # Reading and hashing release the GIL.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(read, places))


def _open(place: LatentPlace) -> int:
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _damaged(f"{place.path}: {error.strerror}") from error
    if (size := os.fstat(descriptor).st_size) != place.file_bytes:
        os.close(descriptor)
        raise _damaged(f"{place.path} has {size} bytes, not {place.file_bytes}")
    return descriptor


def _damaged(message: str) -> IndexCorrupt:
    return IndexCorrupt(message, hint=REPAIR)
