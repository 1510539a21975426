"""The stream of samples: the same sample for the same number, the right kinds, and batches of like length."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from awareness.errors import UsageError
from awareness.train.samples import mixture
from awareness.train.samples.mixture import KINDS, PREPARED_KINDS, PreparedSample, SampleStream, distractor_questions
from awareness.train.samples.pool import Pool
from awareness.types import Chunk, Sample

CODE = "def area_{0}(side, scale=2):\n    return side * scale"


def pool_of(name: str, size: int = 20) -> Pool:
    return Pool(
        [Chunk(f"{name}/f{n}.py", 1, 3, f"area_{n}", CODE.format(n)) for n in range(size)],
        name,
    )


POOLS = [pool_of("one"), pool_of("two"), pool_of("small", 3)]


def stream(kinds, pools=POOLS, *, curriculum=(1, 4, 16), length=120, group=4, seed=0, **more) -> SampleStream:
    return SampleStream(pools, kinds, curriculum=curriculum, length=length, group=group, seed=seed, **more)


def test_every_kind_is_known_and_named_after_itself():
    samples = stream(dict.fromkeys(KINDS, 1.0), length=600)
    seen = Counter(sample.kind for sample in samples)
    assert set(seen) <= set(KINDS)
    assert len(seen) > 20
    assert not set(KINDS) & set(PREPARED_KINDS)


def test_a_sample_is_a_function_of_seed_and_number():
    kinds = {"constant": 1.0, "returns": 1.0, "multi_value": 1.0}
    forward = list(stream(kinds))
    other = stream(kinds, [pool_of("one"), pool_of("two"), pool_of("small", 3)])
    assert [other[i] for i in reversed(range(120))] == forward[::-1]
    assert list(stream(kinds, seed=1)) != forward
    assert len(set(forward)) > 110
    assert len(other) == 120
    with pytest.raises(IndexError, match="sample 120 of 120"):
        other[120]


def test_the_chunks_of_a_sample_come_from_one_repository():
    for sample in stream({"constant": 1.0}):
        assert len({text.split("/")[0] for text in sample.texts}) == 1


def test_the_chunks_of_a_group_are_as_many():
    samples = stream({"constant": 1.0}, POOLS[:2], length=480)
    counts = [len(sample.texts) for sample in samples]
    groups = [counts[start : start + 4] for start in range(0, 480, 4)]
    assert all(len(set(group)) == 1 for group in groups)
    assert set(counts[:160]) == {1}
    assert set(counts[160:320]) == {1, 2, 3, 4}
    assert 4 < max(counts[320:]) <= 16


def test_a_group_is_in_one_stage():
    samples = stream({"constant": 1.0}, curriculum=[1, 64], length=10, group=4)
    assert [samples.chunks_of(i) > 1 for i in range(4)] == [False] * 4
    assert len({samples.chunks_of(i) for i in range(4, 8)}) == 1


def test_the_number_of_chunks_is_log_uniform():
    samples = stream({"constant": 1.0}, curriculum=[63], length=6000, group=1)
    drawn = Counter(int(math.log2(samples.chunks_of(i))) for i in range(6000))
    assert set(drawn) == set(range(6))  # 1, 2-3, 4-7, ... 32-63: as many of each
    assert all(850 < number < 1150 for number in drawn.values())


def test_never_more_chunks_than_the_repository_has():
    samples = stream({"constant": 1.0}, [POOLS[2]], curriculum=[64])
    assert max(len(sample.texts) for sample in samples) == 3


def test_weights():
    samples = stream({"constant": 3.0, "uuid": 1.0, "path": 0.0}, length=800)
    seen = Counter(sample.kind for sample in samples)
    assert set(seen) == {"constant", "uuid"}
    assert 0.69 < seen["constant"] / 800 < 0.81


def test_an_unknown_kind_is_named_with_those_that_are_known():
    with pytest.raises(UsageError, match=r"data\.kinds\.consts: unknown kind") as caught:
        stream({"consts": 1.0})
    assert "constant" in caught.value.hint
    assert "written" in caught.value.hint


def test_a_kind_that_no_repository_offers_is_skipped():
    samples = stream({"raises": 9.0, "constant": 1.0, "written": 1.0})
    assert {sample.kind for sample in samples} == {"constant"}
    with pytest.raises(UsageError, match="none of raises, next_line can be made from 3 repositories"):
        stream({"raises": 1.0, "next_line": 1.0})
    with pytest.raises(UsageError, match="from 0 repositories"):
        stream({"constant": 1.0}, [Pool([])])


def test_another_repository_is_asked_if_one_does_not_offer_a_kind():
    pools = [Pool([Chunk("x.txt", 1, 1, "", "words")], f"p{n}") for n in range(6)]
    samples = stream({"returns": 1.0, "constant": 1.0}, [*pools, pool_of("one")])
    assert Counter(sample.kind for sample in samples)["returns"] > 45


def test_prepared_samples_get_their_distractors():
    pool = POOLS[0]
    gold = pool.texts[7]
    written = PreparedSample("one", Sample((gold,), (0,), "Why?", "So."), without=("area_3",))
    samples = stream({"written": 1.0}, prepared={"written": [written]}, curriculum=[64], length=200)
    places = set()
    for sample in samples:
        assert (sample.question, sample.answer, sample.kind) == ("Why?", "So.", "written")
        assert [sample.texts[place] for place in sample.gold] == [gold]
        assert sample.texts.count(gold) == 1
        assert not any("area_3(" in text for text in sample.texts)
        assert all("one/" in text for text in sample.texts)
        places.add(sample.gold[0])
    assert len(places) > 5
    assert max(len(sample.texts) for sample in samples) == 19


def test_distractors_have_no_gold():
    asked = PreparedSample("two", Sample((), (), "Where?", "I don't know."))
    samples = stream({"distractors": 1.0}, prepared={"distractors": [asked]}, curriculum=[4])
    assert all(sample.gold == () and 1 <= len(sample.texts) <= 4 for sample in samples)


def test_prepared_samples_of_other_repositories_are_skipped():
    asked = PreparedSample("elsewhere", Sample((), (), "Where?", "I don't know."))
    samples = stream({"distractors": 1.0, "constant": 1.0}, prepared={"distractors": [asked]})
    assert {sample.kind for sample in samples} == {"constant"}


def test_questions_that_no_chunk_answers():
    pool, asked = POOLS[0], set()
    for seed in range(60):
        one = distractor_questions(random.Random(seed), pool)
        assert (one.repository, one.sample.texts, one.sample.gold, one.sample.answer) == ("one", (), (), "")
        assert one.sample.question
        asked.add(bool(one.without))
        for sample in stream({"distractors": 1.0}, prepared={"distractors": [one]}, curriculum=[64], length=8):
            assert not any(f"{name}(" in text for text in sample.texts for name in one.without)
    assert asked == {True, False}


def test_a_pool_computes_a_result_once():
    calls = []

    def find(pool: Pool) -> int:
        calls.append(pool)
        return len(pool)

    pool = pool_of("one")
    assert [pool.once(find), pool.once(find)] == [20, 20]
    assert calls == [pool]


def test_all_kinds_are_reached_through_the_table(monkeypatch):
    made = Sample(("a",), (0,), "q", "a")
    monkeypatch.setitem(mixture.KINDS, "constant", lambda rng, pool, count: made)
    assert stream({"constant": 1.0})[0] == Sample(("a",), (0,), "q", "a", kind="constant")
