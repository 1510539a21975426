"""Whatever stands in a file, each wrong setting has one line, and a hint of values is accepted when it is typed."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from awareness.config.base import Section
from awareness.config.problems import as_yaml, nearest, problems_of, set_value, settings_of
from awareness.config.read import read_config
from awareness.config.routers import RouterConfig
from awareness.config.training import TrainConfig
from awareness.errors import UsageError

SETTINGS = {".".join(keys): info for keys, info in settings_of(TrainConfig)}
LEAVES = sorted(name for name in SETTINGS if name not in ("task", "data", "model", "memory", "losses", "training"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([0.0, -0.5, 0.5, 1.0, 1e9, float("nan")]),
    st.sampled_from(["", "no", "A", "custom", "last_k", "joint", "BF16", "1e-3", "10", "x", "it's $5"]),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2)
)
NAMES = st.one_of(st.sampled_from(LEAVES), st.sampled_from(["seed", "memory.lora_rnk", "training.lora_rank", "x.y"]))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_file_is_read_or_refused_with_a_hint_that_works(tmp_path, chosen):
    content: dict[str, Any] = {"training": {"dataset_name": "x.jsonl"}}
    for name, value in chosen.items():
        set_value(content, name, value)
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        read_config(path, [])
        return
    except UsageError as error:
        refused = error
    lines = refused.details or [refused.message.removeprefix(f"{path}: ")]
    names = [line.partition(": ")[0] for line in lines]
    assert len(set(lines)) == len(lines) and all(names)
    assert not refused.details or refused.message == f"{path}: {len(lines)} settings are wrong"
    hint = str(refused.hint)
    if hint.startswith("--set "):
        read_config(path, shlex.split(hint)[1::2])
    else:
        assert hint.startswith(("in ", "remove ", "correct ")) and str(path) in hint


@pytest.mark.parametrize("section", [TrainConfig, RouterConfig])
def test_the_default_of_every_setting_is_accepted_as_it_is_typed(tmp_path, section):
    start = {
        TrainConfig: {"training": {"dataset_name": "x"}},
        RouterConfig: {"task": "router", "data": {"folders": ["a"]}},
    }
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(start[section]))
    read = read_config(path, [])
    for keys, info in settings_of(section):
        default = info.get_default(call_default_factory=True)
        if info.is_required() or isinstance(default, Section) or keys in (("training", "dataset_name"), ("task",)):
            continue
        if section is TrainConfig and keys[0] in ("data", "model"):  # data: has required settings
            continue
        assert read_config(path, [f"{'.'.join(keys)}={as_yaml(default)}"]) == read, keys


def test_an_error_of_a_list_and_of_a_union_is_one_line():
    content = {"data": {"sources": ["a", 3], "kinds": {"a": 1}, "validation": "x", "chunks": [1, 0, 0]}}
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(content)
    before = copy.deepcopy(content)
    assert [problem.line for problem in problems_of(caught.value, TrainConfig, content)] == [
        "data.sources[1]: must be a valid string (got 3)",
        "data.validation: must be a valid number or must be a valid list (got 'x')",
        "data.chunks[1]: must be greater than or equal to 1 (got 0)",
        "data.chunks[2]: must be greater than or equal to 1 (got 0)",
    ]
    assert content == before


def test_a_long_value_is_shown_in_part():
    content = {"training": {"dataset_name": "x"}, "memory": {"lora_rank": "y" * 5000, "memory_dim": list(range(500))}}
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(content)
    lines = [problem.line for problem in problems_of(caught.value, TrainConfig, content)]
    assert len(lines) == 2 and all(len(line) < 160 for line in lines)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("lora_rnk", ["lora_rank", "lora_alpha"], "lora_rank"),
        ("LORA-RANK", ["lora_rank"], "lora_rank"),
        ("a", ["A", "B"], "A"),
        ("weather", ["lora_rank"], None),
        ("x", [], None),
    ],
)
def test_nearest(name, known, meant):
    assert nearest(name, known) == meant


def test_set_value():
    content: dict[str, Any] = {"memory": None, "model": "here"}
    set_value(content, "memory.lora_rank", 3)
    set_value(content, "model.freeze_base_model", False)
    set_value(content, "a.b.c", 1)
    assert content == {
        "memory": {"lora_rank": 3},
        "model": {"base_model_name": "here", "freeze_base_model": False},
        "a": {"b": {"c": 1}},
    }
    with pytest.raises(UsageError, match=r"'a.b.c.d': c is not a section but the value 1"):
        set_value(content, "a.b.c.d", 2)


def test_paths_are_shown_as_they_are_typed():
    assert as_yaml(Path("a b")) == "a b" and as_yaml((1, 2)) == "[1, 2]" and as_yaml(None) == "null"
