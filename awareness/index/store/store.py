"""The store: a SQLite manifest, and immutable safetensors shards that hold the latents.

Content-addressed: a chunk is known by the digest of its text with header, a latent by that and its MemorySpec.
A snapshot (the work tree, or a commit) is a set of files; files and chunks that no snapshot shows are dropped,
latents stay, so that code which comes back on another branch costs nothing. Here are snapshots, files and chunks;
latent_table.py and routing_index.py have the rest.

Readers use SQLite's WAL and never wait; the one writer holds the lock (lock.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import apsw

from awareness.index.files.credentials import Secret
from awareness.index.search.routing_index import Routing
from awareness.index.store import manifest
from awareness.index.store.latent_table import Latents
from awareness.index.store.layout import IndexLayout
from awareness.types import Chunk, MemorySpec


@dataclass(frozen=True)
class IndexedFile:
    """One file of a snapshot. `chunks` is None for a file whose chunks are in the store already."""

    path: str
    digest: str
    chunks: Sequence[tuple[Chunk, int]] | None
    """(chunk, its tokens)"""
    secrets: Sequence[Secret] = ()


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as the manifest knows it. tokens: of its encoded text. digest: what it was when it was written."""

    id: int
    chunk: Chunk
    tokens: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """What is indexed under one name (`tree:` and a folder, `rev:` and a commit): rev is the commit or None, model the
    name of the model whose tokens bound the chunks, scope the patterns it was limited to, updated a Unix time."""

    id: int
    name: str
    rev: str | None
    model: str
    scope: tuple[str, ...]
    updated: float


@dataclass(frozen=True)
class Totals:
    """What a snapshot holds: files, chunks, their tokens; latents that are there for one spec, and their bytes."""

    files: int
    chunks: int
    tokens: int
    latents: int
    latent_bytes: int


