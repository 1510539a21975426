"""Intervals: the numbers of the literature, and bounds that hold at the edges."""

from __future__ import annotations

import pytest

from awareness.evals.intervals import Estimate, bootstrap, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_numbers(successes, n, low, high):
    """Newcombe (1998), table I, method 3."""
    found = wilson(successes, n)
    assert (found.mean, found.n) == (successes / n, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_wilson_takes_shares_and_ends_where_proportions_do():
    assert wilson(1.5, 3).mean == 0.5
    assert wilson(7, 7).high == 1.0 and wilson(0, 7).low == 0.0
    assert wilson(7, 7).low == pytest.approx(1 - wilson(0, 7).high)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_of_no_proportion(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


def test_bootstrap_is_that_of_the_mean_and_repeats_by_seed():
    values = [float(i % 10) for i in range(400)]  # mean 4.5, standard error 2.8723 / 20
    found = bootstrap(values)
    assert (found.mean, found.n) == (4.5, 400)
    assert (found.low, found.high) == pytest.approx((4.5 - 1.96 * 0.1436, 4.5 + 1.96 * 0.1436), abs=0.03)
    assert found == bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap([2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 2)


def test_bootstrap_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])
