"""Questions that people wrote about the sources (`data.questions`), as samples.

`asked`: the chunks that show the answer stand among others of their repository. `asked_unknown`: the same questions
without these chunks; the answer says that the code does not say. Half of the other chunks are those that share most
words with the question, as a search would find them: a chunk that is only similar is what misleads a reader.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from awareness.index.search.routing_index import rank_by_words
from awareness.model.not_said import NOT_SAID
from awareness.model.presets import NEUTRAL
from awareness.model.prompts import BRIEFLY
from awareness.train.data.data_sources import Source, project
from awareness.train.samples.pool import Pool
from awareness.train.samples.question_files import Place, Question, read_questions
from awareness.types import Chunk, Sample

_SIMILAR = 0.5  # share of the other chunks that share words with the question
_MOST_GOLDS = 2  # chunks that show lines of one place


@dataclass(frozen=True)
class Asked:
    """A question about a pool. golds: numbers of the chunks that show its answer."""

    pool: Pool
    question: str
    answer: str
    golds: tuple[int, ...]

    @cached_property
    def others(self) -> list[int]:
        """Numbers of the other chunks, those that share most words with the question first."""
        ranked = rank_by_words(self.question, self.pool.chunks)
        return [place for place in ranked if place not in self.golds]


@dataclass(frozen=True)
class QuestionsOfSources:
    """by_project: project -> the questions about it, whatever its version."""

    by_project: Mapping[str, Sequence[Question]]

    def are_answered_by(self, source: Source, chunk: Chunk) -> bool:
        """Whether the chunk of this source shows lines that answer one of them."""
        return any(place.is_in(chunk) for place in self._places.get((source.project, chunk.path), ()))

    @cached_property
    def _places(self) -> Mapping[tuple[str, str], Sequence[Place]]:
        """(project, path) -> the places that answer: most chunks of a source are of files that nobody asked about."""
        places: dict[tuple[str, str], list[Place]] = {}
        for name, questions in self.by_project.items():
            for place in (place for question in questions for place in question.gold):
                places.setdefault((name, place.path), []).append(place)
        return places

    def about(self, pool: Pool) -> list[Asked]:
        """Those whose answer the pool's chunks show, each in few chunks."""
        asked = []
        for question in self.by_project.get(project(pool.name), ()):
            golds = question.gold_among(pool.chunks)
            if 0 < len(golds) <= _MOST_GOLDS:
                asked.append(Asked(pool, question.question, question.answer, golds))
        return asked


def questions_of(files: Sequence[str], find: Callable[[Path], Path]) -> QuestionsOfSources:
    """The questions with an answer and a `repo`. find: the name of a file -> the file. Raises UsageError."""
    found: dict[str, list[Question]] = {}
    for file in files:
        for question in read_questions(find(Path(file))):
            if question.repo and question.answer:
                found.setdefault(project(question.repo), []).append(question)
    return QuestionsOfSources(found)


def asked_sample(rng: random.Random, asked: Asked, count: int, *, is_answered: bool) -> Sample:
    """Up to `count` chunks; without the golds if it is not answered."""
    texts_of, others, golds = asked.pool.texts, asked.others, asked.golds if is_answered else ()
    number = min(max(count - len(golds), 0 if golds else 1), len(others))
    similar = others[: math.ceil(_SIMILAR * number)]
    drawn = [*similar, *rng.sample(others[len(similar) :], number - len(similar))]
    rng.shuffle(drawn)
    places = sorted(rng.sample(range(number + len(golds)), len(golds)))
    texts = [texts_of[place] for place in drawn]
    for place, gold in zip(places, golds, strict=True):
        texts.insert(place, texts_of[gold])
    tail = rng.choices([NEUTRAL.brief, BRIEFLY, ""], [4, 1, 1])[0]
    stop = "." if tail == BRIEFLY and not asked.question.endswith(("?", ".")) else ""
    answer = asked.answer if is_answered else NOT_SAID
    return Sample(tuple(texts), tuple(places), f"{asked.question}{stop}{tail}", answer)
