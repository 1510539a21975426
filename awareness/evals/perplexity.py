"""Perplexity of lines that rest on a definition in another file: does it help to have that file in memory?

The model continues the lines above (next_line_cases.py). What it may read is the condition: `gold`, the chunk with the
definition among others of the repository; `shuffled`, as many chunks, those of another case, of which none has the name
(the control: is it that definition, or any code?); `none`. An arm that reads nothing has the last one alone.

Perplexity is exp(-sum of log p / number of tokens) over all cases (Jelinek et al. 1977), of the line and of the name in
it, given what stands before it; the interval is a bootstrap over cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awareness.errors import UsageError
from awareness.evals.arms import Arm
from awareness.evals.intervals import RESAMPLES, TAILS, Estimate
from awareness.evals.next_line_cases import LineCase
from awareness.types import Progress, silent

CONDITIONS = ("gold", "shuffled", "none")


@dataclass(frozen=True)
class Likelihood:
    """-log p of a case, in nats, and its tokens: of the line, and of the name alone."""

    line: tuple[float, int]
    name: tuple[float, int]


@dataclass(frozen=True)
class Perplexity:
    """Of one arm under one condition: of the lines, which have `tokens` tokens, and of the names in them. `Estimate`s
    of a perplexity, not of a mean."""

    arm: str
    condition: str
    line: Estimate
    name: Estimate
    tokens: int


@dataclass(frozen=True)
class PerplexityReport:
    """likelihoods: (arm, condition) -> one a case, for those who compare them case by case."""

    rows: tuple[Perplexity, ...]
    cases: tuple[LineCase, ...]
    likelihoods: dict[tuple[str, str], list[Likelihood]]


def run(arms: Sequence[Arm], cases: Sequence[LineCase], *, seed: int, progress: Progress = silent) -> PerplexityReport:
    """Puts the cases that every arm has room for to every arm, under each condition. Raises UsageError."""
    fitting = [case for case in cases if all(arm.fits(case.sample) for arm in arms)]
    if not fitting:
        raise UsageError(f"none of {len(cases)} cases fits the prompt of every arm", hint="fewer --chunks")
    asked = [(arm, how) for arm in arms for how in (CONDITIONS if arm.reads != "none" else CONDITIONS[-1:])]
    found: dict[tuple[str, str], list[Likelihood]] = {(arm.name, how): [] for arm, how in asked}
    for i, case in enumerate(fitting):
        texts = {"gold": case.sample.texts, "shuffled": case.shuffled, "none": ()}
        for j, (arm, how) in enumerate(asked):
            line, name = (arm.nll(sample, texts=texts[how]) for sample in (case.sample, case.named))
            found[arm.name, how].append(Likelihood(line, name))
            progress("reading lines", i * len(asked) + j + 1, len(fitting) * len(asked))
    return PerplexityReport(tuple(_row(*key, own, seed) for key, own in found.items()), tuple(fitting), found)


def _row(arm: str, condition: str, found: Sequence[Likelihood], seed: int) -> Perplexity:
    lines, names = [one.line for one in found], [one.name for one in found]
    tokens = sum(count for _, count in lines)
    return Perplexity(arm, condition, perplexity(lines, seed=seed), perplexity(names, seed=seed), tokens)


def perplexity(likelihoods: Sequence[tuple[float, int]], *, seed: int) -> Estimate:
    """likelihoods: (-log p in nats, tokens) of each case; the interval is of draws of cases, with replacement."""
    nlls, tokens = np.array(likelihoods, dtype=np.float64).T  # [n]
    drawn = np.random.default_rng(seed).integers(len(nlls), size=(RESAMPLES, len(nlls)))
    low, high = np.percentile(np.exp(nlls[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)), TAILS)
    return Estimate(float(np.exp(nlls.sum() / tokens.sum())), float(low), float(high), len(nlls))
