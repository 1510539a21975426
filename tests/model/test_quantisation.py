"""Latents in fewer bits: their size, how far they are from the numbers they stand for, and what a decoder makes of it.

Bounds follow from the way of storing: half a step for integers, 2^-4 of a number for e4m3. What the files that hold
such latents promise is tested in tests/index.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awareness.errors import UsageError
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder, with_quant
from awareness.model.fusion import attached, fuse
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import QUANT_BITS, QUANT_GROUP, Latent, MemorySpec
from tests.conftest import tiny_model

SPEC = MemorySpec(model="m", layers=(1, 2), num_kv_heads=2, head_dim=8, dtype="float32")
QUANTS = ("none", *QUANT_BITS)
INTEGERS = ("int8", "int4", "int2")
F16 = torch.finfo(torch.float16)
ROUNDING = 2**-11  # of a float16: what a stored scale or offset may be off by, relatively
CHUNK = "def login(self):\n    key = 'needle-7421'\n    return key\n"
PROMPT = torch.tensor([[40, 41, 42, 43, 44, 45]])


def spec_of(quant: str, dtype: str = "float32") -> MemorySpec:
    return replace(SPEC, quant=quant, dtype=dtype)


def numbers(tokens: int, seed: int = 0, dtype: str = "float32") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SPEC.shape(tokens), generator=generator).to(getattr(torch, dtype))


def blocks(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest number of the block that each number of [2, L, H, T, D] is stored in, of the same shape.

    Written apart from quant.py: a channel of a key by 64 tokens, a token of a value.
    """
    low, high = torch.empty_like(tensor), torch.empty_like(tensor)
    for start in range(0, tensor.shape[3], QUANT_GROUP):
        part = tensor[0, :, :, start : start + QUANT_GROUP]
        low[0, :, :, start : start + QUANT_GROUP] = part.amin(2, keepdim=True)
        high[0, :, :, start : start + QUANT_GROUP] = part.amax(2, keepdim=True)
    low[1], high[1] = tensor[1].amin(3, keepdim=True), tensor[1].amax(3, keepdim=True)
    return low, high


def allowed_error(tensor: torch.Tensor, quant: str) -> torch.Tensor:
    """How far each number may be off."""
    low, high = blocks(tensor)
    tiny = F16.smallest_normal
    if quant == "fp8":
        largest = torch.maximum(high.abs(), low.abs())
        scale = largest / 448
        # Below e4m3's normal numbers its step is 2^-9; a scale that float16 holds with fewer bits cuts the largest off.
        return tensor.abs() * (2**-4 + 2 * ROUNDING) + scale * 2**-10 * 1.01 + 448 * tiny * ROUNDING * 4
    levels = 2 ** QUANT_BITS[quant] - 1
    scale = (high - low) / levels
    offset = low.abs() * ROUNDING * 1.01 + tiny * ROUNDING
    # The ends of the block may be cut off by what the scale lost to float16, and by what the offset did.
    return scale * 0.501 + offset + levels * (scale * ROUNDING + tiny * ROUNDING) + high.abs() * 2**-22


@pytest.mark.parametrize("tokens", [0, 1, 63, 64, 65, 200])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quant", QUANTS)
def test_round_trip_keeps_shape_dtype_and_size(quant, dtype, tokens):
    spec = spec_of(quant, dtype)
    tensor = numbers(tokens, dtype=dtype)
    latent = to_latent(tensor, spec)
    assert latent.tokens == tokens
    assert len(latent.data) == spec.latent_bytes(tokens)
    back = to_tensor(latent, spec)
    assert (tuple(back.shape), back.dtype) == (spec.shape(tokens), getattr(torch, dtype))
    if quant == "none":
        assert torch.equal(back, tensor)
    elif tokens:
        assert not torch.equal(back, tensor)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("quant", list(QUANT_BITS))
def test_errors_are_within_the_step(quant, tokens):
    tensor = numbers(tokens, seed=tokens)
    tensor[0, ..., 3] *= 50  # keys have channels of outstanding size
    tensor[0, ..., 5] += 300
    error = (to_tensor(to_latent(tensor, spec_of(quant)), spec_of(quant)) - tensor).abs()
    assert (error <= allowed_error(tensor, quant)).all()


@pytest.mark.parametrize("quant", INTEGERS)
def test_the_error_bound_is_tight(quant):
    """Half a step is reached, so the test above would see an error twice as large."""
    tensor = numbers(200)
    low, high = blocks(tensor)
    steps = (high - low) / (2 ** QUANT_BITS[quant] - 1)
    error = (to_tensor(to_latent(tensor, spec_of(quant)), spec_of(quant)) - tensor).abs() / steps
    assert 0.45 < error[0].max() < 0.63
    assert error[0].mean() == pytest.approx(0.25, abs=0.03)


