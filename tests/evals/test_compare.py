"""Runs side by side, trained if they are not yet."""

from __future__ import annotations

import json
import math

import pytest

from awareness.cli.app import run
from awareness.evals import compare
from awareness.types import Sample
from tests.train.conftest import config_file, sources  # noqa: F401


class Said:
    """An arm that is as surprised as it says."""

    def __init__(self, name, nll, longest=100):
        self.name, self._nll, self.longest = name, nll, longest

    def fits(self, sample):
        return len(sample.question) <= self.longest

    def nll(self, sample):
        return self._nll[sample.kind]


def test_perplexity_is_by_sample_and_kind_and_what_one_arm_can_not_read_is_left_out_for_all():
    samples = [Sample((), (), "q", "a", kind=kind) for kind in ("one", "one", "two")] + [
        Sample((), (), "long" * 9, "a", kind="one")
    ]
    arms = [Said("a", {"one": (2.0, 2), "two": (12.0, 4)}), Said("b", {"one": (0.0, 3), "two": (0.0, 1)}, 10)]
    first, second = compare.run(arms, samples, seed=0)
    assert first.arm == "a" and first.left_out == second.left_out == 1
    assert first.perplexity["one"].mean == pytest.approx(math.exp(1.0)) and first.perplexity["one"].n == 2
    assert first.perplexity["two"].mean == pytest.approx(math.exp(3.0))
    assert first.perplexity[""].mean == pytest.approx(math.exp(5 / 3)) and first.perplexity[""].n == 3
    assert second.perplexity[""].mean == 1.0


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
    found = json.loads(capfd.readouterr().out)
    assert [one["run"] for one in found["perplexity"]] == ["vanilla", "both"]
    assert all(one["all"]["n"] == 3 for one in found["perplexity"])
    assert json.loads((tmp_path / "out/compare.json").read_text()) == found
    for picture in ("compare.png", "compare_loss.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "both/log.jsonl").read_text()
    assert run(command) == 0 and "vanilla" in capfd.readouterr().out
    assert (tmp_path / "both/log.jsonl").read_text() == before  # not trained again
