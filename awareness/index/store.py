"""The store: a SQLite manifest, and immutable safetensors shards that hold the latents.

Content-addressed: a chunk is known by the digest of its text with header, a latent by that and its MemorySpec.
A snapshot (the work tree, or a commit) is a set of files; files and chunks that no snapshot shows are dropped,
latents stay, so that code which comes back on another branch costs nothing.

Order of writing: a shard is whole on disk (shards.py) before the SQL commit that names it. A killed writer leaves at
most a file that no row names. Readers use SQLite's WAL and never wait; the one writer holds the lock (lock.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import apsw

from awareness.index import manifest
from awareness.index.layout import IndexLayout
from awareness.index.lexical import expand
from awareness.index.shards import ShardPlace, checksum_of, read_places, write_shard
from awareness.types import SINK, Chunk, Latent, MemorySpec, digest


@dataclass(frozen=True)
class IndexedFile:
    """One file of a snapshot. `chunks` is None for a file whose chunks are in the store already."""

    path: str
    digest: str
    chunks: Sequence[tuple[Chunk, int]] | None
    """(chunk, its tokens)"""


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as the manifest knows it. tokens: of its encoded text."""

    id: int
    chunk: Chunk
    tokens: int


@dataclass(frozen=True)
class Totals:
    """What a snapshot holds: files, chunks, their tokens; latents that are there for one spec, and their bytes."""

    files: int
    chunks: int
    tokens: int
    latents: int
    latent_bytes: int


