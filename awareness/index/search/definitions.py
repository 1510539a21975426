"""The names that source code defines, and the definitions that a chunk refers to.

A chunk defines its symbol, as tree-sitter found it, and refers to every name in its text that some other chunk defines.
Names are stored in their plain form (terms.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import cast

import apsw

from awareness.index.files.file_kinds import kind_of
from awareness.index.unicode_forms import plain
from awareness.types import Chunk, last_name

SCHEMA = """
CREATE TABLE definition(name TEXT NOT NULL, chunk_id INTEGER NOT NULL REFERENCES chunk ON DELETE CASCADE,
    PRIMARY KEY(name, chunk_id)) STRICT, WITHOUT ROWID;
CREATE INDEX definition_by_chunk ON definition(chunk_id);
"""
MOST_DEFINITIONS = 6  # of one name; a name with more is ambiguous and ignored
_MOST_COUNTED = 64  # definitions of a name in all snapshots; names with more are not counted
_NAME = re.compile(r"[^\W\d]\w{2,254}|[\u3040-\uffff]\w+")  # a name in Chinese may have two characters


class Definitions:
    """The definitions of an open manifest. Call the methods that write inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection

    def add(self, chunk_id: int, chunk: Chunk) -> None:
        if name := defined_name(chunk):
            self.db.execute("INSERT OR IGNORE INTO definition VALUES (?, ?)", (name, chunk_id))

    def clear(self) -> None:
        self.db.execute("DELETE FROM definition")

    def has(self, name: str) -> bool:
        """Does a chunk of any snapshot define a name (plain) as its symbol?"""
        return self.db.execute("SELECT 1 FROM definition WHERE name = ? LIMIT 1", (name,)).fetchone() is not None

    def of(self, names: Iterable[str], snapshot: int) -> dict[str, list[int]]:
        """name -> ids of the snapshot's chunks that define it; names with over `MOST_DEFINITIONS` are left out."""
        rows = self.db.execute(
            "WITH rare AS (SELECT value AS name FROM json_each(?) WHERE"
            " (SELECT count(*) FROM (SELECT 1 FROM definition WHERE definition.name = value LIMIT ?)) BETWEEN 1 AND ?)"
            " SELECT definition.name, json_group_array(chunk_id) FROM rare"
            " CROSS JOIN definition ON definition.name = rare.name CROSS JOIN chunk ON chunk.id = chunk_id WHERE EXISTS"
            " (SELECT 1 FROM snapshot_file WHERE snapshot_id = ? AND file_id = chunk.file_id)"
            " GROUP BY definition.name HAVING count(*) <= ?",
            (json.dumps(sorted(names)), _MOST_COUNTED + 1, _MOST_COUNTED, snapshot, MOST_DEFINITIONS),
        )
        return {cast(str, name): sorted(json.loads(cast(str, ids))) for name, ids in rows}

    def of_symbol(self, qualified: str, snapshot: int) -> list[int]:
        """The ids of the snapshot's chunks whose symbol is `Class.method`, or ends with it."""
        rows = self.db.execute(
            "SELECT chunk.id FROM definition CROSS JOIN chunk ON chunk.id = chunk_id WHERE name = ?"
            " AND (symbol = ? OR substr(symbol, -length(?) - 1) = '.' || ?) AND EXISTS"
            " (SELECT 1 FROM snapshot_file WHERE snapshot_id = ? AND file_id = chunk.file_id)"
            " ORDER BY chunk.id LIMIT ?",
            (qualified.rpartition(".")[2], qualified, qualified, qualified, snapshot, MOST_DEFINITIONS),
        )
        return [cast(int, row[0]) for row in rows]

    def of_length(self, least: int, most: int) -> list[str]:
        """The defined names of this many characters."""
        rows = self.db.execute("SELECT DISTINCT name FROM definition WHERE length(name) BETWEEN ? AND ?", (least, most))
        return [cast(str, row[0]) for row in rows]


def referred_names(chunk: Chunk) -> set[str]:
    """The names in a chunk's text, without its own."""
    return set(_NAME.findall(plain(chunk.text))) - {_last(chunk)}


def _last(chunk: Chunk) -> str:
    return plain(last_name(chunk.symbol))


def defined_name(chunk: Chunk) -> str:
    """The last part of the symbol of a chunk of code, else an empty string."""
    name = _last(chunk)
    return name if _NAME.fullmatch(name) and kind_of(chunk.path).is_code else ""
