"""Latents at 1.6 bits a number: the principal components of keys and of values, each in as many bits as it deserves.

Keys and values of one layer, all heads together, are x [C]. Tables that were fitted to the decoder (pca/tables.py) turn
them into components that are not correlated, each with variance 1:

    z = (x - m)·E    x ≈ m + q(z)·D    D = E⁻¹

Components with a large share of the error get 4 bits, others 2, 1 or none ("reverse water-filling", Cover and Thomas
2006, section 10.3.3). The levels they are rounded to are those of the least mean square error (Lloyd 1982). Each layer
has the same number of bytes for a token (`MemorySpec.pca_bytes`). How many are the key's, and how many hold components
of each kind, is in the tables; it is the same for all layers, so that few operations decode all of them.

The bytes of a latent: of K, then of V, for 4, 2 and 1 bits, in this order, the codes [T, layers, bytes]; a byte holds
2, 4 or 8 components, the first in the low bits. Every byte is valid, so damaged bytes give wrong numbers, never an
error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from awareness.types import Latent, MemorySpec

BITS = (4, 2, 1)
"""The kinds of components."""


def int8_rows(decode: Tensor) -> tuple[Tensor, Tensor]:
    """[..., C, C] -> whole numbers from -127 to 127, and the scale of each row [..., C]: what the tables keep of it."""
    scale = (decode.abs().amax(-1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (decode / scale[..., None]).round(), scale


@dataclass(frozen=True)
class PcaCodec:
    """The tables of one decoder. C = H_kv·D numbers of all heads of a layer.

    digest: of the tables. layers: of the decoder, ascending. mean: float32 [2, L, C]. decode: float32 [2, L, C, C]; row
    i is what component i adds to x, the component with the largest share first. counts: of K and of V, the number
    of bytes of each kind of `BITS`, which take the components in order. levels: for each kind, ascending, float32
    [2**bits].
    """

    digest: str
    layers: tuple[int, ...]
    mean: Tensor
    decode: Tensor
    counts: tuple[tuple[int, ...], ...]
    levels: tuple[Tensor, ...]

    def to_latent(self, tensor: Tensor, spec: MemorySpec) -> Latent:
        """[2, layers, H_kv, T, D] -> its bytes. The layers must be in the tables."""
        parts: list[Tensor] = []
        for side in (0, 1):
            flat = tensor[side].float().transpose(1, 2).flatten(2)  # [L, T, C]
            mean, encode = self._of(self.mean, side, spec), self._of(self._encode, side, spec)
            components = torch.bmm(flat - mean[:, None], encode[:, :, : self._width(side)]).transpose(0, 1)
            at = 0
            for kind, (bits, count) in enumerate(zip(BITS, self.counts[side], strict=True)):
                width = count * 8 // bits
                parts.append(self._codes(components[:, :, at : at + width], kind).reshape(-1))
                at += width
        return Latent(tensor.shape[3], torch.cat(parts).numpy().data)

    def to_tensor(self, latent: Latent, spec: MemorySpec) -> Tensor:
        """The latent's K and V, [2, layers, H_kv, T, D] in `spec.dtype`. The layers must be in the tables."""
        tokens, layers = latent.tokens, len(spec.layers)
        raw, at = torch.frombuffer(latent.data, dtype=torch.uint8), 0
        out = torch.empty(spec.shape(tokens), dtype=getattr(torch, spec.dtype))
        whole = torch.empty(
            layers, tokens, self.mean.shape[2]
        )  # of one side at a time: new memory takes a tenth of all
        for side in (0, 1):
            parts: list[Tensor] = []
            for kind, count in enumerate(self.counts[side]):
                size = tokens * layers * count
                numbers = self._numbers[kind].index_select(0, raw[at : at + size].int())
                parts.append(numbers.view(torch.float32).view(tokens, layers, count * 8 // BITS[kind]))
                at += size
            mean, decode = self._of(self.mean, side, spec), self._of(self.decode, side, spec)
            components = torch.cat(parts, dim=2).transpose(0, 1)  # [L, T, width]
            torch.baddbmm(mean[:, None], components, decode[:, : self._width(side)], out=whole)
            out[side] = whole.unflatten(2, (spec.num_kv_heads, spec.head_dim)).transpose(1, 2)
        return out

    def _of(self, table: Tensor, side: int, spec: MemorySpec) -> Tensor:
        """The rows of the spec's layers; no copy if they are all."""
        if spec.layers == self.layers:
            return table[side]
        return table[side, [self.layers.index(layer) for layer in spec.layers]]

    def _width(self, side: int) -> int:
        """The number of components that have bits."""
        return sum(count * 8 // bits for bits, count in zip(BITS, self.counts[side], strict=True))

    @cached_property
    def _encode(self) -> Tensor:
        """float32 [2, L, C, C]: the inverse of `decode`."""
        return torch.linalg.inv(self.decode.double()).float()

    def _codes(self, components: Tensor, kind: int) -> Tensor:
        """[..., width] -> uint8 [..., bytes]: the nearest levels."""
        levels, bits = self.levels[kind], BITS[kind]
        ends = (levels[1:] + levels[:-1]) / 2
        if bits == 4:
            digits = torch.bucketize(components.contiguous(), ends, out_int32=True).to(torch.uint8)
        else:
            digits = torch.zeros(components.shape, dtype=torch.uint8)
            for end in ends.tolist():
                digits += components > end
        digits = digits.unflatten(-1, (-1, 8 // bits))
        packed = digits[..., 0].clone()
        for place in range(1, 8 // bits):
            packed |= digits[..., place] << (bits * place)
        return packed

    @cached_property
    def _numbers(self) -> list[Tensor]:
        """For each kind: the components that each possible byte holds, [256, 8 / bits]. Those of 4 and 2 bits are
        viewed as one number, [256], which is faster to look up."""
        stored = torch.arange(256)
        rows = [
            levels[torch.stack([stored >> shift & (2**bits - 1) for shift in range(0, 8, bits)], dim=1)]
            for bits, levels in zip(BITS, self.levels, strict=True)
        ]
        return [rows[0].view(torch.float64)[:, 0], rows[1].view(torch.complex128)[:, 0], rows[2]]
