"""The nearest vectors to a question, and what is kept in memory between questions."""

from __future__ import annotations

import random

import apsw
import pytest

from awareness.index.search import dense_vectors
from awareness.index.search.dense_vectors import Vectors, packed

AXES = {i: [float(i == axis) * 0.5 for axis in range(8)] for i in range(6)}


@pytest.fixture
def vectors() -> Vectors:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE chunk(id INTEGER PRIMARY KEY); " + dense_vectors.SCHEMA)
    vectors = Vectors(connection)
    vectors.write((i, packed(vector)) for i, vector in AXES.items())
    return vectors


def test_nearest(vectors):
    for _ in range(2):  # without the matrix, and with it
        assert vectors.similar([0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0], 2).best == [(2, 0.5), (3, 0.25)]


def test_above_the_limit_only_the_named_vectors_are_compared(vectors, monkeypatch):
    monkeypatch.setattr(dense_vectors, "EXACT_CHUNKS", 5)
    similar = vectors.similar([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 2)
    assert similar.best == []
    assert similar.of([1, 2]) == {1: 0.0, 2: 0.5}


def test_a_new_vector_is_seen_by_the_next_question(vectors, monkeypatch):
    question = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    vectors.similar(question, 2)
    vectors.write([(9, packed(AXES[2]))])
    assert [i for i, _ in vectors.similar(question, 2).best] == [2, 9]
    monkeypatch.setattr(dense_vectors, "EXACT_CHUNKS", 7)
    vectors.write([(10, packed(AXES[2]))])
    assert vectors.similar(question, 2).best == []


def test_copies_are_in_the_order_of_their_ids(vectors):
    """Rows of a matrix product may differ in their last digits, also where the vectors are the same."""
    rng = random.Random(0)
    code, question = ([rng.uniform(-0.1, 0.1) for _ in range(192)] for _ in range(2))
    for copies in range(20, 40):
        vectors.clear()
        vectors.write((i, packed(code)) for i in range(copies))
        for _ in range(2):
            similar = vectors.similar(question, copies)
            assert len({cosine for _, cosine in similar.best}) == 1
            assert [i for i, _ in similar.best] == list(range(copies))
            assert len(set(similar.of(range(copies)).values())) == 1
