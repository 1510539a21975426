"""Question -> ranked hits: the same words (BM25), the same meaning (vectors), and a few rules about code.

A chunk's worth is its share of the BM25 that a chunk of nothing but the question's words would get, plus the cosine of
its vector with the question's. Then the rules, each of which `benchmarks/retrieval` can switch off: source before
tests, examples and documents, unless those are asked for; a definition before its uses; what the best hits call comes
with them; not too much of one file.

The score of the first hit is the probability that the repository answers the question, by logistic regression over the
development questions of `benchmarks/retrieval`, and means the same in every repository; below `WEAK_SCORE` it most
likely does not. The others have as much less as they are worth less.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.definitions import referred_names
from awareness.index.search.dense_vectors import Similarities
from awareness.index.search.postings import Ranking
from awareness.index.search.terms import names_in, query_terms, stem, weighted_terms
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store
from awareness.types import Chunk, Embedder, Hit, Vector

_CANDIDATES = 64  # of each of the two rankings
_LEAST_COSINE = 0.15  # of a candidate that has none of the question's words
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
_KEYWORDS = (
    "class|def|function|func|fn|type|interface|struct|enum|trait|const|let|var|static|define|module|impl|union|typedef"
    "|macro_rules!|public|private|protected|export|abstract|final|void|int|char|bool|val"
)
_KEYWORD = re.compile(rf"\b(?:{_KEYWORDS})\b[^;={{(]*$")
_WORD_CHARACTER = re.compile(r"\w")
_CALLERS = 5  # the best hits, whose calls are followed
_CALLED = 32  # definitions at the most that they lead to
WEAK_SCORE = 0.21  # by benchmarks/retrieval/calibrate.py, as the coefficients below


@dataclass(frozen=True)
class Evidence:
    """What a question and its candidates say about whether the repository answers it.

    bm25, cosine: the largest of any candidate. known: the share of the question's weight in words that the repository
    uses. named: 1 if it uses the names of code in the question, -1 if it lacks one, 0 if there are none. terms: of the
    question.
    """

    bm25: float
    cosine: float
    known: float
    named: int
    terms: int

    def features(self, worth: float) -> tuple[float, ...]:
        """What the logistic regression sees of a hit; `benchmarks/retrieval/calibrate.py` fits it."""
        return (worth, self.bm25, self.cosine, self.known, float(self.named), math.log1p(self.terms))

    def probability(self, worth: float) -> float:
        """That the question is answered where the best hit is worth this much, in [0, 1]."""
        logit = COEFFICIENTS[0] + sum(c * x for c, x in zip(COEFFICIENTS[1:], self.features(worth), strict=True))
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


COEFFICIENTS = (-11.691, 5.173, 6.269, 0.752, 1.883, 1.54, 3.208)


@dataclass(frozen=True)
class Rules:
    """What is weighed, and how much; 0 or False is without.

    lexical, dense: a BM25 of all the question's words, a cosine of 1. kinds: tests, examples and documents count less.
    definition: what a chunk gains that defines a name in the question. calls: what a definition gains that the best
    hits call. same_file: what a chunk is worth behind another one of its file; with a name of code in the question,
    which is looked for in one place, same_file_named.
    """

    lexical: float = 1.0
    dense: float = 0.6
    kinds: bool = True
    definition: float = 0.3
    calls: float = 1.5
    same_file: float = 0.85
    same_file_named: float = 0.95


SPREAD = Rules()
"""For people, who want to see the files that matter."""
GATHERED = Rules(same_file=1.0, same_file_named=1.0)
"""For a memory, which wants the places that answer, wherever they are."""


class HybridRouter:
    """`Router` over one snapshot. in_scope: path -> may it be found; decided before ranking. embedder: where the index
    was made with an embedding model, that model; without it the words alone decide."""

    def __init__(
        self,
        store: Store,
        snapshot: int,
        in_scope: Callable[[str], bool] | None = None,
        embedder: Embedder | None = None,
        rules: Rules = SPREAD,
    ) -> None:
        self.store, self.snapshot, self.in_scope = store, snapshot, in_scope
        self.embedder, self.rules = embedder, rules

    def search(self, query: str, *, top_k: int) -> list[Hit]:
        """The best chunks, best first; empty if the question has no word that the repository or the router knows."""
        evidence, weighed = self.weigh(query, top_k=top_k)
        if not weighed:
            return []
        most = weighed[0][1] or 1.0
        answered = evidence.probability(most)
        return [Hit(chunk, round(answered * worth / most, 4)) for chunk, worth in weighed]

    def weigh(self, query: str, *, top_k: int) -> tuple[Evidence, list[tuple[Chunk, float]]]:
        """The best chunks and their worth, and what speaks for an answer being among them."""
        asked = set(query_terms(query))
        names = {name.lower() for name in names_in(query)}
        terms = weighted_terms(query)
        with self.store.reading(), failures(self.store.layout.manifest):
            candidates, known = self._candidates(query, terms, max(_CANDIDATES, 2 * top_k))
            worth = {i: self._worth(one, asked, names) for i, one in candidates.items()}
            evidence = self._evidence(names, terms, candidates, known)
            if self.rules.calls and worth:
                self._follow_calls(candidates, worth)
        same_file = self.rules.same_file_named if names else self.rules.same_file
        best = _spread(worth, candidates, same_file)[:top_k]
        return evidence, [(candidates[i].chunk, value) for i, value in best]

    def _evidence(
        self, names: set[str], terms: Mapping[str, float], candidates: Mapping[int, _Candidate], known: float
    ) -> Evidence:
        named = {stem(name) for name in names}
        held = self.store.routing.postings.frequencies(named) if named else {}
        return Evidence(
            bm25=max((one.bm25 for one in candidates.values()), default=0.0),
            cosine=max((one.cosine for one in candidates.values()), default=0.0),
            known=known,
            named=0 if not named else 1 if len(held) == len(named) else -1,
            terms=len(terms),
        )

    # --- who may be a hit --------------------------------------------------------------------------------------

    def _candidates(self, query: str, terms: dict[str, float], wanted: int) -> tuple[dict[int, _Candidate], float]:
        """The best chunks of either ranking, with what both say of them; the share of the question that is known."""
        routing = self.store.routing
        allowed = self._allowed()
        lexical, ranking = self._by_words(terms, wanted, allowed)
        if not self.rules.lexical:
            lexical = {}
        question = self._question(query, list(terms)) if self.rules.dense else None
        similar = (
            routing.vectors.similar(question, wanted) if question is not None else Similarities([], lambda ids: {})
        )
        if allowed is None:
            near = [i for i, _ in similar.best]
        else:
            among = similar.of(allowed)
            near = sorted(among, key=lambda i: -among[i])[:wanted]
        sought = [i for i in near if i not in lexical]
        chunks = self._shown(sought)
        if allowed is None and len(chunks) < len(sought) // 4:  # most of the nearest are of other snapshots
            among = similar.of(self.store.chunk_ids([file for file, _, _ in self.store.files(self.snapshot)]))
            chunks = self._shown(sorted(among, key=lambda i: -among[i])[:wanted])
        chunks |= {i: chunk for i, (chunk, _) in lexical.items()}
        cosines = similar.of(chunks)
        bound = ranking.bound or 1.0
        candidates = {
            i: _Candidate(chunk, lexical[i][1] / bound if i in lexical else 0.0, max(0.0, cosines.get(i, 0.0)))
            for i, chunk in chunks.items()
        }
        near_or_alike = {i: one for i, one in candidates.items() if one.bm25 or one.cosine >= _LEAST_COSINE}
        return near_or_alike, ranking.known

    def _question(self, query: str, terms: list[str]) -> Vector | None:
        """The question's vector, by what made those of the chunks."""
        routing = self.store.routing
        if self.embedder is not None:
            return self.embedder.question(query) if routing.made_by == self.embedder.fingerprint else None
        known = routing.terms
        return known.query(terms) if known and routing.made_by == known.fingerprint else None

    def _allowed(self) -> list[int] | None:
        """The chunks of the scope, None for all."""
        if self.in_scope is None:
            return None
        files = [file_id for file_id, path, _ in self.store.files(self.snapshot) if self.in_scope(path)]
        return self.store.chunk_ids(files)

    def _shown(self, ids: list[int]) -> dict[int, Chunk]:
        return {i: stored.chunk for i, stored in self.store.chunks_shown(self.snapshot, ids).items()}

    def _by_words(
        self, terms: dict[str, float], wanted: int, allowed: list[int] | None
    ) -> tuple[dict[int, tuple[Chunk, float]], Ranking]:
        """The best chunks of the snapshot and the scope with their BM25, and the ranking that they are of."""
        rank = self.store.routing.postings.rank
        ranking = rank(terms, wanted) if allowed is None else rank(terms).among(allowed)
        found: dict[int, tuple[Chunk, float]] = {}
        seen, batch = 0, wanted
        while len(found) < wanted and seen < len(ranking):  # those of other snapshots are passed over
            best = ranking.best(seen + batch)[seen:]
            shown = self._shown([chunk_id for chunk_id, _ in best])
            found |= {chunk_id: (shown[chunk_id], bm25) for chunk_id, bm25 in best if chunk_id in shown}
            seen, batch = seen + batch, batch * 8
            if not ranking.complete and len(found) < wanted:
                ranking = rank(terms)
        return found, ranking

    # --- rules -------------------------------------------------------------------------------------------------

    def _worth(self, one: _Candidate, asked: set[str], names: set[str]) -> float:
        """asked: the question's words. names: those that are names of code."""
        rules = self.rules
        worth = rules.lexical * one.bm25 + rules.dense * one.cosine
        if rules.kinds:
            kind = kind_of(one.chunk.path)
            worth *= 1.0 if asked & _ASKS_FOR.get(kind, set()) else _WORTH[kind]
        if rules.definition and names and kind_of(one.chunk.path) is FileKind.SOURCE:
            named = one.chunk.symbol.rpartition(".")[2].lower() in names
            if named or any(_defines(one.chunk.text, name) for name in names):
                worth += rules.definition
        return worth

    def _follow_calls(self, candidates: dict[int, _Candidate], worth: dict[int, float]) -> None:
        """Lifts the definitions that the best hits call, the more the rarer their name is."""
        routing = self.store.routing
        best = sorted(worth, key=lambda i: (-worth[i], i))[:_CALLERS]
        names = {i: referred_names(candidates[i].chunk) for i in best}
        defined = routing.definitions.of(set().union(*names.values()), self.snapshot)
        mentions = routing.postings.frequencies({stem(name.lower()) for name in defined})
        gained: dict[int, float] = defaultdict(float)
        for caller in best:
            for name in sorted(names[caller] & defined.keys()):
                clear = len(defined[name]) * math.log(2 + mentions.get(stem(name.lower()), 0))
                for i in defined[name]:
                    gained[i] += self.rules.calls * worth[caller] / clear / _CALLERS
        most = heapq.nsmallest(_CALLED, gained, key=lambda i: (-gained[i], i))
        new = self._shown([i for i in most if i not in candidates])
        may = self.in_scope or (lambda path: True)
        candidates |= {i: _Candidate(chunk, 0.0, 0.0) for i, chunk in new.items() if may(chunk.path)}
        for i in most:
            if i in candidates:
                worth[i] = worth.get(i, 0.0) + gained[i]


