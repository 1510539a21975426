"""Question -> ranked hits: BM25 for the same words, vectors for the same meaning, and a few rules about code.

The relevance of a chunk is its BM25, divided by the highest BM25 that the question allows, plus the cosine of its
vector with the question's. Then the rules, each of which `benchmarks/retrieval` can switch off: source comes before
tests, examples and documents, unless the question asks for those; a definition comes before its uses; the place of a
stack frame comes before others; definitions that the best hits call come with them; further chunks of one file count
less; a page comes in one language; what past commits with an issue's words changed follows the first hits.
A second stage, where the caller has one, reads the best chunks again.

The score of the first hit is the probability that the repository answers the question (evidence.py). The other hits
score less in proportion to their relevance.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from awareness.index.chunks.data_files import is_data
from awareness.index.files.file_kinds import FileKind, is_written_in, kind_of, may_be_code, page_of
from awareness.index.search.candidates import WANTED, Candidate, Finder
from awareness.index.search.defining_lines import defines, defines_plainly
from awareness.index.search.definitions import referred_names
from awareness.index.search.evidence import COMPARED, Evidence, coverage, holds_all
from awareness.index.search.hit_kinds import HitKinds
from awareness.index.search.known_names import joined_names, near_names
from awareness.index.search.messages import is_message, message_share
from awareness.index.search.priors import prior
from awareness.index.search.question import Question
from awareness.index.search.snapshot_paths import SnapshotPaths
from awareness.index.search.terms import name_words, stem, terms_of_name, weighted_terms, words_of
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store
from awareness.index.unicode_forms import fold, folded_text, plain
from awareness.types import Chunk, Embedder, Hit, last_name

_WIDER = 16  # times as many candidates, if most are data: a build may repeat a name that often
_CALLERS = 5  # best hits whose calls are followed
_CALLED = 32  # definitions at most that those calls add
_LOOKED_AT = 24  # best hits whose text is compared with the question word by word
_READ_AGAIN = 16  # best chunks that the second stage reads
_JOINED_WEIGHT = 0.8  # of a name whose words stand apart in the question
_NEAR_WEIGHT = 0.7  # of a name for one with a typo
_PROSE_KINDS = (FileKind.DOCS, FileKind.CHANGELOG, FileKind.TRANSLATION)
_OTHER_CASE = 0.5  # of a name that is written otherwise
_NOT_SYMBOL = 0.95  # of a definition that is not the chunk's symbol
_MAYBE = 0.4  # of what looks like a definition, but the chunk has another symbol
_CONTINUED = 0.7  # of a definition's later chunks against its first
_UNMOVED = 3  # hits that no file of past commits comes before
_NOT_WORDS = re.compile(r"[\W_]+")
_ASCII_WORDS = bytes(ord(chr(i).lower()) if chr(i).isalnum() else ord(" ") for i in range(128)).ljust(256)


@dataclass(frozen=True)
class Rules:
    """The weights of the ranking; 0 or False switches a rule off.

    lexical, dense: of the largest possible BM25, of a cosine of 1. kinds: tests, examples and documents count less.
    definition: added to a chunk that defines a name in the question; lookup: the same if the question asks for nothing
    but names; body_definition: the same for names in the body of an issue. joined, near: names whose words stand apart
    in the question, or that have a typo, count as names. symbol_words: added to a chunk whose symbol has only words of
    the question. literal: added to a chunk that holds what the question quotes; message: to one that makes the message
    that the question is. mention: added to the chunk at a stack frame or a line that is named; in_file: to the other
    chunks of that file. verbatim: added to a chunk that holds the question's words in order, or what it quotes. calls:
    added to a definition that the best hits call. same_file: factor for each better chunk of the same file;
    same_file_named: the same for a question with a name of code, whose answer is in one place. artefacts: factor for
    files of data, if the question has a name that is also in code: what a build makes of the code holds the same names.
    pages: a document is shown in one language. past: files that past commits name, which an issue gets after its first
    hits. meaning: of a cosine of 1 by the second stage.
    """

    lexical: float = 1.0
    dense: float = 0.6
    kinds: bool = True
    definition: float = 0.3
    lookup: float = 1.0
    body_definition: float = 0.1
    joined: bool = True
    near: bool = True
    symbol_words: float = 0.1
    literal: float = 0.3
    message: float = 0.8
    mention: float = 1.0
    in_file: float = 0.2
    verbatim: float = 0.6
    calls: float = 1.2
    same_file: float = 0.8
    same_file_named: float = 0.9
    artefacts: float = 0.4
    pages: bool = True
    past: int = 2
    meaning: float = 0.8


SecondStage = Callable[[str, Sequence[Chunk]], Sequence[float]]
"""A question and chunks -> the cosine of each, by a model that reads their text."""
SPREAD = Rules()
"""For people, who want to see different files."""
GATHERED = Rules(same_file=1.0, same_file_named=1.0)
"""For a memory, which needs the best chunks, even if all are from one file."""

_Ranked = list[tuple[Chunk, float]]
"""Chunks with their relevance, best first."""


@dataclass(frozen=True)
class _Names:
    """The names of code in a question, folded. exact: as they are written there. meant: with those whose words stand
    apart or that have a typo. body: those of the body of an issue. terms: of the question, with those of `meant`.
    misspelt: those of `exact` that the repository lacks, but not a name like them."""

    exact: Set[str]
    meant: Set[str]
    body: Set[str]
    terms: Mapping[str, float]
    misspelt: Set[str]


class HybridRouter:
    """Finds the chunks of one snapshot that answer a question.

    in_scope: path -> may it be a hit; applied before ranking, like kinds, None for all. embedder: the embedding model
    that the index was made with, if any; without it such an index is searched by words alone. second_stage: reads the
    best chunks again, unless the question only looks up a name.
    """

    _paths: SnapshotPaths  # as they are for the current question

    def __init__(
        self,
        store: Store,
        snapshot: int,
        in_scope: Callable[[str], bool] | None = None,
        embedder: Embedder | None = None,
        rules: Rules = SPREAD,
        kinds: Set[FileKind] | None = None,
        second_stage: SecondStage | None = None,
    ) -> None:
        self.store, self.snapshot, self.rules, self._second_stage = store, snapshot, rules, second_stage
        if kinds is not None:
            inside, in_scope = in_scope, lambda path: (not inside or inside(path)) and self._kinds.of(path) in kinds
        self._in_scope = in_scope
        self._finder = Finder(store, snapshot, in_scope, embedder, lexical=bool(rules.lexical), dense=bool(rules.dense))

    def search(self, query: str, *, top_k: int) -> list[Hit]:
        """The best chunks, best first; none if neither the repository nor the router knows a word of the query."""
        question = Question(query)
        evidence, weighed = self._evident(question, top_k=top_k)
        if not weighed:
            return []
        highest = weighed[0][1] or 1.0
        probability = evidence.probability
        if holds_all(question, weighed[0][0].chunk):
            probability = max(probability, 0.5)
        return [replace(hit, score=round(probability * value / highest, 4)) for hit, value in weighed[:top_k]]

    def weigh(self, query: str, *, top_k: int) -> tuple[Evidence, list[tuple[Chunk, float]]]:
        """The evidence for an answer, and the best chunks with their relevance, best first."""
        evidence, weighed = self._evident(Question(query), top_k=top_k)
        return evidence, [(hit.chunk, value) for hit, value in weighed[:top_k]]

    def _evident(self, question: Question, *, top_k: int) -> tuple[Evidence, list[tuple[Hit, float]]]:
        """The evidence for an answer, and all hits with their relevance, best first."""
        with self.store.reading(), failures(self.store.layout.manifest):
            self._paths = self.store.paths(self.snapshot)
            names, first, best = self._weigh(question, top_k=top_k)
            hits = self._grouped(first)
            evidence = self._evidence(question, names, hits[:COMPARED])
            return evidence, hits if best is first else self._grouped(best)

    def _weigh(self, question: Question, *, top_k: int) -> tuple[_Names, _Ranked, _Ranked]:
        """The names in the question, and all candidates with their relevance, with copies and translations: as the
        first stage ranks them, and as the second does, if there is one."""
        names = self._names(question)
        wanted = max(WANTED, 2 * top_k)
        past = self._past_files(question)
        also = [self._paths.ids[path] for path in past]
        candidates = self._finder.find(question, names.terms, wanted, also)
        if names.exact and sum(_is_artefact(c.chunk.path) for c in candidates.values()) > wanted / 2:
            candidates = self._finder.find(question, names.terms, wanted * _WIDER, also)
        relevance = {i: self._relevance(candidate, question, names) for i, candidate in candidates.items()}
        if names.exact:
            self._after_code(candidates, relevance, question)
        if self.rules.verbatim:
            self._compare(candidates, relevance, question)
        if self.rules.calls and relevance:
            self._follow_calls(candidates, relevance)
        same_file = self.rules.same_file_named if names.exact else self.rules.same_file

        def ranked() -> _Ranked:
            best = _after_first(_spread(relevance, candidates, same_file), candidates, past)
            return [(candidates[i].chunk, value) for i, value in best]

        first = best = ranked()
        if self._second_stage and self.rules.meaning and relevance and not question.is_lookup:
            self._read_again(self._second_stage, candidates, relevance, question)
            best = ranked()
        return names, first, best

    def _grouped(self, ranked: list[tuple[Chunk, float]]) -> list[tuple[Hit, float]]:
        """(hit, relevance), best first. Of several chunks with the same text, the best one with the others; of a
        document in several languages, the chunks of the one that ranks best, with the others."""
        copies: dict[str, list[Chunk]] = {}
        languages: dict[str, dict[str, Chunk]] = {}
        for chunk, _ in ranked:
            copies.setdefault(chunk.text, []).append(chunk)
            languages.setdefault(page_of(chunk.path), {}).setdefault(chunk.path, chunk)
        hits = []
        for chunk, value in ranked:
            page = languages[page_of(chunk.path)]
            first = next(iter(page))
            if copies[chunk.text][0] is not chunk or (self.rules.pages and chunk.path != first):
                continue
            others = tuple(page.values())[1:] if page[first] is chunk and self.rules.pages else ()
            same = tuple(copy for copy in copies[chunk.text][1:] if copy not in others)
            hits.append((Hit(chunk, 0.0, same, others, self._kinds.of(chunk.path).word), value))
        return hits

    @property
    def _kinds(self) -> HitKinds:
        return self._paths.kinds

    def _past_files(self, question: Question) -> list[str]:
        """The files of code in scope that commits changed whose messages are like the title of an issue, best first."""
        if not (self.rules.past and question.is_issue):
            return []
        named = self.store.history.files(self.snapshot, weighted_terms(question.title), self._paths.ids)
        in_scope = self._in_scope or (lambda path: True)
        code = (path for path, _ in named if self._kinds.of(path) is FileKind.SOURCE and in_scope(path))
        return list(itertools.islice(code, self.rules.past))

    def _names(self, question: Question) -> _Names:
        exact, terms = question.names, dict(question.weights)
        meant, near = set(exact), dict[str, list[str]]()
        routing = self.store.routing
        if self.rules.joined and not question.is_issue:
            for name in joined_names(words_of(question.title), routing.postings):
                meant.add(name)
                terms[stem(name)] = max(terms.get(stem(name), 0.0), _JOINED_WEIGHT)
        if self.rules.near and not question.is_issue and exact:
            used = routing.postings.frequencies({stem(name) for name in exact})
            unknown = [name for name in exact if stem(name) not in used]
            near = near_names(unknown, routing.definitions)
            for alike in near.values():
                for name in alike:
                    meant.add(name)
                    terms[stem(name)] = max(terms.get(stem(name), 0.0), _NEAR_WEIGHT)
        return _Names(exact, meant, question.body_names, terms, near.keys())

    def _evidence(self, question: Question, names: _Names, weighed: Sequence[tuple[Hit, float]]) -> Evidence:
        """weighed: the best hits with their relevance, best first."""
        postings = self.store.routing.postings
        stemmed = set().union(*map(terms_of_name, names.exact - names.misspelt))
        used = postings.frequencies({*stemmed, *names.terms})
        lacks = not stemmed <= used.keys()
        return Evidence(
            worth=weighed[0][1] if weighed else 0.0,
            usual=sum(value for _, value in weighed) / max(1, len(weighed)),
            chunks=postings.count(),
            named=0 if not stemmed else -1 if lacks else 0 if names.misspelt else 1,
            is_lookup=question.is_lookup,
            coverage=coverage(names.terms, used.keys(), question.weights.keys(), [hit.chunk for hit, _ in weighed]),
        )

    # --- rules -------------------------------------------------------------------------------------------------

    def _relevance(self, candidate: Candidate, question: Question, names: _Names) -> float:
        rules, chunk = self.rules, candidate.chunk
        relevance = rules.lexical * candidate.bm25 + rules.dense * candidate.cosine
        kind = self._kind(chunk.path, question)
        if kind is FileKind.OTHER and names.exact and _in_code(names.exact, chunk):
            kind = FileKind.SOURCE  # in a language that we don't know
        weight = prior(kind, question.kinds) if rules.kinds else 1.0
        relevance *= weight
        if kind not in _PROSE_KINDS and not is_data(chunk.path):
            relevance += weight * self._defining(chunk, question, names)
        if rules.symbol_words and not question.is_issue:
            relevance += weight * rules.symbol_words * _named_by_words(chunk.symbol, question)
        relevance += rules.mention * candidate.mentioned + rules.in_file * candidate.in_file
        return relevance

    def _defining(self, chunk: Chunk, question: Question, names: _Names) -> float:
        """What a chunk of code gains by the names that it defines."""
        rules = self.rules
        name = plain(last_name(chunk.symbol)).strip("_")
        folded = fold(name)
        if names.meant and (rules.definition or rules.lookup):
            gain = rules.lookup if rules.lookup and question.is_lookup else rules.definition
            if folded in names.meant:
                gain *= 1.0 if name in question.original_names else _OTHER_CASE
                gain *= 1.0 if defines(chunk.text, folded, guess=True) else _CONTINUED
                return gain * _qualified(chunk, question)
            if any(defines_plainly(chunk.text, own) for own in question.original_names):
                return gain * _NOT_SYMBOL
            if any(defines(chunk.text, other, guess=not chunk.symbol) for other in names.meant):
                return gain * (_MAYBE if chunk.symbol else _OTHER_CASE)
        return rules.body_definition if folded and folded in names.body else 0.0

    def _compare(self, candidates: dict[int, Candidate], relevance: dict[int, float], question: Question) -> None:
        """Raises chunks that hold the question's words in order, as a message or a comment does, or what it quotes."""
        parts = question.quoted[:8] if question.is_issue else question.quoted
        parts += (question.title,) if " " in question.title.strip() else ()
        phrases = [words for words in map(_folded_words, parts) if len(words) > 1]
        literals = question.literals
        message = question.title if is_message(question.title) else ""
        if not phrases and not literals:
            return
        rarity = self._rarity(phrases)
        runs = [_runs(words, rarity) for words in phrases]
        for i, candidate in candidates.items():
            if any(_holds(candidate.chunk, literal) for literal in literals):
                relevance[i] += self.rules.literal * self._prior(candidate.chunk.path, question)
        best = heapq.nsmallest(_LOOKED_AT, relevance, key=lambda i: (-relevance[i], i))
        for i in best:
            text = f" {' '.join(_folded_words(candidates[i].chunk.text))} "
            weight = self._prior(candidates[i].chunk.path, question)
            in_order = max((_in_order(weighted, text) for weighted in runs), default=0.0)
            relevance[i] += weight * self.rules.verbatim * in_order
            if message and self.rules.message:
                relevance[i] += weight * self.rules.message * message_share(message, candidates[i].chunk.text)

    def _prior(self, path: str, question: Question) -> float:
        return prior(self._kind(path, question), question.kinds) if self.rules.kinds else 1.0

    def _kind(self, path: str, question: Question) -> FileKind:
        """A translation to the question's own language counts as much as the original."""
        kind = self._kinds.of(path)
        language = question.translation.language
        return FileKind.DOCS if kind is FileKind.TRANSLATION and is_written_in(language, path) else kind

    def _rarity(self, phrases: list[list[str]]) -> dict[str, float]:
        """word -> how rare it is here, 0 for the words of every text."""
        words = {word for words in phrases for word in words}
        stemmed = {word: stem(word) for word in words}
        used = self.store.routing.postings.frequencies(set(stemmed.values()))
        total = self.store.routing.postings.count()
        return {word: math.log((total + 1) / (used.get(term, 0) + 0.5)) for word, term in stemmed.items()}

    def _after_code(self, candidates: dict[int, Candidate], relevance: dict[int, float], question: Question) -> None:
        """Lowers files of data, if code has a name of the question, unless it asks for their kind: `package.json`."""
        if not any(_in_code(question.names, candidate.chunk) for candidate in candidates.values()):
            return
        for i, candidate in candidates.items():
            path = candidate.chunk.path
            if any(_holds(candidate.chunk, literal) for literal in question.literals):
                continue
            if _is_artefact(path) and PurePosixPath(path).suffix[1:].lower() not in question.words:
                relevance[i] *= self.rules.artefacts

    def _follow_calls(self, candidates: dict[int, Candidate], relevance: dict[int, float]) -> None:
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
        for i, chunk in self._finder.shown([i for i in called if i not in candidates]).items():
            if self._in_scope is None or self._in_scope(chunk.path):
                candidates[i] = Candidate(chunk, 0.0, 0.0)
        for i in called:
            if i in candidates:
                relevance[i] = relevance.get(i, 0.0) + gain[i]

    def _read_again(
        self,
        second_stage: SecondStage,
        candidates: dict[int, Candidate],
        relevance: dict[int, float],
        question: Question,
    ) -> None:
        """Adds the cosine of the second stage to the best chunks, and the least of these cosines to all others. The
        first chunk gains as much as the nearest one, so it stays first: what is below it is in a better order."""
        by_text: dict[str, Chunk] = {}
        ranked = sorted(relevance, key=lambda i: (-relevance[i], i))
        for i in ranked:
            by_text.setdefault(candidates[i].chunk.text, candidates[i].chunk)
        best = list(by_text.values())[:_READ_AGAIN]
        cosines = dict(zip((chunk.text for chunk in best), second_stage(question.text, best), strict=True))
        least = min(cosines.values())
        cosines[candidates[ranked[0]].chunk.text] = max(cosines.values())
        for i in relevance:
            relevance[i] += self.rules.meaning * cosines.get(candidates[i].chunk.text, least)