class Store:
    """An open index; close it, or use it in a `with` block. Methods that write need `writing(layout)` around them.

    latents, routing: its other parts. pack: where the latents of a pack (pack.py) lie, whose index this is.
    """

    def __init__(self, layout: IndexLayout, connection: apsw.Connection, pack: Path | None = None) -> None:
        self.layout = layout
        self.db = connection
        self.latents = Latents(layout, connection, pack)
        self.routing = Routing(connection)

    # --- opening -----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, layout: IndexLayout, *, pack: Path | None = None) -> Store:
        """An existing index. Raises NoIndex, or IndexCorrupt for one that can't be read or has an unknown format."""
        return cls(layout, manifest.connect(layout), pack)

    @classmethod
    def create(cls, layout: IndexLayout, *, pack: Path | None = None) -> Store:
        """The index, made if there is none: of the shards, if those are there. Call inside `writing(layout)`."""
        if not layout.exists:
            manifest.create(layout, lambda connection: cls(layout, connection).latents.take_up())
        return cls.open(layout, pack=pack)

    def close(self) -> None:
        with manifest.failures(self.layout.manifest):
            self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, sql: str, *values: apsw.SQLiteValue) -> Iterator[tuple[Any, ...]]:
        """What a query answers, row by row."""
        return manifest.rows(self.db, self.layout.manifest, sql, *values)

    def row(self, sql: str, *values: apsw.SQLiteValue) -> tuple[Any, ...] | None:
        """The first row that a query answers."""
        return next(self.rows(sql, *values), None)

    def count(self, sql: str, *values: apsw.SQLiteValue) -> int:
        """The number that an aggregate gives."""
        found = self.row(sql, *values)
        assert found is not None
        return cast(int, found[0])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One view for several reads: what a writer commits meanwhile is not seen in the block."""
        if self.db.in_transaction:
            yield
            return
        with manifest.failures(self.layout.manifest):
            self.db.execute("BEGIN")
        try:
            yield
        finally:
            if self.db.in_transaction:  # after some errors SQLite has left it by itself
                with manifest.failures(self.layout.manifest):
                    self.db.execute("ROLLBACK")

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Everything that the block changes is undone at its end."""
        with self.reading():
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """All of the block's changes are committed together, or none."""
        with manifest.failures(self.layout.manifest), self.db:
            yield

    def setting(self, name: str) -> str | None:
        """What was last remembered under this name for the whole index."""
        row = self.row("SELECT value FROM meta WHERE key = ?", f"setting.{name}")
        return row[0] if row else None

    def remember(self, name: str, value: str) -> None:
        with self.changing():
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"setting.{name}", value))

    # --- snapshots ---------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """All of them, by name."""
        rows = self.rows("SELECT id, name, rev, model, scope, updated FROM snapshot ORDER BY name")
        return [Snapshot(i, name, rev, model, _scope_out(s), at) for i, name, rev, model, s, at in rows]

    def snapshot(self, name: str) -> Snapshot | None:
        row = self.row("SELECT id, name, rev, model, scope, updated FROM snapshot WHERE name = ?", name)
        if row is None:
            return None
        snapshot, name, rev, model, scope, updated = row
        return Snapshot(snapshot, name, rev, model, _scope_out(scope), updated)

    def snapshot_files(self, name: str, chunking: str) -> dict[str, str]:
        """path -> digest of the files that the snapshot shows, cut by these chunking rules."""
        rows = self.rows(
            "SELECT f.path, f.digest FROM snapshot s JOIN snapshot_file sf ON sf.snapshot_id = s.id"
            " JOIN file f ON f.id = sf.file_id WHERE s.name = ? AND f.chunking = ?",
            name,
            chunking,
        )
        return {_path_out(path): file_digest for path, file_digest in rows}

    def chunking_of(self, snapshot: int) -> str | None:
        """By which rules its files were cut; None for an empty snapshot."""
        row = self.row(
            "SELECT f.chunking FROM snapshot_file sf JOIN file f ON f.id = sf.file_id WHERE sf.snapshot_id = ? LIMIT 1",
            snapshot,
        )
        return row[0] if row else None

    def has_file(self, path: str, file_digest: str, chunking: str) -> bool:
        return self._find_file((_path_in(path), file_digest, chunking)) is not None

    def _find_file(self, key: tuple[bytes, str, str]) -> int | None:
        row = self.row("SELECT id FROM file WHERE path = ? AND digest = ? AND chunking = ?", *key)
        return row[0] if row else None

    def write_snapshot(
        self,
        name: str,
        files: Iterable[IndexedFile],
        *,
        chunking: str,
        model: str,
        rev: str | None,
        scope: Sequence[str] = (),
    ) -> int:
        """Replaces what the snapshot shows, in one transaction; returns its id. Drops files that nothing shows now."""
        with self.changing():
            self.db.execute(
                "INSERT INTO snapshot(name, rev, model, scope, updated) VALUES (?, ?, ?, ?, ?) ON CONFLICT(name)"
                " DO UPDATE SET rev = excluded.rev, model = excluded.model, scope = excluded.scope, encoded = NULL,"
                " updated = excluded.updated",
                (name, rev, model, "\n".join(scope), time.time()),
            )
            snapshot = self.count("SELECT id FROM snapshot WHERE name = ?", name)
            self.db.execute("DELETE FROM snapshot_file WHERE snapshot_id = ?", (snapshot,))
            for file in files:
                self.db.execute(
                    "INSERT OR IGNORE INTO snapshot_file VALUES (?, ?)", (snapshot, self._file_id(file, chunking))
                )
            self.routing.flush()
            self._drop_unshown_files()
        return snapshot

    def drop_snapshot(self, name: str) -> bool:
        """Forgets it, and the files and chunks that nothing else shows; its latents stay until `gc`. True if it was."""
        with self.changing():
            self.db.execute("DELETE FROM snapshot WHERE name = ?", (name,))
            dropped = self.db.changes() > 0
            self._drop_unshown_files()
        return dropped

    def clear(self) -> None:
        """Forgets everything; readers that are at it keep what they see."""
        with self.changing():
            for table in ("snapshot", "file", "shard", "spec"):
                self.db.execute(f"DELETE FROM {table}")
            self.routing.clear()
        self.latents.sweep()

    def compact(self) -> None:
        """Gives back the room in the manifest that nothing fills any more."""
        with manifest.failures(self.layout.manifest):
            with self.db:
                self.routing.merge()
            if self.db.pragma("freelist_count") * 4 > self.db.pragma("page_count"):
                self.db.execute("VACUUM")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _file_id(self, file: IndexedFile, chunking: str) -> int:
        key = (_path_in(file.path), file.digest, chunking)
        if (found := self._find_file(key)) is not None:
            return found
        secrets = json.dumps([[secret.line, secret.rule] for secret in file.secrets]) if file.secrets else ""
        self.db.execute("INSERT INTO file(path, digest, chunking, secrets) VALUES (?, ?, ?, ?)", (*key, secrets))
        file_id = self.db.last_insert_rowid()
        for chunk, tokens in file.chunks or ():
            self.db.execute(
                "INSERT INTO chunk(file_id, digest, start_line, end_line, symbol, text, tokens)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (file_id, chunk.digest, chunk.start_line, chunk.end_line, chunk.symbol, chunk.text, tokens),
            )
            self.routing.add(self.db.last_insert_rowid(), chunk)
        return file_id

    def _drop_unshown_files(self) -> None:
        unshown = "SELECT id FROM file WHERE id NOT IN (SELECT file_id FROM snapshot_file)"
        gone = [row[0] for row in self.rows(f"SELECT id FROM chunk WHERE file_id IN ({unshown})")]
        self.db.execute(f"DELETE FROM file WHERE id IN ({unshown})")
        self.routing.drop(gone)

    def totals(self, snapshot: int, spec: MemorySpec | None = None) -> Totals:
        counted = self.row(
            "SELECT count(DISTINCT sf.file_id), count(c.id), coalesce(sum(c.tokens), 0) FROM snapshot_file sf"
            " LEFT JOIN chunk c ON c.file_id = sf.file_id WHERE sf.snapshot_id = ?",
            snapshot,
        )
        latents = self.row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM latent WHERE spec_id = (SELECT id FROM spec WHERE key = ?)"
            " AND chunk_digest IN (SELECT c.digest FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id"
            " WHERE sf.snapshot_id = ?)",
            spec.key if spec else "",
            snapshot,
        )
        assert counted and latents
        return Totals(*counted, *latents)

    def files(self, snapshot: int) -> list[tuple[int, str, str]]:
        """(id, path, digest) of the files of a snapshot, by path."""
        rows = self.rows(
            "SELECT f.id, f.path, f.digest FROM snapshot_file sf JOIN file f ON f.id = sf.file_id"
            " WHERE sf.snapshot_id = ? ORDER BY f.path",
            snapshot,
        )
        return [(file_id, _path_out(path), file_digest) for file_id, path, file_digest in rows]

    def secrets(self, snapshot: int) -> dict[str, list[Secret]]:
        """path -> the credentials that its text seems to hold."""
        rows = self.rows(
            "SELECT f.path, f.secrets FROM snapshot_file sf JOIN file f ON f.id = sf.file_id WHERE sf.snapshot_id = ?"
            " AND f.secrets <> '' ORDER BY f.path",
            snapshot,
        )
        return {_path_out(path): [Secret(*found) for found in json.loads(text)] for path, text in rows}

    # --- chunks ------------------------------------------------------------------------------------------------

    def chunk_digests(self, snapshot: int) -> list[str]:
        sql = "SELECT c.digest FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id WHERE sf.snapshot_id = ?"
        return [name for (name,) in self.rows(sql, snapshot)]

    def chunks(self, snapshot: int) -> Iterator[StoredChunk]:
        """All chunks of a snapshot, by path and line."""
        return self._chunks(
            "JOIN snapshot_file sf ON sf.file_id = f.id WHERE sf.snapshot_id = ? ORDER BY f.path, c.start_line, c.id",
            snapshot,
        )

    def all_chunks(self) -> Iterator[StoredChunk]:
        """All chunks of all snapshots."""
        return self._chunks("")

    def chunks_by_id(self, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Those of the ids that there are."""
        return {chunk.id: chunk for chunk in self._listed(ids)}

    def chunks_shown(self, snapshot: int, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """Those of the ids that the snapshot shows."""
        where = " WHERE EXISTS (SELECT 1 FROM snapshot_file WHERE snapshot_id = ? AND file_id = c.file_id)"
        return {chunk.id: chunk for chunk in self._listed(ids, where, snapshot)}

    def chunk_ids(self, files: Sequence[int]) -> list[int]:
        """The ids of all chunks of some files."""
        sql = "SELECT id FROM chunk WHERE file_id IN (SELECT value FROM json_each(?))"
        return [row[0] for row in self.rows(sql, json.dumps(files))]

    def chunks_by_digest(self, digests: Iterable[str]) -> dict[str, StoredChunk]:
        """One chunk for each of the digests that some snapshot shows."""
        found = self._chunks("WHERE c.digest IN (SELECT value FROM json_each(?))", json.dumps(list(digests)))
        return {chunk.chunk.digest: chunk for chunk in found}

    def _listed(self, ids: Sequence[int], where: str = "", *values: apsw.SQLiteValue) -> Iterator[StoredChunk]:
        # CROSS JOIN keeps SQLite to this order: from the few ids to their rows.
        rows = self.rows(
            f"SELECT {_CHUNK_COLUMNS} FROM json_each(?) listed CROSS JOIN chunk c ON c.id = listed.value"
            f" CROSS JOIN file f ON f.id = c.file_id{where}",
            *(json.dumps(ids), *values),
        )
        return map(_chunk_out, rows)

    def _chunks(self, where: str, *values: apsw.SQLiteValue) -> Iterator[StoredChunk]:
        rows = self.rows(f"SELECT {_CHUNK_COLUMNS} FROM chunk c JOIN file f ON f.id = c.file_id {where}", *values)
        return map(_chunk_out, rows)

    # --- what was encoded --------------------------------------------------------------------------------------

    def encoded_for(self, snapshot: int) -> str | None:
        """What `mark_encoded` said of the snapshot as it is now, or None after any change."""
        row = self.row("SELECT encoded FROM snapshot WHERE id = ?", snapshot)
        return row[0] if row else None

    def mark_encoded(self, snapshot: int, mark: str) -> None:
        with self.changing():
            self.db.execute("UPDATE snapshot SET encoded = ? WHERE id = ?", (mark, snapshot))


# File names may hold surrogates (names that are not UTF-8), which SQLite's text can't.


def _path_in(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _path_out(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


_CHUNK_COLUMNS = "c.id, f.path, c.start_line, c.end_line, c.symbol, c.text, c.tokens, c.digest"


def _chunk_out(row: tuple[Any, ...]) -> StoredChunk:
    chunk_id, path, start, end, symbol, text, tokens, name = row
    return StoredChunk(chunk_id, Chunk(_path_out(path), start, end, symbol, text), tokens, name)


def _scope_out(scope: str) -> tuple[str, ...]:
    return tuple(scope.split("\n")) if scope else ()
