"""Questions whose answer no chunk holds alone, and questions that no chunk answers."""

from __future__ import annotations

import random

import pytest

from awareness.model.not_said import NOT_SAID
from awareness.train.samples.hops import HOPS
from awareness.train.samples.mixture import unknown
from awareness.train.samples.pool import Pool
from awareness.types import Chunk

CHUNKS = [
    Chunk(f"pkg/part_{n}.py", 1, 3, f"work_{n}", f"def work_{n}(a):\n    total = a + {n}\n    return total")
    for n in range(8)
]
POOL = Pool(CHUNKS, "pkg")


def samples(kind, count=6, n=60):
    made = [kind(random.Random(seed), POOL, count) for seed in range(n)]
    return [sample for sample in made if sample is not None]


@pytest.mark.parametrize("name", sorted(HOPS))
def test_the_answer_needs_two_chunks(name):
    """The name that is asked for and the value never stand in the same chunk, unless a subclass has the last word."""
    made = samples(HOPS[name])
    assert len(made) == 60
    apart = 0
    for sample in made:
        assert len(sample.gold) == 2 and len(set(sample.texts)) == len(sample.texts)
        value = (sample.answer_prefix + sample.answer).strip("`\"'. ").split("`")
        asked = next(
            word
            for word in reversed(sample.question.split("\n")[0].replace("`", " ").split())
            if "_" in word or "." in word
        )
        asked = asked.strip("?.()").rpartition(".")[2]
        both = [text for text in sample.texts if asked in text and any(len(v) > 3 and v in text for v in value)]
        apart += not both
    assert apart >= 0.5 * len(made)
    assert any(sum(text not in POOL.texts for text in sample.texts) > 2 for sample in made)  # decoys


def test_a_pool_without_python_has_no_hops():
    pool = Pool([Chunk(f"{n}.go", 1, 1, "", f"var a{n} = {n}") for n in range(4)], "go")
    assert all(kind(random.Random(0), pool, 4) is None for kind in HOPS.values())
    assert all(kind(random.Random(0), POOL, 1) is None for kind in HOPS.values())


def test_an_unknown_answer_is_in_no_chunk():
    for sample in samples(unknown):
        assert sample.answer == NOT_SAID and not sample.answer_prefix and not sample.gold
        asked = [word for word in ("work_0", "work_3", "work_7") if word in sample.question]
        assert not any(word in text for word in asked for text in sample.texts)
