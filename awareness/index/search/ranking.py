"""Question -> ranked hits: BM25 for the same words, vectors for the same meaning, and a few rules about code.

The relevance of a chunk is its BM25, divided by the highest BM25 that the question allows, plus the cosine of its
vector with the question's. Then the rules, each of which `benchmarks/retrieval` can switch off: source comes before
tests, examples and documents, unless the question asks for those; a definition comes before its uses; definitions that
the best hits call come with them; further chunks of one file count less.

The score of the first hit is the probability that the repository answers the question (evidence.py). The other hits
score less in proportion to their relevance.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from awareness.index.chunks.data_files import is_data
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.defining_lines import defines
from awareness.index.search.definitions import referred_names
from awareness.index.search.dense_vectors import NO_SIMILARITIES
from awareness.index.search.evidence import Evidence
from awareness.index.search.postings import Ranking
from awareness.index.search.priors import prior
from awareness.index.search.question import Question
from awareness.index.search.terms import stem, terms_of_name, words_of
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store
from awareness.index.unicode_forms import fold, plain
from awareness.types import Chunk, Embedder, Hit, Vector, last_name

_CANDIDATES = 64  # from each of the two rankings
_WIDER = 16  # times as many, if most are data: a build may repeat a name that often
_LEAST_COSINE = 0.15  # of a candidate without any of the question's words
_COSINE_OF_BM25 = 0.8  # assumed for a question in a language that the term vectors do not know
_CALLERS = 5  # best hits whose calls are followed
_CALLED = 32  # definitions at most that those calls add


@dataclass(frozen=True)
class Rules:
    """The weights of the ranking; 0 or False switches a rule off.

    lexical, dense: of the largest possible BM25, of a cosine of 1. kinds: tests, examples and documents count less.
    definition: added to a chunk that defines a name in the question. calls: added to a definition that the best hits
    call. same_file: factor for each better chunk of the same file; same_file_named: the same for a question with a name
    of code, whose answer is in one place. artefacts: factor for files of data, if the question has a name that is also
    in code: what a build makes of the code holds the same names.
    """

    lexical: float = 1.0
    dense: float = 0.6
    kinds: bool = True
    definition: float = 0.3
    calls: float = 1.5
    same_file: float = 0.85
    same_file_named: float = 0.95
    artefacts: float = 0.4


SPREAD = Rules()
"""For people, who want to see different files."""
GATHERED = Rules(same_file=1.0, same_file_named=1.0)
"""For a memory, which needs the best chunks, even if all are from one file."""


class HybridRouter:
    """Finds the chunks of one snapshot that answer a question.

    in_scope: path -> may it be a hit; applied before ranking. embedder: the embedding model that the index was made
    with, if any; without it such an index is searched by words alone.
    """

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
        """The best chunks, best first; none if neither the repository nor the router knows a word of the query."""
        evidence, ranked = self._weigh(query, top_k=top_k)
        if not ranked:
            return []
        highest = ranked[0][1] or 1.0
        probability = evidence.probability(highest)
        if evidence.named > 0 and len(words_of(query)) == 1:
            probability = max(probability, 0.5)  # the word stands there, whatever else does
        best = _without_copies(ranked)[:top_k]
        return [Hit(chunk, round(probability * value / highest, 4), copies) for chunk, value, copies in best]

    def weigh(self, query: str, *, top_k: int) -> tuple[Evidence, list[tuple[Chunk, float]]]:
        """The evidence for an answer, and the best chunks with their relevance, best first."""
        evidence, ranked = self._weigh(query, top_k=top_k)
        return evidence, [(chunk, value) for chunk, value, _ in _without_copies(ranked)[:top_k]]

    def _weigh(self, query: str, *, top_k: int) -> tuple[Evidence, list[tuple[Chunk, float]]]:
        """As `weigh`, with all candidates and with copies."""
        question = Question(query)
        names = question.names
        with self.store.reading(), failures(self.store.layout.manifest):
            wanted = max(_CANDIDATES, 2 * top_k)
            candidates, known = self._candidates(question, wanted)
            if names and sum(_is_artefact(candidate.chunk.path) for candidate in candidates.values()) > wanted / 2:
                candidates, known = self._candidates(question, wanted * _WIDER)
            relevance = {i: self._relevance(candidate, question) for i, candidate in candidates.items()}
            evidence = self._evidence(question, candidates, known)
            if names:
                self._after_code(candidates, relevance, question)
            if self.rules.calls and relevance:
                self._follow_calls(candidates, relevance)
        same_file = self.rules.same_file_named if names else self.rules.same_file
        best = _spread(relevance, candidates, same_file)
        return evidence, [(candidates[i].chunk, value) for i, value in best]

    def _evidence(self, question: Question, candidates: Mapping[int, _Candidate], known: float) -> Evidence:
        stemmed = set().union(*map(terms_of_name, question.names))
        used = self.store.routing.postings.frequencies(stemmed) if stemmed else {}
        return Evidence(
            bm25=max((candidate.bm25 for candidate in candidates.values()), default=0.0),
            cosine=max((candidate.cosine for candidate in candidates.values()), default=0.0),
            known=known,
            named=0 if not stemmed else 1 if len(used) == len(stemmed) else -1,
            terms=len(question.weights),
        )

    # --- candidates --------------------------------------------------------------------------------------------

    def _candidates(self, question: Question, wanted: int) -> tuple[dict[int, _Candidate], float]:
        """The best chunks of both rankings, and the known share of the question (`Ranking.known`)."""
        routing = self.store.routing
        allowed = self._allowed()
        lexical, ranking = self._by_words(question.weights, wanted, allowed)
        if not self.rules.lexical:
            lexical = {}
        vector = self._vector(question) if self.rules.dense else None
        similar = NO_SIMILARITIES if vector is None else routing.vectors.similar(vector, wanted)

        def nearest_of(ids: list[int]) -> list[int]:
            cosines = similar.of(ids)
            return sorted(cosines, key=lambda i: -cosines[i])[:wanted]

        nearest = [i for i, _ in similar.best] if allowed is None else nearest_of(allowed)
        new = [i for i in nearest if i not in lexical]
        chunks = self._shown(new)
        if allowed is None and len(chunks) < len(new) // 4:  # most of the nearest are in other snapshots
            files = [file_id for file_id, _, _ in self.store.files(self.snapshot)]
            chunks = self._shown(nearest_of(self.store.chunk_ids(files)))
        chunks |= {i: chunk for i, (chunk, _) in lexical.items()}
        cosines = similar.of(chunks)
        bound = ranking.bound or 1.0
        bm25 = {i: lexical[i][1] / bound if i in lexical else 0.0 for i in chunks}
        if vector is None and self.rules.dense and question.weights and not any(map(str.isascii, question.weights)):
            cosines = {i: _COSINE_OF_BM25 * value for i, value in bm25.items()}
        candidates = {i: _Candidate(chunk, bm25[i], max(0.0, cosines.get(i, 0.0))) for i, chunk in chunks.items()}
        kept = {i: c for i, c in candidates.items() if c.bm25 or c.cosine >= _LEAST_COSINE}
        return kept, ranking.known

    def _vector(self, question: Question) -> Vector | None:
        """The question's vector; None if the vectors of the chunks were made by something else."""
        routing = self.store.routing
        if self.embedder is not None:
            return self.embedder.question(question.text) if routing.made_by == self.embedder.fingerprint else None
        vectors = routing.terms
        return vectors.query(list(question.weights)) if vectors and routing.made_by == vectors.fingerprint else None

    def _allowed(self) -> list[int] | None:
        """The ids of the chunks in scope, None for all."""
        if self.in_scope is None:
            return None
        files = [file_id for file_id, path, _ in self.store.files(self.snapshot) if self.in_scope(path)]
        return self.store.chunk_ids(files)

    def _shown(self, ids: list[int]) -> dict[int, Chunk]:
        return {i: stored.chunk for i, stored in self.store.chunks_shown(self.snapshot, ids).items()}

    def _by_words(
        self, terms: dict[str, float], wanted: int, allowed: list[int] | None
    ) -> tuple[dict[int, tuple[Chunk, float]], Ranking]:
        """id -> (chunk, BM25) of the best chunks of the snapshot in scope, and the whole ranking."""
        rank = self.store.routing.postings.rank
        ranking = rank(terms, wanted) if allowed is None else rank(terms).among(allowed)
        hits: dict[int, tuple[Chunk, float]] = {}
        seen, batch = 0, wanted
        while len(hits) < wanted and seen < len(ranking):  # chunks of other snapshots are skipped
            best = ranking.best(seen + batch)[seen:]
            shown = self._shown([chunk_id for chunk_id, _ in best])
            hits |= {chunk_id: (shown[chunk_id], bm25) for chunk_id, bm25 in best if chunk_id in shown}
            seen, batch = seen + batch, batch * 8
            if not ranking.complete and len(hits) < wanted:
                ranking = rank(terms)
        return hits, ranking

    # --- rules -------------------------------------------------------------------------------------------------

    def _relevance(self, candidate: _Candidate, question: Question) -> float:
        rules, chunk, names = self.rules, candidate.chunk, question.names
        relevance = rules.lexical * candidate.bm25 + rules.dense * candidate.cosine
        kind = kind_of(chunk.path)
        if kind is FileKind.OTHER and names and _in_code(names, chunk):
            kind = FileKind.SOURCE  # in a language that we don't know
        if rules.kinds:
            relevance *= prior(kind, question.words)
        if rules.definition and names and _is_code(chunk.path):
            named = fold(plain(last_name(chunk.symbol))) in names
            if named or any(defines(chunk.text, name, guess=not chunk.symbol) for name in names):
                relevance += rules.definition
        return relevance

    def _after_code(self, candidates: dict[int, _Candidate], relevance: dict[int, float], question: Question) -> None:
        """Lowers files of data, if code has a name of the question, unless it asks for their kind: `package.json`."""
        if not any(_in_code(question.names, candidate.chunk) for candidate in candidates.values()):
            return
        for i, candidate in candidates.items():
            path = candidate.chunk.path
            if _is_artefact(path) and PurePosixPath(path).suffix[1:].lower() not in question.words:
                relevance[i] *= self.rules.artefacts

    def _follow_calls(self, candidates: dict[int, _Candidate], relevance: dict[int, float]) -> None:
        """Raises the relevance of the definitions that the best hits call, most where their name is rare."""
        routing = self.store.routing
        best = sorted(relevance, key=lambda i: (-relevance[i], i))[:_CALLERS]
        names = {i: referred_names(candidates[i].chunk) for i in best}
        defined = routing.definitions.of(set().union(*names.values()), self.snapshot)
        terms = {name: {stem(name.lower())} if name.isascii() else terms_of_name(name) for name in defined}
        mentions = routing.postings.frequencies(set().union(*terms.values()))
        gain: dict[int, float] = defaultdict(float)
        for caller in best:
            for name in sorted(names[caller] & defined.keys()):
                ambiguity = len(defined[name]) * math.log(2 + min(mentions.get(term, 0) for term in terms[name]))
                for i in defined[name]:
                    gain[i] += self.rules.calls * relevance[caller] / ambiguity / _CALLERS
        called = heapq.nsmallest(_CALLED, gain, key=lambda i: (-gain[i], i))
        for i, chunk in self._shown([i for i in called if i not in candidates]).items():
            if self.in_scope is None or self.in_scope(chunk.path):
                candidates[i] = _Candidate(chunk, 0.0, 0.0)
        for i in called:
            if i in candidates:
                relevance[i] = relevance.get(i, 0.0) + gain[i]


