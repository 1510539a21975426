"""Latents in fewer bits: int8, int4, int2 and fp8, and back.

After KIVI (Liu et al. 2024, section 3): keys have channels of outstanding size, so a channel has its own scale for
each group of tokens, which works because keys are stored before RoPE mixes the channels; values have none, so each
token of a head has its own scale. Integers are asymmetric, `x = q·scale + offset`, with q packed low bits first; fp8 is
e4m3 with a scale alone. Parameters are float16.

The bytes of a quantised latent, in this order: scales of K, offsets of K, codes of K, scales of V, offsets of V, codes
of V. Their sizes follow from the number of tokens (`MemorySpec.latent_bytes`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from awareness.types import QUANT_BITS, QUANT_GROUP, Latent, MemorySpec

_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max


def to_latent(tensor: Tensor, spec: MemorySpec) -> Latent:
    """[2, layers, H_kv, T, D] -> its bytes, as `spec` stores them."""
    tokens = tensor.shape[3]
    if spec.quant == "none":
        parts = [tensor.to(getattr(torch, spec.dtype))]
    else:
        keys, values = tensor.float()
        groups = -(-tokens // QUANT_GROUP)
        whole = torch.arange(groups * QUANT_GROUP).clamp(max=tokens - 1)  # the last token fills the last group up
        channels = keys[:, :, whole].unflatten(2, (groups, QUANT_GROUP))  # [L, H_kv, groups, QUANT_GROUP, D]
        parts = []
        for side, blocks, spread in ((keys, channels, _over_tokens), (values, values, _over_channels)):
            parameters = _parameters(blocks.amin(3), blocks.amax(3), spec.quant)
            codes = _quantise(side, *(spread(p.float(), tokens) for p in parameters))
            parts += [*parameters, codes if spec.quant == "fp8" else _pack(codes, QUANT_BITS[spec.quant])]
    return Latent(tokens, torch.cat([p.contiguous().view(-1).view(torch.uint8) for p in parts]).numpy().data)


def to_tensor(latent: Latent, spec: MemorySpec) -> Tensor:
    """The latent's K and V, [2, layers, H_kv, T, D] in `spec.dtype`; without quantisation a view of its bytes."""
    dtype, tokens = getattr(torch, spec.dtype), latent.tokens
    if tokens == 0:
        return torch.empty(spec.shape(0), dtype=dtype)
    raw = torch.frombuffer(latent.data, dtype=torch.uint8)
    if spec.quant == "none":
        return raw.view(dtype).view(spec.shape(tokens))
    _, layers, heads, _, head_dim = spec.shape(tokens)
    groups, bits = -(-tokens // QUANT_GROUP), QUANT_BITS[spec.quant]
    out = torch.empty(spec.shape(tokens), dtype=dtype)
    at = 0

    def take(count: int, kind: torch.dtype) -> Tensor:
        nonlocal at
        start, at = at, at + count * kind.itemsize
        return raw[start:at].clone().view(kind)  # cloned, as a view has to be aligned

    sides = (((layers, heads, groups, head_dim), _over_tokens), ((layers, heads, tokens), _over_channels))
    for side, (shape, spread) in zip(out, sides, strict=True):
        parameters = [
            spread(take(torch.Size(shape).numel(), torch.float16).view(shape).float(), tokens)
            for _ in range(1 if spec.quant == "fp8" else 2)
        ]
        if spec.quant == "fp8":
            codes = take(side.numel(), _FP8).view(side.shape)
        else:
            codes = _unpack(take(side.numel() * bits // 8, torch.uint8), bits).view(side.shape)
        numbers = codes.float().mul_(parameters[0])
        side.copy_(numbers if len(parameters) == 1 else numbers.add_(parameters[1]))
    return out


def _over_tokens(parameter: Tensor, tokens: int) -> Tensor:
    """[L, H_kv, groups, D] -> [L, H_kv, T, D]."""
    return parameter.repeat_interleave(QUANT_GROUP, dim=2)[:, :, :tokens]


def _over_channels(parameter: Tensor, tokens: int) -> Tensor:
    """[L, H_kv, T] -> [L, H_kv, T, 1]."""
    return parameter[..., None]


def _parameters(low: Tensor, high: Tensor, quant: str) -> list[Tensor]:
    """Scale and, for integers, offset, as they are stored. A block of equal numbers has scale 1."""
    spread = torch.maximum(-low, high) / _FP8_MAX if quant == "fp8" else (high - low) / (2 ** QUANT_BITS[quant] - 1)
    scale = spread.to(torch.float16)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return [scale] if quant == "fp8" else [scale, low.to(torch.float16)]


def _quantise(numbers: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Codes of `numbers` (float32), float8 without an offset, else uint8 that are not packed yet."""
    if offset is None:
        return (numbers / scale).clamp_(-_FP8_MAX, _FP8_MAX).to(_FP8)
    return ((numbers - offset) / scale).round_().clamp_(0, 255).to(torch.uint8)


def _pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes of `bits` bits, several in a byte, low bits first. Codes one too high, by rounding, are cut."""
    parts = codes.clamp_(max=2**bits - 1).view(-1, 8 // bits)
    packed = parts[:, 0].clone()
    for i in range(1, 8 // bits):
        packed |= parts[:, i] << (bits * i)
    return packed


def _unpack(packed: Tensor, bits: int) -> Tensor:
    """The codes of `_pack`, flat."""
    if bits == 8:
        return packed
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, dim=-1).view(-1)
