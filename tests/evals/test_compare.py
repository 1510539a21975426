"""Runs side by side, trained if they are not yet."""

from __future__ import annotations

import json
import math

import pytest

from awareness.cli.app import run
from awareness.evals import compare
from awareness.types import Sample
from tests.train.conftest import config_file, sources  # noqa: F401


class Surprised:
    """A reader with given likelihoods by kind of sample."""

    def __init__(self, name, nll, longest=100):
        self.name, self._nll, self.longest = name, nll, longest

    def fits(self, sample):
        return len(sample.question) <= self.longest

    def nll(self, sample):
        return self._nll[sample.kind]


def test_perplexity_is_by_kind_and_a_sample_that_does_not_fit_one_reader_is_left_out_for_all():
    samples = [Sample((), (), "q", "a", kind=kind) for kind in ("one", "one", "two")] + [
        Sample((), (), "long" * 9, "a", kind="one")
    ]
    a = Surprised("a", {"one": (2.0, 2), "two": (12.0, 4)})
    b = Surprised("b", {"one": (0.0, 3), "two": (0.0, 1)}, 10)
    perplexities, left_out = compare.perplexities_of([a, b], samples, seed=0)
    assert list(perplexities) == ["a", "b"] and left_out == 1
    first = perplexities["a"]
    assert first["one"].mean == pytest.approx(math.exp(1.0)) and first["one"].n == 2
    assert first["two"].mean == pytest.approx(math.exp(3.0))
    assert first["all"].mean == pytest.approx(math.exp(5 / 3)) and first["all"].n == 3
    assert perplexities["b"]["all"].mean == 1.0


def test_the_command(config_file, tmp_path, capfd):  # noqa: F811
    for name, more in {
        "vanilla": "memory: {vanilla_mode: true}\ndata: {reads: none}",
        "both": "training: {max_steps: 2}",
    }.items():
        text = f"extends: {config_file.name}\n{more}\noutput_dir: {tmp_path / name}\n"
        (tmp_path / f"compare-{name}.yaml").write_text(text)
    runs = [part for name in ("vanilla", "both") for part in ("--config", str(tmp_path / f"compare-{name}.yaml"))]
    command = ["eval", "compare", *runs, "--samples", "3", "--out", str(tmp_path / "out")]
    assert run([*command, "--format", "json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err.count("have no effect: memory.vanilla_mode is true") == 1  # of the run that trains nothing
    assert [one["run"] for one in found["perplexity"]] == ["vanilla", "both"]
    assert all(one["all"]["n"] == 3 for one in found["perplexity"])
    assert json.loads((tmp_path / "out/compare.json").read_text()) == {"made_by": "awareness", **found}
    for picture in ("compare.png", "compare_loss.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "both/log.jsonl").read_text()
    assert run(command) == 0 and "vanilla" in capfd.readouterr().out
    assert (tmp_path / "both/log.jsonl").read_text() == before  # not trained again


def test_without_files_the_shipped_ones_run_on_the_users_own_repositories(
    sources,  # noqa: F811
    model_folder,
    tmp_path,
    monkeypatch,
    capfd,
):
    """In a folder without `configs/`, as after an installation."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    own = [f"model={model_folder}", f"data.sources=[{sources}/*]", "data.validation=0.3", "memory.gca_start_layer=2"]
    own += [
        "training.max_steps=1",
        "training.warmup_steps=0",
        "training.eval_samples=1",
        "data.chunks=[2]",
        "training.mixed_precision=no",
    ]
    command = ["eval", "compare", "-n", "2", "--format", "json", *(part for one in own for part in ("--set", one))]
    assert run(command) == 0
    found = json.loads(capfd.readouterr().out)
    assert [row["run"] for row in found["perplexity"]] == ["vanilla", "memory", "lora", "both"]
    assert all(row["all"]["n"] == 2 for row in found["perplexity"])
    assert sorted(path.name for path in (empty / "compare").iterdir()) == ["both", "lora", "memory"]

    assert run([*command, "--set", "training.lora_lr=0.5"]) == 2  # other settings: nothing old is measured as new
    err = " ".join(capfd.readouterr().err.split())
    assert "compare/memory has a training with other settings: training.lora_lr was 0.0005, now 0.5" in err
    assert "--runs ANOTHER_FOLDER" in err
    few = [*command, "-c", "compare-vanilla", "-c", "compare-lora", "--runs", "again", "--set", "training.lora_lr=0.5"]
    assert run(few) == 0 and (empty / "again/lora/final/weights.safetensors").exists()
    capfd.readouterr()
    assert run([*command, "--set", "output_dir=one"]) == 2
    assert "the runs vanilla and memory have the same output_dir: one" in " ".join(capfd.readouterr().err.split())
    assert run([*command, "--runs", "third", "--set", f"data.sources=[{sources}/one]"]) == 2
    err = " ".join(capfd.readouterr().err.split())
    assert "no repository is left for validation beside one" in err and not (empty / "third").exists()
