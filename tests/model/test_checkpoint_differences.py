"""Two checkpoints side by side: what is equal is said to be, what differs is measured."""

from __future__ import annotations

import json

import pytest
import torch

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.model.checkpoint import save_checkpoint
from awareness.model.checkpoint_differences import compare_checkpoints
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find


@pytest.fixture
def write(model_folder, tmp_path):
    """Writes a checkpoint with a bank: (name, change of the module, settings) -> its folder."""

    def write(name, change=lambda module: None, **settings):
        model = ModelConfig(base_model_name=str(model_folder))
        torch.manual_seed(0)
        module, base = build_memory_decoder(model, MemoryConfig(num_memory_tokens=8, **settings), pull=find)
        with torch.no_grad():
            change(module)
        save_checkpoint(tmp_path / name, module, base.folder, model)
        return tmp_path / name

    return write


def test_equal_ones(write):
    found = compare_checkpoints(write("a"), write("b"))
    assert (found.settings, found.memory, found.shapes, found.tensors) == ([], None, [], [])
    assert found.same == found.shared > 0 and found.difference == 0


def test_the_difference_of_a_tensor_is_relative_to_its_norm(write):
    def change(module):
        name, tensor = next((n, t) for n, t in module.trainable().items() if t.norm() > 0)
        changed.append((name, float(tensor.double().norm())))
        tensor.mul_(1.5)

    changed = []
    first, second = write("a"), write("b", change)
    found = compare_checkpoints(first, second)
    (only,) = found.tensors
    assert (only.name, only.norm) == (changed[0][0], pytest.approx(changed[0][1]))
    assert only.difference == pytest.approx(0.5) and only.other_norm == pytest.approx(1.5 * only.norm)
    assert found.same == found.shared - 1 and 0 < found.difference <= 0.5


def test_the_command_names_settings_and_shapes(write, capfd):
    first, second = write("a"), write("b", memory_layer_placement="last_k", memory_layer_k=1, memory_dim=24)
    assert run(["checkpoints", "compare", str(first), str(second), "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)
    settings = {row["setting"]: (row["first"], row["second"]) for row in found["settings"]}
    assert settings["memory.memory_dim"][1] == 24 and settings["memory.memory_layer_placement"] == ("all", "last_k")
    assert any(f"is only in {first}" in line for line in found["shapes"]) and found["memory"] is None
    assert run(["checkpoints", "compare", str(first), str(second)]) == 0
    out = capfd.readouterr().out
    assert "memory.memory_dim" in out and "repository memory: unknown" in out
    assert run(["checkpoints", "compare", str(first), str(first.parent)]) == 2