@given(
    quant=st.sampled_from(list(QUANT_BITS)),
    tokens=st.sampled_from([1, 2, 63, 64, 65, 130]),
    seed=st.integers(0, 1000),
    constant=st.sampled_from([None, 0.0, 1.0, -3.5, 1024.0, -60000.0]),
    outlier=st.sampled_from([1.0, 100.0, 1e-3, 1e4]),
    offset=st.sampled_from([0.0, 1.0, -1.0, 250.0, -4096.0, 30000.0]),
    sign=st.sampled_from([None, 1, -1]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_errors_are_bounded_for_all_kinds_of_channels(quant, tokens, seed, constant, outlier, offset, sign):
    tensor = numbers(tokens, seed)
    tensor[..., 0] *= outlier
    tensor = tensor if sign is None else tensor.abs() * sign
    tensor += offset
    if constant is not None:
        tensor[..., 1] = constant
    tensor = tensor.clamp(-F16.max, F16.max)
    back = to_tensor(to_latent(tensor, spec_of(quant)), spec_of(quant))
    assert torch.isfinite(back).all()
    assert ((back - tensor).abs() <= allowed_error(tensor, quant)).all()


@pytest.mark.parametrize("quant", INTEGERS)
@pytest.mark.parametrize("value", [0.0, 1.0, -7.25, 512.0])
def test_equal_numbers_are_exact(quant, value):
    tensor = torch.full(SPEC.shape(70), value)
    assert torch.equal(to_tensor(to_latent(tensor, spec_of(quant)), spec_of(quant)), tensor)


@pytest.mark.parametrize("quant", list(QUANT_BITS))
def test_numbers_beyond_float16_are_clipped(quant):
    """bfloat16 reaches further than the float16 of scales and offsets: what can't be held is finite all the same."""
    tensor = numbers(65, dtype="bfloat16")
    tensor[0, ..., 2] = 3e38
    tensor[0, ..., 3] = -3e38
    tensor[1, 0, 0, 7] = 1e30
    tensor[1, 0, 0, 8, 0] = -1e30
    back = to_tensor(to_latent(tensor, spec_of(quant, "bfloat16")), spec_of(quant, "bfloat16"))
    assert torch.isfinite(back).all()
    assert (back[0, ..., 2] > 0).all() and (back[0, ..., 3] < 0).all()
    error = (back.float() - tensor.float())[0, ..., 4:].abs()
    assert (error <= allowed_error(tensor.float(), quant)[0, ..., 4:] + tensor.float()[0, ..., 4:].abs() * 2**-8).all()


def whole_numbers(quant: str, tokens: int) -> torch.Tensor:
    """Codes themselves: every block has 0 and the highest code in it, so that its scale is 1 and its offset 0."""
    top = 2 ** QUANT_BITS[quant] - 1
    generator = torch.Generator().manual_seed(tokens)
    codes = torch.randint(0, top + 1, SPEC.shape(tokens), generator=generator)
    codes[:, ..., 0::2, 0], codes[:, ..., 0::2, 1] = 0, top
    codes[0, :, :, 0::QUANT_GROUP], codes[0, :, :, 1::QUANT_GROUP] = 0, top
    codes[1, ..., 0], codes[1, ..., 1] = 0, top
    return codes


@pytest.mark.parametrize("tokens", [64, 66, 130])
@pytest.mark.parametrize("quant", INTEGERS)
def test_packing_is_exact(quant, tokens):
    codes = whole_numbers(quant, tokens)
    latent = to_latent(codes.float(), spec_of(quant))
    assert torch.equal(to_tensor(latent, spec_of(quant)), codes.float())
    # As they are documented: codes of V come last, the first of a byte's in its lowest bits.
    per_byte = 8 // QUANT_BITS[quant]
    weights = 2 ** (QUANT_BITS[quant] * torch.arange(per_byte))
    want = (codes[1].reshape(-1, per_byte) * weights).sum(1).tolist()
    assert list(bytes(latent.data)[-len(want) :]) == want


@pytest.mark.parametrize(("quant", "head_dim"), [("int4", 7), ("int2", 6), ("int3", 8), ("", 8), ("INT8", 8)])
def test_impossible_quantisations_are_refused(quant, head_dim):
    with pytest.raises(UsageError, match=f"--quant {quant} is not possible for heads of {head_dim} numbers"):
        with_quant(replace(SPEC, head_dim=head_dim), quant)


@pytest.mark.parametrize("quant", QUANTS)
def test_each_quantisation_has_its_own_key(quant):
    spec = with_quant(SPEC, quant)
    assert (spec.quant, spec.raw) == (quant, SPEC)
    assert (spec.latent_key("c") == SPEC.latent_key("c")) == (quant == "none")


# in a decoder


def logits(model, memory):
    with torch.no_grad(), attached(model, memory):
        return model(PROMPT).logits


@pytest.mark.parametrize("quant", list(QUANT_BITS))
def test_the_sink_is_never_quantised(tokenizer, quant):
    model = tiny_model("llama")
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="test", quant=quant)
    plain = encoder.storing_as("none")
    assert bytes(encoder.sink.data) == bytes(plain.sink.data)
    assert len(encoder.sink.data) == plain.spec.latent_bytes(encoder.sink.tokens)
    raw = to_tensor(encoder.sink, plain.spec)
    memory = assemble(model, encoder.spec, encoder.sink, list(encoder.encode([CHUNK])))
    for i, layer in enumerate(encoder.spec.layers):
        sink_values = memory.values[layer][0, :, : encoder.sink.tokens]
        assert torch.equal(sink_values, raw[1, i].to(sink_values.dtype))


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])  # of which only one has a norm on its keys
def test_answers_hardly_differ_from_what_the_whole_latents_give(architecture, tokenizer):
    """By the distance between the logits with int8 latents and with bf16 ones, against what the memory does at all."""
    model = fuse(tiny_model(architecture))
    encoder = SelfEncoder(model, tokenizer, fingerprint="test")
    base = logits(model, None)
    got = {}
    for quant in QUANTS:
        own = encoder.storing_as(quant)
        got[quant] = logits(model, assemble(model, own.spec, own.sink, list(own.encode([CHUNK, "x = 1\n" * 20]))))
    effect = (got["none"] - base).norm()
    off = {quant: ((got[quant] - got["none"]).norm() / effect).item() for quant in QUANTS}
    assert off["none"] == 0
    assert 0 < off["int8"] < 0.03
    assert off["fp8"] < 0.2
    assert off["int8"] < off["int4"] < off["int2"]
    assert torch.equal(got["int8"].argmax(-1), got["none"].argmax(-1))


