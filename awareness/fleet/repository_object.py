"""One repository of a fleet as an object: its chunks with their text, and where their latents are.

gzip of lines of JSON. The first has the description and the names of the shards, the second the place of each latent,
and each other one a chunk (awareness/index/store/chunk_table.py). The object is named by the digest of its bytes, and
holds a checksum for each latent, so everything that is read is compared with what the catalogue names.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from awareness.errors import IndexCorrupt
from awareness.fleet.catalogue import Entry
from awareness.fleet.object_store import ObjectStore
from awareness.index.store.chunk_table import files_of
from awareness.index.store.store import IndexedFile
from awareness.index.store.tensorfile import Malformed
from awareness.types import digest

FORMAT_VERSION = 1
SHARDS = "shards/"
MOST_TEXT = 1 << 32
"""Bytes of an object, unpacked."""
_MOST_SHARDS_BYTES = 1 << 22
"""Of the compressed start of an object, in which the names of its shards are."""


class Place(NamedTuple):
    """Where a latent is. shard: its name. offset, length: in bytes."""

    shard: str
    offset: int
    length: int
    tokens: int
    checksum: str

    @property
    def key(self) -> str:
        return SHARDS + self.shard


@dataclass(frozen=True)
class Description:
    """repository: its name. rev: the commit or None. chunking: the rules that it was cut by. model: name. spec: of the
    latents, as JSON. shards: names."""

    repository: str
    rev: str | None
    chunking: str
    model: str
    spec: str
    shards: tuple[str, ...]


@dataclass(frozen=True)
class RepositoryObject:
    """An object that was read. places: chunk digest -> where its latent is."""

    description: Description
    places: dict[str, Place]
    lines: Sequence[bytes]

    def files(self) -> Iterator[IndexedFile]:
        """Its files with their chunks. Raises Malformed, also for a chunk that has no latent."""
        tokens: dict[str, int] = {}
        yield from files_of(self.lines, tokens)
        if tokens != {name: place.tokens for name, place in self.places.items()}:
            raise Malformed("its latents are not those of its chunks")


def pack(
    repository: str,
    rev: str | None,
    chunking: str,
    model: str,
    spec: str,
    places: Mapping[str, Place],
    lines: Iterable[bytes],
) -> tuple[bytes, int]:
    """The object's bytes, and how many they are unpacked. Equal arguments give equal bytes."""
    shards = sorted({place.shard for place in places.values()})
    number = {name: i for i, name in enumerate(shards)}
    first = {
        "format": "awareness-repository",
        "version": FORMAT_VERSION,
        "repository": repository,
        "rev": rev,
        "chunking": chunking,
        "model": model,
        "spec": spec,
        "shards": shards,
    }
    second = {name: [number[place.shard], *place[1:]] for name, place in sorted(places.items())}
    buffer, size = io.BytesIO(), 0
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        for line in (_line(first), _line(second), *lines):
            size += file.write(line)
    return buffer.getvalue(), size


def read(store: ObjectStore, entry: Entry) -> RepositoryObject:
    """The repository that the catalogue names. Raises IndexCorrupt if it is damaged, NoSuchObject, StorageFailed."""
    data, _ = store.read(entry.key)
    return unpack(data, entry, store.url)


def unpack(data: bytes, entry: Entry, url: str) -> RepositoryObject:
    """As `read`, of bytes that came from anywhere."""
    try:
        if digest(data) != entry.object:
            raise Malformed("its digest is another one")
        if entry.text_bytes > MOST_TEXT:
            raise Malformed("it is larger than any repository may be")
        lines = _unpacked(data, entry.text_bytes).splitlines(keepends=True)
        described = _description(lines[0])
        return RepositoryObject(described, _places(lines[1], described.shards), lines[2:])
    except (Malformed, IndexError) as error:
        raise damaged(entry, url, str(error)) from error


def read_shards(store: ObjectStore, entry: Entry) -> tuple[str, ...]:
    """The names of the shards that its latents are in; reads the start of the object only. Raises as `read`."""
    length = 1 << 16
    while True:
        (data,) = store.read_ranges(entry.key, [(0, length)])
        try:
            line, end, _ = zlib.decompressobj(wbits=31).decompress(data, _MOST_SHARDS_BYTES).partition(b"\n")
        except zlib.error as error:
            raise damaged(entry, store.url, "it is not gzip") from error
        if end:
            try:
                return _description(line).shards
            except Malformed as error:
                raise damaged(entry, store.url, str(error)) from error
        if len(data) < length or length > _MOST_SHARDS_BYTES:
            raise damaged(entry, store.url, "it has no description")
        length *= 4


def is_digest(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def damaged(entry: Entry, url: str, why: str) -> IndexCorrupt:
    hint = f"awareness fleet refresh {url} --repair"
    return IndexCorrupt(f"{url}: repositories/{entry.object} is damaged: {why}", hint=hint)


def _unpacked(data: bytes, size: int) -> bytes:
    """Raises Malformed for another size than the catalogue says: a few bytes can unpack to any number of them."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data, size + 1)
    except zlib.error:
        raise Malformed("it is not gzip") from None
    if len(text) != size or not unpacker.eof or unpacker.unused_data:
        raise Malformed("it has another size than the catalogue says")
    return text


def _description(line: bytes) -> Description:
    try:
        value: dict[str, Any] = json.loads(line)
        if value.pop("format") != "awareness-repository" or value.pop("version") != FORMAT_VERSION:
            raise Malformed("it has another format")
        description = Description(**{**value, "shards": tuple(value["shards"])})
        texts = (description.repository, description.chunking, description.model, description.spec, *description.shards)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise Malformed("its description has control characters")
        if not all(map(is_digest, description.shards)):
            raise Malformed("a shard has no name of ours")
        return description
    except Malformed:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Malformed("its description cannot be read") from None


def _places(line: bytes, shards: Sequence[str]) -> dict[str, Place]:
    try:
        places = {}
        for name, (shard, offset, length, tokens, checksum) in json.loads(line).items():
            numbers = (shard, offset, length, tokens)
            if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers):
                raise Malformed("a latent has no place")
            if not isinstance(checksum, str):
                raise Malformed("a latent has no checksum")
            if not is_digest(name):
                raise Malformed("a chunk is not named by a digest")
            places[name] = Place(shards[shard], offset, length, tokens, checksum)
        return places
    except Malformed:
        raise
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        raise Malformed("the places of its latents cannot be read") from None


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
