"""Near duplicates are exactly the texts whose shingles are alike enough, and no pair of them is overlooked."""

from __future__ import annotations

import random

import pytest

from awareness.train.data.near_duplicates import MISSED, NUM_PERM, NearDuplicates, jaccard, num_bands, shingles_of


def test_shingles_are_runs_of_tokens_whatever_is_between_them():
    assert shingles_of("a = b(1)") == {"a = b", "= b (", "b ( 1", "( 1 )"}
    assert shingles_of("a  =\n\tb ( 1 )") == shingles_of("a = b(1)")
    assert shingles_of("a =") == {"a ="}
    assert shingles_of("") == {""}


def test_the_earliest_original_is_named_and_a_duplicate_is_not_added():
    words = [f"word{number}" for number in range(40)]
    seen = NearDuplicates(0.7)
    assert seen.add("first", " ".join(words)) is None
    assert seen.add("same", " ".join(words)) == "first"
    chain, far = [*words[:36], *"abcd"], [*words[:32], *"efghabcd"]
    assert seen.add("chain", " ".join(chain)) == "first"
    assert jaccard(shingles_of(" ".join(chain)), shingles_of(" ".join(far))) > 0.7
    assert seen.add("far", " ".join(far)) is None  # like `chain`, which was left out, and not like `first`
    assert seen.add("other", " ".join(reversed(words))) is None


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_every_pair_is_decided_by_its_jaccard_index(threshold):
    random_ = random.Random(7)
    alike = 0
    for _ in range(250):
        one = [f"word{random_.randrange(9999)}" for _ in range(60)]
        other = list(one)
        for _ in range(random_.randrange(20)):
            other[random_.randrange(60)] = "changed"
        seen = NearDuplicates(threshold)
        seen.add("one", " ".join(one))
        expected = jaccard(shingles_of(" ".join(one)), shingles_of(" ".join(other))) >= threshold
        assert (seen.add("other", " ".join(other)) == "one") is expected
        alike += expected
    assert 5 < alike < 245


def test_a_threshold_of_zero_finds_none():
    seen = NearDuplicates(0)
    assert [seen.add(name, "def f(): pass") for name in "abc"] == [None] * 3


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_the_fewest_bands_that_miss_few_pairs(threshold):
    def missed(bands: int) -> float:
        return (1 - threshold ** (NUM_PERM // bands)) ** bands

    bands = num_bands(threshold)
    assert NUM_PERM % bands == 0
    assert bands == NUM_PERM or missed(bands) <= MISSED
    assert bands == 1 or missed(bands // 2) > MISSED
