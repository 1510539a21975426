"""Structure over several repositories, and how the tokens of a map are counted."""

from __future__ import annotations

import pytest

from awareness.engine.engine import Engine
from awareness.errors import NothingFound, UsageError
from tests.conftest import commit_all, write_tree


@pytest.fixture
def engine(tmp_path, model_folder):
    roots = [
        commit_all(write_tree(tmp_path / "one", {"a.py": "def total():\n    return 1\n\n\ndef pay():\n    total()\n"})),
        commit_all(write_tree(tmp_path / "two", {"b.py": "def other():\n    return total()\n"})),
    ]
    with Engine(roots, model=str(model_folder)) as engine:
        engine.refresh()
        yield engine


def test_hits_of_several_repositories_are_ranked_as_one(engine):
    hits = engine.callers("total")
    assert [(hit.corpus.name, hit.line_place, hit.link.is_proven) for hit in hits] == [
        ("one", "a.py:6 (one)", True),
        ("two", "b.py:2 (two)", False),
    ]
    assert [hit.link.symbol for hit in engine.callees("pay")] == ["total"]
    assert engine.tests_of("total") == []
    with pytest.raises(NothingFound, match="nothing named 'totals'"):
        engine.callers("totals")
    with pytest.raises(UsageError):
        engine.callers("total", top_k=0)


def test_similar_finds_the_repository_of_the_file(engine):
    assert all(hit.chunk.path != "b.py" for hit in engine.similar("b.py:1"))
    with pytest.raises(UsageError, match=r"gone\.py is not indexed"):
        engine.similar("gone.py:1")


def test_a_map_of_several_repositories_shares_the_tokens(engine, model_folder):
    one, two = engine.map(tokens=400)
    assert (one.corpus.name, two.corpus.name) == ("one", "two")
    assert one.budget == two.budget == 200
    assert one.tokenizer == str(model_folder)
    assert one.map.tokens == len(one.map.render().encode())  # its tokenizer has a token a byte
    with pytest.raises(UsageError):
        engine.map(tokens=0)
