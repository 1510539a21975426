"""The probability that a repository answers a question, from what the search for it has found.

A logistic regression over the development questions of `benchmarks/retrieval`, which weighs repositories of every size
alike, so that it means the same in each. Below `WEAK_SCORE` the repository most likely does not answer.

How much a word tells is no matter of the repository: in one of four files every word is rare, in a large one every word
stands somewhere. So each term weighs as much as the shipped term vectors have learned from other code.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from awareness.index.search.question import Question
from awareness.index.search.term_vectors import term_embedder
from awareness.index.search.terms import stems
from awareness.types import Chunk

WEAK_SCORE = 0.21  # from benchmarks/retrieval/calibrate.py, like COEFFICIENTS
COMPARED = 10  # best hits whose relevance tells what is usual for the question
_READ = 3  # best hits whose terms are read
_MOST_READ = 20_000  # characters of a hit
_MOST_TERMS = 40  # of a question: those that weigh most
_EVERY_TERM, _UNKNOWN_TERM = 0.7, 2.5  # what the term vectors give the least telling term; given to one they lack
_LEAST_WEIGHT = 0.1


@dataclass(frozen=True)
class Coverage:
    """Which of a question's terms are there. unknown: the sum of the weights of those that the repository lacks; held:
    of those in the best hits. known_share: the share of all weights, in [0, 1], whose terms the repository uses;
    plain_share: the same with the question's own weights alone."""

    unknown: float = 0.0
    held: float = 0.0
    known_share: float = 0.0
    plain_share: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """What the question and its hits tell about whether the repository answers it.

    worth: the relevance of the first hit. usual: the mean relevance of the best `COMPARED`. chunks: of the index.
    named: 1 if the repository uses all names of code in the question, -1 if it lacks one and has none like it, 0 if
    there are none or one has a typo. is_lookup: see `Question`.
    """

    worth: float
    usual: float
    chunks: int
    named: int
    is_lookup: bool
    coverage: Coverage

    def features(self) -> tuple[float, ...]:
        """The inputs of the logistic regression that `benchmarks/retrieval/calibrate.py` fits, as in `FEATURES`."""
        size = (math.log1p(self.chunks) - 6) / 3  # about 0 for 400 chunks; the more there are, the better is chance
        cover = self.coverage
        return (
            self.worth,
            self.usual * size,
            float(self.named < 0),
            float(self.named < 0 and self.is_lookup),
            float(self.named > 0 and self.is_lookup),
            math.log1p(cover.unknown),
            math.log1p(cover.held),
            cover.known_share,
            cover.plain_share,
        )

    @property
    def probability(self) -> float:
        """The probability, in [0, 1], that the question is answered."""
        logit = COEFFICIENTS[0] + sum(c * x for c, x in zip(COEFFICIENTS[1:], self.features(), strict=True))
        likely = 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
        return max(likely, 0.5) if self.named > 0 and self.is_lookup else likely  # it stands there, whatever else does


FEATURES = (
    "relevance of the first hit",
    "relevance of ten, times size",
    "lacks a name",
    "lacks a name looked up",
    "has the name looked up",
    "unknown terms",
    "terms in the best hits",
    "known share",
    "known share, unweighted",
)
COEFFICIENTS = (0.825, 6.124, -3.174, -2.701, -5.336, 1.929, -2.091, 2.214, -2.698, -2.605)


def coverage(terms: Mapping[str, float], used: Set[str], asked: Set[str], best: Sequence[Chunk]) -> Coverage:
    """terms: stemmed term -> weight, of the question with the names that it means. used: those in the repository.
    asked: those of the question itself. best: the best hits, best first."""
    if not terms:
        return Coverage()
    chosen = heapq.nsmallest(_MOST_TERMS, terms, key=lambda term: (-terms[term], term))
    weights = {term: terms[term] * _telling(term) for term in chosen}
    held = [terms_in(chunk) for chunk in best[:_READ]]
    total = sum(weights.values())

    def weight(some: Iterable[str]) -> float:
        return sum(weights[term] for term in some)

    return Coverage(
        unknown=weight(term for term in chosen if term not in used and term in asked),
        held=weight(term for term in chosen if any(term in of_hit for of_hit in held)),
        known_share=weight(term for term in chosen if term in used) / total,
        plain_share=sum(terms[term] for term in chosen if term in used) / sum(terms[term] for term in chosen),
    )


def terms_in(chunk: Chunk) -> set[str]:
    """The terms of the start of a chunk, of its symbol and of its path."""
    return {*stems(chunk.text[:_MOST_READ]), *stems(chunk.symbol), *stems(chunk.path)}


def holds_all(question: Question, chunk: Chunk) -> bool:
    """Is the question one piece of text, such as an operator, that stands in the chunk as it is?"""
    whole = question.text.strip().strip("`'\"")
    return len(whole) > 1 and not any(map(str.isspace, whole)) and whole in chunk.text


def _telling(term: str) -> float:
    """How much a term tells in a question about code, as the shipped term vectors have learned it."""
    learned = term_embedder().importance(term)
    return max(_LEAST_WEIGHT, (_UNKNOWN_TERM if learned is None else learned) - _EVERY_TERM)
