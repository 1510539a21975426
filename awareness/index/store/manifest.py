"""The manifest of an index: its SQLite schema, and opening it safely (through apsw).

It uses WAL, synchronous=FULL and SQLite's checksum VFS: eight bytes at the end of every page, compared whenever the
page is read, so that a flipped bit never passes for data. store.py and latent_table.py read and write the tables.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import apsw

from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, StorageFailed, storage_errors, storage_failed
from awareness.index.search.routing_index import SCHEMA as ROUTING_SCHEMA
from awareness.index.store.layout import FORMAT_VERSION, IndexLayout
from awareness.index.store.shards import REPAIR
from awareness.index.store.tensorfile import sync_folder

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rev TEXT, model TEXT NOT NULL,
    scope TEXT NOT NULL, encoded TEXT, updated REAL NOT NULL) STRICT;
CREATE TABLE file(id INTEGER PRIMARY KEY, path BLOB NOT NULL, digest TEXT NOT NULL, chunking TEXT NOT NULL,
    secrets TEXT NOT NULL, UNIQUE(path, digest, chunking)) STRICT;
CREATE TABLE snapshot_file(snapshot_id INTEGER NOT NULL REFERENCES snapshot ON DELETE CASCADE,
    file_id INTEGER NOT NULL REFERENCES file, PRIMARY KEY(snapshot_id, file_id)) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_file_by_file ON snapshot_file(file_id);
CREATE TABLE chunk(id INTEGER PRIMARY KEY AUTOINCREMENT, file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE,
    digest TEXT NOT NULL, start_line INTEGER NOT NULL, end_line INTEGER NOT NULL, symbol TEXT NOT NULL,
    text TEXT NOT NULL, tokens INTEGER NOT NULL) STRICT;
CREATE INDEX chunk_by_file ON chunk(file_id);
CREATE INDEX chunk_by_digest ON chunk(digest);
CREATE TABLE spec(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, json TEXT NOT NULL) STRICT;
CREATE TABLE shard(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL,
    header TEXT NOT NULL, eager INTEGER NOT NULL, used REAL NOT NULL) STRICT;
CREATE TABLE latent(spec_id INTEGER NOT NULL REFERENCES spec, chunk_digest TEXT NOT NULL,
    shard_id INTEGER NOT NULL REFERENCES shard ON DELETE CASCADE, offset INTEGER NOT NULL, bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL, checksum TEXT NOT NULL, PRIMARY KEY(spec_id, chunk_digest)) STRICT, WITHOUT ROWID;
CREATE INDEX latent_by_shard ON latent(shard_id);
"""

_PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": True,
    "trusted_schema": False,
    "cell_size_check": True,
}
_WRITING = {"journal_mode", "synchronous"}
"""Settings that only matter to, or need, a manifest that may be written."""
_CHECKSUM_BYTES = 8  # at the end of each page, for the checksum VFS


@functools.cache
def checksum_vfs() -> str:
    """The name of SQLite's checksum VFS, loaded once in a process. Raises StorageFailed if apsw does not have it."""
    from apsw import sqlite_extra

    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        try:
            sqlite_extra.load(connection, "cksumvfs")
        except (sqlite_extra.NotAvailable, LookupError, apsw.Error) as error:
            raise StorageFailed(
                f"this build of apsw has no checksums for SQLite: {error}", hint="pip install --only-binary apsw apsw"
            ) from error
    return "cksmvfs"


def create(layout: IndexLayout, fill: Callable[[apsw.Connection], None]) -> None:
    """Creates a manifest under another name and renames it, so that it is complete or missing.

    fill: writes its content. An existing manifest is replaced. Call inside `writing(layout)`.
    """
    with failures(layout.manifest):
        layout.create()
        for leftover in layout.root.glob("manifest.*.tmp*"):  # of a writer that was killed
            leftover.unlink(missing_ok=True)
        temporary = layout.manifest.with_name(f"manifest.{os.getpid()}.tmp")
        with contextlib.closing(apsw.Connection(str(temporary), vfs=checksum_vfs())) as connection:
            connection.reserve_bytes("main", _CHECKSUM_BYTES)
            connection.pragma("synchronous", "FULL")
            with connection:
                connection.execute(_SCHEMA + ROUTING_SCHEMA)
                connection.execute("INSERT INTO meta VALUES ('format_version', ?)", (str(FORMAT_VERSION),))
                fill(connection)
            connection.pragma("journal_mode", "WAL")  # now, so that no two readers try to change it
        delete(layout)  # or the old log would be applied to the new file
        os.rename(temporary, layout.manifest)
        sync_folder(layout.root)


