"""Settings without effect are told once, before the first step, through every command that trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.config.training import TrainConfig
from awareness.train.tell_unused import tell_unused

CONFIGS = sorted((Path(__file__).parent.parent.parent / "awareness/config/shipped").glob("*.yaml"))


def test_each_is_told_once():
    data, training = {"sources": ["here"], "kinds": {"constant": 1}}, {"base_model_lr": 1, "eval_steps": 5}
    config, said = TrainConfig(data=data, training=training), []
    told = tell_unused(config, said.append)
    assert [one.setting for one in told] == ["training.base_model_lr"] and len(said) == 1
    told = tell_unused(config, said.append, told=told, validates=False)
    assert [one.setting for one in told] == ["training.base_model_lr", "training.eval_steps"] and len(said) == 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_file_says_nothing(path):
    config = read_config(path, [])
    if config.task == "memory":
        said = []
        unused = tell_unused(config, said.append)
        assert not said and bool(unused) is config.quiet_unused


# Through the command line

NONE = ["data.validation=0", "training.early_stopping=true", "memory.wo_init_zero=true", "training.max_steps=1"]


def train(config_file, *chosen, command=("train",)):
    return run([*command, "--config", str(config_file), *(part for setting in chosen for part in ("--set", setting))])


def test_they_are_told_before_the_first_step_and_stand_in_the_json(config_file, capfd):
    assert train(config_file, *NONE, command=("train", "--format", "json")) == 0
    out, err = capfd.readouterr()
    unused = {one["setting"]: one for one in json.loads(out)["unused"]}
    assert {"training.early_stopping", "training.eval_steps", "memory.wo_init_zero"} <= unused.keys()
    assert unused["memory.wo_init_zero"] == {
        "setting": "memory.wo_init_zero",
        "value": True,
        "why": "memory.memory_form is joint",
    }
    line = "memory.wo_init_zero: true has no effect: memory.memory_form is joint"
    assert err.count(line) == 1 == err.count("training.early_stopping: true")
    assert err.index(line) < err.index("chunks of")  # before the sources are read


def test_quiet_unused(config_file, capfd):
    assert train(config_file, *NONE, "quiet_unused=true", command=("train", "--format", "json")) == 0
    out, err = capfd.readouterr()
    assert "no effect" not in err and json.loads(out)["unused"]


def test_find_lr_tells_them_too(config_file, capfd):
    assert train(config_file, *NONE, command=("train", "find-lr", "--steps", "5")) in (0, 2)
    err = capfd.readouterr().err
    assert err.count("memory.wo_init_zero: true has no effect: memory.memory_form is joint") == 1
