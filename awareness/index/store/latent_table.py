"""The latents of a store: which there are, where they lie in the shards, and how they make room for each other.

Order of writing: a shard is whole on disk (shards.py) before the SQL commit that names it, and a commit that names it
no longer comes before its file is deleted. A killed writer leaves at most a file that no row names.
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
"""Name of the shard that is the pack's own file."""


class LatentName(NamedTuple):
    spec: str
    """as JSON"""
    chunk: str
    """its digest"""


@dataclass(frozen=True)
class Shard:
    """A shard as the manifest knows it. header: checksum of its header. eager: filled ahead, not by questions.
    used: Unix time."""

    id: int
    name: str
    path: Path
    bytes: int
    header: str
    eager: bool
    used: float


class Latents:
    """Of one open store. Methods that write need `writing(layout)` around them."""

    def __init__(self, layout: IndexLayout, connection: apsw.Connection, pack: Path | None) -> None:
        self.layout, self.db, self.pack = layout, connection, pack

    # --- reading -----------------------------------------------------------------------------------------------

    def spec_made_by(self, fingerprint: str, layers: tuple[int, ...], quant: str) -> MemorySpec | None:
        """The newest spec of latents of these layers that this model made by itself, without loading the model: those
        that an adapter has learned to read, made by an encoder of its own, are others."""
        specs = (MemorySpec.from_json(text) for (text,) in self._rows("SELECT json FROM spec ORDER BY id DESC"))
        wanted = (fingerprint, "self", layers, ENCODING_VERSION, quant)
        made_by = ((spec, (spec.model, spec.encoder, spec.layers, spec.version, spec.quant)) for spec in specs)
        return next((spec for spec, found in made_by if found == wanted), None)

    def specs_of_chunks(self) -> list[MemorySpec]:
        """Of the latents that there are, but for the sinks."""
        sql = "SELECT json FROM spec WHERE id IN (SELECT spec_id FROM latent WHERE chunk_digest <> ?)"
        return [MemorySpec.from_json(text) for (text,) in self._rows(sql, SINK)]

    def missing(self, spec: MemorySpec, digests: Iterable[str]) -> list[str]:
        """Those of the chunks that have no latent yet, each once, in the order given."""
        asked = list(dict.fromkeys(digests))
        sql = (
            "SELECT value FROM json_each(?) WHERE value IN"
            " (SELECT chunk_digest FROM latent WHERE spec_id = ? AND chunk_digest = value)"
        )
        have = {name for (name,) in self._rows(sql, json.dumps(asked), self._spec_id(spec))}
        return [name for name in asked if name not in have]

    def read(self, spec: MemorySpec, digests: Sequence[str]) -> dict[str, Latent]:
        """The latents that are there, every byte checked. Raises IndexCorrupt naming the file that is damaged.

        A shard may be gone because a writer has moved its latents since its row was read: then the row is read again
        (which needs a new view: not inside `Store.reading`).
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
        """Where the latents that are there lie, in the order asked for."""
        sql = (
            "SELECT l.chunk_digest, s.name, s.bytes, l.offset, l.bytes, l.tokens, l.checksum FROM latent l JOIN shard s"
            " ON s.id = l.shard_id WHERE l.spec_id = ? AND l.chunk_digest IN (SELECT value FROM json_each(?))"
        )
        rows = self._rows(sql, self._spec_id(spec), json.dumps(list(digests)))
        found = {name: LatentPlace(self.path(shard), *place) for name, shard, *place in rows}
        return {name: found[name] for name in dict.fromkeys(digests) if name in found}

    def path(self, shard: str) -> Path:
        """The file of a shard, given by name."""
        if shard == PACK and self.pack is not None:
            return self.pack
        return self.layout.shard(shard)

    def shards(self) -> list[Shard]:
        rows = self._rows("SELECT id, name, bytes, header, eager, used FROM shard ORDER BY id")
        return [Shard(i, name, self.path(name), size, header, bool(e), used) for i, name, size, header, e, used in rows]

    def of_shard(self, shard: Shard) -> dict[LatentName, LatentPlace]:
        """Where the latents lie that the manifest has in this shard, by offset."""
        rows = self._rows(
            "SELECT p.json, l.chunk_digest, l.offset, l.bytes, l.tokens, l.checksum FROM latent l JOIN spec p"
            " ON p.id = l.spec_id WHERE l.shard_id = ? ORDER BY l.offset",
            shard.id,
        )
        return {LatentName(spec, name): LatentPlace(shard.path, shard.bytes, *place) for spec, name, *place in rows}

    def unshown(self) -> set[LatentName]:
        """The latents whose chunk no snapshot shows."""
        rows = self._rows(
            "SELECT p.json, l.chunk_digest FROM latent l JOIN spec p ON p.id = l.spec_id WHERE l.chunk_digest <> ?"
            " AND l.chunk_digest NOT IN (SELECT digest FROM chunk)",
            SINK,
        )
        return {LatentName(*row) for row in rows}

    def stored_otherwise(self, quant: str) -> set[LatentName]:
        """The latents not stored as `quant`, or made by an older way of encoding."""
        sql = "SELECT p.json, l.chunk_digest FROM latent l JOIN spec p ON p.id = l.spec_id WHERE l.spec_id = ?"
        found: set[LatentName] = set()
        for row_id, text in list(self._rows("SELECT id, json FROM spec")):
            spec = MemorySpec.from_json(text)
            if (spec.quant, spec.version) != (quant, ENCODING_VERSION):
                found |= {LatentName(own, name) for own, name in self._rows(sql, row_id) if name != SINK}
        return found

    def sizes(self) -> Iterator[tuple[str, str | None, int]]:
        """(spec as JSON, path of a file that shows it or None, bytes) of every latent but the sinks."""
        rows = self._rows(
            "SELECT p.json, (SELECT f.path FROM chunk c JOIN file f ON f.id = c.file_id WHERE c.digest = l.chunk_digest"
            " LIMIT 1), l.bytes FROM latent l JOIN spec p ON p.id = l.spec_id WHERE l.chunk_digest <> ?",
            SINK,
        )
        return ((spec, None if path is None else os.fsdecode(path), size) for spec, path, size in rows)

    def total_bytes(self) -> int:
        """Size of all shards."""
        return cast(int, next(self._rows("SELECT coalesce(sum(bytes), 0) FROM shard"))[0])

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, spec: MemorySpec, latents: Mapping[str, Latent], *, eager: bool, used: float | None = None) -> int:
        """Puts the latents of some chunks into one new shard; returns its bytes. used: Unix time, by default now."""
        with failures(self.layout.manifest):
            name, content = write_shard(self.layout.shards, spec, latents)
            self.adopt(name, content, eager=eager, used=used)
        return content.file_bytes

    def adopt(self, name: str, content: ShardContent, *, eager: bool, used: float | None = None) -> None:
        """Names a shard that lies in its place, and takes the latents that it holds from there on."""
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

    def take_up(self) -> None:
        """Adopts every shard in the folder that says what it is: what a new manifest starts with."""
        with failures(self.layout.manifest):
            for path in sorted(self.layout.shards.glob("*.safetensors")):
                if path.is_file():
                    with contextlib.suppress(Malformed):
                        self.adopt(path.stem, read_content(path), eager=True, used=path.stat().st_mtime)

    def make_room(self, needed: int, budget: int) -> int:
        """Drops shards until `needed` more bytes fit into the budget; returns the bytes freed.

        First shards whose latents no snapshot shows, then those filled on demand, then eager ones; among equals the
        least recently used.
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
        gone: list[int] = []
        freed = 0
        for shard_id, size in list(rows):
            if total - freed + needed <= budget:
                break
            gone.append(shard_id)
            freed += size
        if gone:
            self.forget_encoded()  # first: who is killed in between has lost nothing
            self.drop_shards(gone)
        return freed

    def drop_shards(self, ids: Sequence[int]) -> None:
        """Forgets shards and what they hold, and then deletes their files."""
        if not ids:
            return
        paths = [shard.path for shard in self.shards() if shard.id in set(ids)]
        with failures(self.layout.manifest):
            with self.db:
                self.db.execute("DELETE FROM shard WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))
            for path in paths:
                path.unlink(missing_ok=True)

    def drop(self, names: Iterable[LatentName]) -> None:
        """Forgets latents; their bytes stay until the shard is rewritten."""
        with failures(self.layout.manifest), self.db:
            self.db.executemany(
                "DELETE FROM latent WHERE spec_id = (SELECT id FROM spec WHERE json = ?) AND chunk_digest = ?",
                list(names),
            )

    def forget_encoded(self) -> None:
        """After latents were lost: `encode_pending` has to look again."""
        with failures(self.layout.manifest), self.db:
            self.db.execute("UPDATE snapshot SET encoded = NULL")

    def touch(self, spec: MemorySpec, digests: Sequence[str]) -> None:
        """Marks the shards of these latents as just used."""
        with failures(self.layout.manifest):
            self.db.execute(
                "UPDATE shard SET used = ? WHERE id IN (SELECT shard_id FROM latent WHERE spec_id = ?"
                " AND chunk_digest IN (SELECT value FROM json_each(?)))",
                (time.time(), self._spec_id(spec), json.dumps(list(digests))),
            )

    def orphans(self) -> list[Path]:
        """Files in shards/ that no row names: what a killed writer left, and what nobody wrote."""
        named = {name for (name,) in self._rows("SELECT name FROM shard")}
        found = sorted(self.layout.shards.iterdir()) if self.layout.shards.is_dir() else []
        return [
            path
            for path in found
            if (path.stem not in named or path.suffix != ".safetensors") and (path.is_symlink() or not path.is_dir())
        ]

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