def _spread(
    relevance: Mapping[int, float], candidates: Mapping[int, Candidate], same_file: float
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


def _named_by_words(symbol: str, question: Question) -> float:
    """The share of the words of a symbol's last two names that the question has; 0 for fewer than two."""
    words = _symbol_words(symbol)
    shared = len(words & question.weights.keys())
    return shared / len(words) if shared >= 2 else 0.0


@functools.lru_cache(maxsize=1 << 14)
def _symbol_words(symbol: str) -> frozenset[str]:
    return frozenset(stem(word) for name in re.split(r"[.:#>\s]+", symbol)[-2:] for word in name_words(name))


def _after_first(
    ranked: list[tuple[int, float]], candidates: Mapping[int, Candidate], paths: Sequence[str]
) -> list[tuple[int, float]]:
    """Moves the best chunk of each of these files up to the place after the first `_UNMOVED`, unless one of those is of
    the same file. It gets the relevance of the hit before it."""
    first, others = ranked[:_UNMOVED], ranked[_UNMOVED:]
    shown = {candidates[i].chunk.path for i, _ in first}
    best: dict[str, int] = {}
    for i, _ in others:
        best.setdefault(candidates[i].chunk.path, i)
    moved = [best[path] for path in paths if path in best and path not in shown]
    raised = [(i, first[-1][1]) for i in moved]
    return first + raised + [item for item in others if item[0] not in moved]


def _qualified(chunk: Chunk, question: Question) -> float:
    """1 if the chunk's symbol has the names before the last one too, `Session` of `Session.get`; less if it has others.
    Names of modules and instances are no part of a symbol."""
    symbol = re.sub(r"::|#|->|/", ".", plain(chunk.symbol))
    last = last_name(symbol)
    qualified = [name for name in question.qualified if name.rpartition(".")[2] == last]
    if not qualified:
        return 1.0
    if any(symbol == name or symbol.endswith(f".{name}") for name in qualified):
        return 1.3
    return 0.7 if any(name.split(".")[-2][:1].isupper() for name in qualified) and "." in symbol else 1.0


def _folded_words(text: str) -> list[str]:
    """The words of a text in small letters, parts of a name apart."""
    if text.isascii():  # the same as below, several times as fast
        return text.encode().translate(_ASCII_WORDS).decode().split()
    return _NOT_WORDS.sub(" ", fold(text)).split()


def _runs(words: list[str], rarity: Mapping[str, float]) -> list[tuple[str, float]]:
    """The runs of three words (or two) of a phrase, each between spaces, with its weight: how rare its words are."""
    size = min(3, len(words))
    runs = [words[at : at + size] for at in range(len(words) - size + 1)]
    return [(f" {' '.join(run)} ", sum(rarity[word] for word in run)) for run in runs]


def _in_order(runs: list[tuple[str, float]], text: str) -> float:
    """The share of a phrase's runs that stand in a text, by weight; 1 for the whole phrase."""
    held = sum(weight for run, weight in runs if run in text)
    return held / (sum(weight for _, weight in runs) or 1.0)


def _in_code(names: Set[str], chunk: Chunk) -> bool:
    """Is it a chunk of code that has any of the names, which are folded?"""
    return may_be_code(chunk.path) and any(name in folded_text(chunk.text) for name in names)


def _is_artefact(path: str) -> bool:
    return is_data(path) and not kind_of(path).is_code


def _holds(chunk: Chunk, literal: str) -> bool:
    """Does a chunk hold a literal: exactly so, or a key with dots as nested keys of a file of data?"""
    if literal in chunk.text:
        return True
    keys = literal.split(".")
    if len(keys) < 2 or not is_data(chunk.path):
        return False
    at = 0
    for key in keys:
        at = chunk.text.find(key, at) + len(key)
        if at < len(key):
            return False
    return True
