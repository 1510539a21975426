"""The second stage: an embedding model reads the best chunks again, for `search --deep` and `ask`."""

from __future__ import annotations

import pytest

from awareness.engine import second_stage
from awareness.engine.engine import Engine
from awareness.engine.second_stage import MeaningReader
from awareness.errors import UsageError
from awareness.types import Chunk
from tests.conftest import git, write_tree

CHUNKS = [Chunk(f"{name}.py", 1, 1, name, name) for name in "abc"]


class Letters:
    """Vectors of the letters a, b and c, of a question or of the text of a chunk."""

    fingerprint = "letters"

    def __init__(self):
        self.read = []

    def question(self, text):
        return [float(letter in text) for letter in "abc"]

    def chunks(self, chunks):
        self.read += [chunk.text for chunk in chunks]
        return iter([self.question(chunk.text) for chunk in chunks])


def test_cosines_are_in_order_and_each_chunk_is_embedded_once():
    embedder = Letters()
    reader = MeaningReader(embedder)
    assert reader("b", CHUNKS) == [0.0, 1.0, 0.0]
    assert reader("c", [CHUNKS[2], CHUNKS[0], CHUNKS[2]]) == [1.0, 0.0, 1.0]
    assert embedder.read == ["a", "b", "c"]
    assert reader("c", []) == []


def test_the_vectors_that_are_used_stay(monkeypatch):
    monkeypatch.setattr(second_stage, "KEPT", 2)
    embedder = Letters()
    reader = MeaningReader(embedder)
    reader("a", CHUNKS[:2])
    reader("a", CHUNKS[:1])
    reader("a", CHUNKS[2:])  # b is the one that was not used for longest
    reader("a", CHUNKS)
    assert embedder.read == ["a", "b", "c", "b"]


@pytest.fixture
def reader(monkeypatch):
    """The second stage with a model that is on this machine."""
    loaded = MeaningReader(Letters())
    monkeypatch.setattr(second_stage, "load_embedder", lambda name, reporter: loaded._embedder)
    monkeypatch.setattr(second_stage, "find", lambda name: name)
    second_stage.load_second_stage.cache_clear()
    yield loaded._embedder
    second_stage.load_second_stage.cache_clear()


@pytest.fixture
def engine(tmp_path, model_folder):
    root = tmp_path / "repository"
    write_tree(root, {f"src/{name}.py": f"def {name}_token(request):\n    return request.token\n" for name in "abc"})
    git(root, "init", "-q")
    git(root, "add", ".")
    with Engine.open(root, model=str(model_folder)) as opened:
        opened.refresh()
        yield opened


def test_a_deep_search_reads_the_best_chunks_again(engine, reader):
    query = "how is the token of a request returned"
    plain = engine.search(query)
    assert reader.read == []
    deep = engine.search(query, deep=True)
    assert len(reader.read) == 3
    assert {hit.chunk for hit in deep} == {hit.chunk for hit in plain}
    assert deep[0].score == plain[0].score


@pytest.mark.parametrize(("setting", "number"), [("auto", 3), ("none", 0), (None, 3)])
def test_a_question_uses_it_unless_it_is_switched_off(engine, reader, monkeypatch, setting, number):
    if setting is not None:
        monkeypatch.setenv("AWARENESS_SECOND_STAGE", setting)
    engine.ask("how is the token of a request returned", max_new_tokens=2)
    assert len(reader.read) == number


def test_a_question_does_not_download_its_model(engine, monkeypatch):
    monkeypatch.setattr(second_stage, "find", lambda name: None)
    monkeypatch.setattr(second_stage, "load_embedder", lambda name, reporter: pytest.fail("downloaded"))
    assert second_stage.second_stage_for_ask() is None
    assert engine.ask("how is the token of a request returned", max_new_tokens=2).hits


def test_another_setting_is_refused(monkeypatch):
    monkeypatch.setenv("AWARENESS_SECOND_STAGE", "some-model")
    with pytest.raises(UsageError, match="AWARENESS_SECOND_STAGE"):
        second_stage.second_stage_for_ask()
