"""Questions and memories that are longer than the positions of the model, with a tiny real model."""

from __future__ import annotations

import json
import shutil

import pytest

from awareness.cli.app import run
from awareness.engine.engine import Engine
from awareness.errors import UsageError
from awareness.model import generate
from awareness.model.presets import settings_of
from tests.conftest import write_tree

POSITIONS = 1400


@pytest.fixture
def small(model_folder, tmp_path):
    """The tiny model, one token a byte, with few positions."""
    folder = tmp_path / "small-model"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": POSITIONS}))
    return folder


@pytest.fixture
def opened(sample, small):
    body = '    """Rolls the dough of the pool."""\n    return press(dough)\n'
    write_tree(sample, {f"src/dough{i}.py": f"def roll_dough_{i}(dough):\n{body}" for i in range(20)})

    def opening(mode=None):
        engine = Engine([sample], model=str(small), mode=mode)
        engine.refresh()
        return engine

    return opening


@pytest.fixture
def reach(monkeypatch):
    """The number of positions that each generation may use: memory, prompt and answer."""
    reached = []
    original = generate.generate

    def watched(decoder, prompt, memory=None, *, max_new_tokens, **options):
        reached.append(len(prompt) + (memory.tokens if memory else 0) + max_new_tokens)
        return original(decoder, prompt, memory, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr("awareness.model.answering.generate", watched)
    return reached


@pytest.mark.parametrize("mode", ["joint", "text"])
@pytest.mark.parametrize("is_long", [False, True])
def test_chunks_that_do_not_fit_are_dropped_the_worst_first(opened, reach, mode, is_long):
    with opened(mode) as engine:
        found = engine.search("roll the dough", top_k=20)
        answer = engine.ask("roll the dough", top_k=20, max_new_tokens=8, is_long=is_long)
        assert 0 < len(answer.hits) < 20 and answer.memory.dropped == answer.to_json()["memory"]["dropped"] > 0
        assert answer.memory.chunks == len(answer.hits) and len(found) == 20
        assert all(used <= POSITIONS for used in reach) and reach[-1] > POSITIONS - 300
        fewer = engine.ask("roll the dough", top_k=1, max_new_tokens=8)
        assert (fewer.memory.chunks, fewer.memory.dropped) == (1, 0)
        assert fewer.hits[0].place == answer.hits[0].place


def test_an_answer_is_clipped_to_what_is_left(opened, reach):
    with opened() as engine:
        assert engine.ask("roll the dough", top_k=2, max_new_tokens=5000).memory.chunks >= 1
    assert reach == [POSITIONS]


def test_a_question_that_is_too_long_is_refused_before_the_model_is_loaded(opened, monkeypatch):
    monkeypatch.setattr(Engine, "load", lambda _: pytest.fail("the model was loaded"))
    with opened() as engine, pytest.raises(UsageError, match=r"the question has 100,0\d\d tokens; .* 1,400 positions"):
        engine.ask("roll the dough " + "x" * 100_000)


def test_a_question_that_may_be_cut_is_answered(opened, reach):
    question = "roll the dough " + "ok 12 " * 1000 + " pool"
    with opened() as engine:
        answer = engine.ask(question, max_new_tokens=4, may_cut=True)
        assert answer.question == question and answer.cut > 5000 and answer.to_json()["cut"] == answer.cut
        assert answer.hits and reach[-1] <= POSITIONS


def test_the_command_says_what_was_dropped_and_cut(opened, sample, small, capfd):
    opened().close()
    line = ["ask", "--repo", str(sample), "--model", str(small), "-n", "4", "-k", "20", "--format", "json"]
    assert run([*line, "roll the dough"]) == 0
    out, err = capfd.readouterr()
    dropped = json.loads(out)["memory"]["dropped"]
    assert f"{dropped} chunks left out: " in err and "has 1,400 positions" in err
    long = "roll the dough " + "ok 12 " * 1000
    assert run([*line, long]) == 2
    out, err = capfd.readouterr()
    assert out == "" and "the question has 6,015 tokens" in err and "--cut" in err
    assert run([*line, long, "--cut"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["cut"] > 4000 and "tokens of its middle are left out" in err
    assert "maximum length" not in err and "longer than the specified" not in err


def test_the_instruction_and_the_turns_fit_into_what_is_kept_free_for_them():
    from awareness.model.context_length import TURNS
    from awareness.model.presets import PRESETS
    from awareness.model.prompts import SYSTEM

    for name in PRESETS:
        settings = settings_of(name)
        words = len(f"{SYSTEM} {max(settings.brief, settings.long, key=len)}".split())
        assert 2 * words + 24 <= TURNS, name
