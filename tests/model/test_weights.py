"""A decoder with weights in fewer bits: close to the original, of the expected size, and able to read memory."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from awareness.errors import UsageError
from awareness.model import weights
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.weights import quantise_weights
from tests.conftest import GEOMETRY, tiny_model

pytest.importorskip("torchao")

WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4, "vocab_size": 320}
"""Sizes that int4 can pack: inputs in groups of 32, outputs in blocks of 16."""
IDS = torch.tensor([[40, 41, 42, 43, 44, 45]])
CHUNK = "def login(self):\n    return 7\n"
ERROR = {"int8": (0.003, 0.05), "int4": (0.03, 0.6), "fp8": (0.02, 0.2)}
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


def wide_model(seed=0):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**GEOMETRY, **WIDE})).eval()


@pytest.mark.parametrize("how", ["int8", "int4", "fp8"])
def test_the_logits_are_close(how):
    model = wide_model()
    want = logits(model)
    assert quantise_weights(model, how) is model
    low, high = ERROR[how]
    assert low < relative_error(logits(model), want) < high


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", ["fp8"])
def test_only_projections_take_one_byte_per_number(model, how, dtype):
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


@pytest.mark.parametrize("how", ["int8", "int4", "fp8"])
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


def test_none_changes_nothing(model):
    want, parameters = logits(model), list(model.parameters())
    assert quantise_weights(model, "none") is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(logits(model), want)


def test_unknown_weights_are_refused():
    with pytest.raises(UsageError, match="weights 'int3': not one of none, int8, int4, fp8, nf4"):
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


def test_unsupported_weights_are_refused_with_the_reason(monkeypatch):
    import torchao.quantization

    def refuse(*arguments, **options):
        raise NotImplementedError("no float8 here\nand a trace")

    monkeypatch.setattr(torchao.quantization, "quantize_", refuse)
    with pytest.raises(UsageError) as refused:
        quantise_weights(tiny_model("llama"), "fp8")
    assert refused.value.message == "weights 'fp8' are not possible on cpu: no float8 here"


def test_nf4_takes_half_a_byte_per_number():
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


def dequantised(weight):
    codes, scale, offset = weights.quantise_int4(weight)
    groups = (codes.float() - 8).unflatten(1, (-1, weights.GROUP))
    return (groups * scale.float()[..., None] + offset.float()[..., None]).flatten(1)


def test_int4_is_off_by_half_a_step_at_the_most():
    torch.manual_seed(0)
    weight = torch.randn(48, 64) * torch.logspace(-3, 1, 48)[:, None]
    groups = weight.unflatten(1, (-1, weights.GROUP))
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    error = (dequantised(weight) - weight).abs().unflatten(1, (-1, weights.GROUP)).amax(-1)
    assert (error <= step * 0.6 + groups.abs().amax(-1) * 2**-7).all()  # bfloat16 has 8 bits for scale and offset


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, weights.MAX_ROWS])
def test_the_kernels_multiply_by_the_stored_numbers(rows, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(64, 48).to(dtype)
    x = torch.randn(rows, 64, dtype=dtype)
    holder = nn.ModuleDict({"layer": layer})
    with torch.no_grad():
        for how, numbers in (("int4", dequantised(layer.weight)), ("int8", None)):
            if numbers is None:
                codes, scale = weights.pack_int8(layer.weight)
                numbers = codes.float() * scale.float()[:, None]
            weights.pack_weights(holder, how)
            want = torch.nn.functional.linear(x.float(), numbers, layer.bias.float())
            assert torch.allclose(layer(x).float(), want, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("how", ["int8", "int4"])
def test_the_last_token_of_each_row_is_multiplied(how):
    """The hidden states of last tokens are a view with gaps, which the kernels do not take."""
    model = quantise_weights(wide_model(), how)
    with torch.no_grad():
        last = model(IDS.repeat(3, 1), logits_to_keep=1).logits
        alone = model(IDS, logits_to_keep=1).logits
    torch.testing.assert_close(last, alone.expand(3, 1, -1), atol=1e-4, rtol=1e-4)


def test_only_few_rows_without_a_gradient_take_the_packed_weight():
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    few, many = torch.randn(1, 2, 64), torch.randn(1, weights.MAX_ROWS + 1, 64)
    exact = layer(few).detach(), layer(many).detach()
    weights.pack_weights(nn.ModuleDict({"layer": layer}), "int4")
    with torch.no_grad():
        assert torch.equal(layer(many), exact[1])
        assert not torch.equal(layer(few), exact[0])
        with weights.exact_weights():
            assert torch.equal(layer(few), exact[0])
        assert not torch.equal(layer(few), exact[0])
    layer(few).sum().backward()  # by its own weight, which can be differentiated
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("text", ["x = 1\n", CHUNK * 4])
def test_latents_are_those_of_the_published_weights(text, tokenizer):
    def latent(model):
        encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="test", layers=range(6), sink=[257, 10, 20, 258])
        return encoder.sink.data.tobytes(), next(iter(encoder.encode([text]))).data.tobytes()

    assert latent(quantise_weights(wide_model(), "int4")) == latent(wide_model())


def test_packed_weights_are_kept_and_mapped(tmp_path, monkeypatch):
    keep = tmp_path / "packed" / "own.safetensors"
    want = logits(quantise_weights(wide_model(), "int4", keep=keep))
    assert [path.name for path in keep.parent.iterdir()] == [keep.name]
    monkeypatch.setattr(weights, "pack_int4", None)  # nothing is packed again
    assert torch.equal(logits(quantise_weights(wide_model(), "int4", keep=keep)), want)


@pytest.mark.parametrize("damage", ["cut off", "another processor", "another way", "empty"])
def test_packed_weights_that_do_not_fit_are_made_again(damage, tmp_path, monkeypatch):
    keep = tmp_path / "own.safetensors"
    want = logits(quantise_weights(wide_model(), "int4", keep=keep))
    before = keep.read_bytes()
    if damage == "cut off":
        keep.write_bytes(before[: len(before) // 2])
    elif damage == "empty":
        keep.write_bytes(b"")
    elif damage == "another processor":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "VSX")
    else:
        quantise_weights(wide_model(), "int8", keep=keep)
    assert torch.equal(logits(quantise_weights(wide_model(), "int4", keep=keep)), want)
    assert len(weights.read_packed(keep, "int4")) == 2 * (6 * 7 + 1)


def test_an_unwritable_cache_costs_only_time(tmp_path):
    (tmp_path / "file").write_text("")
    model = quantise_weights(wide_model(), "int4", keep=tmp_path / "file" / "own.safetensors")
    assert weights.is_packed(model)


def test_lora_stands_on_packed_weights():
    from awareness.model.lora import add_lora

    model = wide_model()
    add_lora(model, rank=2, alpha=4, dropout=0.0, targets=["q_proj", "down_proj"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    want = logits(model)
    quantise_weights(model, "int4")
    packed = {name for name, module in model.named_modules() if isinstance(module, weights.PackedLinear)}
    assert "model.layers.0.self_attn.q_proj.base_layer" in packed and not any("lora_" in name for name in packed)
    low, high = ERROR["int4"]
    assert low < relative_error(logits(model), want) < high


def test_int4_needs_the_cpu(monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "device", torch.device("cuda"))
    with pytest.raises(UsageError, match="weights 'int4' are for the CPU, and the decoder is on cuda"):
        quantise_weights(tiny_model("llama"), "int4")
