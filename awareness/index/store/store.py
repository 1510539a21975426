"""The store: snapshots, files and chunks in a SQLite manifest, next to immutable shards that hold the latents.

It is content-addressed: a chunk is identified by the digest of its text with header, a latent by that digest and its
MemorySpec. A snapshot (the work tree or a commit) is a set of files. Files and chunks that no snapshot has are dropped;
latents stay, so that code which comes back on another branch is not encoded again. latent_table.py and
search/routing_index.py hold the other tables.

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
from awareness.index.search.history import History
from awareness.index.search.index_state import index_state
from awareness.index.search.routing_index import Routing
from awareness.index.search.snapshot_paths import SnapshotPaths
from awareness.index.store import manifest
from awareness.index.store.latent_table import Latents
from awareness.index.store.layout import IndexLayout
from awareness.types import Chunk, MemorySpec


@dataclass(frozen=True)
class IndexedFile:
    """One file of a snapshot. chunks: None for a file that is already in the store."""

    path: str
    digest: str
    chunks: Sequence[tuple[Chunk, int]] | None
    """(chunk, number of its tokens)"""
    secrets: Sequence[Secret] = ()


@dataclass(frozen=True)
class StoredChunk:
    """A chunk in the manifest. tokens: of its encoded text. digest: of the chunk when it was written."""

    id: int
    chunk: Chunk
    tokens: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A named set of files.

    name: `tree:` and a folder, or `rev:` and a commit. rev: the commit or None. model: name of the model whose tokens
    limit the chunks. scope: the patterns it is limited to. updated: Unix time. include: the patterns of what else is in
    it.
    """

    id: int
    name: str
    rev: str | None
    model: str
    scope: tuple[str, ...]
    updated: float
    include: tuple[str, ...] = ()


@dataclass(frozen=True)
class Totals:
    """The size of a snapshot. tokens: of its chunks. latents, latent_bytes: stored for one spec."""

    files: int
    chunks: int
    tokens: int
    latents: int
    latent_bytes: int


