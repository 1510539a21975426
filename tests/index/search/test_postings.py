"""The inverted index against the formula: any sequence of additions, removals and merges ranks like a fresh count."""

from __future__ import annotations

import math
from collections import Counter
from unittest.mock import patch

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awareness.index.search import postings
from awareness.index.search.bm25 import K1, B
from awareness.index.search.postings import BACKGROUND, SCHEMA, Postings
from awareness.index.search.routing_index import PATH_WEIGHT, SYMBOL_WEIGHT, terms_of
from awareness.index.search.terms import stems
from awareness.types import Chunk

WORDS = "session cookie pool acquire sign token retry upload".split()
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
FIELDS = st.tuples(st.sampled_from(["", "Pool.acquire", "sign"]), st.sampled_from(["src/pool.py", "auth.py"]), TEXTS)
STEPS = st.lists(st.lists(FIELDS, max_size=5) | st.sets(st.integers(1, 40), max_size=4), min_size=1, max_size=12)

QUERIES = st.lists(st.sampled_from(["session", "cooki", "pool", "acquir", "sign", "none"]), max_size=4)


def new() -> Postings:
    connection = apsw.Connection(":memory:")
    connection.execute(SCHEMA)
    return Postings(connection)


def add(index: Postings, chunk_id: int, symbol: str, path: str, text: str) -> None:
    index.add(chunk_id, *terms_of(Chunk(path, 1, 1, symbol, text)))


def counted(few: int):
    """few: up to how many postings are counted without numpy, as if it were not imported yet."""
    return patch.multiple(postings, FEW=few, numpy_is_loaded=lambda: False)


def by_formula(chunks: dict[int, tuple[str, str, str]], terms: list[str]) -> dict[int, float]:
    """BM25 counted out, chunk by chunk."""
    frequencies, lengths = {}, {}
    for chunk_id, (symbol, path, text) in chunks.items():
        counts: Counter[str] = Counter()
        for field, weight in ((symbol, SYMBOL_WEIGHT), (path, PATH_WEIGHT), (text, 1)):
            for term in stems(field):
                counts[term] += weight
        frequencies[chunk_id] = counts
        lengths[chunk_id] = sum(len(list(stems(field))) for field in (symbol, path, text))
    average = sum(lengths.values()) / max(1, len(lengths))
    found: dict[int, float] = {}
    for term in set(terms):
        holding = [i for i in chunks if frequencies[i][term]]
        idf = max(1e-6, math.log((BACKGROUND + len(chunks) - len(holding) + 0.5) / (len(holding) + 0.5)))
        for i in holding:
            f = frequencies[i][term]
            found[i] = found.get(i, 0.0) + idf * f * (K1 + 1) / (f + K1 * (1 - B + B * lengths[i] / average))
    return found


def ranked(index: Postings, terms: list[str]) -> dict[int, float]:
    return dict(index.rank(terms).best(1000))


@settings(deadline=None, max_examples=60)
@given(
    few=st.sampled_from([0, 1 << 20]),
    steps=STEPS,
    query=st.lists(st.sampled_from(["session", "cooki", "pool", "acquir", "sign", "none"]), max_size=4),
)
def test_any_history_ranks_like_the_formula(few, steps, query):
    index = new()
    chunks: dict[int, tuple[str, str, str]] = {}
    next_id = 1
    with counted(few), patch.multiple(postings, SEGMENT_CHUNKS=3, MERGED_AT_ONCE=3):
        for step in steps:
            if isinstance(step, set):
                gone = step & chunks.keys()
                index.drop(gone)
                for chunk_id in gone:
                    del chunks[chunk_id]
            else:
                for fields in step:
                    add(index, next_id, *fields)
                    chunks[next_id] = fields
                    next_id += 1
                index.flush()
            expected = by_formula(chunks, query)
            got = ranked(index, query)
            assert got.keys() == expected.keys()
            assert all(got[i] == pytest.approx(expected[i], rel=1e-4, abs=1e-9) for i in expected)
            assert index.count() == len(chunks)


