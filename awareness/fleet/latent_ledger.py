"""Which latents a store has, and where: what a run looks up before it encodes anything.

It is read from the listings that earlier runs left, and from the headers of shards that no listing has: those of a run
that was killed. It is a SQLite table in a temporary file, so its memory does not grow with the fleet.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw

from awareness.errors import IndexCorrupt, storage_errors
from awareness.fleet.catalogue import OBJECT, Catalogue
from awareness.fleet.encoding_worker import places_in
from awareness.fleet.object_store import NoSuchObject, ObjectStore
from awareness.fleet.repository_object import SHARDS, Place, is_digest
from awareness.index.store.shards import content_of, shard_name
from awareness.index.store.tensorfile import MAX_HEADER_BYTES, Malformed, parse
from awareness.types import MemorySpec, digest

MOST_LISTINGS = 32
"""More are joined into one."""
READERS = 16
_MOST_LISTING = 1 << 32  # bytes, unpacked
_HEADER_GUESS = 1 << 16  # bytes that are read before the length of a header is known


class LatentLedger:
    """The latents of one spec. Use it in a `with` block."""

    def __init__(self, spec: MemorySpec) -> None:
        self.spec = spec
        self._folder = tempfile.TemporaryDirectory(prefix="awareness-ledger-", ignore_cleanup_errors=True)
        with storage_errors(Path(self._folder.name)):
            self._db = apsw.Connection(str(Path(self._folder.name) / "ledger.db"))
        self._db.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE shard(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, is_listed INT NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE latent(digest BLOB PRIMARY KEY, shard INTEGER NOT NULL, offset INTEGER NOT NULL,"
            " length INTEGER NOT NULL, tokens INTEGER NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
        )

    def __enter__(self) -> LatentLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def load(self, store: ObjectStore, catalogue: Catalogue | None) -> list[str]:
        """Reads what the store has, and returns the names of shards that cannot be read: they are made again."""
        listed = () if catalogue is None else catalogue.listings
        collecting = {} if catalogue is None else catalogue.collecting
        there = {
            stored.key.removeprefix(SHARDS)
            for stored in store.list("shards")
            if OBJECT.fullmatch(stored.key) and stored.key not in collecting
        }
        with ThreadPoolExecutor(READERS) as pool:
            for rows in pool.map(lambda name: read_listing(store, name), listed):
                for shard, places in rows:
                    if shard in there:
                        self.add(shard, places, is_listed=True)
            unread = sorted(there - {name for (name,) in self._db.execute("SELECT name FROM shard")})
            damaged = []
            for name, content in zip(unread, pool.map(lambda name: self._header(store, name), unread), strict=True):
                if content is None:
                    damaged.append(name)
                else:
                    self.add(name, content)
        return damaged

    def _header(self, store: ObjectStore, name: str) -> dict[str, Place] | None:
        """The places of one shard by its header; None if it is damaged, gone or of another spec."""
        try:
            return read_shard_places(store, name, self.spec)
        except (IndexCorrupt, NoSuchObject):
            return None

    def add(self, shard: str, places: Mapping[str, Place], *, is_listed: bool = False) -> None:
        """Notes the latents of a shard; those that are known stay where they are."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO shard(name, is_listed) VALUES (?, ?)", (shard, is_listed))
            (number,) = next(self._db.execute("SELECT id FROM shard WHERE name = ?", (shard,)))
            self._db.executemany(
                "INSERT OR IGNORE INTO latent VALUES (?, ?, ?, ?, ?, ?)",
                [(bytes.fromhex(key), number, *place[1:]) for key, place in places.items()],
            )

    def forget(self, shards: Iterable[str]) -> None:
        """Shards that are no longer there."""
        with self._db:
            for name in shards:
                self._db.execute("DELETE FROM latent WHERE shard = (SELECT id FROM shard WHERE name = ?)", (name,))
                self._db.execute("DELETE FROM shard WHERE name = ?", (name,))

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those without a latent, in order."""
        wanted = list(digests)
        found = self.places(wanted)
        return [name for name in wanted if name not in found]

    def places(self, digests: Sequence[str]) -> dict[str, Place]:
        """chunk digest -> where its latent is, for those that have one."""
        places: dict[str, Place] = {}
        for at in range(0, len(digests), 500):
            part = [bytes.fromhex(name) for name in digests[at : at + 500]]
            marks = ", ".join("?" * len(part))
            rows: Iterator[Any] = self._db.execute(
                "SELECT l.digest, s.name, l.offset, l.length, l.tokens, l.checksum FROM latent l JOIN shard s"
                f" ON s.id = l.shard WHERE l.digest IN ({marks})",
                part,
            )
            places.update((key.hex(), Place(*place)) for key, *place in rows)
        return places

    def __len__(self) -> int:
        return int(next(self._db.execute("SELECT count(*) FROM latent"))[0])

    # --- listings ---------------------------------------------------------------------------------------------

    def listing(self, *, of_all: bool) -> bytes | None:
        """Where the latents are of the shards that no listing has, or of_all: the bytes of an object, None if there are
        none. They count as listed from now on."""
        sql = "SELECT id, name FROM shard WHERE ? OR NOT is_listed ORDER BY name"
        rows = list(self._db.execute(sql, (of_all,)))
        lines = []
        for number, name in rows:
            latents = self._db.execute(
                "SELECT digest, offset, length, tokens, checksum FROM latent WHERE shard = ? ORDER BY digest", (number,)
            )
            lines.append(json.dumps([name, {key.hex(): place for key, *place in latents}], separators=(",", ":")))
        if not lines:
            return None
        with self._db:
            self._db.execute("UPDATE shard SET is_listed = 1")
        return gzip.compress("\n".join(lines).encode(), mtime=0)


def read_listing(store: ObjectStore, name: str) -> list[tuple[str, dict[str, Place]]]:
    """(shard, chunk digest -> place) of a listing; empty for one that is damaged or gone, as the shards' headers say
    the same."""
    try:
        data, _ = store.read(f"listings/{name}")
        if digest(data) != name:
            return []
        text = zlib.decompressobj(wbits=31).decompress(data, _MOST_LISTING)
        rows = [json.loads(line) for line in text.splitlines()]
        found = [(shard, {key: Place(shard, *place) for key, place in places.items()}) for shard, places in rows]
        return [(shard, places) for shard, places in found if all(map(is_digest, places))]
    except (NoSuchObject, zlib.error, ValueError, TypeError, AttributeError):
        return []


def read_shard_places(store: ObjectStore, name: str, spec: MemorySpec | None) -> dict[str, Place]:
    """The places of a shard's latents by its header. Raises IndexCorrupt if it is damaged or of another spec."""
    key = SHARDS + name
    try:
        (start,) = store.read_ranges(key, [(0, _HEADER_GUESS)])
        length = 8 + int.from_bytes(bytes(start[:8]), "little")
        if not 8 < length <= MAX_HEADER_BYTES:
            raise Malformed("it has no header of the right size")
        if length > len(start):
            (start,) = store.read_ranges(key, [(0, length)])
        content = content_of(parse(bytes(start[:length]), store.size(key)), kind="shard")
        if spec is not None and content.spec != spec:
            raise Malformed("its latents are of another model or kind")
        if shard_name(content.spec, {key: place[3] for key, place in content.latents.items()}) != name:
            raise Malformed("its name is not that of its latents")
        if not all(map(is_digest, content.latents)):
            raise Malformed("a chunk is not named by a digest")
        return places_in(name, content)
    except Malformed as error:
        raise IndexCorrupt(f"{store.url}: {key} is damaged: {error}", hint=f"awareness fleet gc {store.url}") from error
