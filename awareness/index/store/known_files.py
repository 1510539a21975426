"""The files of a work tree as they were last read, in the manifest: the next refresh reads only those that changed.

A table beside the others, made when it is first written: an index without it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from awareness.index.files.file_stat import FileStat, KnownFile
from awareness.index.store.store import Store, path_in, path_out

_TABLE = """CREATE TABLE IF NOT EXISTS known_file(snapshot TEXT NOT NULL, path BLOB NOT NULL, rules TEXT NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode TEXT NOT NULL,
    digest TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY(snapshot, path)) STRICT, WITHOUT ROWID"""


def read_known(store: Store, snapshot: str, rules: str) -> dict[str, KnownFile]:
    """path -> the file as it was last read. snapshot: its name. rules: the version of the rules that judge files."""
    if not _has_table(store):
        return {}
    rows = store.rows(
        "SELECT path, size, mtime_ns, ctime_ns, inode, digest, reason FROM known_file WHERE snapshot = ? AND rules = ?",
        snapshot,
        rules,
    )
    return {
        path_out(path): KnownFile(FileStat(size, mtime, ctime, int(inode)), digest, reason)
        for path, size, mtime, ctime, inode, digest, reason in rows
    }


def write_known(
    store: Store, snapshot: str, rules: str, known: Mapping[str, KnownFile], gone: Iterable[str] = ()
) -> None:
    """Adds and replaces these files, and forgets those that are gone. Call inside `writing(layout)`."""
    with store.changing():
        store.db.execute(_TABLE)
        store.db.executemany(
            "INSERT OR REPLACE INTO known_file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (snapshot, path_in(path), rules, *file.stat[:3], str(file.stat.inode), file.digest, file.reason)
                for path, file in known.items()
            ),
        )
        store.db.executemany(
            "DELETE FROM known_file WHERE snapshot = ? AND path = ?", ((snapshot, path_in(path)) for path in gone)
        )
        store.db.execute("DELETE FROM known_file WHERE snapshot NOT IN (SELECT name FROM snapshot)")


def _has_table(store: Store) -> bool:
    return store.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'known_file'") is not None
