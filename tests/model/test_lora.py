"""LoRA: the base model before training, off when inactive, and gone after removal."""

from __future__ import annotations

import copy
import threading
from contextvars import ContextVar

import pytest
import torch
from torch import nn

from awareness.errors import UsageError
from awareness.model.lora import add_lora, merge_lora, remove_lora
from tests.conftest import tiny_model

IDS = torch.tensor([[40, 41, 42, 43, 44, 45]])
TARGETS = ("q_proj", "v_proj", "down_proj")


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def adapted(model, *, trained=True, **options):
    """`model`, frozen, with LoRA whose B is no longer zero."""
    model.requires_grad_(False)
    parameters = add_lora(model, **{"rank": 4, "alpha": 8.0, "targets": TARGETS, **options})
    if trained:
        torch.manual_seed(7)
        for parameter in parameters.values():
            nn.init.normal_(parameter, std=0.1)
    return parameters


def modules_of(model):
    return {name: (type(module), id(module)) for name, module in model.named_modules()}


def test_new_lora_is_the_base_bitwise_and_a_step_changes_it(model):
    base = copy.deepcopy(model)
    parameters = adapted(model, trained=False)
    assert torch.equal(logits(model), logits(base))
    optimiser = torch.optim.SGD(parameters.values(), lr=1.0)
    model(IDS, labels=IDS).loss.backward()
    optimiser.step()
    assert (logits(model) - logits(base)).abs().max() > 1e-3


def test_only_lora_is_trainable(model):
    parameters = adapted(model)
    names = {
        f"model.layers.{i}.{part}.lora_{side}.default.weight"
        for i in range(6)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
        for side in "AB"
    }
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    assert set(parameters) == {name.replace(".default", "") for name in names}
    model(IDS, labels=IDS).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0} == names


def test_other_trainable_parameters_stay_trainable(model):
    block = nn.ModuleDict({"q_proj": nn.Linear(48, 48)})
    model.requires_grad_(False)
    model.model.layers[1].memory = block
    model.model.norm.weight.requires_grad_(True)
    add_lora(model, rank=2, alpha=2.0, targets=["q_proj"])
    assert type(block["q_proj"]) is nn.Linear
    others = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert others == {
        "model.norm.weight",
        "model.layers.1.memory.q_proj.weight",
        "model.layers.1.memory.q_proj.bias",
    }


def test_inactive_lora_is_the_base_bitwise_per_thread(model):
    base = logits(model)
    attached = ContextVar("attached", default=False)
    adapted(model, active=attached.get)
    assert torch.equal(logits(model), base)
    attached.set(True)
    on = logits(model)
    assert not torch.allclose(on, base, atol=1e-3)
    seen = []
    other = threading.Thread(target=lambda: seen.append(logits(model)))
    other.start()
    other.join()
    assert torch.equal(seen[0], base)
    assert torch.equal(logits(model), on)
    attached.set(False)
    assert torch.equal(logits(model), base)


def test_active_gated_lora_is_plain_lora_bitwise(model):
    plain = copy.deepcopy(model)
    adapted(plain)
    adapted(model, active=lambda: True)
    assert torch.equal(logits(model), logits(plain))


def test_remove_lora_restores_the_model(model):
    base, keys, modules = logits(model), list(model.state_dict()), modules_of(model)
    attributes = set(vars(model))
    adapted(model, active=lambda: True)
    assert remove_lora(model) is model
    assert torch.equal(logits(model), base)
    assert list(model.state_dict()) == keys
    assert modules_of(model) == modules
    assert set(vars(model)) == attributes
    adapted(model)  # and it can be put on again


def test_merged_lora_equals_active_lora(model):
    keys, modules = list(model.state_dict()), modules_of(model)
    base = logits(model)
    adapted(model, active=lambda: True)
    on = logits(model)
    assert merge_lora(model) is model
    assert torch.allclose(logits(model), on, atol=1e-4)
    assert not torch.allclose(base, on, atol=1e-2)
    assert list(model.state_dict()) == keys
    assert modules_of(model) == modules


@pytest.mark.parametrize("on", [True, False])
def test_a_projection_keeps_its_bias(on):
    """Qwen2 has biases on q, k and v: `W·x + b + alpha/rank · B·A·x`, or `W·x + b`."""
    model = tiny_model("qwen2")
    adapted(model, active=lambda: on)
    layer = model.model.layers[2].self_attn.q_proj
    down, up = (tensor.detach() for name, tensor in layer.named_parameters() if "lora_" in name)
    x = torch.randn(3, 48)
    bias = layer.base_layer.bias
    assert bias.abs().min() > 0
    want = x @ layer.base_layer.weight.T + bias + on * 8.0 / 4 * (x @ down.T @ up.T)
    assert torch.allclose(layer(x), want, atol=1e-5)
    kept = bias.clone()
    merge_lora(model)
    assert torch.equal(model.model.layers[2].self_attn.q_proj.bias, kept)


def test_dropout_is_of_training_only(model):
    parameters = adapted(model, dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))
    for parameter in parameters.values():
        nn.init.zeros_(parameter)
    assert torch.equal(logits(model), logits(model))  # it is LoRA's alone


@pytest.mark.parametrize(("targets", "named"), [(["q_proj", "qq_proj"], "qq_proj"), ([], "none named")])
def test_unknown_targets_are_refused_and_the_known_ones_named(targets, named):
    model = tiny_model("llama")
    with pytest.raises(UsageError) as refused:
        add_lora(model, rank=2, alpha=2.0, targets=targets)
    assert refused.value.message == (
        f"lora_targets: {named}; the projections of this decoder are"
        " q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )


def test_a_second_lora_is_refused():
    model = tiny_model("llama")
    adapted(model)
    with pytest.raises(UsageError, match="has LoRA already"):
        adapted(model)
