"""The needle evaluation: cases hide what they ask for; values and chunks are scored apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from awareness.errors import UsageError
from awareness.evals import needle
from awareness.evals.needle import Grid, Score, depths_of, make_cases, share_found
from awareness.evals.readers import Bm25
from awareness.model.generate import Generation
from awareness.train.samples.held_out_shapes import GROUPS, LIST_MARK, SHAPES, shapes_named
from awareness.types import Chunk, Sample
from tests.conftest import tiny_tokenizer

POOL = [Chunk(f"m{i}.py", 1, 3, f"f{i}", f"def f{i}():\n    a = {i}\n    return a") for i in range(30)]
HAY = {chunk.encoded_text for chunk in POOL}


# --- cases ---------------------------------------------------------------------------------------------------------


def test_a_constant_is_hidden_in_the_gold_chunk_alone():
    for case in make_cases(POOL, chunks=8, samples=20, seed=3):
        sample = case.sample
        name = sample.answer_prefix.removesuffix(" = ")
        assert name in sample.question
        holders = [i for i, text in enumerate(sample.texts) if name in text]
        assert holders == list(sample.gold)
        assert f"\n# config\n{name} = {sample.answer}\n" in sample.texts[holders[0]]
        assert len(set(sample.texts)) == 8


def test_the_constant_of_a_seed_is_the_one_of_all_earlier_figures():
    sample = make_cases(POOL, chunks=4, samples=1, seed=1)[0].sample
    assert (sample.answer_prefix, sample.answer, sample.gold) == ("AUTH_BUDGET = ", "3025", (0,))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in GROUPS["two_hop"]])
def test_gold_chunks_and_no_others_hold_the_answer(shape):
    for case in make_cases(POOL, chunks=8, samples=10, seed=3, shapes=[shape]):
        sample = case.sample
        assert sample.kind == shape and sample.question.isascii()
        values = sample.answer.split(LIST_MARK)
        assert len(set(values)) == {"multi_value": 3, "multi_query": 2}.get(shape, 1)
        holders = {i for value in values for i, text in enumerate(sample.texts) if value in text}
        assert holders == set(sample.gold) and sample.gold == tuple(sorted(sample.gold))
        assert not any(value in sample.question + sample.answer_prefix for value in values)
        touched = {i for i, text in enumerate(sample.texts) if text not in HAY}
        assert (touched > holders) if shape == "multi_key" and len(touched) > 1 else (touched == holders)


@pytest.mark.parametrize("shape", GROUPS["two_hop"])
def test_two_hops_lie_in_two_chunks_and_one_of_three_values_is_meant(shape):
    for case in make_cases(POOL, chunks=8, samples=10, seed=3, shapes=[shape]):
        sample = case.sample
        touched = tuple(i for i, text in enumerate(sample.texts) if text not in HAY)
        assert touched == sample.gold and len(touched) == 2
        (holder,) = (i for i, text in enumerate(sample.texts) if sample.answer in text)
        added = set(sample.texts[holder].split("\n")) - set("\n".join(HAY).split("\n"))
        values = [line for line in added if re.search(r'"[0-9a-f]{8}"| = \d{4}$|return \d{4}', line)]
        assert len(values) == 3
        assert sample.answer not in sample.question + sample.answer_prefix
        first = depths_of(8)[case.depth]
        changed = [i for i, (a, b) in enumerate(zip(sample.texts, case.without, strict=True)) if a != b]
        assert changed == [first]  # the block that says what the names are is left out


def test_two_hops_need_two_chunks():
    with pytest.raises(UsageError, match="--chunks 1, but hop_call lies in 2 chunks"):
        make_cases(POOL, chunks=1, samples=1, seed=0, shapes=["hop_call"])


@pytest.mark.parametrize("shape", GROUPS["held-out"])
def test_the_same_chunks_without_the_answer(shape):
    for case in make_cases(POOL, chunks=8, samples=5, seed=3, shapes=[shape]):
        sample = case.sample
        assert not any(value in text for value in sample.answer.split(LIST_MARK) for text in case.without)
        changed = {i for i, (a, b) in enumerate(zip(sample.texts, case.without, strict=True)) if a != b}
        assert changed == set(sample.gold)


def test_other_needles_of_the_shape_lie_around_the_one_that_is_asked_for():
    for case in make_cases(POOL, chunks=8, samples=5, seed=0, shapes=["multi_key"]):
        names = {line.split(" = ")[0] for t in case.sample.texts for line in t.split("\n") if ' = "' in line}
        assert len(names) == 5
        assert [name for name in names if name in case.sample.question] == [case.sample.answer_prefix[:-4]]


def test_the_first_block_lies_at_the_depth():
    for case in make_cases(POOL, chunks=5, samples=10, seed=2, shapes=["multi_value", "hex"]):
        place = depths_of(5)[case.depth]
        assert case.sample.answer.split(LIST_MARK)[0] in case.sample.texts[place]


def test_cases_repeat_by_seed_and_are_spread_over_depths():
    one = make_cases(POOL, chunks=5, samples=10, seed=1)
    assert one == make_cases(POOL, chunks=5, samples=10, seed=1) != make_cases(POOL, chunks=5, samples=10, seed=2)
    assert [case.sample.gold for case in one] == [(0,), (1,), (2,), (3,), (4,)] * 2
    assert [case.depth for case in one[:5]] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("number", [1, 4, 5, 9])
def test_each_shape_comes_as_often_and_at_all_depths(number):
    shapes = list(SHAPES)[:number]
    cases = make_cases(POOL, chunks=5, samples=5 * number, seed=1, shapes=shapes)
    met = Counter((case.sample.kind, case.depth) for case in cases)
    assert set(met.values()) == {1} and len(met) == 5 * number
    assert Counter(case.sample.kind for case in cases[:number]) == Counter(shapes)


def test_depths_that_fall_together_are_one():
    assert depths_of(1) == {0.0: 0}
    assert depths_of(2) == {0.0: 0, 0.75: 1}
    assert depths_of(16) == {0.0: 0, 0.25: 4, 0.5: 8, 0.75: 11, 1.0: 15}


def test_a_pool_too_small():
    with pytest.raises(UsageError, match="--chunks 31, but the repository has only 30 chunks"):
        make_cases(POOL, chunks=31, samples=1, seed=0)


def test_shapes_by_name_and_group():
    assert shapes_named(["ruler", "constant", "multi_key"]) == [
        "single",
        "multi_key",
        "multi_value",
        "multi_query",
        "constant",
    ]
    others = {"single", "constant", *shapes_named(["two_hop"])}
    assert set(shapes_named(["held-out"])) == set(SHAPES) - others == set(GROUPS["held-out"])
    assert len(others) == 5
    with pytest.raises(UsageError, match="unknown needle shape hexx"):
        shapes_named(["hex", "hexx"])


# --- scores --------------------------------------------------------------------------------------------------------

ONE = Sample(("a", "b"), (1,), "which", "4821")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("4821", 1.0),
        (" 4821\nmore", 1.0),
        ("\n4821", 1.0),
        ('it is "4821".', 1.0),
        ("48213", 0.0),
        ("14821", 0.0),
        ("4821_0", 0.0),
        ("none\n4821", 0.0),
        ("", 0.0),
    ],
)
def test_a_value_counts_as_a_whole_word_of_the_first_line(said, found):
    assert share_found(ONE, said) == found


def test_of_a_list_the_share_that_was_found_counts_in_any_order():
    sample = replace(ONE, answer=LIST_MARK.join(["aa", "bb", "cc"]))
    assert share_found(sample, 'cc", "aa", "dd"') == pytest.approx(2 / 3)


class Speaker:
    """A reader with given answers that looks at a given chunk."""

    reads = "memory"
    decoder = SimpleNamespace(tokenizer=tiny_tokenizer())

    def __init__(self, name, answer, looks=None, room=99):
        self.name, self._answer, self.looks, self.room = name, answer, looks, room

    def fits(self, sample):
        return len(sample.texts) <= self.room

    def generate(self, sample, *, max_new_tokens):
        assert max_new_tokens == len(sample.answer) + 4
        attention = (
            {} if self.looks is None else {str(i): float(i == self.looks(sample)) for i in range(len(sample.texts))}
        )
        return Generation(self._answer(sample), 1, 0.0, 0.0, attention)


def grid_of(*readers, chunks=(2, 4), samples=4, shapes=("hex",)):
    cases = {n: make_cases(POOL, chunks=n, samples=samples, seed=0, shapes=shapes) for n in chunks}
    return Grid(tuple(r.name for r in readers), chunks, shapes, samples, tuple(needle.ask(readers, cases)))


def test_values_and_chunks_are_scored_apart():
    grid = grid_of(
        Speaker("right", lambda s: s.answer, lambda s: s.gold[0]),
        Speaker("says", lambda s: s.answer, lambda s: (s.gold[0] + 1) % len(s.texts)),
        Speaker("looks", lambda s: "?", lambda s: s.gold[0]),
        Speaker("text", lambda s: s.answer),
    )
    scores = {
        reader: [getattr(grid.accuracy(reader, 4, of_chunk=of_chunk), "mean", None) for of_chunk in (False, True)]
        for reader in grid.readers
    }
    assert scores == {"right": [1.0, 1.0], "says": [1.0, 0.0], "looks": [0.0, 1.0], "text": [1.0, None]}


def test_bm25_ranks_the_chunk_first_and_answers_nothing():
    grid = grid_of(Bm25(), shapes=("hex", "sql", "flag"), samples=6)
    assert [score.value_found for score in grid.scores] == [None] * 12
    assert grid.accuracy("bm25", of_chunk=True).mean == 1.0
    assert grid.accuracy("bm25") is None


def test_a_reader_without_room_is_left_out_and_not_counted_as_wrong():
    grid = grid_of(Speaker("short", lambda s: s.answer, room=2), Speaker("long", lambda s: "?"))
    assert grid.accuracy("short", 4) is None
    assert grid.accuracy("short", 2).mean == 1.0
    assert grid.in_common == (2,)
    assert grid.accuracy("long").n == 4  # over what both were asked
    assert grid.accuracy("long", 4).n == 4
    assert grid.cases(4) == Counter({0.0: 1, 0.25: 1, 0.5: 1, 1.0: 1})


def test_a_reader_without_room_anywhere_hides_nothing_of_the_others():
    grid = grid_of(Speaker("short", lambda s: s.answer, room=1), Speaker("long", lambda s: s.answer))
    assert grid.in_common == (2, 4)
    assert grid.accuracy("short") is None
    assert grid.accuracy("long").n == 8


def test_accuracy_by_shape_and_depth():
    scores = tuple(
        Score("a", shape, 4, depth, found, None)
        for shape, depth, found in [("hex", 0.0, 1.0), ("hex", 1.0, 0.5), ("sql", 0.0, 0.0), ("sql", 1.0, 0.0)]
    )
    grid = Grid(("a",), (4,), ("hex", "sql"), 4, scores)
    assert grid.accuracy("a").mean == 0.375
    assert grid.accuracy("a", shape="hex").mean == 0.75
    assert grid.accuracy("a", 4, depth=1.0).mean == 0.25
    assert grid.accuracy("a", 8) is None


def test_pictures_of_readers_of_every_sort(tmp_path):
    from awareness.evals.pictures import styles_of

    grid = grid_of(
        Speaker("short", lambda s: s.answer, room=2), Bm25(), Speaker("joint", lambda s: s.answer, lambda s: s.gold[0])
    )
    names = needle._draw(grid, "title", tmp_path)
    assert names == ["needle.png", "needle_curve.png"]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    styles = styles_of(("joint", "mine", "yours"))
    assert len(set(styles.values())) == 3
