"""The chunks of one repository, and what makes a sample of them: which are drawn, and where the gold ones stand.

What else the kinds of samples need of a repository (its definitions, its docstrings) they find themselves; a pool keeps
it for them, since all samples of a training come from the same few hundred pools.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from awareness.train.samples.vocabulary import Fact, put
from awareness.types import Chunk, Sample

Found = TypeVar("Found")
Kind = Callable[[random.Random, "Pool", int], "Sample | None"]
"""(rng, pool, number of chunks) -> a sample, or None: this pool doesn't offer it."""

_KEYWORDS = "def|class|func|function|fn|type|struct|interface|trait|enum|const|let|var|module|namespace"
DEFINITION = re.compile(
    rf"\b(?:{_KEYWORDS})[ \t]+(?:\([^()\n]*\)[ \t]*)?\*?(?:self\.)?([A-Za-z_$][\w$]*)"
    r"|^[ \t]*(?:self\.)?([A-Za-z_$][\w$]*)[ \t]*(?::[^=\n]{1,40})?:?=(?![=>])"
    r"|#define[ \t]+([A-Za-z_]\w*)",
    re.MULTILINE,
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_WORD = re.compile(r"(?:(?<![A-Za-z])[a-z]|[A-Z])[a-z]{3,9}(?![a-z])")


class Pool:
    """Chunks of one repository called `name`."""

    def __init__(self, chunks: Sequence[Chunk], name: str = "") -> None:
        self.chunks = tuple(chunks)
        self.name = name
        self._found: dict[Callable[[Pool], Any], Any] = {}

    def __len__(self) -> int:
        return len(self.chunks)

    def once(self, find: Callable[[Pool], Found]) -> Found:
        """What `find` finds in this pool; it looks only the first time."""
        if find not in self._found:
            self._found[find] = find(self)
        return self._found[find]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The chunks as they are encoded."""
        return tuple(chunk.encoded_text for chunk in self.chunks)

    @cached_property
    def everything(self) -> str:
        """All texts, in lower case: what a made-up name must not occur in."""
        return "\n".join(self.texts).lower()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words that the identifiers of this repository are made of."""
        found = {word.lower() for name in self.mentions for word in _WORD.findall(name)}
        return tuple(sorted(found))

    @cached_property
    def mentions(self) -> Mapping[str, frozenset[int]]:
        """Identifier -> the chunks that it occurs in."""
        found: dict[str, set[int]] = defaultdict(set)
        for number, chunk in enumerate(self.chunks):
            for name in _IDENTIFIER.findall(chunk.text):
                found[name].add(number)
        return {name: frozenset(numbers) for name, numbers in found.items()}

    @cached_property
    def definitions(self) -> Mapping[str, frozenset[int]]:
        """Name -> the chunks that define or assign it, or show a part of its definition."""
        found: dict[str, set[int]] = defaultdict(set)
        for number, chunk in enumerate(self.chunks):
            for groups in DEFINITION.findall(chunk.text):
                found["".join(groups)].add(number)
            for name in filter(None, chunk.symbol.split(".")):
                found[name].add(number)
        return {name: frozenset(numbers) for name, numbers in found.items()}

    def mentioning(self, name: str) -> frozenset[int]:
        """The chunks that a name, or the last part of a qualified one, occurs in or is defined by."""
        last = name.rpartition(".")[2]
        return self.mentions.get(last, frozenset()) | self.definitions.get(last, frozenset())

    def scattered(
        self, rng: random.Random, golds: Sequence[str], count: int, without: Collection[int] = ()
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """(texts, places of the golds among them): up to `count` texts, the golds in their order at random places; none
        of the chunks `without`."""
        others = [number for number in range(len(self)) if number not in without]
        drawn = rng.sample(others, min(max(count - len(golds), 0), len(others)))
        total = len(drawn) + len(golds)
        places = sorted(rng.sample(range(total), len(golds)))
        texts = [self.texts[number] for number in drawn]
        for place, gold in zip(places, golds, strict=True):
            texts.insert(place, gold)
        return tuple(texts), tuple(places)

    def asked(self, rng: random.Random, fact: Fact, gold: int, count: int, without: Collection[int] = ()) -> Sample:
        """A question about a chunk as it is, among others of the pool."""
        texts, places = self.scattered(rng, [self.texts[gold]], count, {gold, *without})
        return said(rng, fact, Sample(texts, places, "", ""))


def said(rng: random.Random, fact: Fact, sample: Sample) -> Sample:
    """The sample with a fact as its question and answer."""
    question, prefix, answer = put(rng, fact)
    return replace(sample, question=question, answer=answer, answer_prefix=prefix)
