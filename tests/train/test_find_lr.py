"""The range test finds the rate that a curve with a known fall has."""

from __future__ import annotations

import json
import math

import pytest

from awareness.cli.app import run
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
    command = ["train", "find-lr", "--config", str(config_file), "--steps", "8", "--highest", "0.1", "--out", str(out)]
    assert run([*command, "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)
    rates = [rate for rate, _ in found["curve"]]
    assert rates == pytest.approx([0.1 * 1e-5 ** (1 - i / 7) for i in range(len(rates))]) and len(rates) > 1
    assert {"made_by": "awareness", **found} == json.loads((out / "find_lr.json").read_text())
    assert (out / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "trained").exists()
    assert run(command[:4]) == 0 and "try: --set training.memory_lr=" in capfd.readouterr().err
