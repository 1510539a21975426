"""Trainings side by side: how well each says the answers of the same held-out samples, by kind of question."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from awareness.evals.arms import Arm
from awareness.evals.intervals import Estimate, bootstrap
from awareness.types import Progress, Sample, silent


@dataclass(frozen=True)
class Compared:
    """Of one arm. perplexity: exp of the mean, over samples, of the mean negative log-likelihood of an answer's tokens;
    by kind of sample, and of all under the empty name. left_out: samples that are too long for some arm."""

    arm: str
    perplexity: dict[str, Estimate]
    left_out: int


def run(arms: Sequence[Arm], samples: Sequence[Sample], *, seed: int, progress: Progress = silent) -> list[Compared]:
    """Each arm says what it is surprised by; samples that don't fit one arm are left out for all."""
    fit = [sample for sample in samples if all(arm.fits(sample) for arm in arms)]
    found = []
    for number, arm in enumerate(arms):
        by_kind: dict[str, list[float]] = defaultdict(list)
        for done, sample in enumerate(fit):
            progress("comparing", number * len(fit) + done, len(arms) * len(fit))
            nll, tokens = arm.nll(sample)
            for kind in ("", sample.kind):
                by_kind[kind].append(nll / max(1, tokens))
        estimates = {kind: _exp(bootstrap(values, seed=seed)) for kind, values in sorted(by_kind.items())}
        found.append(Compared(arm.name, estimates, len(samples) - len(fit)))
    return found


def _exp(mean: Estimate) -> Estimate:
    return Estimate(math.exp(mean.mean), math.exp(mean.low), math.exp(mean.high), mean.n)
