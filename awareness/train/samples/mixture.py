"""The stream of samples that a training reads: kinds by their weights, repositories by chance, difficulty by stage.

Sample i is a pure function of (seed, i): whoever stops after a sample goes on with exactly the next one, on any number
of processes. Samples of kinds that need a model to be made are made before (`PreparedSample`); here they only get
their distractors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from awareness.errors import UsageError
from awareness.train.samples.code_questions import QUESTIONS, unanswerable_question
from awareness.train.samples.needles import NEEDLES, unanswerable_needle
from awareness.train.samples.pool import Kind, Pool
from awareness.types import Sample

KINDS: dict[str, Kind] = {**NEEDLES, **QUESTIONS}
PREPARED_KINDS = ("written", "distractors")
_TRIES = 16  # pools of a kind, and kinds of a sample, before something else is drawn


@dataclass(frozen=True)
class PreparedSample:
    """A sample whose `texts` are the gold ones only, about the repository (the pool's name) that its distractors are
    drawn from. without: names that no distractor may mention."""

    repository: str
    sample: Sample
    without: tuple[str, ...] = ()


class SampleStream(Sequence[Sample]):
    """`length` samples, in as many equal stages as `curriculum` has entries.

    kinds: name -> weight. curriculum: chunks of a sample at the most, of each stage; how many it has is log-uniform,
    drawn once for each `group` of consecutive samples, so that the rows of a batch are of like length. prepared:
    samples of the kinds in PREPARED_KINDS. Raises UsageError for a kind that is unknown, and where no pool offers any.
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
    ) -> None:
        known = sorted({*KINDS, *PREPARED_KINDS})
        for name in kinds:
            if name not in known:
                raise UsageError(f"data.kinds.{name}: there is no such kind", hint=f"there are {', '.join(known)}")
        self.pools = [pool for pool in pools if len(pool)]
        self.kinds = {name: weight for name, weight in kinds.items() if weight > 0}
        self.curriculum, self.length, self.group, self.seed = tuple(curriculum), length, group, seed
        self.prepared = prepared or {}
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
        while True:  # ends: some kind is offered, and every kind and pool is drawn sooner or later
            name = rng.choices(names, weights)[0]
            pools = rng.sample(self.pools, min(_TRIES, len(self.pools)))
            if sample := self._of_kind(rng, name, pools, count):
                return replace(sample, kind=name)

    def chunks_of(self, index: int) -> int:
        """How many chunks the sample has, if its repository has as many."""
        first = index - index % self.group
        stage = min(first * len(self.curriculum) // self.length, len(self.curriculum) - 1)
        most = self.curriculum[stage]
        drawn = random.Random(f"{self.seed}/chunks/{first}").uniform(0.0, math.log(most + 1))
        return min(most, int(math.exp(drawn)))

    def _of_kind(self, rng: random.Random, name: str, pools: Sequence[Pool], count: int) -> Sample | None:
        """From the first of the pools that offers it."""
        if name in KINDS:
            made = (KINDS[name](rng, pool, min(count, len(pool))) for pool in pools)
            return next((sample for sample in made if sample), None)
        prepared = self.prepared.get(name, ())
        if not prepared:
            return None
        drawn = rng.choice(prepared)
        pool = self.by_name.get(drawn.repository)
        return None if pool is None else _among_others(rng, pool, drawn, count)


def _among_others(rng: random.Random, pool: Pool, drawn: PreparedSample, count: int) -> Sample:
    """The prepared sample, its gold texts among distractors."""
    golds = set(drawn.sample.texts)
    without = {number for number, text in enumerate(pool.texts) if text in golds}
    without.update(*(pool.mentioning(name) for name in drawn.without))
    texts, places = pool.scattered(rng, drawn.sample.texts, count, without)
    return replace(drawn.sample, texts=texts, gold=places)


def distractor_questions(rng: random.Random, pool: Pool) -> PreparedSample | None:
    """A question that no chunk answers, its answer still to be filled in: with what the model says without memory."""
    make = unanswerable_question if rng.random() < 0.5 else unanswerable_needle
    asked = make(rng, pool) or unanswerable_needle(rng, pool)
    if asked is None:
        return None
    question, without = asked
    return PreparedSample(pool.name, Sample((), (), question, "", kind="distractors"), without)