@dataclass(frozen=True)
class _Candidate:
    """bm25: as a share of what no chunk can exceed."""

    chunk: Chunk
    bm25: float
    cosine: float


def _spread(
    worth: Mapping[int, float], candidates: Mapping[int, _Candidate], same_file: float
) -> list[tuple[int, float]]:
    """Best first, where each further chunk of a file is worth `same_file` times as much as the one before."""

    def place(i: int) -> tuple[str, int, int]:
        return candidates[i].chunk.path, candidates[i].chunk.start_line, i

    seen: Counter[str] = Counter()
    spread: list[tuple[int, float]] = []
    for i in sorted(worth, key=lambda i: (-worth[i], place(i))):
        path = candidates[i].chunk.path
        spread.append((i, worth[i] * same_file ** seen[path]))
        seen[path] += 1
    return sorted(spread, key=lambda item: (-item[1], place(item[0])))


def _defines(text: str, name: str) -> bool:
    """Has the text a line that defines this name, in most languages? It finds what several small definitions in one
    chunk, or a macro, hide from the chunk's symbol. name: in lower case."""
    lowered = text.lower()
    at = lowered.find(name)
    while at >= 0:
        before, after = lowered[lowered.rfind("\n", 0, at) + 1 : at], lowered[at + len(name) : at + len(name) + 1]
        if _KEYWORD.search(before) and not _WORD_CHARACTER.match(before[-1:]) and not _WORD_CHARACTER.match(after):
            return True
        at = lowered.find(name, at + 1)
    return False
