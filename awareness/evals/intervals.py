"""Means with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # standard deviations around the mean that hold 95 % of a normal distribution
TAILS = (2.5, 97.5)  # percentiles
RESAMPLES = 2000  # of a bootstrap


@dataclass(frozen=True)
class Estimate:
    """The mean of n values and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """`0.85 (0.64-0.95)`"""
        return f"{self.mean:.2f} ({self.low:.2f}-{self.high:.2f})"


def wilson(successes: float, n: int) -> Estimate:
    """A proportion with the score interval (Wilson 1927), which holds near 0 and 1 and for small n.

    successes: may be a sum of shares, each in [0, 1]. Their variance is at most that of a proportion with the same
    mean, so the interval is then wider than necessary.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n}")
    p, z2 = successes / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


def bootstrap(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of any values, with the percentiles of the means of `resamples` draws with replacement (Efron 1979)."""
    if not values:
        raise ValueError("no values to draw from")
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), TAILS)
    return Estimate(float(array.mean()), float(low), float(high), len(array))
