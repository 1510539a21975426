"""What the commits of a repository tell a search: the files that were changed when such words were written before.

The messages of past commits are documents; BM25 ranks them by a question's terms, and the files that the best of them
changed become candidates. ranking.py only adds them after its own first hits: the words of a commit say less than the
code itself. Files that often changed together with those of the best hits were tried too, and found nothing.

A commit is stored once, whichever snapshots it led to. The tables are made when they are first written: an index
without them is complete.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import apsw

from awareness.index.search.bm25 import K1, B, inverse_frequency
from awareness.index.search.terms import TERMS_VERSION, stems

MAX_MESSAGE_CHARS = 2000  # of a message that count; a squashed one may repeat hundreds
_BEST_COMMITS = 20  # whose files are candidates
_RULES = f"1.{TERMS_VERSION}"

_TABLES = """
CREATE TABLE IF NOT EXISTS past_commit(id INTEGER PRIMARY KEY, sha TEXT NOT NULL UNIQUE, terms INTEGER NOT NULL,
    paths BLOB NOT NULL, renamed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS past_term(term TEXT NOT NULL, commit_id INTEGER NOT NULL REFERENCES past_commit
    ON DELETE CASCADE, count INTEGER NOT NULL, PRIMARY KEY(term, commit_id)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS past_term_by_commit ON past_term(commit_id);
CREATE TABLE IF NOT EXISTS past(snapshot_id INTEGER PRIMARY KEY REFERENCES snapshot ON DELETE CASCADE,
    rules TEXT NOT NULL, tip TEXT NOT NULL, commits BLOB NOT NULL, terms BLOB NOT NULL, renamed BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Change:
    """What one commit did. paths: that it changed, none if they were too many. renamed: old path -> new path, of files
    that it moved."""

    sha: str
    message: str
    paths: Sequence[str]
    renamed: Mapping[str, str]


class History:
    """The past of the snapshots of an open manifest. Call the methods that write inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection

    # --- writing -----------------------------------------------------------------------------------------------

    def tip(self, snapshot: int) -> str | None:
        """The commit whose past is stored; None for a snapshot without one, and for one that has to be read again."""
        row = self._past(snapshot, "tip, rules")
        return cast(str, row[0]) if row and row[1] == _RULES else None

    def known(self) -> set[str]:
        """The hashes of the commits that are stored and need not be read again."""
        if not self._has_tables:
            return set()
        rows = self.db.execute(
            "SELECT sha FROM past_commit WHERE EXISTS (SELECT 1 FROM past WHERE rules = ?)", (_RULES,)
        )
        return {cast(str, sha) for (sha,) in rows}

    def write(self, snapshot: int, tip: str, order: Sequence[str], new: Iterable[Change]) -> None:
        """Replaces the past of a snapshot. tip: its commit. order: the hashes of its past commits, newest first. new:
        those that are not stored yet. Deletes commits that no snapshot has any more."""
        self.db.execute(_TABLES)
        if self.db.execute("SELECT 1 FROM past WHERE rules <> ?", (_RULES,)).fetchone():
            self.db.execute("DELETE FROM past")
            self.db.execute("DELETE FROM past_commit")
        for change in new:
            counts = Counter(stems(change.message[:MAX_MESSAGE_CHARS]))
            self.db.execute(
                "INSERT OR REPLACE INTO past_commit(sha, terms, paths, renamed) VALUES (?, ?, ?, ?)",
                (change.sha, min(counts.total(), 65535), _joined(change.paths), _joined(_pairs(change.renamed))),
            )
            commit = self.db.last_insert_rowid()
            self.db.executemany("INSERT INTO past_term VALUES (?, ?, ?)", ((t, commit, n) for t, n in counts.items()))
        stored = {sha: (i, terms, renamed) for sha, i, terms, renamed in self._stored(order)}
        listed = [stored[sha] for sha in order if sha in stored]
        renamed: dict[str, str] = {}
        for _, _, moves in listed:  # newest first: what a file is called now is known before its older names
            split = _split(moves)
            for old, new_name in zip(split[::2], split[1::2], strict=True):
                renamed.setdefault(old, renamed.get(new_name, new_name))
        self.db.execute(
            "INSERT OR REPLACE INTO past VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(snapshot, _RULES, tip, array("I", (i for i, _, _ in listed)).tobytes()),
                *(array("H", (terms for _, terms, _ in listed)).tobytes(), _joined(_pairs(renamed))),
            ),
        )
        used = {i for (commits,) in self.db.execute("SELECT commits FROM past") for i in array("I", commits)}
        unused = [i for (i,) in self.db.execute("SELECT id FROM past_commit") if i not in used]
        self.db.execute("DELETE FROM past_commit WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(unused),))

    def _stored(self, order: Sequence[str]) -> Iterable[tuple[str, int, int, bytes]]:
        sql = (
            "SELECT c.sha, c.id, c.terms, c.renamed FROM json_each(?) listed"
            " CROSS JOIN past_commit c ON c.sha = listed.value"
        )
        return cast("Iterable[tuple[str, int, int, bytes]]", self.db.execute(sql, (json.dumps(list(order)),)))

    # --- reading -----------------------------------------------------------------------------------------------

    def files(self, snapshot: int, weights: Mapping[str, float], present: Container[str]) -> list[tuple[str, float]]:
        """(path, worth) of the files that the commits with a question's words changed, best first.

        weights: stemmed term -> its weight. present: the paths that may be named. The worth of a file is the sum of its
        commits' squared scores, each divided by the square root of the number of files that the commit changed; a score
        is BM25 as a share of the largest possible.
        """
        past = self._past(snapshot, "commits, terms, renamed")
        if past is None:
            return []
        commits, lengths = array("I", cast(bytes, past[0])), array("H", cast(bytes, past[1]))
        best = self._best(dict(zip(commits, lengths, strict=True)), weights)
        renamed = _renamed(past[2])
        worth: dict[str, float] = defaultdict(float)
        for commit, paths in self._paths(list(best)):
            current = {path if path in present else renamed.get(path, path) for path in paths}
            inside = [path for path in current if path in present]
            for path in inside:
                worth[path] += best[commit] ** 2 / math.sqrt(len(inside))
        return sorted(worth.items(), key=lambda item: (-item[1], item[0]))

    def _best(self, lengths: Mapping[int, int], weights: Mapping[str, float]) -> dict[int, float]:
        """Commit -> its BM25 as a share of the largest possible, of the best ones. lengths: commit -> its terms."""
        average = sum(lengths.values()) / max(1, len(lengths))
        scores: dict[int, float] = defaultdict(float)
        bound = 0.0
        for term, weight in weights.items():
            rows = self.db.execute("SELECT commit_id, count FROM past_term WHERE term = ?", (term,))
            holding = [(cast(int, i), cast(int, count)) for i, count in rows if i in lengths]
            idf = inverse_frequency(len(lengths), len(holding))
            bound += weight * idf * (K1 + 1)
            for i, count in holding:
                scores[i] += weight * idf * (K1 + 1) * count / (count + K1 * (1 - B + B * lengths[i] / average))
        best = sorted(scores, key=lambda i: (-scores[i], i))[:_BEST_COMMITS]
        return {i: scores[i] / bound for i in best}

    def _paths(self, commits: Sequence[int]) -> Iterable[tuple[int, list[str]]]:
        sql = "SELECT c.id, c.paths FROM json_each(?) listed CROSS JOIN past_commit c ON c.id = listed.value"
        for i, paths in self.db.execute(sql, (json.dumps(commits),)):
            yield cast(int, i), _split(cast(bytes, paths))

    def _past(self, snapshot: int, columns: str) -> tuple[apsw.SQLiteValue, ...] | None:
        if not self._has_tables:
            return None
        return self.db.execute(f"SELECT {columns} FROM past WHERE snapshot_id = ?", (snapshot,)).fetchone()

    @property
    def _has_tables(self) -> bool:
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'past'"
        return self.db.execute(sql).fetchone() is not None


def _joined(paths: Iterable[str]) -> bytes:
    return "\0".join(paths).encode("utf-8", "surrogateescape")


def _split(paths: bytes) -> list[str]:
    return paths.decode("utf-8", "surrogateescape").split("\0") if paths else []


def _pairs(renamed: Mapping[str, str]) -> Iterable[str]:
    return (path for pair in renamed.items() for path in pair)


def _renamed(pairs: apsw.SQLiteValue) -> dict[str, str]:
    split = _split(cast(bytes, pairs))
    return dict(zip(split[::2], split[1::2], strict=True))
