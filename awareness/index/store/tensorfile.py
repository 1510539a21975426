"""Safetensors files without torch: written as a stream, read by one who trusts nothing.

Eight bytes N, little-endian; N bytes of JSON, `{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}`;
then the tensors' bytes, one behind the other. A file is written under another name, fsync, rename, fsync of the folder:
it is whole or not there. What the tensors mean is the affair of shards.py and pack.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_hexdigest

from awareness.errors import StorageFailed
from awareness.types import Buffer

ITEMSIZE = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4, "U32": 4}
AFTERWARDS = "free some space, then the same command; what was committed stays"
MAX_HEADER_BYTES = 100_000_000  # what safetensors itself reads


class Malformed(ValueError):
    """Not a file of this format; the text says why."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. dtype: as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Header:
    """What a file says of itself. offsets: of each tensor's first byte in the file. checksum: of the header's bytes."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    offsets: dict[str, int]
    checksum: str
    file_bytes: int


def checksum_of(data: Buffer) -> str:
    """XXH3-128, which finds damage at the speed of memory. Identity (chunks, keys, shard names) is blake2b's affair."""
    return f"xxh3:{xxh3_128_hexdigest(data)}"


def write(
    path: Path,
    tensors: Sequence[TensorInfo],
    data: Iterable[Buffer],
    describe: Callable[[Mapping[str, str]], dict[str, str]],
) -> Header:
    """Writes the tensors as `data` brings their bytes, in order.

    describe: the checksum of each tensor -> the metadata, whose length must not depend on them, since the header stands
    before the data and is filled in at last. Raises StorageFailed, and leaves nothing behind then.
    """
    room = len(_encode(tensors, describe({tensor.name: checksum_of(b"") for tensor in tensors})))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with refusals(path):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, b" " * room)
            checksums: dict[str, str] = {}
            for tensor, buffer in zip(tensors, data, strict=True):
                if len(buffer) != tensor.nbytes:
                    raise ValueError(f"{tensor.name} has {len(buffer)} bytes, not {tensor.nbytes}")
                checksums[tensor.name] = checksum_of(buffer)
                _write_all(descriptor, buffer)
            header = _encode(tensors, describe(checksums))
            if len(header) != room:
                raise ValueError("the metadata's length depends on the checksums")
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write_all(descriptor, header)
            os.fsync(descriptor)
            found = parse(header, os.fstat(descriptor).st_size)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    return found


def read_header(descriptor: int) -> Header:
    """The header of an open file. Allocates no more than a small multiple of the file's own size. Raises Malformed."""
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise Malformed("it has no header of the right size")
    data = os.pread(descriptor, 8 + length, 0)
    return parse(data, size)


def parse(data: bytes, file_bytes: int) -> Header:
    """Checks every field of a header (with its length). Raises Malformed."""
    try:
        entries = json.loads(data[8:])
        metadata = entries.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise Malformed("its metadata is not text")
        tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
        spans = {name: _span(entry["data_offsets"]) for name, entry in entries.items()}
    except Malformed:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise Malformed("its header is not one of safetensors") from None
    expected = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != expected or end - begin != tensors[name].nbytes:
            raise Malformed("its tensors do not lie one behind the other")
        expected = end
    if len(data) + expected != file_bytes:
        raise Malformed(f"it has {file_bytes} bytes, not {len(data) + expected}")
    offsets = {name: len(data) + span[0] for name, span in spans.items()}
    return Header(metadata, tensors, offsets, checksum_of(data), file_bytes)


def sync_folder(folder: Path) -> None:
    """fsync of a folder: makes the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns what the disk refuses (it is full, it fails, it may not be written) into StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}", hint=AFTERWARDS) from error


def _tensor(name: str, entry: dict[str, Any]) -> TensorInfo:
    shape = tuple(entry["shape"])
    sizes_are = len(shape) <= 8 and all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    if entry["dtype"] not in ITEMSIZE or not sizes_are:
        raise Malformed(f"it has a tensor of an unknown kind: {entry['dtype']!r:.20}")
    return TensorInfo(name, entry["dtype"], shape)


def _span(offsets: list[int]) -> tuple[int, int]:
    begin, end = offsets
    if type(begin) is not int or type(end) is not int:
        raise Malformed("a tensor has no beginning and end")
    return begin, end


def _encode(tensors: Sequence[TensorInfo], metadata: dict[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes, as safetensors asks for
    return len(text).to_bytes(8, "little") + text


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]