@pytest.mark.parametrize("few", [0, 1 << 20])
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(TEXTS, min_size=30, max_size=60), wanted=st.integers(1, 8))
def test_the_best_chunks_are_the_same_when_others_are_skipped(few, texts, wanted):
    index = new()
    for chunk_id, text in enumerate([*texts, *["filler"] * 40], start=1):
        add(index, chunk_id, "", "a.py", text)
    index.flush()
    terms = ["session", "token", "retri", "upload"]
    with counted(few):
        whole, part = index.rank(terms), index.rank(terms, wanted)
    assert dict(part.best(wanted)) == pytest.approx(dict(whole.best(wanted)))
    assert len(part) <= len(whole) and (len(part) == len(whole) or not part.complete)


def test_best_is_sorted_by_score_and_then_by_id():
    index = new()
    for chunk_id, text in enumerate(["sign sign", "sign", "other", "sign", "sign"], start=1):
        add(index, chunk_id, "", "a.py", text)
    for chunk_id in range(6, 30):
        add(index, chunk_id, "", "b.py", "filler")
    index.flush()
    ranking = index.rank(["sign"])
    assert [chunk_id for chunk_id, _ in ranking.best(3)] == [1, 2, 4]
    assert [chunk_id for chunk_id, _ in ranking.best(100)] == [1, 2, 4, 5]
    assert max(score for _, score in ranking.best(1)) < ranking.bound


def test_merging_limits_the_segments_and_removes_dropped_chunks():
    index = new()
    for chunk_id in range(1, 101):
        add(index, chunk_id, "", "a.py", f"sign word{chunk_id}")
        index.flush()
    segments = index.db.execute("SELECT count(*) FROM segment").fetchone()[0]
    assert segments <= 2 * postings.MERGED_AT_ONCE
    index.drop(range(1, 60))
    assert index.db.execute("SELECT count(*) FROM dropped").fetchone()[0] == 0
    assert index.db.execute("SELECT count(*) FROM posting WHERE term = 'word7'").fetchone()[0] == 0
    assert len(index.rank(["sign"])) == index.count() == 41


def test_nothing_is_found_in_an_empty_index():
    ranking = new().rank(["sign"])
    assert (len(ranking), ranking.best(5)) == (0, [])


def test_the_weight_of_a_term_is_applied():
    index = new()
    for chunk_id, text in enumerate(["sign", "token", *["filler"] * 20], start=1):
        add(index, chunk_id, "", "a.py", text)
    index.flush()
    assert [i for i, _ in index.rank({"sign": 1.0, "token": 0.5}).best(2)] == [1, 2]
    assert [i for i, _ in index.rank({"sign": 0.5, "token": 1.0}).best(2)] == [2, 1]
    half = index.rank({"sign": 1.0, "nowhere": 1.0})
    assert index.rank(["sign"]).known == 1.0 and 0 < half.known < 0.5  # what is nowhere is rarer than what is
    assert index.frequencies(["sign", "filler", "nowhere"]) == {"sign": 1, "filler": 20}


def test_frequencies_are_counted_once_until_the_index_changes():
    index = new()
    add(index, 1, "", "a.py", "sign the cookie")
    index.flush()
    assert index.frequencies(["sign", "pool"]) == {"sign": 1}
    statements: list[str] = []
    index.db.exec_trace = lambda _, sql, __: not statements.append(sql)
    index.rank(["cooki", "token"])
    statements.clear()
    assert index.frequencies(["token", "sign", "cooki", "pool"]) == {"cooki": 1, "sign": 1}
    assert not [sql for sql in statements if "posting" in sql]
    index.db.exec_trace = None
    add(index, 2, "", "b.py", "sign the pool")
    index.flush()
    assert index.frequencies(["sign", "pool"]) == {"pool": 1, "sign": 2}
