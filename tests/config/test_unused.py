"""Settings without effect: each is told with its reason, each really has none, and what has an effect is not told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from awareness.config.base import Section
from awareness.config.read import read_config
from awareness.config.training import TrainConfig
from awareness.config.unused import (
    ALWAYS_USED,
    RULES,
    ZERO_ASKS,
    unused_lines,
    unused_settings,
    why_unused,
)
from awareness.model.model_files import find
from awareness.train.log import read_log
from awareness.train.preparation import prepare
from tests.train.conftest import config_file, sources

__all__ = ["config_file", "sources"]
CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


CASES = yaml.safe_load((Path(__file__).parent / "unused.yaml").read_text())
SAMPLES = {"sources": ["here"], "kinds": {"constant": 1}}


def read(**content: Any) -> TrainConfig:
    return TrainConfig.model_validate(content)


def settings(section: type[Section] = TrainConfig, prefix: str = "") -> Iterator[str]:
    """The paths of all settings."""
    for name, field in section.model_fields.items():
        kinds = [
            kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(kind, type)
        ]
        if inner := next((kind for kind in kinds if issubclass(kind, Section)), None):
            yield from settings(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_has_a_rule_or_is_always_used():
    ruled = {path for path in RULES if not path.startswith("data.kinds.")}
    assert ruled | ALWAYS_USED == set(settings()) and not ruled & ALWAYS_USED and RULES.keys() >= ZERO_ASKS


@pytest.mark.parametrize("case", CASES["unused"], ids=lambda case: case["says"])
def test_what_has_no_effect_is_told_with_its_reason(case):
    assert unused_lines(unused_settings(read(**case["file"]))) == [case["says"]]


@pytest.mark.parametrize("name", CASES["used"])
def test_what_has_an_effect_is_not_told(name):
    assert unused_settings(read(**CASES["used"][name])) == []


def test_every_rule_has_a_case_of_both_kinds():
    told = {one.setting for case in CASES["unused"] for one in unused_settings(read(**case["file"]))}
    assert told == RULES.keys() - {"data.validation"}  # which is told once the sources are read
    assert {path for content in CASES["used"].values() for path in paths_of(content)} >= RULES.keys()


def paths_of(content: dict, prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from paths_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_defaults_and_what_asks_for_nothing_are_not_told():
    training = {"early_stopping": False, "save_best_model": False, "eval_samples": 0, "dataset_subset": None}
    memory = {"num_header_tokens": 0, "use_chapters": False, "use_z_loss": False, "wo_init_zero": None}
    losses = {"citation_coefficient": 0, "teacher_model": None}
    content = {"training": {"dataset_name": "t", **training}, "memory": memory, "losses": losses}
    assert unused_settings(read(**content)) == unused_settings(read(training={"dataset_name": "t"})) == []


def test_one_source_leaves_nothing_for_validation():
    config = read(data={**SAMPLES, "validation": 0.1}, training={"eval_steps": 5})
    assert unused_settings(config) == []
    assert unused_lines(unused_settings(config, validates=False)) == [
        "data.validation: 0.1 and training.eval_steps: 5 have no effect: there is no validation (no source is left for"
        " it: name more data.sources)"
    ]


def test_why_a_setting_is_not_used():
    config = read(data=SAMPLES, memory={"memory_form": "joint", "num_memory_tokens": 0})
    assert why_unused(config, "training.memory_lr") and not why_unused(config, "training.gate_lr")


# That they really have none


def trained(path, folder, chosen):
    """Initial tensors, the log without its times, and trained tensors of two steps; and what was told."""
    few = ["training.max_steps=2", "training.eval_steps=2", "training.eval_samples=2", "training.save_steps=9"]
    config = read_config(path, [*few, "training.lora_lr=0.1", *chosen, f"output_dir={folder}"])
    prepared = prepare(config, pull=find)
    first = {name: p.detach().clone() for name, p in prepared.module.trainable().items()}
    prepared.trainer.train()
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder)]
    return first, lines, dict(prepared.module.trainable()), {one.setting for one in prepared.unused}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", CASES["same"])
def test_another_value_trains_the_same_to_the_last_bit(config_file, model_folder, tmp_path, name):
    given, others = (
        [setting.replace("MODEL", str(model_folder)) for setting in CASES["same"][name][part]]
        for part in ("given", "others")
    )
    before = trained(config_file, tmp_path / "a", given)
    after = trained(config_file, tmp_path / "b", [*given, *others])
    assert same(before[0], after[0]) and before[1] == after[1] and same(before[2], after[2])
    changed = {setting.partition("=")[0] for setting in others}
    assert changed - after[3] <= {"memory.num_header_tokens", "data.kinds.written"}  # 0 asks for nothing
