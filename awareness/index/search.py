"""Question -> ranked hits: BM25 over pre-expanded identifiers, with weight on symbol and path, and a few rules.

The score of a hit is its BM25 sum divided by what a chunk would get that consists of nothing but the question's
words, so it lies in [0, 1], and words that the repository never uses count against it: a question about something
else scores low everywhere. `WEAK_SCORE` is where `ask` stops believing it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from awareness.index.kinds import FileKind, kind_of
from awareness.index.lexical import query_terms, stem
from awareness.index.manifest import failures
from awareness.index.store import Store
from awareness.types import Chunk, Hit

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
        words = query_terms(query)
        with self.store.reading(), failures(self.store.layout.manifest):
            candidates, bound = self._candidates([stem(word) for word in words], max(_CANDIDATES, 4 * top_k))
        asked = set(words)
        hits = []
        for chunk, bm25 in candidates:
            kind = kind_of(chunk.path)
            worth = 1.0 if asked & _ASKS_FOR.get(kind, set()) else _WORTH[kind]
            name = chunk.symbol.rpartition(".")[2].lower()
            if name and name in asked:  # the definition itself, rather than its uses
                worth *= 1.2
            hits.append(Hit(chunk, min(1.0, worth * bm25 / bound)))
        hits.sort(key=lambda hit: (-hit.score, hit.chunk.path, hit.chunk.start_line))
        return [replace(hit, score=round(hit.score, 4)) for hit in _spread(hits)[:top_k]]

    def _candidates(self, terms: list[str], wanted: int) -> tuple[list[tuple[Chunk, float]], float]:
        """The best chunks of the snapshot and the scope with their BM25, and what no chunk can exceed."""
        rank = self.store.postings.rank
        if self.in_scope is None:
            ranking = rank(terms, wanted)
        else:
            files = [file_id for file_id, path, _ in self.store.files(self.snapshot) if self.in_scope(path)]
            ranking = rank(terms).among(self.store.chunk_ids(files))
        found: list[tuple[Chunk, float]] = []
        seen, batch = 0, wanted
        while len(found) < wanted and seen < len(ranking):  # those of other snapshots are passed over
            best = ranking.best(seen + batch)[seen:]
            shown = self.store.chunks_shown(self.snapshot, [chunk_id for chunk_id, _ in best])
            found += [(shown[chunk_id].chunk, bm25) for chunk_id, bm25 in best if chunk_id in shown]
            seen, batch = seen + batch, batch * 8
            if not ranking.complete and len(found) < wanted:
                ranking = rank(terms)
        return found[:wanted], ranking.bound


def _spread(hits: list[Hit]) -> list[Hit]:
    """At most `_PER_FILE` of a file first, the rest behind."""
    seen: Counter[str] = Counter()
    first: list[Hit] = []
    rest: list[Hit] = []
    for hit in hits:
        seen[hit.chunk.path] += 1
        (first if seen[hit.chunk.path] <= _PER_FILE else rest).append(hit)
    return first + rest
