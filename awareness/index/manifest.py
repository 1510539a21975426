"""The manifest: a SQLite file (through apsw) with tables of what is indexed. Its schema, and opening it safely.

WAL, synchronous=FULL. What the tables are used for is store.py's affair.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import apsw

from awareness.errors import IndexCorrupt, NoIndex
from awareness.index.layout import FORMAT_VERSION, IndexLayout
from awareness.index.shards import sync_folder

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rev TEXT, model TEXT NOT NULL,
    scope TEXT NOT NULL, encoded TEXT, updated REAL NOT NULL) STRICT;
CREATE TABLE file(id INTEGER PRIMARY KEY, path BLOB NOT NULL, digest TEXT NOT NULL, chunking TEXT NOT NULL,
    UNIQUE(path, digest, chunking)) STRICT;
CREATE TABLE snapshot_file(snapshot_id INTEGER NOT NULL REFERENCES snapshot ON DELETE CASCADE,
    file_id INTEGER NOT NULL REFERENCES file, PRIMARY KEY(snapshot_id, file_id)) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_file_by_file ON snapshot_file(file_id);
CREATE TABLE chunk(id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE,
    digest TEXT NOT NULL, start_line INTEGER NOT NULL, end_line INTEGER NOT NULL, symbol TEXT NOT NULL,
    text TEXT NOT NULL, tokens INTEGER NOT NULL) STRICT;
CREATE INDEX chunk_by_file ON chunk(file_id);
CREATE INDEX chunk_by_digest ON chunk(digest);
CREATE TABLE spec(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, json TEXT NOT NULL) STRICT;
CREATE TABLE shard(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL,
    eager INTEGER NOT NULL, used REAL NOT NULL) STRICT;
CREATE TABLE latent(spec_id INTEGER NOT NULL REFERENCES spec, chunk_digest TEXT NOT NULL,
    shard_id INTEGER NOT NULL REFERENCES shard ON DELETE CASCADE, offset INTEGER NOT NULL, bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL, checksum TEXT NOT NULL, PRIMARY KEY(spec_id, chunk_digest)) STRICT, WITHOUT ROWID;
CREATE INDEX latent_by_shard ON latent(shard_id);
CREATE VIRTUAL TABLE chunk_fts USING fts5(symbol, path, body, content='', contentless_delete=1,
    tokenize="porter unicode61 remove_diacritics 0 tokenchars '_'");
"""

_PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": True,
    "trusted_schema": False,
    "cell_size_check": True,
}
_START_AGAIN = "awareness index --rebuild"


def create(layout: IndexLayout) -> None:
    """Makes an empty manifest under another name and renames it, so that it is either whole or not there."""
    layout.create()
    temporary = layout.manifest.with_name(f"manifest.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    connection = apsw.Connection(str(temporary))
    connection.execute("PRAGMA synchronous = FULL")
    with connection:
        connection.execute(_SCHEMA)
        connection.execute("INSERT INTO meta VALUES ('format_version', ?)", (str(FORMAT_VERSION),))
    connection.close()
    temporary.rename(layout.manifest)
    sync_folder(layout.root)


def connect(layout: IndexLayout) -> apsw.Connection:
    """An open connection. Raises NoIndex, or IndexCorrupt for a file that can't be read or has an unknown format."""
    if not layout.exists:
        raise NoIndex(f"there is no index in {layout.root}", hint="awareness index")
    with corruption(layout):
        connection = apsw.Connection(str(layout.manifest), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(10_000)
        for pragma, value in _PRAGMAS.items():
            connection.pragma(pragma, value)
        found = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
    version = found[0] if found else "none"
    if version != str(FORMAT_VERSION):
        connection.close()
        raise IndexCorrupt(
            f"{layout.manifest} has format version {version}, this program reads {FORMAT_VERSION}", hint=_START_AGAIN
        )
    return connection


@contextlib.contextmanager
def corruption(layout: IndexLayout) -> Iterator[None]:
    """Turns what SQLite says of damaged files into IndexCorrupt."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise IndexCorrupt(f"{layout.manifest}: {error}", hint=_START_AGAIN) from error
    except apsw.SQLError as error:
        if "no such table" not in str(error) and "no such column" not in str(error):
            raise
        raise IndexCorrupt(f"{layout.manifest} is not an index: {error}", hint=_START_AGAIN) from error
