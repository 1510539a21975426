"""A sentence of an answer -> the lines of the chunks that it rests on, with a probability.

Every line of the attached chunks gets a score of what it shares with the sentence and the question, and, if the chunks
are read as memory, of the attention that the sentence's tokens gave it. Their headers are lines too, since a sentence
may rest on a path; they are never named. Nothing here knows the decoder: attention comes as one number a line
(line_attention.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from awareness.types import Chunk

_THOUSANDS = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_WORD = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_BORDER = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # foo|Bar, HTTP|Server
_ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ed", "ies", "es", "s", "e")
_COMMON = frozenset(
    """
    a an and any are as at be been but by can could default did do does else for from had has have how i if in into is
    it its long many may me much must my no not of on one or our out per should so than that the their then there these
    they this to up use used uses using was we were what when where which who will with would you your
    """.split()
)


def terms(text: str) -> Iterator[str]:
    """The words of a text and of its identifiers, in lower case, without endings and common words; numbers whole."""
    for word in _WORD.findall(_THOUSANDS.sub("", text)):
        if word[0].isdigit():
            yield word
            continue
        for part in map(str.lower, _BORDER.split(word)):
            if len(part) > 1 and part not in _COMMON:
                yield _stem(part)


def _stem(word: str) -> str:
    ending = next((end for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= 3), "")
    return word.removesuffix(ending)


@dataclass(frozen=True)
class Weights:
    """Of the features of a line in its score; the probabilities of the lines are the softmax of their scores.

    sentence: the share of the sentence's new words that the line has, each weighed by how rare it is among the lines.
    question: the same of the question's words. near: the question's words in the lines around it. attention: the
    logarithm of the line's share of the attention, of each line the most that one token of the sentence gave it.
    """

    sentence: float
    question: float
    near: float
    attention: float


READ = Weights(sentence=2.0, question=1.0, near=0.2, attention=1.5)
"""With attention. Chosen on development repositories; benchmarks/answers/evidence.py measures what they give."""
SHOWN = Weights(sentence=6.0, question=2.2, near=0.8, attention=0.0)
"""With words alone."""
ENOUGH = 0.3
"""Below this probability no line is named."""
VALUE = 2.0
"""A number counts as this many words of its rarity."""
MOST_ROWS = 3
SIMILAR = 0.5
"""A line beside the best one is named with it if its probability is at least this share of the best one's."""
_NEAR = {-3: 0.3, -2: 0.5, -1: 1.0, 1: 0.7, 2: 0.4, 3: 0.2}  # a comment stands above what it explains
_LEAST_SHARE = 1e-3  # of attention: below it, differences mean nothing


@dataclass(frozen=True)
class Evidence:
    """The rows first … last, from 0, of the chunk at place `source`, and the probability that the sentence rests on
    them."""

    source: int
    first: int
    last: int
    confidence: float


@dataclass
class Lines:
    """The lines of the attached chunks, each chunk's header first, and the question. Blank lines and lone brackets are
    never evidence."""

    chunks: Sequence[Chunk]
    question: str = ""
    _starts: list[int] = field(init=False)  # the number of each chunk's header, and the end
    _bags: list[frozenset[str]] = field(init=False)
    _having: dict[str, list[int]] = field(init=False)  # word -> lines
    _asked: list[float] = field(init=False)
    _near: list[float] = field(init=False)

    def __post_init__(self) -> None:
        texts = [[chunk.header.removeprefix("# file: "), *chunk.text.split("\n")] for chunk in self.chunks]
        self._starts = list(accumulate(map(len, texts), initial=0))
        self._bags = [frozenset(terms(row)) for rows in texts for row in rows]
        self._having = {}
        for number, bag in enumerate(self._bags):
            for word in bag:
                self._having.setdefault(word, []).append(number)
        self._asked = self._shares(frozenset(terms(self.question)))
        self._near = [
            sum(weight * self._asked[i + away] for away, weight in _NEAR.items() if start < i + away < stop)
            for start, stop in pairwise(self._starts)
            for i in range(start, stop)
        ]

    def _shares(self, words: Collection[str]) -> list[float]:
        """For each line its share of these words, weighed by how rare they are; words that no line has do not count."""
        shares = [0.0] * len(self._bags)
        count = sum(map(bool, self._bags))
        rarity = {
            word: math.log((count + 1) / (len(having) + 0.5)) * (VALUE if word[0].isdigit() else 1.0)
            for word in words
            if (having := self._having.get(word))
        }
        total = sum(rarity.values())
        for word, weight in rarity.items():
            for number in self._having[word]:
                shares[number] += weight / total
        return shares

    def probabilities(self, sentence: str, attention: Sequence[float] = ()) -> list[float]:
        """For the header and each line of the first chunk, then of the next, …, the probability that the sentence rests
        on it. attention: to each of them."""
        said = self._shares(frozenset(terms(sentence)) - frozenset(terms(self.question)))
        weights, total = (READ, sum(attention)) if any(attention) else (SHOWN, 1.0)
        scores = [
            weights.sentence * said[i] + weights.question * self._asked[i] + weights.near * self._near[i]
            for i in range(len(self._bags))
        ]
        if weights.attention:
            scores = [
                score + weights.attention * math.log(max(share, 0.0) / total + _LEAST_SHARE)
                for score, share in zip(scores, attention, strict=True)
            ]
        top = max((score for score, bag in zip(scores, self._bags, strict=True) if bag), default=0.0)
        powers = [math.exp(score - top) if bag else 0.0 for score, bag in zip(scores, self._bags, strict=True)]
        total = sum(powers)
        return [power / total for power in powers] if total else powers

    def best(self, sentence: str, attention: Sequence[float] = ()) -> Evidence | None:
        """The chunk that the sentence most probably rests on, and the lines of it; None if no line has words."""
        chances = self.probabilities(sentence, attention)
        of_chunk = [sum(chances[start:stop]) for start, stop in pairwise(self._starts)]
        if not any(of_chunk):
            return None
        source = max(range(len(of_chunk)), key=of_chunk.__getitem__)
        own = chances[self._starts[source] + 1 : self._starts[source + 1]]  # without the header
        first = last = max(range(len(own)), key=own.__getitem__)
        least = max(SIMILAR * own[first], 1e-9)
        while last - first + 1 < MOST_ROWS:
            above = own[first - 1] if first > 0 else 0.0
            below = own[last + 1] if last + 1 < len(own) else 0.0
            if max(above, below) < least:
                break
            first, last = (first - 1, last) if above >= below else (first, last + 1)
        return Evidence(source, first, last, sum(own[first : last + 1]))
