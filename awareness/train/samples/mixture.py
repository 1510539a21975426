"""The stream of training samples: kinds by weight, repositories at random, the number of chunks by stage.

Sample i is a pure function of (seed, i), so a run can resume at any sample, on any number of processes. Kinds that need
a model are made before training (`PreparedSample`, teacher_samples.py) and only get their distractors here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from awareness.config.training import ASKED_KINDS, PREPARED_KINDS
from awareness.errors import UsageError
from awareness.model.not_said import NOT_SAID
from awareness.train.samples.asked import Asked, asked_sample
from awareness.train.samples.code_questions import QUESTIONS, unanswerable_question
from awareness.train.samples.hops import HOPS
from awareness.train.samples.needles import NEEDLES, unanswerable_needle
from awareness.train.samples.pool import Kind, Pool
from awareness.types import Sample


def unanswerable(rng: random.Random, pool: Pool) -> tuple[str, tuple[str, ...]] | None:
    """A question that no chunk answers, and names that no distractor may mention."""
    make = unanswerable_question if rng.random() < 0.5 else unanswerable_needle
    return make(rng, pool) or unanswerable_needle(rng, pool)


def unknown(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """A question whose answer is not in the chunks. The answer says so."""
    drawn = unanswerable(rng, pool)
    if drawn is None:
        return None
    question, names = drawn
    texts, _ = pool.scattered(rng, (), count, set().union(*(pool.mentioning(name) for name in names)))
    return Sample(texts, (), question, NOT_SAID) if texts else None


KINDS: dict[str, Kind] = {**NEEDLES, **QUESTIONS, **HOPS, "unknown": unknown}
KNOWN_KINDS = sorted({*KINDS, *PREPARED_KINDS, *ASKED_KINDS})
_TRIES = 16  # pools that are tried for a kind before another kind is drawn


@dataclass(frozen=True)
class PreparedSample:
    """A sample with its gold texts only. repository: name of the pool of its distractors. without: names that no
    distractor may mention."""

    repository: str
    sample: Sample
    without: tuple[str, ...] = ()


class SampleStream(Sequence[Sample]):
    """`length` samples, in as many equal stages as `curriculum` has entries.

    kinds: name -> weight. curriculum: the largest number of chunks of each stage. The number is log-uniform and drawn
    once for each `group` of consecutive samples, so that rows of a batch have similar lengths. prepared: samples of the
    kinds in PREPARED_KINDS. asked: name of a pool -> the questions that people wrote about it, for ASKED_KINDS. Raises
    UsageError for an unknown kind, and if no pool offers any kind.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        kinds: Mapping[str, float],
        *,
        curriculum: Sequence[int],
        length: int,
        group: int,
        seed: int | str,
        prepared: Mapping[str, Sequence[PreparedSample]] | None = None,
        asked: Mapping[str, Sequence[Asked]] | None = None,
    ) -> None:
        for name in kinds:
            if name not in KNOWN_KINDS:
                raise UsageError(f"data.kinds.{name}: unknown kind", hint=f"known kinds: {', '.join(KNOWN_KINDS)}")
        self.pools = [pool for pool in pools if len(pool)]
        self.kinds = {name: weight for name, weight in kinds.items() if weight > 0}
        self.curriculum, self.length, self.group, self.seed = tuple(curriculum), length, group, seed
        self.prepared, self.asked = prepared or {}, asked or {}
        self.by_name = {pool.name: pool for pool in self.pools}
        rng = random.Random(f"{seed}")
        if not any(self._of_kind(rng, name, [pool], 1) for name in self.kinds for pool in self.pools):
            raise UsageError(
                f"data.kinds: none of {', '.join(self.kinds)} can be made from {len(self.pools)} repositories",
                hint="other kinds, or other data.sources",
            )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        rng = random.Random(f"{self.seed}/{index}")
        count = self.chunks_of(index)
        names, weights = list(self.kinds), list(self.kinds.values())
        while True:  # ends: __init__ checked that some pool offers a kind, and each is drawn sooner or later
            name = rng.choices(names, weights)[0]
            pools = rng.sample(self.pools, min(_TRIES, len(self.pools)))
            if sample := self._of_kind(rng, name, pools, count):
                return replace(sample, kind=name)

    def chunks_of(self, index: int) -> int:
        """The number of chunks of a sample, if its repository has that many."""
        first = index - index % self.group
        stage = min(first * len(self.curriculum) // self.length, len(self.curriculum) - 1)
        most = self.curriculum[stage]
        drawn = random.Random(f"{self.seed}/chunks/{first}").uniform(0.0, math.log(most + 1))
        return min(most, int(math.exp(drawn)))

    def _of_kind(self, rng: random.Random, name: str, pools: Sequence[Pool], count: int) -> Sample | None:
        """A sample of this kind from the first pool that offers it."""
        if name in KINDS:
            made = (KINDS[name](rng, pool, min(count, len(pool))) for pool in pools)
            return next((sample for sample in made if sample), None)
        if name in ASKED_KINDS:
            pool = next((pool for pool in pools if self.asked.get(pool.name)), None)
            if pool is None:
                return None
            return asked_sample(rng, rng.choice(self.asked[pool.name]), count, is_answered=name == "asked")
        prepared = self.prepared.get(name, ())
        if not prepared:
            return None
        drawn = rng.choice(prepared)
        pool = self.by_name.get(drawn.repository)
        return None if pool is None else _with_distractors(rng, pool, drawn, count)


def _with_distractors(rng: random.Random, pool: Pool, drawn: PreparedSample, count: int) -> Sample:
    """The prepared sample with its gold texts among distractors."""
    golds = set(drawn.sample.texts)
    without = {number for number, text in enumerate(pool.texts) if text in golds}
    without.update(*(pool.mentioning(name) for name in drawn.without))
    texts, places = pool.scattered(rng, drawn.sample.texts, count, without)
    return replace(drawn.sample, texts=texts, gold=places)


def distractor_questions(rng: random.Random, pool: Pool) -> PreparedSample | None:
    """A question that no chunk answers. Its answer is filled in later, by the model without memory."""
    drawn = unanswerable(rng, pool)
    if drawn is None:
        return None
    question, without = drawn
    return PreparedSample(pool.name, Sample((), (), question, "", kind="distractors"), without)
