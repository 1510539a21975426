"""Question -> ranked hits: BM25 over pre-expanded identifiers, with weight on symbol and path, and a few rules.

The score of a hit is its BM25 sum divided by what a chunk would get that consists of nothing but the question's
words, so it lies in [0, 1], and words that the repository never uses count against it: a question about something
else scores low everywhere. `WEAK_SCORE` is where `ask` stops believing it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from awareness.index.kinds import FileKind, kind_of
from awareness.index.lexical import query_terms
from awareness.index.store import Store
from awareness.types import Hit

SYMBOL_WEIGHT, PATH_WEIGHT, BODY_WEIGHT = 6.0, 4.0, 1.0
_K1 = 1.2  # of FTS5's bm25()
_CANDIDATES = 200
_PER_FILE = 3  # chunks of one file among the hits, so that one long file can't take all places
_WORTH = {
    FileKind.SOURCE: 1.0,
    FileKind.TEST: 0.6,
    FileKind.EXAMPLE: 0.7,
    FileKind.DOCS: 0.8,
    FileKind.OTHER: 0.7,
}
_ASKS_FOR = {
    FileKind.TEST: {"test", "tests", "tested", "testing", "fixture"},
    FileKind.EXAMPLE: {"example", "examples", "demo", "sample", "benchmark", "benchmarks"},
    FileKind.DOCS: {"docs", "documentation", "documented", "readme", "changelog", "release", "guide"},
}
WEAK_SCORE = 0.25


class LexicalRouter:
    """`Router` over one snapshot. in_scope: path -> may it be found; decided before ranking."""

    def __init__(self, store: Store, snapshot: int, in_scope: Callable[[str], bool] | None = None) -> None:
        self.store, self.snapshot, self.in_scope = store, snapshot, in_scope

    def search(self, query: str, *, top_k: int) -> list[Hit]:
        """The best chunks, best first; empty if no word of the question is in the repository."""
        terms = query_terms(query)
        with self.store.reading():
            rows = self._candidates(terms)
            if not rows:
                return []
            best = self._best_possible(terms)
            chunks = self.store.chunks_by_id([chunk_id for chunk_id, _ in rows])
        words = set(terms)
        hits = []
        for chunk_id, bm25 in rows:
            chunk = chunks[chunk_id].chunk
            kind = kind_of(chunk.path)
            worth = 1.0 if words & _ASKS_FOR.get(kind, set()) else _WORTH[kind]
            name = chunk.symbol.rpartition(".")[2].lower()
            if name and name in words:  # the definition itself, rather than its uses
                worth *= 1.2
            hits.append(Hit(chunk, min(1.0, worth * -bm25 / best)))
        hits.sort(key=lambda hit: (-hit.score, hit.chunk.path, hit.chunk.start_line))
        return [replace(hit, score=round(hit.score, 4)) for hit in _spread(hits)[:top_k]]

    def _candidates(self, terms: list[str]) -> list[tuple[int, float]]:
        """(chunk id, bm25, lower is better) of the chunks that match any term."""
        if not terms:
            return []
        scope = ""
        if self.in_scope is not None:
            self._fill_scope()
            scope = " AND c.file_id IN (SELECT file_id FROM temp.scope)"
        rows = self.store.rows(
            f"SELECT c.id, bm25(chunk_fts, {SYMBOL_WEIGHT}, {PATH_WEIGHT}, {BODY_WEIGHT}) AS rank FROM chunk_fts"
            " JOIN chunk c ON c.id = chunk_fts.rowid JOIN snapshot_file sf ON sf.file_id = c.file_id"
            f" AND sf.snapshot_id = ? WHERE chunk_fts MATCH ?{scope} ORDER BY rank LIMIT {_CANDIDATES}",
            self.snapshot,
            " OR ".join(f'"{term}"' for term in terms),
        )
        return list(rows)

    def _fill_scope(self) -> None:
        assert self.in_scope is not None
        self.store.db.execute(
            "CREATE TEMP TABLE IF NOT EXISTS scope(file_id INTEGER PRIMARY KEY); DELETE FROM temp.scope"
        )
        inside = [(file_id,) for file_id, path, _ in self.store.files(self.snapshot) if self.in_scope(path)]
        self.store.db.executemany("INSERT INTO temp.scope VALUES (?)", inside)

    def _best_possible(self, terms: list[str]) -> float:
        """The bound of FTS5's BM25: the sum of idf·(k1 + 1). A word that is nowhere has the highest idf."""
        total = self.store.count("SELECT count(*) FROM chunk")
        bound = 0.0
        for term in terms:
            sql = "SELECT count(*) FROM chunk_fts WHERE chunk_fts MATCH ?"
            matching = self.store.count(sql, f'"{term}"')
            bound += max(1e-6, math.log((total - matching + 0.5) / (matching + 0.5))) * (_K1 + 1)
        return bound


def _spread(hits: list[Hit]) -> list[Hit]:
    """At most `_PER_FILE` of a file first, the rest behind."""
    seen: Counter[str] = Counter()
    first: list[Hit] = []
    rest: list[Hit] = []
    for hit in hits:
        seen[hit.chunk.path] += 1
        (first if seen[hit.chunk.path] <= _PER_FILE else rest).append(hit)
    return first + rest
