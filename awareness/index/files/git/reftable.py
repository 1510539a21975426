"""Look up a ref in the tables of a repository whose refs are not files (git 2.45 and later).

A stack is a folder of tables and a list of their names, the newest last; the newest table that knows a ref decides. A
table is a file of sorted blocks of sorted records. The format is in git's Documentation/technical/reftable. Only ref
blocks are read; the index is not needed to find a block, because the first record of a block is not compressed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from awareness.index.files.git.random_access import RandomAccessFile
from awareness.index.files.safe_read import read_small

MAX_TABLES = 4096
MAX_LIST_BYTES = 1 << 20
MAX_TABLE_BYTES = 1 << 28
TABLE_NAME = re.compile(r"[\w-][\w.-]*\.ref")
HEADER_BYTES = {(1, b""): (24, 20), (2, b"sha1"): (28, 20), (2, b"s256"): (28, 32)}  # -> and bytes of a hash
FOOTER_BYTES = {24: 68, 28: 72}
DELETION, HASH, PEELED, SYMBOLIC = range(4)
TRIES = 5  # git replaces tables while we read


def look_up(folder: Path, name: str, hash_bytes: int) -> str | None:
    """The value of a ref: a hash in hex, or `ref: NAME`. None: no such ref, or no such stack.

    Raises OSError, LookupError or ValueError for a damaged stack.
    """
    for attempt in range(TRIES):
        tables = read_small(f"{folder}/tables.list", MAX_LIST_BYTES).decode("utf-8", "replace").split()
        if len(tables) > MAX_TABLES or not all(map(TABLE_NAME.fullmatch, tables)):
            raise ValueError("a list of tables is damaged")
        try:
            for table in reversed(tables):
                value = Table(f"{folder}/{table}", hash_bytes).look_up(os.fsencode(name))
                if value is not None:
                    return value or None
            return None
        except FileNotFoundError:
            if attempt == TRIES - 1:
                raise
    return None


class Table:
    """One table. hash_bytes: 20 or 32, which the table has to agree with. Raises OSError, LookupError, ValueError."""

    def __init__(self, path: str, hash_bytes: int) -> None:
        file = RandomAccessFile(path)
        if file.size > MAX_TABLE_BYTES:
            raise ValueError("a table is too large")
        self._data = file.exactly(file.size, 0)
        version = self._data[4] if self._data[:4] == b"REFT" else 0
        self._start, self._hash_bytes = HEADER_BYTES[version, self._data[24:28] if version == 2 else b""]
        self._end = len(self._data) - FOOTER_BYTES[self._start]
        if self._hash_bytes != hash_bytes or self._data[self._end :][: self._start] != self._data[: self._start]:
            raise ValueError("a table is damaged")

    def look_up(self, name: bytes) -> str | None:
        """A hash in hex, `ref: NAME`, "" if the ref was deleted, None if the table does not know it."""
        block = None
        for start, position, end in self._blocks():
            if self._record(position, b"", end)[0] > name:
                break
            block = start, position, end
        if block is None:
            return None
        _, position, end = block
        records = end - 3 * int.from_bytes(self._data[end - 2 : end], "big") - 2
        if records < position:
            raise ValueError("a block of a table is damaged")
        found = b""
        while position < records and found < name:
            found, value, position = self._record(position, found, records)
            if found == name:
                return value
        return None

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Start of each ref block, of its first record, and its end. A block's length counts from its start."""
        block_size = int.from_bytes(self._data[5:8], "big")
        start, header = 0, self._start  # the header of the file lies in the first block
        while header + 4 < self._end and self._data[header : header + 1] == b"r":
            length = int.from_bytes(self._data[header + 1 : header + 4], "big")
            end = start + length
            if not header + 6 < end <= self._end:
                raise ValueError("a block of a table is damaged")
            yield start, header + 4, end
            is_padded = length < block_size and self._data[end : end + 1] == b"\0"
            start = header = start + block_size if is_padded else end

    def _record(self, position: int, previous: bytes, end: int) -> tuple[bytes, str, int]:
        """The name and the value of the record at a position, and the position after it."""
        shared, position = self._varint(position)
        packed, position = self._varint(position)
        name_end = position + (packed >> 3)
        name = previous[:shared] + self._data[position:name_end]
        _, position = self._varint(name_end)
        kind = packed & 7
        if kind == SYMBOLIC:
            length, position = self._varint(position)
            value = "ref: " + os.fsdecode(self._data[position : position + length])
            after = position + length
        else:
            value = self._data[position : position + self._hash_bytes].hex() if kind else ""
            after = position + {DELETION: 0, HASH: 1, PEELED: 2}[kind] * self._hash_bytes
        if shared > len(previous) or after > end:
            raise ValueError("a record of a table is damaged")
        return name, value, after

    def _varint(self, position: int) -> tuple[int, int]:
        byte = self._data[position]
        value = byte & 0x7F
        while byte & 0x80:
            position += 1
            byte = self._data[position]
            value = (value + 1) << 7 | byte & 0x7F
            if value.bit_length() > 64:
                raise ValueError("a number in a table is too large")
        return value, position + 1
