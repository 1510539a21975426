"""Which adapter a question is read by."""

from __future__ import annotations

import json

import pytest

from awareness.engine import modes
from awareness.engine.modes import Mode, choose_reading, shipped_adapter
from awareness.errors import UsageError
from awareness.model.checkpoint import Checkpoint
from awareness.model.model_files import ModelFolder, pull
from awareness.model.presets import KNOWN
from tests.conftest import write_tree

OURS = ModelFolder("qwen3-0.6b", None, "print")  # type: ignore[arg-type]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    config = json.dumps({"fingerprint": "print", "memory": {"memory_form": "tanh"}})
    for name in (OURS.name, "stranger"):
        write_tree(tmp_path / name, {"config.json": config})
    monkeypatch.setattr(modes, "_ADAPTERS", tmp_path)
    return tmp_path / OURS.name


def test_what_comes_with_a_model_is_read_by_unless_something_else_is_asked_for(shipped):
    found = choose_reading(None, None, OURS.name).for_model(OURS)
    assert (found.mode, found.adapter) == (Mode.tanh, shipped)
    for adapter, mode in (("none", None), (None, Mode.joint), (None, Mode.text), (None, Mode.none)):
        found = choose_reading(adapter, mode, OURS.name).for_model(OURS)
        assert (found.mode, found.adapter) == (mode or Mode.joint, None)


def test_it_is_of_exactly_these_weights_and_of_a_preset(shipped):
    assert shipped_adapter(OURS) == shipped
    assert shipped_adapter(ModelFolder(OURS.name, None, "other")) is None  # type: ignore[arg-type]
    for name in ("stranger", str(shipped), "../qwen3-0.6b", "qwen3-1.7b"):
        assert shipped_adapter(ModelFolder(name, None, "print")) is None  # type: ignore[arg-type]


def test_shipped_by_name_where_nothing_is(shipped, model_folder):
    with pytest.raises(UsageError, match="no adapter is shipped for"):
        choose_reading("shipped", None, str(model_folder))


@pytest.mark.parametrize(
    ("model", "config"), [("smollm2-135m", "smollm2-memory"), ("qwen2.5-coder-0.5b", "qwen-memory")]
)
def test_the_adapter_that_ships_is_whole_and_small(model, config):
    """Its card names data, licence, commands and figures."""
    assert shipped_adapter(pull("smollm2-135m")) == modes._ADAPTERS / "smollm2-135m"
    path = modes._ADAPTERS / model
    assert Checkpoint.read(path).fingerprint == KNOWN[model].fingerprint
    assert sum(file.stat().st_size for file in path.iterdir()) < 6 << 20
    card = (path / "README.md").read_text("utf-8")
    for word in ("Apache-2.0", f"awareness train --config configs/{config}.yaml", "seed", "held out", "loss"):
        assert word in card, word
