"""The chunks of one repository, and how a sample is made of them: which chunks, in which order, with which question.

A pool caches what the kinds of samples compute from it, since all samples of a training come from a few hundred pools.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from awareness.model.presets import NEUTRAL
from awareness.model.prompts import BRIEFLY
from awareness.train.samples.templates import Phrasings
from awareness.types import Chunk, Sample

Result = TypeVar("Result")
Kind = Callable[[random.Random, "Pool", int], "Sample | None"]
"""(rng, pool, number of chunks) -> a sample, or None if it cannot be made from this pool."""

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
        self._results: dict[Callable[[Pool], Any], Any] = {}

    def __len__(self) -> int:
        return len(self.chunks)

    def once(self, find: Callable[[Pool], Result]) -> Result:
        """`find(self)`, computed once."""
        if find not in self._results:
            self._results[find] = find(self)
        return self._results[find]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The chunks as they are encoded."""
        return tuple(chunk.encoded_text for chunk in self.chunks)

    @cached_property
    def everything(self) -> str:
        """All texts in lower case. An invented name must not occur in it."""
        return "\n".join(self.texts).lower()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in the identifiers of this repository, sorted."""
        return tuple(sorted({word.lower() for name in self.mentions for word in _WORD.findall(name)}))

    @cached_property
    def mentions(self) -> Mapping[str, frozenset[int]]:
        """Identifier -> numbers of the chunks that contain it."""
        mentions: dict[str, set[int]] = defaultdict(set)
        for number, chunk in enumerate(self.chunks):
            for name in _IDENTIFIER.findall(chunk.text):
                mentions[name].add(number)
        return {name: frozenset(numbers) for name, numbers in mentions.items()}

    @cached_property
    def definitions(self) -> Mapping[str, frozenset[int]]:
        """Name -> numbers of the chunks that define or assign it, or show a part of its definition."""
        definitions: dict[str, set[int]] = defaultdict(set)
        for number, chunk in enumerate(self.chunks):
            for groups in DEFINITION.findall(chunk.text):
                definitions["".join(groups)].add(number)
            for name in filter(None, chunk.symbol.split(".")):
                definitions[name].add(number)
        return {name: frozenset(numbers) for name, numbers in definitions.items()}

    def mentioning(self, name: str) -> frozenset[int]:
        """Numbers of the chunks that contain or define a name; of a qualified name, its last part."""
        last = name.rpartition(".")[2]
        return self.mentions.get(last, frozenset()) | self.definitions.get(last, frozenset())

    def scattered(
        self, rng: random.Random, golds: Sequence[str], count: int, without: Collection[int] = ()
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """(texts, places of the golds among them): up to `count` texts, the golds in their order at random places.

        without: numbers of chunks that are not drawn.
        """
        others = [number for number in range(len(self)) if number not in without]
        drawn = rng.sample(others, min(max(count - len(golds), 0), len(others)))
        total = len(drawn) + len(golds)
        places = sorted(rng.sample(range(total), len(golds)))
        texts = [self.texts[number] for number in drawn]
        for place, gold in zip(places, golds, strict=True):
            texts.insert(place, gold)
        return tuple(texts), tuple(places)

    def sample(
        self, rng: random.Random, phrasings: Phrasings, gold: int, count: int, without: Collection[int] = ()
    ) -> Sample:
        """A question about the unchanged chunk `gold`, among others of the pool."""
        texts, places = self.scattered(rng, [self.texts[gold]], count, {gold, *without})
        return with_question(rng, phrasings, Sample(texts, places, "", ""))


def with_question(rng: random.Random, phrasings: Phrasings, sample: Sample) -> Sample:
    """The sample with a question and its answer."""
    question, prefix, answer = ask(rng, phrasings)
    return replace(sample, question=question, answer=answer, answer_prefix=prefix)


def ask(rng: random.Random, phrasings: Phrasings) -> tuple[str, str, str]:
    """One way to ask and answer: (question, answer_prefix, answer).

    A third of the questions end with the instruction of `awareness ask`, and get a whole sentence. Of the others, the
    answers complete a prefix (`NAME = `), are sentences, or are bare where the question asks for nothing else.
    """
    question = rng.choice(phrasings.questions)
    if question.endswith("?") and rng.random() < 0.1:  # as typed in a hurry
        question = question[:1].lower() + question[1:-1] if question[:2].istitle() else question[:-1]
    stop = "" if question.endswith(("?", ".")) else "."
    only = f"{stop} Answer with the {phrasings.noun} only."
    tail = rng.choices(["", f"{stop}{BRIEFLY}", only, NEUTRAL.brief], [3, 1, 1, 3])[0]
    if tail != NEUTRAL.brief and rng.random() < 0.6:
        prefix = rng.choice(phrasings.prefixes)
        rest = phrasings.after(prefix)
        if prefix.endswith(" ") and rng.random() < 0.3:  # the space can also belong to the first token of the answer
            return question + tail, prefix[:-1], f" {rest}"
        return question + tail, prefix, rest
    return question + tail, "", phrasings.answer if tail == only else rng.choice(phrasings.sentences)
