"""Read and write safetensors files without torch: written as a stream, read without trusting anything.

The format: N in eight bytes, little-endian; N bytes of JSON, `{name: {dtype, shape, data_offsets}, "__metadata__":
{text: text}}`; then the bytes of the tensors, adjacent. A file is written under another name, then fsync, rename and
fsync of the folder, so it is complete or missing. The safetensors library needs all tensors in memory to write, and
maps files to read. shards.py, pack.py and term_vectors.py define what the tensors mean.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_hexdigest

from awareness.errors import storage_errors
from awareness.types import Buffer

ITEMSIZE = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4, "U32": 4}
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library


class Malformed(ValueError):
    """The file does not have this format; the message says why."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. dtype: a key of `ITEMSIZE`, as safetensors writes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Header:
    """The header of a file. offsets: name -> first byte of the tensor in the file. checksum: of the header's bytes."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    offsets: dict[str, int]
    checksum: str
    file_bytes: int


def checksum_of(data: Buffer) -> str:
    """XXH3-128, which detects damage at the speed of memory. Identities (chunks, keys, shard names) use blake2b."""
    return f"xxh3:{xxh3_128_hexdigest(data)}"


def write(
    path: Path,
    tensors: Sequence[TensorInfo],
    data: Iterable[Buffer],
    describe: Callable[[Mapping[str, str]], dict[str, str]],
) -> Header:
    """Writes a file. data: the bytes of each tensor, in order.

    describe: {tensor name: checksum} -> the metadata. Its length must not depend on the checksums, because the header
    comes before the data and is written last. Raises StorageFailed, and leaves no file then.
    """
    header_bytes = len(_encode(tensors, describe({tensor.name: checksum_of(b"") for tensor in tensors})))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, b" " * header_bytes)
            checksums: dict[str, str] = {}
            for tensor, buffer in zip(tensors, data, strict=True):
                if len(buffer) != tensor.nbytes:
                    raise ValueError(f"{tensor.name} has {len(buffer)} bytes, not {tensor.nbytes}")
                checksums[tensor.name] = checksum_of(buffer)
                _write_all(descriptor, buffer)
            header = _encode(tensors, describe(checksums))
            if len(header) != header_bytes:
                raise ValueError("the metadata's length depends on the checksums")
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write_all(descriptor, header)
            os.fsync(descriptor)
            written = parse(header, os.fstat(descriptor).st_size)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    return written


def read_header(descriptor: int) -> Header:
    """The header of an open file. Allocates at most a small multiple of the file's size. Raises Malformed."""
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise Malformed("it has no header of the right size")
    data = os.pread(descriptor, 8 + length, 0)
    return parse(data, size)


def parse(data: bytes, file_bytes: int) -> Header:
    """The header from its bytes, including the length field, with every field checked. Raises Malformed."""
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
        raise Malformed("its header is not a safetensors header") from None
    expected = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != expected or end - begin != tensors[name].nbytes:
            raise Malformed("its tensors are not adjacent")
        expected = end
    if len(data) + expected != file_bytes:
        raise Malformed(f"it has {file_bytes} bytes, not {len(data) + expected}")
    offsets = {name: len(data) + span[0] for name, span in spans.items()}
    return Header(metadata, tensors, offsets, checksum_of(data), file_bytes)


def sync_folder(folder: Path) -> None:
    """Calls fsync on a folder, which makes the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tensor(name: str, entry: dict[str, Any]) -> TensorInfo:
    shape = tuple(entry["shape"])
    is_shape = len(shape) <= 8 and all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    if entry["dtype"] not in ITEMSIZE or not is_shape:
        raise Malformed(f"it has a tensor of an unknown kind: {entry['dtype']!r:.20}")
    return TensorInfo(name, entry["dtype"], shape)


def _span(offsets: list[int]) -> tuple[int, int]:
    begin, end = offsets
    if type(begin) is not int or type(end) is not int:
        raise Malformed("a tensor has no start and end")
    return begin, end


def _encode(tensors: Sequence[TensorInfo], metadata: dict[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # safetensors requires that tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        view = view[os.write(descriptor, view) :]