def delete(layout: IndexLayout) -> None:
    """Deletes the manifest and its log. Only for one that cannot be opened, as readers may have it open."""
    with failures(layout.manifest):
        for suffix in ("", "-wal", "-shm", "-journal"):  # the file first: without its log it has other content
            layout.manifest.with_name(f"{layout.manifest.name}{suffix}").unlink(missing_ok=True)


def connect(layout: IndexLayout) -> apsw.Connection:
    """Opens the manifest. Raises NoIndex, or IndexCorrupt for a file that is damaged or of an unknown format."""
    if not layout.exists:
        raise NoIndex(f"there is no index in {layout.root}", hint="awareness index")
    with failures(layout.manifest):
        may_write = all(os.access(path, os.W_OK) for path in (layout.root, layout.manifest))
        connection = _opened(layout, may_write=may_write)
        try:
            connection.set_busy_timeout(10_000)
            for pragma, value in _PRAGMAS.items():
                if may_write or pragma not in _WRITING:
                    connection.pragma(pragma, value)
            row = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
            version = row[0] if row else "none"
            if version != str(FORMAT_VERSION):
                raise IndexCorrupt(
                    f"{layout.manifest} has format version {version}, this program reads {FORMAT_VERSION}",
                    hint=REPAIR,
                )
            if str(connection.pragma("checksum_verification")) != "1":
                raise IndexCorrupt(f"{layout.manifest} has no checksums", hint=REPAIR)
        except BaseException:
            connection.close()
            raise
    return connection


def _opened(layout: IndexLayout, *, may_write: bool) -> apsw.Connection:
    """Where nothing may be written, WAL cannot have its shared memory: without a log to read, SQLite takes the file as
    one that nobody changes."""
    if may_write:
        return apsw.Connection(str(layout.manifest), flags=apsw.SQLITE_OPEN_READWRITE, vfs=checksum_vfs())
    log = layout.manifest.with_name(f"{layout.manifest.name}-wal")
    is_immutable = not log.exists() or log.stat().st_size == 0
    uri = f"file:{quote(str(layout.manifest))}" + ("?immutable=1" if is_immutable else "")
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=checksum_vfs())


def rows(connection: apsw.Connection, manifest: Path, sql: str, *values: apsw.SQLiteValue) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, one by one, inside `failures(manifest)`."""
    with failures(manifest):
        yield from cast("Iterator[tuple[Any, ...]]", connection.execute(sql, values))


@contextlib.contextmanager
def failures(manifest: Path) -> Iterator[None]:
    """Turns errors of SQLite into IndexCorrupt (damage), StorageFailed (the disk) or IndexLocked."""
    try:
        with storage_errors(manifest):
            yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise IndexCorrupt(f"{manifest}: {error}", hint=REPAIR) from error
    except (apsw.IOError, apsw.FullError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
            raise IndexCorrupt(f"{manifest}: a page is damaged", hint=REPAIR) from error
        number = {apsw.IOError: errno.EIO, apsw.FullError: errno.ENOSPC}.get(type(error), errno.EACCES)
        raise storage_failed(manifest, OSError(number, str(error))) from error
    except apsw.BusyError as error:
        raise IndexLocked(f"{manifest} is being written: {error}", hint="try again when it has finished") from error
    except apsw.SQLError as error:
        if "cannot rollback" in str(error) or "no such savepoint" in str(error):
            with failures(manifest):  # SQLite has rolled back by itself after another error, which is the one to report
                raise error.__context__ or apsw.IOError("the disk is full or fails") from None
        if "no such table" not in str(error) and "no such column" not in str(error):
            raise
        raise IndexCorrupt(f"{manifest} is not an index: {error}", hint=REPAIR) from error
