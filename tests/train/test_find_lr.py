"""The range test finds the rate that a curve with a known fall has."""

from __future__ import annotations

import json
import math
import re

import pytest

from awareness.cli.app import run
from awareness.config.training import TrainingConfig
from awareness.errors import UsageError
from awareness.train.find_lr import steepest_fall

RATES = [10.0 ** (-5 + i / 10) for i in range(51)]


def test_where_the_loss_falls_fastest():
    losses = [2.0 + 2.0 / (1 + math.exp(6 * (math.log10(rate) + 3))) for rate in RATES]  # falls at 1e-3
    losses = [loss + max(0.0, math.log10(rate) + 1) * 9 for rate, loss in zip(RATES, losses, strict=True)]
    found = steepest_fall(RATES, losses)
    assert 5e-4 < found.steepest < 4e-3 and 1e-2 < found.lowest < 0.5


def test_a_loss_that_only_rises_has_no_rate():
    with pytest.raises(UsageError, match="never falls"):
        steepest_fall(RATES, [2.0 + i for i in range(51)])
    assert len(steepest_fall(RATES[:4], [3.0, 2.0, float("nan"), 1.0]).curve) == 3


def test_the_command_keeps_nothing_of_the_training(config_file, tmp_path, capfd):
    out = tmp_path / "lr"
    command = ["train", "find-lr", "--config", str(config_file), "--steps", "16", "--highest", "0.1", "--out", str(out)]
    assert run([*command, "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)
    rates = [rate for rate, _ in found["curve"]]
    assert rates == pytest.approx([0.1 * 1e-5 ** (1 - i / 15) for i in range(len(rates))]) and len(rates) > 1
    assert {"made_by": "awareness", **found} == json.loads((out / "find_lr.json").read_text())
    assert (out / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "trained").exists()


def test_the_rates_to_try_are_those_of_what_is_trained(config_file, capfd):
    """The joint form without a bank trains gates and LoRA; their rates keep their ratio."""
    assert run(["train", "find-lr", "--config", str(config_file), "--steps", "16", "--highest", "0.1"]) == 0
    out, err = capfd.readouterr()
    found = float(re.search(r"falls fastest at (\S+);", out).group(1))
    (line,) = [line for line in err.splitlines() if line.startswith("try: ")]
    tried = {name: float(rate) for name, rate in re.findall(r"--set training\.(\w+)=(\S+)", line)}
    default = TrainingConfig()
    ratios = {name: getattr(default, name) / default.memory_lr for name in ("gate_lr", "lora_lr")}
    assert tried == pytest.approx({name: found * ratio for name, ratio in ratios.items()}, rel=0.1)
