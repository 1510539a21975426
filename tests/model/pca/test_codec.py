"""`--quant pca`: its size, its error, and that every byte of a latent is valid. The tables are fitted to numbers with
known components."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awareness.model.pca.codec import BITS, PcaCodec
from awareness.model.pca.fit import fit
from awareness.types import Latent, MemorySpec

SPEC = MemorySpec("m", (1, 2, 4), 2, 16, dtype="float32", quant="pca", codec="c")


def numbers(tokens: int, seed: int = 0) -> torch.Tensor:
    """[2, L, H, T, D] with components of falling size that all heads of a layer share, and a mean that is not 0."""
    mixing = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(2, 3, 32, 32, generator=mixing))[0]
    scale = 4.0 * 0.8 ** torch.arange(32)
    parts = torch.randn(2, 3, tokens, 32, generator=torch.Generator().manual_seed(seed)) * scale
    return (parts @ turn + 3.0).unflatten(3, (2, 16)).transpose(2, 3).contiguous()


@pytest.fixture(scope="module")
def codec() -> PcaCodec:
    return fit([numbers(1500), numbers(500, 1)], SPEC.layers, SPEC.pca_bytes)[0]


def through(codec: PcaCodec, tensor: torch.Tensor, spec: MemorySpec = SPEC) -> torch.Tensor:
    return codec.to_tensor(codec.to_latent(tensor, spec), spec)


@pytest.mark.parametrize("tokens", [1, 2, 65])
def test_the_size_follows_from_the_tokens(codec, tokens):
    assert SPEC.pca_bytes == 2 * 2 * 16 // 5
    latent = codec.to_latent(numbers(tokens), SPEC)
    assert latent.tokens == tokens
    assert len(latent.data) == SPEC.latent_bytes(tokens) == 3 * 12 * tokens


def test_the_error_is_the_expected_one(codec):
    tensor = numbers(800, 5)
    error = (through(codec, tensor) - tensor).square().sum((2, 4)).mean(2)  # [2, L], of a token
    _, expected = fit([numbers(1500), numbers(500, 1)], SPEC.layers, SPEC.pca_bytes)
    torch.testing.assert_close(error.sum(0), expected.sum(0), rtol=0.15, atol=0)
    variance = tensor.var(dim=3, keepdim=True).sum((2, 4))[..., 0]
    assert (error.sum(0) < 0.05 * variance.sum(0)).all()  # 1 bit for each number leaves 0.36 of it, 2 bits 0.12


def test_a_level_is_stored_exactly(codec):
    """What was decoded is encoded to the same bytes: nothing is lost by storing twice."""
    latent = codec.to_latent(numbers(40, 3), SPEC)
    again = codec.to_latent(codec.to_tensor(latent, SPEC), SPEC)
    assert bytes(again.data) == bytes(latent.data)


def test_bytes_hold_components_low_bits_first():
    """By hand: one layer of one head of 8 numbers that are their own components; 2 bytes for K, 1 for V."""
    levels = tuple(torch.arange(2**bits).float() for bits in BITS)
    eye = torch.eye(8).expand(2, 1, 8, 8).contiguous()
    codec = PcaCodec("d", (0,), torch.zeros(2, 1, 8), eye, ((1, 1, 0), (0, 0, 1)), levels)
    spec = MemorySpec("m", (0,), 1, 8, dtype="float32", quant="pca", codec="d")
    keys, values = [3.0, 9.2, 1.0, 2.0, 3.0, 0.0, 50.0, 7.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    tensor = torch.tensor([keys, values]).view(2, 1, 1, 1, 8)
    latent = codec.to_latent(tensor, spec)
    assert list(bytes(latent.data)) == [3 + 9 * 16, 1 + 2 * 4 + 3 * 16 + 0 * 64, 0b10001001]
    assert spec.latent_bytes(1) == 3
    want = torch.tensor([[3.0, 9.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0], values])  # the last two have no bits
    assert torch.equal(codec.to_tensor(latent, spec), want.view(2, 1, 1, 1, 8))


def test_a_latent_of_some_layers_is_those_layers_of_the_whole(codec):
    tensor, some = numbers(9, 2), replace(SPEC, layers=(1, 4))
    assert torch.equal(through(codec, tensor[:, [0, 2]], some), through(codec, tensor)[:, [0, 2]])


@pytest.mark.parametrize("byte", [0, 1, 127, 255])
def test_every_byte_is_valid(codec, byte):
    tensor = codec.to_tensor(Latent(7, bytearray([byte]) * SPEC.latent_bytes(7)), SPEC)
    assert tensor.shape == SPEC.shape(7)
    assert tensor.isfinite().all()


def test_the_dtype_is_that_of_the_spec(codec):
    latent = codec.to_latent(numbers(5), SPEC)
    half = codec.to_tensor(latent, replace(SPEC, dtype="bfloat16"))
    assert torch.equal(half, codec.to_tensor(latent, SPEC).bfloat16())