class Store:
    """An open index; close it, or use it in a `with` block. Methods that write need `writing(layout)` around them."""

    def __init__(self, layout: IndexLayout, connection: apsw.Connection) -> None:
        self.layout = layout
        self.db = connection

    # --- opening -----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, layout: IndexLayout) -> Store:
        """An existing index. Raises NoIndex, or IndexCorrupt for one that can't be read or has an unknown format."""
        return cls(layout, manifest.connect(layout))

    @classmethod
    def create(cls, layout: IndexLayout) -> Store:
        """The index, made if there is none. Call inside `writing(layout)`."""
        if not layout.exists:
            manifest.create(layout)
        return cls.open(layout)

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def row(self, sql: str, *values: str | int) -> tuple[int, ...]:
        """The numbers of the one row that an aggregate gives."""
        return cast("tuple[int, ...]", self.db.execute(sql, values).fetchone())

    def count(self, sql: str, *values: str | int) -> int:
        return self.row(sql, *values)[0]

    # --- snapshots ---------------------------------------------------------------------------------------------

    def snapshot_id(self, name: str) -> int | None:
        row = self.db.execute("SELECT id FROM snapshot WHERE name = ?", (name,)).fetchone()
        return cast(int, row[0]) if row else None

    def snapshot_key(self, name: str) -> tuple[str, str] | None:
        """(model, scope) that the snapshot was last indexed for; scope is one pattern a line."""
        return self.db.execute("SELECT model, scope FROM snapshot WHERE name = ?", (name,)).fetchone()

    def snapshot_files(self, name: str, chunking: str) -> dict[str, str]:
        """path -> digest of the files that the snapshot shows, cut by these chunking rules."""
        rows = self.db.execute(
            "SELECT f.path, f.digest FROM snapshot s JOIN snapshot_file sf ON sf.snapshot_id = s.id"
            " JOIN file f ON f.id = sf.file_id WHERE s.name = ? AND f.chunking = ?",
            (name, chunking),
        )
        return {_path_out(path): file_digest for path, file_digest in rows}

    def has_file(self, path: str, file_digest: str, chunking: str) -> bool:
        return self._find_file((_path_in(path), file_digest, chunking)) is not None

    def _find_file(self, key: tuple[bytes, str, str]) -> int | None:
        row = self.db.execute("SELECT id FROM file WHERE path = ? AND digest = ? AND chunking = ?", key).fetchone()
        return cast(int, row[0]) if row else None

    def write_snapshot(
        self, name: str, files: Iterable[IndexedFile], *, chunking: str, model: str, rev: str | None, scope: str
    ) -> int:
        """Replaces what the snapshot shows, in one transaction; returns its id. Drops files that nothing shows now."""
        with manifest.corruption(self.layout), self.db:
            self.db.execute(
                "INSERT INTO snapshot(name, rev, model, scope, updated) VALUES (?, ?, ?, ?, ?) ON CONFLICT(name)"
                " DO UPDATE SET rev = excluded.rev, model = excluded.model, scope = excluded.scope, encoded = NULL,"
                " updated = excluded.updated",
                (name, rev, model, scope, time.time()),
            )
            snapshot = self.count("SELECT id FROM snapshot WHERE name = ?", name)
            self.db.execute("DELETE FROM snapshot_file WHERE snapshot_id = ?", (snapshot,))
            for file in files:
                self.db.execute(
                    "INSERT OR IGNORE INTO snapshot_file VALUES (?, ?)", (snapshot, self._file_id(file, chunking))
                )
            self._drop_unshown_files()
        return snapshot

    def _file_id(self, file: IndexedFile, chunking: str) -> int:
        key = (_path_in(file.path), file.digest, chunking)
        if (found := self._find_file(key)) is not None:
            return found
        self.db.execute("INSERT INTO file(path, digest, chunking) VALUES (?, ?, ?)", key)
        file_id = self.db.last_insert_rowid()
        for chunk, tokens in file.chunks or ():
            self.db.execute(
                "INSERT INTO chunk(file_id, digest, start_line, end_line, symbol, text, tokens)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (file_id, chunk.digest, chunk.start_line, chunk.end_line, chunk.symbol, chunk.text, tokens),
            )
            self.db.execute(
                "INSERT INTO chunk_fts(rowid, symbol, path, body) VALUES (?, ?, ?, ?)",
                (self.db.last_insert_rowid(), expand(chunk.symbol), expand(chunk.path), expand(chunk.text)),
            )
        return file_id

    def _drop_unshown_files(self) -> None:
        unshown = "SELECT id FROM file WHERE id NOT IN (SELECT file_id FROM snapshot_file)"
        self.db.execute(f"DELETE FROM chunk_fts WHERE rowid IN (SELECT id FROM chunk WHERE file_id IN ({unshown}))")
        self.db.execute(f"DELETE FROM file WHERE id IN ({unshown})")

    def totals(self, snapshot: int, spec: MemorySpec | None = None) -> Totals:
        files, chunks, tokens = self.row(
            "SELECT count(DISTINCT sf.file_id), count(c.id), coalesce(sum(c.tokens), 0) FROM snapshot_file sf"
            " LEFT JOIN chunk c ON c.file_id = sf.file_id WHERE sf.snapshot_id = ?",
            snapshot,
        )
        latents, size = self.row(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM latent WHERE spec_id = (SELECT id FROM spec WHERE key = ?)"
            " AND chunk_digest IN (SELECT c.digest FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id"
            " WHERE sf.snapshot_id = ?)",
            spec.key if spec else "",
            snapshot,
        )
        return Totals(files, chunks, tokens, latents, size)

    def files(self, snapshot: int) -> Iterator[tuple[int, str]]:
        """(file id, path) of a snapshot."""
        sql = "SELECT f.id, f.path FROM snapshot_file sf JOIN file f ON f.id = sf.file_id WHERE sf.snapshot_id = ?"
        for file_id, path in self.db.execute(sql, (snapshot,)):
            yield file_id, _path_out(path)

    def chunk_digests(self, snapshot: int) -> list[str]:
        sql = "SELECT c.digest FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id WHERE sf.snapshot_id = ?"
        return [name for (name,) in self.db.execute(sql, (snapshot,))]

    # --- chunks ------------------------------------------------------------------------------------------------

    def chunks(self, snapshot: int) -> Iterator[StoredChunk]:
        """All chunks of a snapshot, by path and line."""
        rows = self.db.execute(
            "SELECT c.id, f.path, c.start_line, c.end_line, c.symbol, c.text, c.tokens FROM snapshot_file sf"
            " JOIN file f ON f.id = sf.file_id JOIN chunk c ON c.file_id = f.id WHERE sf.snapshot_id = ?"
            " ORDER BY f.path, c.start_line, c.id",
            (snapshot,),
        )
        for chunk_id, path, start, end, symbol, text, tokens in rows:
            yield StoredChunk(chunk_id, Chunk(_path_out(path), start, end, symbol, text), tokens)

    def chunk(self, chunk_id: int) -> StoredChunk:
        row = self.db.execute(
            "SELECT f.path, c.start_line, c.end_line, c.symbol, c.text, c.tokens FROM chunk c"
            " JOIN file f ON f.id = c.file_id WHERE c.id = ?",
            (chunk_id,),
        ).fetchone()
        if row is None:
            raise KeyError(chunk_id)
        path, start, end, symbol, text, tokens = row
        return StoredChunk(chunk_id, Chunk(_path_out(path), start, end, symbol, text), tokens)

    # --- latents -----------------------------------------------------------------------------------------------

    def spec_made_by(self, fingerprint: str, version: int) -> MemorySpec | None:
        """The newest spec of latents made by this model and this version of the encoder, without loading the model."""
        for (text,) in self.db.execute("SELECT json FROM spec ORDER BY id DESC"):
            spec = MemorySpec.from_json(text)
            if (spec.model, spec.version) == (fingerprint, version):
                return spec
        return None

    def missing(self, spec: MemorySpec, digests: Iterable[str]) -> list[str]:
        """Those of the chunks that have no latent yet, each once, in the order given."""
        spec_id = self._spec_id(spec)
        have = "SELECT 1 FROM latent WHERE spec_id = ? AND chunk_digest = ?"
        return [d for d in dict.fromkeys(digests) if not self.db.execute(have, (spec_id, d)).fetchone()]

    def read_latents(self, spec: MemorySpec, digests: Sequence[str]) -> dict[str, Latent]:
        """The latents that are there, every byte checked. Raises IndexCorrupt naming the shard that is damaged."""
        spec_id = self._spec_id(spec)
        rows = {}
        sql = (
            "SELECT s.name, s.bytes, l.offset, l.bytes, l.tokens, l.checksum FROM latent l JOIN shard s"
            " ON s.id = l.shard_id WHERE l.spec_id = ? AND l.chunk_digest = ?"
        )
        with manifest.corruption(self.layout):
            for chunk_digest in digests:
                if row := self.db.execute(sql, (spec_id, chunk_digest)).fetchone():
                    rows[chunk_digest] = row
        places = [ShardPlace(self.layout.shard(name), *place) for name, *place in rows.values()]
        return dict(zip(rows, read_places(places), strict=True))

    def write_latents(self, spec: MemorySpec, latents: dict[str, Latent], *, eager: bool) -> int:
        """Puts the latents of some chunks into one new shard; returns its bytes."""
        checksums = {name: checksum_of(latent.data) for name, latent in latents.items()}
        name = digest(spec.key, *(f"{key} {value}" for key, value in sorted(checksums.items())))
        offsets, size = write_shard(self.layout.shard(name), spec, latents)
        with manifest.corruption(self.layout), self.db:
            self.db.execute("INSERT OR IGNORE INTO spec(key, json) VALUES (?, ?)", (spec.key, spec.to_json()))
            spec_id = self._spec_id(spec)
            self.db.execute("DELETE FROM shard WHERE name = ?", (name,))
            self.db.execute(
                "INSERT INTO shard(name, bytes, eager, used) VALUES (?, ?, ?, ?)", (name, size, eager, time.time())
            )
            shard_id = self.db.last_insert_rowid()
            self.db.executemany(
                "INSERT OR REPLACE INTO latent VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (spec_id, key, shard_id, offsets[key], len(latent.data), latent.tokens, checksums[key])
                    for key, latent in latents.items()
                ],
            )
        return size

    def make_room(self, needed: int, budget: int) -> int:
        """Drops shards until `needed` more bytes fit into the budget; returns the bytes freed.

        First shards whose latents no snapshot shows, then those filled on demand, then eager ones; among equals the
        least recently used.
        """
        total = self.count("SELECT coalesce(sum(bytes), 0) FROM shard")
        if total + needed <= budget:
            return 0
        rows = self.db.execute(
            "SELECT s.id, s.name, s.bytes FROM shard s WHERE NOT EXISTS (SELECT 1 FROM latent l WHERE l.shard_id = s.id"
            " AND l.chunk_digest = ?) ORDER BY EXISTS (SELECT 1 FROM latent l JOIN chunk c"
            " ON c.digest = l.chunk_digest WHERE l.shard_id = s.id), s.eager, s.used",
            (SINK,),
        ).fetchall()
        gone: list[tuple[Any, ...]] = []
        for row in rows:
            if total + needed <= budget:
                break
            gone.append(row)
            total -= cast(int, row[2])
        with self.db:
            self.db.executemany("DELETE FROM shard WHERE id = ?", [(shard_id,) for shard_id, _, _ in gone])
            if gone:
                self.db.execute("UPDATE snapshot SET encoded = NULL")
        for _, name, _ in gone:
            self.layout.shard(name).unlink(missing_ok=True)
        return sum(size for _, _, size in gone)

    def touch(self, spec: MemorySpec, digests: Sequence[str]) -> None:
        """Marks the shards of these latents as just used."""
        marks = ",".join("?" * len(digests))
        self.db.execute(
            f"UPDATE shard SET used = ? WHERE id IN (SELECT shard_id FROM latent WHERE spec_id = ?"
            f" AND chunk_digest IN ({marks}))",
            (time.time(), self._spec_id(spec), *digests),
        )

    def encoded_for(self, snapshot: int) -> str | None:
        """What `mark_encoded` said of the snapshot as it is now, or None after any change."""
        row = self.db.execute("SELECT encoded FROM snapshot WHERE id = ?", (snapshot,)).fetchone()
        return row[0] if row else None

    def mark_encoded(self, snapshot: int, mark: str) -> None:
        self.db.execute("UPDATE snapshot SET encoded = ? WHERE id = ?", (mark, snapshot))

    def sweep(self) -> None:
        """Deletes files in shards/ that no row names: what a killed writer left."""
        named = {name for (name,) in self.db.execute("SELECT name FROM shard")}
        for path in self.layout.shards.iterdir():
            if path.stem not in named or path.suffix != ".safetensors":
                path.unlink(missing_ok=True)

    def _spec_id(self, spec: MemorySpec) -> int | None:
        row = self.db.execute("SELECT id FROM spec WHERE key = ?", (spec.key,)).fetchone()
        return row[0] if row else None


# File names and texts may hold surrogates (names that are not UTF-8), which SQLite's text can't.


def _path_in(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _path_out(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
