"""How long `index` encodes: said beforehand, kept to, and gone on with the next time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from awareness.cli import render
from awareness.cli.app import run
from awareness.engine import pace
from awareness.engine.pace import Pace, estimate
from awareness.engine.units import duration
from awareness.engine.workspace import Workspace
from awareness.index.build import Missing
from awareness.index.store.store import Store, StoredChunk
from awareness.types import Chunk


@pytest.fixture(autouse=True)
def _loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another test asked for."""
    monkeypatch.setattr(render._volume, "quiet", False)


@pytest.fixture
def index(sample: Path, model_folder: Path, capfd):
    """Runs `awareness index` on the sample with `arguments`: (exit code, its JSON, stderr)."""

    def call(*arguments: str) -> tuple[int, dict, str]:
        code = run(["index", str(sample), "--model", str(model_folder), "--format", "json", *arguments])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else {}, err

    return call


@pytest.mark.parametrize(
    ("chunks", "tokens", "speed", "seconds", "said"),
    [
        (412, 81_000, 510.0, 180.0, "412 chunks, 81,000 tokens to encode: about 2 min 39 s at 510 tokens/s"),
        (1, 30, 510.0, 180.0, "1 chunk, 30 tokens to encode: about 1 s at 510 tokens/s"),
        (
            5_000,
            1_000_000,
            390.0,
            180.0,
            "5000 chunks, 1,000,000 tokens to encode: about 42 min 44 s at 390 tokens/s; encoding for 3 min, the rest"
            " when a question needs it or next time (all of it now: --all)",
        ),
    ],
)
def test_estimate(chunks, tokens, speed, seconds, said):
    assert estimate(chunks, tokens, speed, seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (160, "2 min 40 s"), (3600, "1 h"), (3905, "1 h 5 min")],
)
def test_duration(seconds, said):
    assert duration(seconds) == said


def test_an_interrupted_run_continues_without_encoding_anything_twice(index):
    """No time at all still makes one latent a run."""
    code, first, _ = index("--minutes", "0.0001")
    assert code == 0
    assert (first["encoded"], first["latents"], first["pending"], first["postponed"]) == (1, 1, first["chunks"] - 1, 0)
    runs = [first]
    while runs[-1]["pending"]:
        runs.append(index("--minutes", "0.0001")[1])
        assert (runs[-1]["encoded"], runs[-1]["pending"]) == (1, runs[-2]["pending"] - 1)
    assert len(runs) == first["chunks"] == runs[-1]["latents"]
    assert index()[1]["encoded"] == 0


def test_an_index_is_not_complete_before_it_is(index, monkeypatch):
    """What ends early is not taken for done; what is done loads no model again."""
    index("--minutes", "0.0001")
    _, found, _ = index("--all")
    assert (found["encoded"], found["pending"]) == (found["chunks"] - 1, 0)
    monkeypatch.setattr("awareness.engine.indexing.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    assert index("--minutes", "0.0001")[1]["pending"] == 0


@pytest.mark.parametrize("arguments", [["--lazy"], ["--minutes", "0"]])
def test_no_minutes_are_lazy(index, monkeypatch, arguments):
    monkeypatch.setattr("awareness.engine.indexing.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    _, found, _ = index(*arguments)
    assert (found["encoded"], found["latents"], found["pending"]) == (0, 0, found["chunks"])


def test_what_the_budget_leaves_out_is_postponed_and_not_pending(index):
    index("--minutes", "0.0001")
    _, found, _ = index("--lazy", "--budget", "1KiB")
    assert (found["pending"], found["postponed"]) == (0, found["chunks"] - 1)


def test_the_text_says_what_is_pending_and_how_it_is_made(sample, model_folder, capfd):
    assert run(["index", str(sample), "--model", str(model_folder), "--minutes", "0.0001"]) == 0
    pending = "3 chunks without a latent yet: made when a question needs them, or now with: awareness index"
    assert f"{pending} {sample} --all\n" in capfd.readouterr().out
    assert run(["index", str(sample), "--model", str(model_folder), "--all"]) == 0
    assert "without a latent" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--lazy", "--all"], ["--minutes", "1", "--all"], ["--lazy", "--minutes", "1"], ["--minutes", "nan"]]
)
def test_options_that_contradict_each_other(index, arguments):
    code, _, err = index(*arguments)
    assert code == 2 and arguments[0] in err


def test_minutes_from_the_environment_are_a_default(index, monkeypatch):
    monkeypatch.setenv("AWARENESS_INDEX_MINUTES", "0")
    assert index()[1]["latents"] == 0
    _, found, _ = index("--all")
    assert found["latents"] == found["chunks"]


def test_the_speed_is_remembered_and_the_time_said_beforehand(index, sample, monkeypatch):
    """The first run, of an unknown speed, has nothing to say before it is over."""
    monkeypatch.setattr(pace, "SETTLED_S", float("inf"))
    monkeypatch.setattr(pace, "SETTLED_TOKENS", 100)
    _, first, err = index("--all")
    assert first["tokens"] > 100 and "to encode" not in err
    with Store.open(Workspace.open(sample).layout) as store:
        row = store.row("SELECT value FROM meta WHERE key LIKE 'setting.speed.%'")
    assert row is not None
    _, found, err = index("--rebuild", "--minutes", "0.0001")
    tokens = f"{first['tokens']:,} tokens to encode: about"
    assert f"{first['chunks']} chunks, {tokens}" in err and f"at {float(row[0]):,.0f} tokens/s; encoding for 1 s" in err
    assert found["encoded"] == 1
    assert "to encode" not in index("--all", "--quiet")[2]


def missing(chunks: int, tokens: int) -> Missing:
    chunk = Chunk("a.py", 1, 1, "", "x = 1")
    return Missing([StoredChunk(i, chunk, tokens, str(i)) for i in range(chunks)], 0)


def test_an_unknown_speed_is_measured_on_the_first_batches(monkeypatch, capfd):
    monkeypatch.setattr(pace, "SETTLED_S", 1000.0)
    measuring = Pace(3600.0, None, render.REPORTER)
    measuring.begin(missing(10, 500))
    moved = measuring.follow(lambda *_: None)
    moved("encoding", 500, 5000)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(pace, "SETTLED_S", 0.01)
    time.sleep(0.06)
    moved("encoding", 1000, 5000)
    moved("encoding", 1500, 5000)
    err = capfd.readouterr().err
    assert err.startswith("10 chunks, 5,000 tokens to encode: about ") and err.count("\n") == 1
    speed = measuring.measured()
    assert speed is not None and 0 < speed <= 1500 / 0.06


def test_the_time_runs_from_the_first_chunk_on():
    assert not Pace(float("inf"), None, None).is_over()
    long, short = Pace(3600.0, None, render.REPORTER), Pace(0.01, None, None)
    for one in (long, short):
        one.begin(missing(1, 10))
    time.sleep(0.02)
    assert short.is_over() and not long.is_over()


def test_lines_of_progress_where_there_is_no_terminal(monkeypatch, capfd):
    monkeypatch.setattr(render, "LINE_S", 1000.0)
    with render.progress() as move:
        move("encoding", 0, 1000)
        move("encoding", 100, 1000)
        monkeypatch.setattr(render, "LINE_S", 0.0)
        move("encoding", 1000, 1000)
        assert capfd.readouterr().err == ""
        move("encoding", 999, 1000)
    assert capfd.readouterr().err == "encoding: 999 tokens of 1,000 tokens, about 1 s for the rest\n"
