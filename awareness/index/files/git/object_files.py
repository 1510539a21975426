"""Read the objects of a repository from their files: loose objects and packs, SHA-1 and SHA-256, with alternates.

Every size is checked before that many bytes are made, and a chain of deltas has limits of its own: a pack of a few
kilobytes can stand for terabytes. Only regular files are opened. Hashes are not verified; zlib's checksum is. The
formats are in git's gitformat-pack. A multi-pack-index repeats what the index of each pack says, and is not read.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from awareness.index.files.git.random_access import RandomAccessFile
from awareness.index.files.safe_read import read_small

MAX_OBJECT_BYTES = 1 << 26  # of a commit, a tree, or what a delta is based on
MAX_CHAIN_BYTES = 1 << 30  # of all that a chain of deltas makes
MAX_CHAIN = 4096  # deltas; git writes 4095 at most
MAX_OPEN_FILES = 128
MAX_CACHED_BYTES = 1 << 24
MAX_ALTERNATES_BYTES = 1 << 20
MAX_ALTERNATES = 64
MAX_ALTERNATE_DEPTH = 5  # as in git
READ_BYTES = 4096
HEADER_BYTES = 64

KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
OFFSET_DELTA, HASH_DELTA = 6, 7
SHIFTS = [[8 * byte for byte in range(4) if present >> byte & 1] for present in range(16)]  # of a delta's numbers
LOOSE_HEADER = re.compile(rb"(commit|tree|blob|tag) (\d{1,19})\0")
ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


class TooLarge(Exception):
    """The object has more bytes than the limit."""


class BaseTooLarge(TooLarge):
    """What the object is made from has more bytes than MAX_OBJECT_BYTES, or MAX_CHAIN_BYTES all together."""


class ObjectFiles:
    """The objects below a folder `objects` and its alternates. A hash (`sha`) is hex digits, two for each hash byte.

    Raises NotRegular, OSError, EOFError, LookupError, ValueError, struct.error or zlib.error for damaged files.
    """

    def __init__(self, folder: Path, hash_bytes: int) -> None:
        self._folders = list(_with_alternates(folder))
        self._hash_bytes = hash_bytes
        self._open = lru_cache(MAX_OPEN_FILES)(RandomAccessFile)
        self._packs: dict[str, _Pack] = {}
        self._latest_pack: _Pack | None = None
        self._list_packs()

    def kind(self, sha: str) -> str | None:
        """`commit`, `tree`, `blob` or `tag`; None if there is no such object."""
        pack = self._pack_of(sha)
        if pack is not None:
            return pack.kind(pack.offset(bytes.fromhex(sha)))
        loose = self._loose(sha)
        return _Loose(loose).kind if loose else None

    def read(self, sha: str, limit: int) -> tuple[str, bytes] | None:
        """Kind and content; None if there is no such object. Raises TooLarge for more than `limit` bytes."""
        pack = self._pack_of(sha)
        if pack is not None:
            return pack.read(pack.offset(bytes.fromhex(sha)), limit)
        loose = self._loose(sha)
        return _Loose(loose).read(limit) if loose else None

    def starting_with(self, start: str) -> set[str]:
        """The hashes of all objects that start with at least two hex digits."""
        found = {sha for pack in self._packs.values() for sha in pack.starting_with(start)}
        for folder in self._folders:
            try:
                names = os.listdir(folder / start[:2])
            except OSError:
                continue
            found.update(start[:2] + name for name in names if len(name) == 2 * self._hash_bytes - 2)
        return {sha for sha in found if sha.startswith(start)}

    def _pack_of(self, sha: str) -> _Pack | None:
        binary = bytes.fromhex(sha)
        if self._latest_pack and self._latest_pack.offset(binary):
            return self._latest_pack
        for pack in self._packs.values():
            if pack.offset(binary):
                self._latest_pack = pack
                return pack
        return None

    def _loose(self, sha: str) -> RandomAccessFile | None:
        for folder in self._folders:
            try:
                return RandomAccessFile(f"{folder}/{sha[:2]}/{sha[2:]}")
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _list_packs(self) -> None:
        for folder in self._folders:
            try:
                names = set(os.listdir(folder / "pack"))
            except OSError:
                continue
            for name in sorted(names):
                if name.endswith(".idx") and f"{name[:-4]}.pack" in names:
                    stem = f"{folder}/pack/{name[:-4]}"
                    self._packs[stem] = _Pack(stem, self._hash_bytes, self._open)


def _with_alternates(top: Path) -> Iterator[Path]:
    """A folder of objects and those that its `info/alternates` name, at most MAX_ALTERNATES."""
    seen: set[str] = set()
    level = [str(top)]
    for _ in range(MAX_ALTERNATE_DEPTH + 1):
        following: list[str] = []
        for folder in map(os.path.realpath, level):
            if folder in seen or not os.path.isdir(folder) or len(seen) > MAX_ALTERNATES:
                continue
            seen.add(folder)
            yield Path(folder)
            lines = read_small(f"{folder}/info/alternates", MAX_ALTERNATES_BYTES).split(b"\n")
            paths = [os.fsdecode(_unquote(line)) for line in lines if line and not line.startswith(b"#")]
            following += [os.path.join(folder, path) for path in paths]
        level = following


def _unquote(line: bytes) -> bytes:
    r"""A path as git writes it: `"a\nb"` if it holds special characters."""
    if not (len(line) > 1 and line.startswith(b'"') and line.endswith(b'"')):
        return line
    return ESCAPE.sub(lambda m: ESCAPED.get(m[1], m[1]) if len(m[1]) == 1 else bytes([int(m[1], 8) & 255]), line[1:-1])


class _Loose:
    """An object in a file of its own."""

    def __init__(self, file: RandomAccessFile) -> None:
        self._file = file
        self._stream = zlib.decompressobj()
        start = self._stream.decompress(file.up_to(READ_BYTES, 0), HEADER_BYTES)
        match = LOOSE_HEADER.match(start)
        if match is None:
            raise ValueError("the header of a loose object is damaged")
        self.kind = match[1].decode("ascii")
        self._size = int(match[2])
        self._start = start[match.end() :]

    def read(self, limit: int) -> tuple[str, bytes]:
        if self._size > limit:
            raise TooLarge
        pending = self._stream.unconsumed_tail
        return self.kind, _inflate(self._stream, self._start, pending, self._file, READ_BYTES, self._size)


class _Pack:
    """A pack and its index. An offset is the position of an object in the pack, never 0."""

    def __init__(self, stem: str, hash_bytes: int, open_file: Callable[[str], RandomAccessFile]) -> None:
        self._stem = stem
        self._hash_bytes = hash_bytes
        self._open_file = open_file
        self._cache: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        self._cached_bytes = 0

    @property
    def _index(self) -> RandomAccessFile:
        return self._open_file(f"{self._stem}.idx")

    @property
    def _file(self) -> RandomAccessFile:
        return self._open_file(f"{self._stem}.pack")

    @cached_property
    def _layout(self) -> tuple[tuple[int, ...], int, int, int]:
        """The number of hashes up to each first byte; position of the first hash, distance of the next; of offsets."""
        magic, version = self._index.exactly(4, 0), self._index.exactly(4, 4)
        if magic != b"\xfftOc":  # version 1
            return struct.unpack(">256I", self._index.exactly(1024, 0)), 1028, 4 + self._hash_bytes, 1024
        if version != b"\0\0\0\2":
            raise ValueError(f"the index of a pack has version {int.from_bytes(version, 'big')}")
        counts = struct.unpack(">256I", self._index.exactly(1024, 8))
        return counts, 1032, self._hash_bytes, 1032 + counts[255] * (self._hash_bytes + 4)

    def _hash(self, number: int) -> bytes:
        _, first, distance, _ = self._layout
        return self._index.exactly(self._hash_bytes, first + number * distance)

    def _bucket(self, first_byte: int) -> range:
        counts = self._layout[0]
        bucket = range(counts[first_byte - 1] if first_byte else 0, counts[first_byte])
        if bucket.stop > counts[255]:
            raise ValueError("the index of a pack is damaged")
        return bucket

    def offset(self, binary: bytes) -> int:
        """Of the object with a hash; 0 if it is not in this pack."""
        bucket = self._bucket(binary[0])
        number = bucket.start + bisect_left(bucket, binary, key=self._hash)
        if number >= bucket.stop or self._hash(number) != binary:
            return 0
        counts, _, distance, offsets = self._layout
        if distance > self._hash_bytes:  # version 1
            return int.from_bytes(self._index.exactly(4, offsets + number * distance), "big")
        offset = int.from_bytes(self._index.exactly(4, offsets + number * 4), "big")
        if offset >> 31:
            large = offsets + counts[255] * 4 + (offset & 0x7FFFFFFF) * 8
            offset = int.from_bytes(self._index.exactly(8, large), "big")
        return offset

    def starting_with(self, start: str) -> Iterator[str]:
        binary = bytes.fromhex(start + "0" * (len(start) % 2))
        bucket = self._bucket(binary[0])
        for number in range(bucket.start + bisect_left(bucket, binary, key=self._hash), bucket.stop):
            sha = self._hash(number).hex()
            if not sha.startswith(start):
                return
            yield sha

    def kind(self, offset: int) -> str:
        for _ in range(MAX_CHAIN):
            number, _, base, _, _ = self._entry(offset)
            if number in KINDS:
                return KINDS[number]
            offset = base
        raise ValueError("a chain of deltas is too long")

    def read(self, offset: int, limit: int) -> tuple[str, bytes]:
        """Kind and content. The chain is walked to its base first, then each delta is applied."""
        deltas: list[tuple[int, bytes]] = []
        held = made = 0
        while (cached := self._cache.get(offset)) is None:
            number, size, base, pending, position = self._entry(offset)
            if not deltas and number in KINDS and size > limit:
                raise TooLarge
            if size > MAX_OBJECT_BYTES:
                raise BaseTooLarge
            data = _inflate(zlib.decompressobj(), b"", pending, self._file, position, size)
            if number in KINDS:
                kind = KINDS[number]
                break
            result_size = _delta_sizes(data)[1]
            if not deltas and result_size > limit:
                raise TooLarge
            held += size
            made += result_size
            is_too_large = max(held, result_size) > MAX_OBJECT_BYTES or made > MAX_CHAIN_BYTES
            if is_too_large or len(deltas) >= MAX_CHAIN:
                raise BaseTooLarge
            deltas.append((offset, data))
            offset = base
        else:
            kind, data = cached
        for number, (at, delta) in enumerate(reversed(deltas), 1):
            if number == 1:
                self._keep(offset, kind, data)
            data = _apply(delta, data)
            if number < len(deltas):
                self._keep(at, kind, data)
        if len(data) > limit:
            raise TooLarge
        return kind, data

    def _entry(self, offset: int) -> tuple[int, int, int, bytes, int]:
        """Number of the kind, bytes when inflated, offset of a delta's base; first compressed bytes, where more are."""
        start = self._file.up_to(READ_BYTES, offset)
        byte = start[0]
        number, size, shift, at = byte >> 4 & 7, byte & 15, 4, 1
        while byte & 0x80:
            byte = start[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        base = 0
        if number == OFFSET_DELTA:
            byte = start[at]
            distance = byte & 0x7F
            at += 1
            while byte & 0x80:
                byte = start[at]
                distance = (distance + 1) << 7 | byte & 0x7F
                at += 1
            base = offset - distance
        elif number == HASH_DELTA:
            base = self.offset(start[at : at + self._hash_bytes])
            at += self._hash_bytes
        if number not in KINDS and not 0 < base != offset:
            raise ValueError("an object of a pack has no kind, or its delta has no base")
        return number, size, base, start[at:], offset + READ_BYTES

    def _keep(self, offset: int, kind: str, data: bytes) -> None:
        """Caches what a delta was based on: other deltas are based on it too."""
        if offset in self._cache or len(data) > MAX_CACHED_BYTES:
            return
        self._cache[offset] = kind, data
        self._cached_bytes += len(data)
        while self._cached_bytes > MAX_CACHED_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1][1])