@dataclass(frozen=True)
class _Candidate:
    """bm25: divided by `Ranking.bound`, so in [0, 1]."""

    chunk: Chunk
    bm25: float
    cosine: float


def _spread(
    relevance: Mapping[int, float], candidates: Mapping[int, _Candidate], same_file: float
) -> list[tuple[int, float]]:
    """(id, relevance), best first, times `same_file` for each better chunk of the same file."""

    def place(i: int) -> tuple[str, int, int]:
        return candidates[i].chunk.path, candidates[i].chunk.start_line, i

    seen: Counter[str] = Counter()
    spread: list[tuple[int, float]] = []
    for i in sorted(relevance, key=lambda i: (-relevance[i], place(i))):
        path = candidates[i].chunk.path
        spread.append((i, relevance[i] * same_file ** seen[path]))
        seen[path] += 1
    return sorted(spread, key=lambda item: (-item[1], place(item[0])))


def _without_copies(ranked: list[tuple[Chunk, float]]) -> list[tuple[Chunk, float, tuple[Chunk, ...]]]:
    """(chunk, relevance, its copies): of several chunks with the same text, the best one with the others."""
    copies: dict[str, list[Chunk]] = {}
    for chunk, _ in ranked:
        copies.setdefault(chunk.text, []).append(chunk)
    return [(chunk, value, tuple(copies[chunk.text][1:])) for chunk, value in ranked if copies[chunk.text][0] is chunk]


def _in_code(names: Set[str], chunk: Chunk) -> bool:
    """Is it a chunk of code that has any of the names, which are folded?"""
    return _is_code(chunk.path) and any(name in fold(plain(chunk.text)) for name in names)


def _is_artefact(path: str) -> bool:
    return is_data(path) and kind_of(path) is not FileKind.SOURCE


def _is_code(path: str) -> bool:
    """Is it source, or a file in a language that we don't know, which may define a name?"""
    kind = kind_of(path)
    return kind is FileKind.SOURCE or (kind is FileKind.OTHER and not is_data(path))
