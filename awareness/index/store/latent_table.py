"""The latents of a store: which exist, where they are in the shards, and which are dropped for others.

A shard is complete on disk (shards.py) before the SQL commit that adds it, and its file is deleted after the commit
that removes it. So a killed writer leaves at most a file that is not in the manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw

from awareness.errors import IndexCorrupt
from awareness.index.store import manifest
from awareness.index.store.layout import IndexLayout
from awareness.index.store.manifest import failures
from awareness.index.store.shards import LatentPlace, ShardContent, read_content, read_places, write_shard
from awareness.index.store.tensorfile import Malformed
from awareness.types import ENCODING_VERSION, SINK, Latent, MemorySpec

PACK = "pack"
"""The name of the shard that is the file of a pack."""


class LatentName(NamedTuple):
    """Identifies a latent. spec: as JSON. chunk: digest."""

    spec: str
    chunk: str


_LATENTS = "FROM latent l JOIN spec p ON p.id = l.spec_id"


@dataclass(frozen=True)
class Shard:
    """A shard in the manifest. header: checksum of its header. eager: encoded in advance, not for a question. used: the
    Unix time of its last use."""

    id: int
    name: str
    path: Path
    bytes: int
    header: str
    eager: bool
    used: float


class Latents:
    """The latents of an open store. Call the methods that write inside `writing(layout)`."""

    def __init__(self, layout: IndexLayout, connection: apsw.Connection, pack: Path | None) -> None:
        self.layout, self.db, self.pack = layout, connection, pack

    # --- reading -----------------------------------------------------------------------------------------------

    def spec_made_by(self, fingerprint: str, layers: tuple[int, ...], quant: str, codec: str = "") -> MemorySpec | None:
        """The newest spec of the latents of these layers that the model itself (encoder `self`) has made, if any."""
        wanted = (fingerprint, "self", layers, ENCODING_VERSION, quant, codec)
        specs = (MemorySpec.from_json(text) for (text,) in self._rows("SELECT json FROM spec ORDER BY id DESC"))
        return next((s for s in specs if (s.model, s.encoder, s.layers, s.version, s.quant, s.codec) == wanted), None)

    def specs_of_chunks(self) -> list[MemorySpec]:
        """The specs that have latents of chunks, not only a sink."""
        sql = "SELECT json FROM spec WHERE id IN (SELECT spec_id FROM latent WHERE chunk_digest <> ?)"
        return [MemorySpec.from_json(text) for (text,) in self._rows(sql, SINK)]

    def missing(self, spec: MemorySpec, digests: Iterable[str]) -> list[str]:
        """The digests without a latent, each once, in the order given."""
        wanted = list(dict.fromkeys(digests))
        sql = (
            "SELECT value FROM json_each(?) WHERE value IN"
            " (SELECT chunk_digest FROM latent WHERE spec_id = ? AND chunk_digest = value)"
        )
        stored = {name for (name,) in self._rows(sql, json.dumps(wanted), self._spec_id(spec))}
        return [name for name in wanted if name not in stored]

    def read(self, spec: MemorySpec, digests: Sequence[str]) -> dict[str, Latent]:
        """digest -> latent, for those that exist, every byte checked. Raises IndexCorrupt, which names the file.

        If a writer has moved the latents to another shard meanwhile, their rows are read again. That needs a new view
        of the index, so do not call this inside `Store.reading`.
        """
        places = self.places(spec, digests)
        while True:
            try:
                return dict(zip(places, read_places(list(places.values())), strict=True))
            except IndexCorrupt:
                before, places = places, self.places(spec, digests)
                if places == before:
                    raise

    def places(self, spec: MemorySpec, digests: Sequence[str]) -> dict[str, LatentPlace]:
        """digest -> place, for the latents that exist, in the order given."""
        sql = (
            "SELECT l.chunk_digest, s.name, s.bytes, l.offset, l.bytes, l.tokens, l.checksum FROM latent l JOIN shard s"
            " ON s.id = l.shard_id WHERE l.spec_id = ? AND l.chunk_digest IN (SELECT value FROM json_each(?))"
        )
        rows = self._rows(sql, self._spec_id(spec), json.dumps(list(digests)))
        places = {name: LatentPlace(self.path(shard), *place) for name, shard, *place in rows}
        return {name: places[name] for name in dict.fromkeys(digests) if name in places}

    def path(self, shard: str) -> Path:
        """The file of the shard with this name."""
        if shard == PACK and self.pack is not None:
            return self.pack
        return self.layout.shard(shard)

    def shards(self) -> list[Shard]:
        rows = self._rows("SELECT id, name, bytes, header, eager, used FROM shard ORDER BY id")
        return [Shard(i, name, self.path(name), size, header, bool(e), used) for i, name, size, header, e, used in rows]

    def of_shard(self, shard: Shard) -> dict[LatentName, LatentPlace]:
        """The latents that the manifest has in this shard, by offset."""
        rows = self._rows(
            f"SELECT p.json, l.chunk_digest, l.offset, l.bytes, l.tokens, l.checksum {_LATENTS} WHERE l.shard_id = ?"
            " ORDER BY l.offset",
            shard.id,
        )
        return {LatentName(spec, name): LatentPlace(shard.path, shard.bytes, *place) for spec, name, *place in rows}

    def unshown(self) -> set[LatentName]:
        """The latents whose chunk is in no snapshot."""
        rows = self._rows(
            f"SELECT p.json, l.chunk_digest {_LATENTS} WHERE l.chunk_digest <> ?"
            " AND l.chunk_digest NOT IN (SELECT digest FROM chunk)",
            SINK,
        )
        return {LatentName(*row) for row in rows}

    def stored_otherwise(self, quant: str) -> set[LatentName]:
        """The latents, without sinks, that are stored with another `quant`, or made by an older encoding version or
        with other tables than the newest of their model."""
        specs = {text: MemorySpec.from_json(text) for (text,) in self._rows("SELECT json FROM spec ORDER BY id")}
        newest = {(spec.model, spec.quant): spec.codec for spec in specs.values()}
        current = {
            text
            for text, spec in specs.items()
            if (spec.quant, spec.version, spec.codec) == (quant, ENCODING_VERSION, newest.get((spec.model, quant)))
        }
        rows = self._rows(f"SELECT p.json, l.chunk_digest {_LATENTS} WHERE l.chunk_digest <> ?", SINK)
        return {LatentName(*row) for row in rows if row[0] not in current}

    def sizes(self) -> Iterator[tuple[str, str | None, int]]:
        """(spec as JSON, path of a file with the chunk or None, bytes) of every latent, without sinks."""
        rows = self._rows(
            "SELECT p.json, (SELECT f.path FROM chunk c JOIN file f ON f.id = c.file_id WHERE c.digest = l.chunk_digest"
            f" LIMIT 1), l.bytes {_LATENTS} WHERE l.chunk_digest <> ?",
            SINK,
        )
        return ((spec, None if path is None else os.fsdecode(path), size) for spec, path, size in rows)

    def total_bytes(self) -> int:
        """The size of all shards."""
        return cast(int, next(self._rows("SELECT coalesce(sum(bytes), 0) FROM shard"))[0])

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, spec: MemorySpec, latents: Mapping[str, Latent], *, eager: bool, used: float | None = None) -> int:
        """Writes latents (by chunk digest) into a new shard; returns its bytes. used: Unix time, by default now."""
        with failures(self.layout.manifest):
            name, content = write_shard(self.layout.shards, spec, latents)
            self.adopt(name, content, eager=eager, used=used)
        return content.file_bytes

    def adopt(self, name: str, content: ShardContent, *, eager: bool, used: float | None = None) -> None:
        """Adds a shard that is already in its place to the manifest; its latents replace older ones."""
        used = time.time() if used is None else used
        with failures(self.layout.manifest), self.db:
            self.db.execute(
                "INSERT OR IGNORE INTO spec(key, json) VALUES (?, ?)", (content.spec.key, content.spec.to_json())
            )
            spec_id = self._spec_id(content.spec)
            self.db.execute("DELETE FROM shard WHERE name = ?", (name,))
            self.db.execute(
                "INSERT INTO shard(name, bytes, header, eager, used) VALUES (?, ?, ?, ?, ?)",
                (name, content.file_bytes, content.header_checksum, eager, used),
            )
            shard_id = self.db.last_insert_rowid()
            self.db.executemany(
                "INSERT OR REPLACE INTO latent VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(spec_id, key, shard_id, *place) for key, place in content.latents.items()],
            )

    def adopt_all(self) -> None:
        """Adds every readable shard in the folder to a new manifest."""
        with failures(self.layout.manifest):
            for path in sorted(self.layout.shards.glob("*.safetensors")):
                if path.is_file():
                    with contextlib.suppress(Malformed):
                        self.adopt(path.stem, read_content(path), eager=True, used=path.stat().st_mtime)

    def make_room(self, needed: int, budget: int) -> int:
        """Drops shards until `needed` more bytes fit into the budget; returns the bytes freed.

        First shards whose latents are in no snapshot, then those encoded for questions, then eager ones; of each the
        least recently used first.
        """
        total = self.total_bytes()
        if total + needed <= budget:
            return 0
        rows = self._rows(
            "SELECT s.id, s.bytes FROM shard s WHERE NOT EXISTS (SELECT 1 FROM latent l WHERE l.shard_id = s.id"
            " AND l.chunk_digest = ?) ORDER BY EXISTS (SELECT 1 FROM latent l JOIN chunk c"
            " ON c.digest = l.chunk_digest WHERE l.shard_id = s.id), s.eager, s.used",
            SINK,
        )
        dropped: list[int] = []
        freed = 0
        for shard_id, size in list(rows):
            if total - freed + needed <= budget:
                break
            dropped.append(shard_id)
            freed += size
        if dropped:
            self.forget_encoded()  # first: a process killed in between has lost nothing
            self.drop_shards(dropped)
        return freed

    def drop_shards(self, ids: Sequence[int]) -> None:
        """Removes shards with their latents from the manifest, then deletes their files."""
        sql = "DELETE FROM shard WHERE id IN (SELECT value FROM json_each(?)) RETURNING name"
        with failures(self.layout.manifest):
            with self.db:
                names = [cast(str, name) for (name,) in self.db.execute(sql, (json.dumps(ids),))]
            for name in names:
                self.path(name).unlink(missing_ok=True)

    def drop(self, names: Iterable[LatentName]) -> None:
        """Removes latents from the manifest; their bytes stay until the shard is rewritten."""
        with failures(self.layout.manifest), self.db:
            self.db.executemany(
                "DELETE FROM latent WHERE spec_id = (SELECT id FROM spec WHERE json = ?) AND chunk_digest = ?",
                list(names),
            )

    def forget_encoded(self) -> None:
        """Marks all snapshots as incomplete, after latents were lost, so that `encode_pending` checks them."""
        with failures(self.layout.manifest), self.db:
            self.db.execute("UPDATE snapshot SET encoded = NULL")

    def touch(self, spec: MemorySpec, digests: Sequence[str]) -> None:
        """Marks the shards of these latents as used now."""
        with failures(self.layout.manifest):
            self.db.execute(
                "UPDATE shard SET used = ? WHERE id IN (SELECT shard_id FROM latent WHERE spec_id = ?"
                " AND chunk_digest IN (SELECT value FROM json_each(?)))",
                (time.time(), self._spec_id(spec), json.dumps(list(digests))),
            )

    def orphans(self) -> list[Path]:
        """Files in shards/ that are not in the manifest, such as those of a killed writer."""
        known = {self.layout.shard(name) for (name,) in self._rows("SELECT name FROM shard")}
        files = sorted(self.layout.shards.iterdir()) if self.layout.shards.is_dir() else []
        return [path for path in files if path not in known and (path.is_symlink() or not path.is_dir())]

    def sweep(self) -> None:
        """Deletes the orphans."""
        with failures(self.layout.manifest):
            for path in self.orphans():
                path.unlink(missing_ok=True)

    def _spec_id(self, spec: MemorySpec) -> int | None:
        row = next(self._rows("SELECT id FROM spec WHERE key = ?", spec.key), None)
        return row[0] if row else None

    def _rows(self, sql: str, *values: apsw.SQLiteValue) -> Iterator[tuple[Any, ...]]:
        return manifest.rows(self.db, self.layout.manifest, sql, *values)