def _inflate(
    stream: zlib._Decompress, start: bytes, pending: bytes, file: RandomAccessFile, position: int, size: int
) -> bytes:
    """`size` bytes: `start`, then what `pending` and the file from `position` on inflate to. Raises ValueError."""
    parts = [start]
    missing = size - len(start)
    while not stream.eof and missing >= 0:
        if not pending:
            pending = file.up_to(READ_BYTES, position)
            position += len(pending)
            if not pending:
                raise EOFError("a compressed object ends early")
        part = stream.decompress(pending, missing + 1)
        pending = stream.unconsumed_tail
        missing -= len(part)
        parts.append(part)
    if missing:
        raise ValueError("an object has another size than its header says")
    return b"".join(parts)


def _delta_sizes(delta: bytes) -> tuple[int, int, int]:
    """Bytes of the base and of the result, and where the instructions start."""
    sizes, at = [], 0
    for _ in range(2):
        size = shift = 0
        while True:
            byte = delta[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        sizes.append(size)
    return sizes[0], sizes[1], at


def _apply(delta: bytes, base: bytes) -> bytes:
    """The result of a delta: pieces of the base and of the delta. Raises ValueError or IndexError."""
    base_size, size, at = _delta_sizes(delta)
    end = len(delta)
    result = bytearray()
    while at < end and len(result) <= size:
        code = delta[at]
        at += 1
        if code & 0x80:
            position = count = 0
            for shift in SHIFTS[code & 15]:
                position |= delta[at] << shift
                at += 1
            for shift in SHIFTS[code >> 4 & 7]:
                count |= delta[at] << shift
                at += 1
            count = count or 0x10000
            if position + count > base_size:
                break
            result += base[position : position + count]
        elif code:
            result += delta[at : at + code]
            at += code
        else:
            raise ValueError("a delta has an instruction of no kind")
    if len(base) != base_size or len(result) != size:
        raise ValueError("a delta does not fit its base")
    return bytes(result)
