"""One shard: a safetensors file of many latents, written once, named by its content, never changed.

Written to a temporary name, fsync, rename, fsync of the folder: it is either whole or not there. Each latent has its
own checksum, kept in the manifest and checked whenever the latent is read. Files are read, not mapped, so that a
truncated one is an error and never a SIGBUS. Tensors are named by latent key and the header holds the MemorySpec, so
that a shard says by itself what it is.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from awareness.errors import IndexCorrupt
from awareness.index.layout import FORMAT_VERSION
from awareness.types import Latent, MemorySpec


@dataclass(frozen=True)
class ShardPlace:
    """Where one latent lies. file_bytes: the size that the whole shard must have. checksum: of the latent's bytes."""

    path: Path
    file_bytes: int
    offset: int
    length: int
    tokens: int
    checksum: str


def checksum_of(data: bytes | bytearray | memoryview) -> str:
    """XXH3-128, which finds damage at the speed of memory. Identity (chunks, keys, shard names) is blake2b's affair."""
    return f"xxh3:{xxh3_128_hexdigest(data)}"


def read_places(places: Sequence[ShardPlace]) -> list[Latent]:
    """The latents at these places, every byte checked. Raises IndexCorrupt naming the file."""
    with contextlib.ExitStack() as stack:
        files: dict[Path, int] = {}
        for place in places:
            if place.path not in files:
                files[place.path] = _open(place)
                stack.callback(os.close, files[place.path])

        def read(place: ShardPlace) -> Latent:
            data = bytearray(place.length)
            if (
                os.preadv(files[place.path], [data], place.offset) != place.length
                or checksum_of(data) != place.checksum
            ):
                raise _damaged(f"a latent in {place.path} is damaged")
            return Latent(place.tokens, data)

        # Reading and hashing release the GIL.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(read, places))


def write_shard(path: Path, spec: MemorySpec, latents: dict[str, Latent]) -> tuple[dict[str, int], int]:
    """Writes latents, given by chunk digest; returns the offset of each in the file, and the size of the file."""
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, spec.dtype)
    names = {spec.latent_key(key): key for key in latents}
    tensors = {
        name: torch.frombuffer(latents[key].data, dtype=dtype).view(spec.shape(latents[key].tokens))
        for name, key in names.items()
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    said = {"format": "awareness", "version": str(FORMAT_VERSION), "spec": spec.to_json()}
    save_file(tensors, temporary, metadata=said)
    with temporary.open("rb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        os.fsync(stream.fileno())
        header = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(header))
        size = os.fstat(stream.fileno()).st_size
    offsets = {key: 8 + header + entries[name]["data_offsets"][0] for name, key in names.items()}
    temporary.rename(path)
    sync_folder(path.parent)
    return offsets, size


def sync_folder(folder: Path) -> None:
    """fsync of a folder: makes the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(place: ShardPlace) -> int:
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _damaged(f"{place.path}: {error.strerror}") from error
    if (found := os.fstat(descriptor).st_size) != place.file_bytes:
        os.close(descriptor)
        raise _damaged(f"{place.path} has {found} bytes, not {place.file_bytes}")
    return descriptor


def _damaged(message: str) -> IndexCorrupt:
    return IndexCorrupt(message, hint="awareness index --rebuild")
