"""Read the header of a GGUF file from a stream: its metadata and the places of its tensors.

gguf's own reader needs a file and makes an object of every token (7 s for 150,000); this one takes 0.3 s. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Protocol

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


class Readable(Protocol):
    """Has a `read(n)` that returns n bytes, fewer only at the end."""

    def read(self, count: int, /) -> bytes: ...


@dataclass(frozen=True)
class TensorInfo:
    """shape: rows first, as in numpy and torch. kind: a number of `gguf.GGMLQuantizationType`. offset: of the first
    byte, from the start of the tensors."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """tensors: in the order of the file. size: bytes before the first tensor, of which the last `padding` are not read
    yet."""

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    size: int
    padding: int

    def of_model(self, key: str) -> Any:
        """A value of the architecture: `block_count` for `qwen2.block_count`. Raises KeyError."""
        return self.metadata[f"{self.metadata['general.architecture']}.{key}"]


def read_header(stream: Readable) -> Header:
    """Read up to the end of the last tensor's description. Raises ValueError if this is not a GGUF of version 2 or 3,
    EOFError if it is cut off."""
    source = _Counting(stream)
    if source.read(4) != b"GGUF":
        raise ValueError("not a GGUF file: it does not start with 'GGUF'")
    version, tensor_count, value_count = struct.unpack("<IQQ", source.read(20))
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version}: 2 and 3 can be read")
    metadata = {}
    for _ in range(value_count):
        name = _string(source)
        metadata[name] = _value(source, _scalar(source, "I"))
    tensors = []
    for _ in range(tensor_count):
        name = _string(source)
        shape = struct.unpack(f"<{(dims := _scalar(source, 'I'))}Q", source.read(8 * dims))
        tensors.append(TensorInfo(name, shape[::-1], _scalar(source, "I"), _scalar(source, "Q")))
    padding = -source.position % metadata.get("general.alignment", 32)
    tensors.sort(key=lambda tensor: tensor.offset)
    return Header(metadata, tuple(tensors), source.position + padding, padding)


def read_exactly(stream: Readable, count: int) -> bytes:
    """Raises EOFError if there are fewer bytes."""
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"the GGUF file is cut off: {len(data)} of {count} bytes are there")
    return data


class _Counting:
    """Counts the bytes that are read."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self.position = stream, 0

    def read(self, count: int) -> bytes:
        self.position += count
        return read_exactly(self._stream, count)


def _scalar(source: _Counting, letter: str) -> Any:
    return struct.unpack(f"<{letter}", source.read(struct.calcsize(f"<{letter}")))[0]


def _string(source: _Counting) -> str:
    return source.read(_LENGTH.unpack(source.read(8))[0]).decode("utf-8")


def _value(source: _Counting, kind: int) -> Any:
    if kind == _STRING:
        return _string(source)
    if kind != _ARRAY:
        return _scalar(source, _SCALARS[kind])
    kind, count = struct.unpack("<IQ", source.read(12))
    if kind in _SCALARS:
        letter = _SCALARS[kind]
        return list(struct.unpack(f"<{count}{letter}", source.read(count * struct.calcsize(f"<{letter}"))))
    return [_value(source, kind) for _ in range(count)]
