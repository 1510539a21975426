"""The needle evaluation: the cases are what they say, whatever the model makes of them."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.evals.needle import Cell, NeedleReport, depths_of, make_cases
from awareness.types import Chunk

POOL = [Chunk(f"m{i}.py", 1, 3, f"f{i}", f"def f{i}():\n    a = {i}\n    return a") for i in range(30)]


def test_a_case_hides_its_answer_in_the_gold_chunk_alone():
    for case in make_cases(POOL, chunks=8, samples=20, seed=3):
        name = case.answer_prefix.removesuffix(" = ")
        assert name in case.question
        holders = [i for i, text in enumerate(case.texts) if name in text]
        assert holders == [case.gold]
        assert f"\n# config\n{name} = {case.answer}\n" in case.texts[case.gold]
        assert len(set(case.texts)) == 8


def test_cases_repeat_by_seed_and_are_spread_over_depths():
    one = make_cases(POOL, chunks=5, samples=10, seed=1)
    assert one == make_cases(POOL, chunks=5, samples=10, seed=1) != make_cases(POOL, chunks=5, samples=10, seed=2)
    assert [case.gold for case in one] == [0, 1, 2, 3, 4] * 2
    assert [case.depth for case in one[:5]] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_depths_that_fall_together_are_one():
    assert depths_of(1) == {0.0: 0}
    assert depths_of(2) == {0.0: 0, 0.75: 1}
    assert depths_of(16) == {0.0: 0, 0.25: 4, 0.5: 8, 0.75: 11, 1.0: 15}


def test_a_pool_too_small():
    with pytest.raises(UsageError, match="31 chunks are asked for, but the repository has only 30"):
        make_cases(POOL, chunks=31, samples=1, seed=0)


def test_accuracy_weighs_cells_by_cases():
    cells = (Cell("joint", 4, 0.0, 1.0, 3), Cell("joint", 4, 1.0, 0.0, 1), Cell("joint", 8, 0.0, 0.5, 4))
    report = NeedleReport("m", 0, 4, 120, cells)
    assert report.accuracy("joint", 4) == 0.75
    assert report.accuracy("joint") == 0.625
