"""The chunks that may answer a question: the best by words, the nearest by meaning, and those that it names.

A name leads to its definition, a stack frame or `path:line` to the chunk there, however they rank by words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from awareness.index.search.dense_vectors import NO_SIMILARITIES
from awareness.index.search.mentions import Mention
from awareness.index.search.postings import Ranking
from awareness.index.search.question import Question
from awareness.index.search.terms import words_of
from awareness.index.store.store import Store
from awareness.types import Chunk, Embedder, Vector, last_name

WANTED = 64  # from each of the two rankings
_LEAST_COSINE = 0.15  # of a candidate without any of the question's words
_COSINE_OF_BM25 = 0.8  # assumed for a question in a language that the term vectors do not know
_FILES_OF_MENTION = 3  # that fit it equally well, at most
_CHUNKS_OF_FILE = 40  # of a file that is named without a line, at most
_SHORT = 3  # words of a question that names a file and nothing else
_SCANNED = 200_000  # chunks that are read for a literal, at most
_LITERALS, _HOLDING = 3, 50  # literals that are looked for so, and chunks of each
_FADING = 0.8  # of a stack frame against the one inside of it
_Weights = dict[int, float]


@dataclass(frozen=True)
class Candidate:
    """bm25: divided by the highest that the question allows, so in [0, 1]. mentioned: 1 for the chunk at a line that
    the question names or at the innermost stack frame, less for outer frames. in_file: 1 for a chunk of a file that is
    named, less for files of outer frames."""

    chunk: Chunk
    bm25: float
    cosine: float
    mentioned: float = 0.0
    in_file: float = 0.0


class Finder:
    """Finds the candidates of questions in one snapshot. See `HybridRouter` for the arguments."""

    def __init__(
        self,
        store: Store,
        snapshot: int,
        in_scope: Callable[[str], bool] | None,
        embedder: Embedder | None,
        *,
        lexical: bool,
        dense: bool,
    ) -> None:
        self.store, self.snapshot, self.in_scope, self.embedder = store, snapshot, in_scope, embedder
        self.lexical, self.dense = lexical, dense

    def find(
        self, question: Question, terms: Mapping[str, float], wanted: int = WANTED, also: Sequence[int] = ()
    ) -> dict[int, Candidate]:
        """The candidates by id. terms: the question's, stemmed, with their weights. also: ids of files whose chunks are
        candidates."""
        routing = self.store.routing
        allowed = self._allowed()
        lexical, ranking = self._by_words(terms, wanted, allowed)
        as_asked: dict[int, float] = {}  # in another language
        if question.as_asked:
            found, other = self._by_words(question.as_asked, wanted, allowed)
            lexical |= found
            as_asked = {i: score / (other.bound or 1.0) for i, score in other.scores.items()}
        vector = self._vector(question) if self.dense else None
        similar = NO_SIMILARITIES if vector is None else routing.vectors.similar(vector, wanted)

        def nearest_of(ids: list[int]) -> list[int]:
            cosines = similar.of(ids)
            return sorted(cosines, key=lambda i: -cosines[i])[:wanted]

        nearest = [i for i, _ in similar.best] if allowed is None else nearest_of(allowed)
        new = [i for i in nearest if i not in lexical]
        chunks = self.shown(new)
        if allowed is None and len(chunks) < len(new) // 4:  # most of the nearest are in other snapshots
            files = self.store.paths(self.snapshot).ids.values()
            chunks = self.shown(nearest_of(self.store.chunk_ids(list(files))))
        chunks |= lexical
        named = [*self._named(question), *self._holding(question, chunks)]
        mentioned, in_file = self._mentioned(question, terms)
        of_files = [i for file_id in also for i in self._best_of_file(self.store.chunk_ids([file_id]), terms)]
        chunks |= self.shown([i for i in (*named, *mentioned, *in_file, *of_files) if i not in chunks])
        cosines = similar.of(chunks)
        bound = ranking.bound or 1.0
        bm25 = {
            i: max(ranking.scores.get(i, 0.0) / bound, as_asked.get(i, 0.0)) if self.lexical else 0.0 for i in chunks
        }
        if vector is None and self.dense and terms and not any(map(str.isascii, terms)):
            cosines = {i: _COSINE_OF_BM25 * value for i, value in bm25.items()}
        elif self.dense and as_asked:
            cosines = {i: max(cosines.get(i, 0.0), _COSINE_OF_BM25 * as_asked.get(i, 0.0)) for i in chunks}
        pinned = {*named, *mentioned, *in_file, *of_files}
        candidates = {
            i: Candidate(chunk, bm25[i], max(0.0, cosines.get(i, 0.0)), mentioned.get(i, 0.0), in_file.get(i, 0.0))
            for i, chunk in chunks.items()
            if self.in_scope is None or self.in_scope(chunk.path)
        }
        return {i: c for i, c in candidates.items() if c.bm25 or c.cosine >= _LEAST_COSINE or i in pinned}

    def shown(self, ids: Sequence[int]) -> dict[int, Chunk]:
        """id -> chunk, for those in the snapshot."""
        return {i: stored.chunk for i, stored in self.store.chunks_shown(self.snapshot, ids).items()}

    def _named(self, question: Question) -> list[int]:
        """The definitions of the names in the question."""
        definitions = self.store.routing.definitions
        qualified = [i for name in question.qualified for i in definitions.of_symbol(name, self.snapshot)]
        names = {*question.original_names, *question.body_names}
        names.update(word for word in words_of(question.title) if word.strip("_") in names)
        return [*qualified, *(i for ids in definitions.of(names, self.snapshot).values() for i in ids)]

    def _holding(self, question: Question, chunks: Mapping[int, Chunk]) -> list[int]:
        """Chunks that hold a literal of the question, if it is nothing else or no candidate does."""
        is_literal = len(question.title.split()) == 1
        held = {text for text in question.literals if any(text in chunk.text for chunk in chunks.values())}
        wanted = [text for text in question.literals if is_literal or text not in held]
        if not wanted or self.store.count_chunks(self.snapshot) > _SCANNED:
            return []
        found = (self.store.chunks_holding(self.snapshot, literal, _HOLDING) for literal in wanted[:_LITERALS])
        return [chunk.id for chunks in found for chunk in chunks]

    def _mentioned(self, question: Question, terms: Mapping[str, float]) -> tuple[_Weights, _Weights]:
        """id -> 1 for the chunk of each place that is named, less for outer frames; the same for chunks of its file."""
        places: _Weights = {}
        in_files: _Weights = {}
        mentions, is_short = question.mentions, len(question.title.split()) <= _SHORT
        if not mentions:
            return places, in_files
        paths = self.store.paths(self.snapshot)
        weight = 1.0
        seen: set[str] = set()
        for mention in innermost_first(mentions):
            files = _best_fitting(mention, paths.named(mention.parts[-1]))
            for file_id, path in files:
                ids = self.store.chunk_ids([file_id])
                chunks = {i: stored.chunk for i, stored in self.store.chunks_by_id(ids).items()}
                at = _place(mention, chunks)
                if at is None and is_short and not mention.line and ids:
                    at = ids[0]
                if at is not None:
                    places[at] = max(places.get(at, 0.0), weight)
                if path not in seen:
                    for i in self._best_of_file(ids, terms):
                        in_files[i] = max(in_files.get(i, 0.0), weight)
                seen.add(path)
            if files and mention.is_frame:
                weight *= _FADING
        return places, in_files

    def _best_of_file(self, ids: list[int], terms: Mapping[str, float]) -> list[int]:
        if len(ids) <= _CHUNKS_OF_FILE:
            return ids
        ranked = [i for i, _ in self.store.routing.postings.rank(terms).among(ids).best(_CHUNKS_OF_FILE)]
        return ranked or ids[:_CHUNKS_OF_FILE]

    def _vector(self, question: Question) -> Vector | None:
        """The question's vector; None if the vectors of the chunks were made by something else."""
        routing = self.store.routing
        if self.embedder is not None:
            return self.embedder.question(question.in_english) if routing.made_by == self.embedder.fingerprint else None
        vectors = routing.terms
        return vectors.query(list(question.weights)) if vectors and routing.made_by == vectors.fingerprint else None

    def _allowed(self) -> list[int] | None:
        """The ids of the chunks in scope, None for all."""
        if self.in_scope is None:
            return None
        files = [i for path, i in self.store.paths(self.snapshot).ids.items() if self.in_scope(path)]
        return self.store.chunk_ids(files)

    def _by_words(
        self, terms: Mapping[str, float], wanted: int, allowed: list[int] | None
    ) -> tuple[dict[int, Chunk], Ranking]:
        """The best chunks of the snapshot in scope by BM25, and the whole ranking."""
        if not self.lexical:
            return {}, self.store.routing.postings.rank({})
        rank = self.store.routing.postings.rank
        ranking = rank(terms, wanted) if allowed is None else rank(terms).among(allowed)
        hits: dict[int, Chunk] = {}
        seen, batch = 0, wanted
        while len(hits) < wanted and seen < len(ranking):  # chunks of other snapshots are skipped
            best = ranking.best(seen + batch)[seen:]
            hits |= self.shown([chunk_id for chunk_id, _ in best])
            seen, batch = seen + batch, batch * 8
            if not ranking.complete and len(hits) < wanted:
                ranking = rank(terms)
        return hits, ranking


def innermost_first(mentions: Sequence[Mention]) -> list[Mention]:
    """Places that are named without a frame, then the frames from where it happened outwards: Python prints it last."""
    frames = [mention for mention in mentions if mention.is_frame]
    if any(frame.parts[-1].endswith((".py", ".pyx")) for frame in frames):
        frames.reverse()
    return [*(mention for mention in mentions if not mention.is_frame), *frames]


def _best_fitting(mention: Mention, files: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The files that share most of the end of their path with a mention; none if too many fit equally well."""
    fits = {file: max(mention.fits(file[1]), 0.5) for file in files}
    most = max(fits.values(), default=0.0)
    best = [file for file in files if fits[file] == most]
    return best if len(best) <= _FILES_OF_MENTION else []


def _place(mention: Mention, chunks: Mapping[int, Chunk]) -> int | None:
    """The chunk of a file that a mention means: that of its function, or else of its line."""
    if mention.function:
        named = [i for i, chunk in chunks.items() if last_name(chunk.symbol) == mention.function]
        if named:
            return min(named, key=lambda i: abs(chunks[i].start_line - mention.line))
    if mention.line:
        return next((i for i, c in chunks.items() if c.start_line <= mention.line <= c.end_line), None)
    return None
