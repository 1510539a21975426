"""Products in int8: close to those of the linear layer, in a copy of the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from awareness.model import encoder as encoders
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.int8_linear import KEPT, Int8Linear, in_int8, int8_is_exact, int8_pays
from awareness.model.lora import add_lora
from awareness.model.quantisation import to_tensor
from tests.conftest import tiny_model, tiny_tokenizer

TEXTS = ["def acquire(self):\n    return self.idle.pop()", "LIMIT = 5"]
exact = pytest.mark.skipif(not int8_is_exact(), reason="without VNNI products in int8 are cut off, and never used")


def relative(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


@exact
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (2, 17), (3, 1, 40)])
def test_close_to_the_linear_layer(dtype, bias, rows):
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(*rows, 48, dtype=dtype)
    found = Int8Linear(linear)(x)
    assert (found.dtype, found.shape) == (dtype, (*rows, 80))
    assert relative(found.float(), linear(x).float()) < 0.02


@exact
def test_a_large_token_does_not_blur_the_others_and_zeros_stay_zeros():
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=False).requires_grad_(False)
    x = torch.randn(3, 48)
    scaled = Int8Linear(linear)(x * torch.tensor([[1.0], [1e4], [0.0]]))
    assert relative(scaled[0], linear(x[0])) < 0.02
    assert scaled[2].abs().max() == 0


def test_every_layer_except_the_kept_ones(model):
    fuse(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        logits = model(ids).logits
        other = in_int8(model)
        assert torch.equal(model(ids).logits, logits)
    assert {name for name, module in model.named_modules() if isinstance(module, Int8Linear)} == set()
    replaced = {name for name, module in other.named_modules() if isinstance(module, Int8Linear)}
    assert replaced == {
        name
        for name, module in model.model.layers.named_modules(prefix="model.layers")
        if type(module) is nn.Linear and not name.endswith(KEPT)
    }
    assert len(replaced) == 5 * model.config.num_hidden_layers
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in other.named_parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@exact
def test_latents_for_many_texts(model, monkeypatch):
    """As if int8 paid on this processor."""
    monkeypatch.setattr(encoders, "int8_pays", lambda model: True)
    encoder = SelfEncoder(fuse(model), tiny_tokenizer(), fingerprint="tiny", quant="int4")
    many = encoder.for_many()
    assert many.spec == encoder.spec and many.model is not model
    for kv, right in zip(many.keys_values(TEXTS), encoder.keys_values(TEXTS), strict=True):
        assert kv.shape == right.shape
        assert all(0 < relative(kv[side].detach(), right[side].detach()) < 0.1 for side in (0, 1))
    for found, right in zip(many.encode(TEXTS), encoder.encode(TEXTS), strict=True):
        assert found.tokens == right.tokens
        assert relative(to_tensor(found, many.spec).float(), to_tensor(right, encoder.spec).float()) < 0.3


@exact
def test_lora_that_waits_for_a_memory_changes_no_latent(monkeypatch):
    """An index of the base has the same latents, so they must be the same bytes, in int8 too."""
    monkeypatch.setattr(encoders, "int8_pays", lambda model: True)
    made = []
    for with_lora in (False, True):
        torch.manual_seed(0)
        decoder = fuse(tiny_model("qwen3"))
        if with_lora:
            targets = ("q_proj", "k_proj", "v_proj", "o_proj")
            add_lora(decoder, rank=2, alpha=4, targets=targets, active=lambda: False)
        encoder = SelfEncoder(decoder, tiny_tokenizer(), fingerprint="tiny", quant="int4").for_many()
        made.append([bytes(latent.data) for latent in encoder.encode(TEXTS)])
    assert made[0] == made[1]


@pytest.mark.parametrize("quant", ["none", "int8", "fp8"])
def test_fine_quantisations_never_use_int8_products(quant, monkeypatch):
    monkeypatch.setattr(encoders, "int8_pays", lambda model: True)
    encoder = SelfEncoder(fuse(tiny_model("llama")), tiny_tokenizer(), fingerprint="tiny", quant=quant)
    assert encoder.for_many() is encoder


def test_int8_never_pays_where_it_is_inexact(monkeypatch):
    monkeypatch.setattr("awareness.model.int8_linear.WORTH", 0.0)
    assert int8_pays(tiny_model("llama")) == int8_is_exact()
    monkeypatch.setattr("awareness.model.int8_linear.WORTH", 1e9)
    assert not int8_pays(tiny_model("llama"))
