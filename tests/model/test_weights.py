"""A decoder in fewer bits is nearly what it was, takes the bytes it should, and still reads memory."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from awareness.errors import UsageError
from awareness.model import weights
from awareness.model.assembly import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.weights import quantise_weights
from tests.conftest import GEOMETRY, tiny_model

pytest.importorskip("torchao")

IDS = torch.tensor([[40, 41, 42, 43, 44, 45]])
CHUNK = "def login(self):\n    return 7\n"
ERROR = {"int8": (0.005, 0.05), "fp8": (0.02, 0.15)}
"""Between which two bounds the relative error of the logits lies: not nothing, and not much."""


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def stored_bytes(parameter):
    """What really lies in memory: torchao's tensors tell the size of what they stand for."""
    inner = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else []
    tensors = [getattr(parameter, name) for name in inner] or [parameter]
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def relative_error(got, want):
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("how", ["int8", "fp8"])
def test_the_logits_are_close(model, how):
    want = logits(model)
    assert quantise_weights(model, how) is model
    low, high = ERROR[how]
    assert low < relative_error(logits(model), want) < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", ["int8", "fp8"])
def test_exactly_the_projections_of_the_layers_take_a_byte_a_number(model, how, dtype):
    model = model.to(dtype)
    before = dict(model.named_parameters())
    projections = {
        f"{name}.weight" for name, module in model.model.layers.named_modules() if isinstance(module, nn.Linear)
    }
    quantise_weights(model, how)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, parameter in after.items():
        if name.removeprefix("model.layers.") in projections:
            rows, columns = before[name].shape
            assert rows * columns <= stored_bytes(parameter) <= rows * (columns + 4 + 1)  # a scale and an offset a row
            assert parameter.dtype == dtype and not parameter.requires_grad
        else:
            assert parameter is before[name]
    assert len(projections) == 6 * 7


@pytest.mark.parametrize("how", ["int8", "fp8"])
def test_a_tied_head_stays_the_embedding(how):
    model = tiny_model("qwen2")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    quantise_weights(model, how)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert type(model.lm_head.weight) is nn.Parameter


@pytest.mark.parametrize("how", ["int8", "fp8"])
def test_it_generates_and_reads_memory(model, tokenizer, how):
    quantise_weights(fuse(model), how)
    encoder = SelfEncoder(model, tokenizer, fingerprint="test", layers=range(6), sink=[257, 10, 20, 258])
    memory = assemble(model, encoder.spec, encoder.sink, list(encoder.encode([CHUNK])))
    plain = logits(model)
    with attached(model, memory):
        assert relative_error(logits(model), plain) > 0.1
        cached = model.generate(IDS, max_new_tokens=8, do_sample=False)
        uncached = model.generate(IDS, max_new_tokens=8, do_sample=False, use_cache=False)
    assert cached.tolist() == uncached.tolist()
    assert torch.equal(logits(model), plain)


def test_none_leaves_it_as_it_is(model):
    want, parameters = logits(model), list(model.parameters())
    assert quantise_weights(model, "none") is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(logits(model), want)


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match="weights 'int3': not one of none, int8, fp8, nf4"):
        quantise_weights(tiny_model("llama"), "int3")


@pytest.mark.parametrize(("how", "library"), [("int8", "torchao"), ("fp8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(how, library, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(LlamaForCausalLM, "device", torch.device("cuda"))
    with pytest.raises(UsageError, match=f"weights '{how}' need {library}") as refused:
        quantise_weights(tiny_model("llama"), how)
    assert refused.value.hint == 'pip install "awareness[deploy]"'


def test_what_the_device_cannot_is_said(monkeypatch):
    import torchao.quantization

    def refuse(*arguments, **options):
        raise NotImplementedError("no float8 here\nand a trace")

    monkeypatch.setattr(torchao.quantization, "quantize_", refuse)
    with pytest.raises(UsageError) as refused:
        quantise_weights(tiny_model("llama"), "fp8")
    assert refused.value.message == "weights 'fp8' are not possible on cpu: no float8 here"


def test_nf4_takes_half_a_byte_a_number():
    """Without CUDA: in the few sizes that bitsandbytes multiplies rightly on the CPU."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    size = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**GEOMETRY, **size})).eval()
    rounded, keys = copy.deepcopy(model), list(model.state_dict())
    for module in rounded.model.layers.modules():
        if isinstance(module, nn.Linear):
            codes = bitsandbytes.functional.quantize_4bit(module.weight.data, quant_type="nf4")
            module.weight.data = bitsandbytes.functional.dequantize_4bit(*codes)
    assert relative_error(logits(rounded), logits(model)) > 0.1
    weights._to_nf4(model)
    assert relative_error(logits(model), logits(rounded)) < 0.05
    linears = [module for module in model.model.layers.modules() if isinstance(module, nn.Linear)]
    assert [type(module) for module in linears] == [bitsandbytes.nn.Linear4bit] * 6 * 7
    assert all(stored_bytes(linear.weight) == linear.in_features * linear.out_features // 2 for linear in linears)
    assert type(model.lm_head) is nn.Linear
    assert set(keys) <= set(model.state_dict())
    assert model.generate(IDS, max_new_tokens=4, do_sample=False).shape == (1, 10)


def test_nf4_needs_cuda():
    with pytest.raises(UsageError, match="weights 'nf4' need CUDA, and the decoder is on cpu"):
        quantise_weights(tiny_model("llama"), "nf4")
