"""Who defines what: the repository's names, and with them the step from a chunk to the definitions it rests on.

A chunk defines its symbol, which tree-sitter found; it refers to every name in its text that source code defines
somewhere. How often a name is mentioned says how little it tells: `get` leads nowhere, `build_redirect_request` does.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

import apsw

from awareness.index.kinds import FileKind, kind_of
from awareness.types import Chunk

SCHEMA = """
CREATE TABLE definition(name TEXT NOT NULL, chunk_id INTEGER NOT NULL REFERENCES chunk ON DELETE CASCADE,
    PRIMARY KEY(name, chunk_id)) STRICT, WITHOUT ROWID;
CREATE INDEX definition_by_chunk ON definition(chunk_id);
"""
MOST_DEFINITIONS = 6  # of one name: beyond it one can't tell which is meant
_NAME = re.compile(r"[^\W\d]\w{2,63}")


class Definitions:
    """Of one open manifest. Methods that write are called inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection

    def add(self, chunk_id: int, chunk: Chunk) -> None:
        name = defined_name(chunk)
        if name:
            self.db.execute("INSERT OR IGNORE INTO definition VALUES (?, ?)", (name, chunk_id))

    def clear(self) -> None:
        self.db.execute("DELETE FROM definition")

    def called_by(self, chunk: Chunk, snapshot: int) -> dict[str, list[int]]:
        """The names that a chunk refers to, and the chunks of the snapshot that define each, where it is clear enough
        which is meant."""
        names = set(_NAME.findall(chunk.text)) - {chunk.symbol.rpartition(".")[2]}
        rows = self.db.execute(
            "SELECT name, chunk_id FROM json_each(?) listed CROSS JOIN definition ON name = listed.value"
            " CROSS JOIN chunk ON chunk.id = chunk_id WHERE EXISTS"
            " (SELECT 1 FROM snapshot_file WHERE snapshot_id = ? AND file_id = chunk.file_id)",
            (json.dumps(sorted(names)), snapshot),
        )
        return _few(rows)


def defined_name(chunk: Chunk) -> str:
    """The last part of a symbol of source code, `` if it is none."""
    name = chunk.symbol.rpartition(".")[2]
    return name if _NAME.fullmatch(name) and kind_of(chunk.path) is FileKind.SOURCE else ""


def _few(rows: Iterable[tuple[object, ...]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for name, chunk_id in rows:
        found[str(name)].append(int(str(chunk_id)))
    return {name: ids for name, ids in found.items() if len(ids) <= MOST_DEFINITIONS}
