"""Latents in fewer bits: int8, int4, int2 and fp8, and back. `pca` is in pca/codec.py.

After KIVI (Liu et al. 2024, section 3). Keys have channels of outstanding size, so each channel has its own scale per
group of tokens; that works because keys are stored before RoPE mixes the channels. Values have none, so each token of a
head has its own scale. Integers are asymmetric, `x = q·scale + offset`, with q packed low bits first. fp8 is e4m3 with
a scale alone. Scales and offsets are float16.

The bytes of a quantised latent, in this order: scales of K, offsets of K, codes of K, scales of V, offsets of V, codes
of V. Their sizes follow from the number of tokens (`MemorySpec.latent_bytes`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from awareness.model.pca.tables import tables_of
from awareness.types import PCA, QUANT_BITS, QUANT_GROUP, Latent, MemorySpec

_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max
_F16_MAX = torch.finfo(torch.float16).max


def to_latent(tensor: Tensor, spec: MemorySpec) -> Latent:
    """[2, layers, H_kv, T, D] -> its bytes, as `spec` stores them."""
    if spec.quant == "none" or tensor.shape[3] == 0:  # without tokens there is no block to have a scale
        parts = [tensor.to(getattr(torch, spec.dtype))]
    elif spec.quant == PCA:
        return tables_of(spec).to_latent(tensor, spec)
    else:
        parts = []
        for side in _sides(tensor.float()):
            quantised = [_quantise(block, dim, spec.quant) for block, dim in side]
            codes = torch.cat([codes for codes, _ in quantised], dim=2)
            parts += [torch.stack(same, dim=2) for same in zip(*(given for _, given in quantised), strict=True)]
            parts.append(codes if spec.quant == "fp8" else _pack(codes, QUANT_BITS[spec.quant]))
    return Latent(tensor.shape[3], torch.cat([p.contiguous().view(-1).view(torch.uint8) for p in parts]).numpy().data)


def to_tensor(latent: Latent, spec: MemorySpec) -> Tensor:
    """The latent's K and V, [2, layers, H_kv, T, D] in `spec.dtype`; without quantisation a view of its bytes.

    Raises UsageError if there are no tables for a `pca` latent."""
    dtype, tokens = getattr(torch, spec.dtype), latent.tokens
    if tokens == 0:
        return torch.empty(spec.shape(0), dtype=dtype)
    if spec.quant == PCA:
        return tables_of(spec).to_tensor(latent, spec)
    raw = torch.frombuffer(latent.data, dtype=torch.uint8)
    if spec.quant == "none":
        return raw.view(dtype).view(spec.shape(tokens))
    out = torch.empty(spec.shape(tokens))
    at = 0

    def take(count: int, kind: torch.dtype = torch.uint8) -> Tensor:
        nonlocal at
        start, at = at, at + count * kind.itemsize
        return raw[start:at].clone().view(kind)  # cloned, as a view has to be aligned

    for numbers, side in zip(out, _sides(out), strict=True):
        blocks = list(side)
        block, dim = blocks[0]
        shape = (*block.shape[:2], len(blocks), block.shape[5 - dim])  # of the scales: [L, H_kv, blocks, D or T]
        parameters = [
            take(torch.Size(shape).numel(), torch.float16).view(shape).float()
            for _ in range(1 if spec.quant == "fp8" else 2)
        ]
        codes = take(numbers.numel() * QUANT_BITS[spec.quant] // 8)
        numbers.copy_(_codebook(spec.quant).index_select(0, codes.int()).view(torch.float32).view(numbers.shape))
        for i, (block, dim) in enumerate(blocks):
            block.mul_(parameters[0][:, :, i].unsqueeze(dim))
            if len(parameters) == 2:
                block.add_(parameters[1][:, :, i].unsqueeze(dim))
    return out.to(dtype)


def _sides(tensor: Tensor) -> Iterator[Iterator[tuple[Tensor, int]]]:
    """[2, L, H_kv, T, D] -> for K and for V: views of the blocks, each with the dimension that shares a scale."""
    keys, values = tensor
    yield ((block, 2) for block in keys.split(QUANT_GROUP, dim=2))
    yield iter([(values, 3)])


def _quantise(block: Tensor, dim: int, quant: str) -> tuple[Tensor, list[Tensor]]:
    """[L, H_kv, T, D] float32 -> codes (float8, or uint8 before packing), and scale and offset as they are stored.

    A scale is shared along `dim`. If all numbers are equal it is 1. Numbers beyond float16 are clipped.
    """
    low, high = block.amin(dim), block.amax(dim)
    levels = 2 ** QUANT_BITS[quant] - 1
    spread = torch.maximum(-low, high) / _FP8_MAX if quant == "fp8" else (high - low) / levels
    scale = spread.clamp(max=_F16_MAX).to(torch.float16)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    inverse = scale.float().reciprocal().unsqueeze(dim)
    if quant == "fp8":
        return (block * inverse).clamp_(-_FP8_MAX, _FP8_MAX).to(_FP8), [scale]
    offset = low.clamp(-_F16_MAX, _F16_MAX).to(torch.float16)
    codes = (block - offset.float().unsqueeze(dim)).mul_(inverse).round_().clamp_(0, levels)
    return codes.to(torch.uint8), [scale, offset]


def _pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes of `bits` bits -> several per byte, low bits first."""
    several = codes.view({8: torch.uint8, 4: torch.int16, 2: torch.int32}[bits])
    packed = several.clone()
    for i in range(1, 8 // bits):
        packed |= several >> ((8 - bits) * i)  # from bit 8·i to bit bits·i; the bits above the lowest byte are cut off
    return packed.to(torch.uint8)


@functools.cache
def _codebook(quant: str) -> Tensor:
    """[256]: the numbers in each possible byte, before scale and offset: its float32 numbers viewed as one number."""
    stored = torch.arange(256, dtype=torch.uint8)
    if quant == "fp8":
        return stored.view(_FP8).float()
    bits = QUANT_BITS[quant]
    numbers = torch.stack([(stored >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], dim=-1).float()
    return numbers.view({8: torch.float32, 4: torch.float64, 2: torch.complex128}[bits]).view(256)