def test_a_mixed_memory_is_each_part_alone(tokenizer):
    """Latents that are stored in different ways stand in one memory as they stand in memories of one way."""
    model = fuse(tiny_model("qwen3"))
    encoder = SelfEncoder(model, tokenizer, fingerprint="test")
    texts = {quant: f"{quant} = '{CHUNK}'\n" for quant in QUANTS}
    base = encoder.spec
    # Of equal length, so that in every memory a chunk stands at the same position.
    width = max(len(text) for text in texts.values())
    latents = {q: next(encoder.storing_as(q).encode([t.ljust(width)])) for q, t in texts.items()}
    specs = {quant: with_quant(base, quant) for quant in QUANTS}

    def memory(specs_of_chunks, chunks):
        return assemble(model, base, encoder.sink, chunks, specs=specs_of_chunks, sharpness=1.0)

    mixed = memory(list(specs.values()), list(latents.values()))
    for at, quant in enumerate(QUANTS):
        whole = Latent(width, to_tensor(latents[quant], specs[quant]).contiguous().view(torch.uint8).numpy().data)
        same = [copy.copy(whole) for _ in QUANTS]
        alone = memory(None, same)
        span = mixed.spans[at + 1]
        for layer in base.layers:
            for side in ("keys", "values"):
                got, want = getattr(mixed, side)[layer], getattr(alone, side)[layer]
                assert torch.equal(got[:, :, span.start : span.stop], want[:, :, span.start : span.stop])


@pytest.mark.parametrize("quant", ["int4", "fp8"])
def test_a_latent_does_not_depend_on_its_neighbours(tokenizer, quant):
    encoder = SelfEncoder(fuse(tiny_model("llama")), tokenizer, fingerprint="test", quant=quant)
    # A few codes may be the next one, as the sums behind them run over other shapes. Another scale changes them all.
    (together, _), (alone,) = (
        [to_tensor(latent, encoder.spec) for latent in encoder.encode(texts)] for texts in ([CHUNK, "Z" * 90], [CHUNK])
    )
    assert (together - alone).norm() < 0.02 * alone.norm()
