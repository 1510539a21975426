"""Term vectors and the table of chunk vectors: the formula, with and without numpy, and files that lie."""

from __future__ import annotations

import math
import random
import struct
from collections import Counter
from unittest.mock import patch

import apsw
import pytest

from awareness.errors import UsageError
from awareness.index.search import dense_vectors
from awareness.index.search.dense_vectors import Vectors, packed
from awareness.index.search.term_vectors import SCALE, SHIPPED, TermEmbedder, term_embedder
from awareness.index.search.terms import stem
from awareness.index.store.tensorfile import TensorInfo, write

TABLE = {
    "auth": ([100, 0] + [0] * 6, 0.5, 0.25),
    "login": ([90, 40] + [0] * 6, 0.1, 0.2),
    "draw": ([0] * 7 + [9], 1, 1),
}


def write_router(path, table=TABLE, **changes):
    terms = sorted(table)
    tensors = {
        "terms": ("U8", (sum(map(len, terms)),), "".join(terms).encode()),
        "ends": (
            "U32",
            (len(terms),),
            struct.pack(f"{len(terms)}I", *(len("".join(terms[: i + 1])) for i in range(len(terms)))),
        ),
        "vectors": ("U8", (len(terms), 8), b"".join(struct.pack("8b", *table[t][0]) for t in terms)),
        "query": ("F32", (len(terms),), struct.pack(f"{len(terms)}f", *(table[t][1] for t in terms))),
        "document": ("F32", (len(terms),), struct.pack(f"{len(terms)}f", *(table[t][2] for t in terms))),
    } | changes
    infos = [TensorInfo(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()]
    write(path, infos, (data for _, _, data in tensors.values()), lambda checksums: {"digest": "d"})
    return path


def unit(values):
    norm = math.sqrt(sum(v * v for v in values))
    return [v / norm for v in values]


def test_a_question_and_a_chunk_by_the_formula(tmp_path):
    embedder = TermEmbedder(write_router(tmp_path / "r.safetensors"))
    assert (embedder.terms, embedder.dim, embedder.fingerprint) == (3, 8, "terms:d")
    asked = unit([0.5 * 100 + 0.1 * 90, 0.1 * 40])
    assert embedder.query(["auth", "login", "unknown", "auth"]) == pytest.approx(asked + [0] * 6, abs=1e-6)
    assert embedder.query(["unknown"]) is None and embedder.query([]) is None
    weights = 0.25 * math.log1p(3), 0.2 * math.log1p(1)
    expected = unit([weights[0] * 100 + weights[1] * 90, weights[1] * 40])
    code, nothing = embedder.documents([Counter(auth=3, login=1, unknown=7), Counter()])
    assert struct.unpack("8b", code)[:2] == tuple(min(127, round(v * SCALE)) for v in expected)
    assert nothing == bytes(8)


def test_the_importance_of_a_term_is_the_length_of_its_vector_in_a_question(tmp_path):
    terms = TermEmbedder(write_router(tmp_path / "r.safetensors"))
    assert terms.importance("login") == pytest.approx(0.1 * math.hypot(90, 40))
    assert terms.importance("nowhere") is None
    assert term_embedder().importance(stem("quaternion")) > 2 > 1.3 > term_embedder().importance(stem("value"))


def test_the_shipped_router_finds_every_term_and_rates_synonyms_as_similar():
    embedder = term_embedder(SHIPPED)
    for row in random.Random(0).sample(range(embedder.terms), 200):
        assert embedder._find(embedder.term(row).encode()) == row
    assert embedder._find(b"\xff no such term") is None

    def alike(a, b):
        x, y = (embedder.query([stem(word) for word in text.split()]) for text in (a, b))
        return sum(p * q for p, q in zip(x, y, strict=True))

    assert alike("delete file", "remove path") > alike("delete file", "draw circle") + 0.2
    assert alike("authentication", "login password") > alike("authentication", "matrix multiply") + 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"query": ("F32", (2,), bytes(8))},
        {"vectors": ("U8", (24,), bytes(24))},
        {"ends": ("F32", (3,), bytes(12))},
        {"more": ("U8", (1,), b"x")},
    ],
)
def test_a_file_without_the_tensors_of_a_router_is_refused(tmp_path, changes):
    path = write_router(tmp_path / "r.safetensors", **changes)
    with pytest.raises(UsageError, match="is not a router"):
        TermEmbedder(path)


@pytest.mark.parametrize("data", [None, b"", b"junk", b"\xff" * 64])
def test_a_damaged_or_missing_router_is_refused(tmp_path, data):
    path = tmp_path / "r.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=r"r\.safetensors is not a router"):
        TermEmbedder(path)


# --- chunk vectors ---


@pytest.fixture
def table():
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE chunk(id INTEGER PRIMARY KEY) STRICT")
    connection.execute(dense_vectors.SCHEMA)
    found = Vectors(connection)
    rng = random.Random(1)
    made = {i: unit([rng.gauss(0, 1) for _ in range(16)]) for i in range(1, 301) if i % 7}
    connection.executemany("INSERT INTO chunk VALUES (?)", ((i,) for i in range(1, 302)))
    found.write((i, packed(vector)) for i, vector in made.items())
    return found, made, unit([rng.gauss(0, 1) for _ in range(16)])


@pytest.mark.parametrize("numpy", [True, False])
def test_the_nearest_with_and_without_numpy(table, numpy):
    found, made, question = table
    exact = {i: sum(a * b for a, b in zip(v, question, strict=True)) for i, v in made.items()}
    with patch.object(dense_vectors, "numpy_is_loaded", lambda: numpy):
        similar = found.similar(question, 10)
    expected = sorted(exact, key=lambda i: -exact[i])[:10]
    assert len(set(expected) & {i for i, _ in similar.best}) >= 9  # eight bits: neighbours may change places
    assert [c for _, c in similar.best] == sorted((c for _, c in similar.best), reverse=True)
    some = similar.of([3, 5, 7, 1000])
    assert some.keys() == {3, 5}
    assert some == pytest.approx({i: exact[i] for i in (3, 5)}, abs=0.05)


def test_above_the_limit_only_requested_vectors_are_compared(table):
    found, _, question = table
    with patch.object(dense_vectors, "EXACT_CHUNKS", 100):
        similar = found.similar(question, 10)
    assert similar.best == []
    assert similar.of([3, 7, 8]).keys() == {3, 8}


def test_the_matrix_is_read_again_after_a_change(table):
    found, _, question = table
    with patch.object(dense_vectors, "numpy_is_loaded", lambda: True):
        before = found.similar(question, 1).best[0][0]
        found.write([(7, packed(question))])
        assert found.similar(question, 1).best[0][0] == 7 != before
        found.clear()
        assert found.similar(question, 1).best == [] and found.count() == 0
    assert found.missing() == list(range(1, 302))