class Store:
    """An open index, with snapshots, files and chunks. Close it, or use it in a `with` block.

    Call the methods that write inside `writing(layout)`. latents, routing, history: the other parts of the index.
    pack: the file that holds the latents, if this is the index of a pack (pack.py).
    """

    def __init__(self, layout: IndexLayout, connection: apsw.Connection, pack: Path | None = None) -> None:
        self.layout = layout
        self.db = connection
        self.latents = Latents(layout, connection, pack)
        self.routing = Routing(connection)
        self.history = History(connection)
        self._paths: tuple[tuple[int, int, int], SnapshotPaths] | None = None

    # --- opening -----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, layout: IndexLayout, *, pack: Path | None = None) -> Store:
        """Opens an index. Raises NoIndex, or IndexCorrupt for one that is damaged or of an unknown format."""
        return cls(layout, manifest.connect(layout), pack)

    @classmethod
    def create(cls, layout: IndexLayout, *, pack: Path | None = None) -> Store:
        """Opens an index; creates it if needed, with the shards that exist. Call inside `writing(layout)`."""
        if not layout.exists:
            manifest.create(layout, lambda connection: cls(layout, connection).latents.adopt_all())
        return cls.open(layout, pack=pack)

    def close(self) -> None:
        with manifest.failures(self.layout.manifest):
            self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, sql: str, *values: apsw.SQLiteValue) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one by one."""
        return manifest.rows(self.db, self.layout.manifest, sql, *values)

    def row(self, sql: str, *values: apsw.SQLiteValue) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        return next(self.rows(sql, *values), None)

    def count(self, sql: str, *values: apsw.SQLiteValue) -> int:
        """The number that an aggregate query returns."""
        return cast(int, next(self.rows(sql, *values))[0])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One view of the index for several reads. Changes in the block are rolled back at its end."""
        if self.db.in_transaction:
            yield
            return
        with manifest.failures(self.layout.manifest):
            self.db.execute("BEGIN")
        try:
            yield
        finally:
            if self.db.in_transaction:  # after some errors SQLite has rolled back by itself
                with manifest.failures(self.layout.manifest):
                    self.db.execute("ROLLBACK")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction: all changes of the block are committed, or none."""
        with manifest.failures(self.layout.manifest), self.db:
            yield

    def setting(self, name: str) -> str | None:
        """The value of a setting of the whole index, or None."""
        row = self.row("SELECT value FROM meta WHERE key = ?", f"setting.{name}")
        return row[0] if row else None

    def remember(self, name: str, value: str) -> None:
        with self.changing():
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"setting.{name}", value))

    # --- snapshots ---------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, by name."""
        rows = self.rows(
            "SELECT id, name, rev, model, scope, updated, (SELECT value FROM meta WHERE key = ? || name) FROM snapshot"
            " ORDER BY name",
            _INCLUDE,
        )
        return [
            Snapshot(i, name, rev, model, _patterns(scope), updated, _patterns(include))
            for i, name, rev, model, scope, updated, include in rows
        ]

    def snapshot(self, name: str) -> Snapshot | None:
        return next((snapshot for snapshot in self.snapshots() if snapshot.name == name), None)

    def snapshot_files(self, name: str, chunking: str) -> dict[str, str]:
        """path -> digest of the snapshot's files that were cut by these chunking rules."""
        rows = self.rows(
            "SELECT f.path, f.digest FROM snapshot s JOIN snapshot_file sf ON sf.snapshot_id = s.id"
            " JOIN file f ON f.id = sf.file_id WHERE s.name = ? AND f.chunking = ?",
            name,
            chunking,
        )
        return {path_out(path): file_digest for path, file_digest in rows}

    def chunking_of(self, snapshot: int) -> str | None:
        """The chunking rules of a snapshot; None if it is empty."""
        row = self.row(
            "SELECT f.chunking FROM snapshot_file sf JOIN file f ON f.id = sf.file_id WHERE sf.snapshot_id = ? LIMIT 1",
            snapshot,
        )
        return row[0] if row else None

    def has_file(self, path: str, file_digest: str, chunking: str) -> bool:
        return self._find_file((path_in(path), file_digest, chunking)) is not None

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
        include: Sequence[str] = (),
    ) -> int:
        """Replaces the files of a snapshot in one transaction and returns its id. Drops files that no snapshot has."""
        with self.changing():
            self.db.execute("DELETE FROM meta WHERE key = ?", (_INCLUDE + name,))
            if include:
                self.db.execute("INSERT INTO meta VALUES (?, ?)", (_INCLUDE + name, "\n".join(include)))
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
            self._drop_unused_files()
        return snapshot

    def drop_snapshot(self, name: str) -> bool:
        """Deletes a snapshot, and the files that no other has; latents stay until `gc`. Returns True if it existed."""
        with self.changing():
            self.db.execute("DELETE FROM snapshot WHERE name = ?", (name,))
            dropped = self.db.changes() > 0
            self.db.execute("DELETE FROM meta WHERE key = ?", (_INCLUDE + name,))
            self._drop_unused_files()
        return dropped

    def clear(self) -> None:
        """Deletes everything; open readers keep their view."""
        with self.changing():
            for table in ("snapshot", "file", "shard", "spec"):
                self.db.execute(f"DELETE FROM {table}")
            self.routing.clear()
        self.latents.sweep()

    def compact(self) -> None:
        """Frees unused space in the manifest."""
        with manifest.failures(self.layout.manifest):
            with self.db:
                self.routing.merge()
            if self.db.pragma("freelist_count") * 4 > self.db.pragma("page_count"):
                self.db.execute("VACUUM")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _file_id(self, file: IndexedFile, chunking: str) -> int:
        key = (path_in(file.path), file.digest, chunking)
        if (file_id := self._find_file(key)) is not None:
            return file_id
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

    def _drop_unused_files(self) -> None:
        unused = "SELECT id FROM file WHERE id NOT IN (SELECT file_id FROM snapshot_file)"
        chunks = [row[0] for row in self.rows(f"SELECT id FROM chunk WHERE file_id IN ({unused})")]
        self.db.execute(f"DELETE FROM file WHERE id IN ({unused})")
        self.routing.drop(chunks)

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

    def count_chunks(self, snapshot: int) -> int:
        """The number of chunks of a snapshot; `totals` has the same, and reads every chunk for it."""
        return self.count(
            "SELECT count(*) FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id WHERE sf.snapshot_id = ?",
            snapshot,
        )

    def files(self, snapshot: int) -> list[tuple[int, str, str]]:
        """(id, path, digest) of the files of a snapshot, by path."""
        rows = self.rows(
            "SELECT f.id, f.path, f.digest FROM snapshot_file sf JOIN file f ON f.id = sf.file_id"
            " WHERE sf.snapshot_id = ? ORDER BY f.path",
            snapshot,
        )
        return [(file_id, path_out(path), file_digest) for file_id, path, file_digest in rows]

    def paths(self, snapshot: int) -> SnapshotPaths:
        """The files of a snapshot by their paths, read again only after a change. Call inside `reading`."""
        state = (snapshot, *index_state(self.db))
        if self._paths is None or self._paths[0] != state:
            read = SnapshotPaths(lambda: {path: file_id for file_id, path, _ in self.files(snapshot)})
            self._paths = (state, read)
        return self._paths[1]

    def chunk_counts(self, snapshot: int) -> dict[str, int]:
        """path -> number of chunks, of the files of a snapshot that have any."""
        rows = self.rows(
            "SELECT f.path, count(*) FROM snapshot_file sf JOIN file f ON f.id = sf.file_id"
            " JOIN chunk c ON c.file_id = f.id WHERE sf.snapshot_id = ? GROUP BY f.id",
            snapshot,
        )
        return {path_out(path): count for path, count in rows}

    def outline(self, snapshot: int) -> Iterator[tuple[str, int, int, int]]:
        """(path, first line, last line, bytes of text) of each chunk of a snapshot, without its text, by path."""
        rows = self.rows(
            "SELECT f.path, c.start_line, c.end_line, octet_length(c.text) FROM snapshot_file sf"
            " JOIN file f ON f.id = sf.file_id JOIN chunk c ON c.file_id = f.id WHERE sf.snapshot_id = ?"
            " ORDER BY f.path, c.start_line",
            snapshot,
        )
        return ((path_out(path), start, end, size) for path, start, end, size in rows)

    def secrets(self, snapshot: int) -> dict[str, list[Secret]]:
        """path -> the credentials that were found in its text."""
        rows = self.rows(
            "SELECT f.path, f.secrets FROM snapshot_file sf JOIN file f ON f.id = sf.file_id WHERE sf.snapshot_id = ?"
            " AND f.secrets <> '' ORDER BY f.path",
            snapshot,
        )
        return {path_out(path): [Secret(*secret) for secret in json.loads(text)] for path, text in rows}

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
        """id -> chunk, for the ids that exist."""
        return {chunk.id: chunk for chunk in self._listed(ids)}

    def chunks_shown(self, snapshot: int, ids: Sequence[int]) -> dict[int, StoredChunk]:
        """id -> chunk, for the ids in the snapshot."""
        where = " WHERE EXISTS (SELECT 1 FROM snapshot_file WHERE snapshot_id = ? AND file_id = c.file_id)"
        return {chunk.id: chunk for chunk in self._listed(ids, where, snapshot)}

    def chunks_holding(self, snapshot: int, text: str, most: int) -> list[StoredChunk]:
        """The first chunks of a snapshot that hold `text` exactly so. Reads every chunk."""
        return list(
            self._chunks(
                "JOIN snapshot_file sf ON sf.file_id = f.id WHERE sf.snapshot_id = ? AND instr(c.text, ?) LIMIT ?",
                snapshot,
                text,
                most,
            )
        )

    def chunk_ids(self, files: Sequence[int]) -> list[int]:
        """The ids of the chunks of these files (by id)."""
        sql = "SELECT id FROM chunk WHERE file_id IN (SELECT value FROM json_each(?))"
        return [row[0] for row in self.rows(sql, json.dumps(files))]

    def chunks_by_digest(self, digests: Iterable[str]) -> dict[str, StoredChunk]:
        """digest -> chunk, for the digests that exist."""
        chunks = self._chunks("WHERE c.digest IN (SELECT value FROM json_each(?))", json.dumps(list(digests)))
        return {chunk.chunk.digest: chunk for chunk in chunks}

    def _listed(self, ids: Sequence[int], where: str = "", *values: apsw.SQLiteValue) -> Iterator[StoredChunk]:
        # CROSS JOIN makes SQLite start from the few ids.
        rows = self.rows(
            f"SELECT {_CHUNK_COLUMNS} FROM json_each(?) listed CROSS JOIN chunk c ON c.id = listed.value"
            f" CROSS JOIN file f ON f.id = c.file_id{where}",
            *(json.dumps(ids), *values),
        )
        return map(_chunk_out, rows)

    def _chunks(self, where: str, *values: apsw.SQLiteValue) -> Iterator[StoredChunk]:
        rows = self.rows(f"SELECT {_CHUNK_COLUMNS} FROM chunk c JOIN file f ON f.id = c.file_id {where}", *values)
        return map(_chunk_out, rows)

    # --- encoding ----------------------------------------------------------------------------------------------

    def encoded_for(self, snapshot: int) -> str | None:
        """The last mark of `mark_encoded`; None if the snapshot has changed since."""
        row = self.row("SELECT encoded FROM snapshot WHERE id = ?", snapshot)
        return row[0] if row else None

    def mark_encoded(self, snapshot: int, mark: str) -> None:
        with self.changing():
            self.db.execute("UPDATE snapshot SET encoded = ? WHERE id = ?", (mark, snapshot))


# Names of files may hold surrogates (bytes that are not UTF-8), which SQLite's text cannot.


def path_in(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def path_out(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


_INCLUDE = "include:"  # and the name of a snapshot: the key in `meta` of the patterns of its Snapshot.include


def _patterns(text: str | None) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


_CHUNK_COLUMNS = "c.id, f.path, c.start_line, c.end_line, c.symbol, c.text, c.tokens, c.digest"


def _chunk_out(row: tuple[Any, ...]) -> StoredChunk:
    chunk_id, path, start, end, symbol, text, tokens, name = row
    return StoredChunk(chunk_id, Chunk(path_out(path), start, end, symbol, text), tokens, name)
