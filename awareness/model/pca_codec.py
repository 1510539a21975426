"""Latents at 1.6 bits a number: the principal components of keys and of values, each in as many bits as it deserves.

Keys and values of one layer, all heads together, are x [C]. Tables that were fitted to the decoder (pca_tables.py) turn
them into components that are not correlated, each with variance 1:

    z = (x - m)·E    x ≈ m + q(z)·D    D = E⁻¹

Components with a large share of the error get 4 bits, others 2, 1 or none ("reverse water-filling", Cover and Thomas
2006, section 10.3.3). The levels they are rounded to are those of the least mean square error (Lloyd 1982). Each layer
has the same number of bytes for a token (`MemorySpec.pca_bytes`); how many are the key's, and how many hold components
of each kind, is in the tables.

The bytes of a latent: for 4, 2 and 1 bits, in this order, the codes [T, all of them in the order of layers, K before
V]; a byte holds 2, 4 or 8 components, the first in the low bits. Every byte is valid, so damaged bytes give wrong
numbers, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from awareness.types import Latent, MemorySpec

BITS = (4, 2, 1)
"""The kinds of components."""


@dataclass(frozen=True)
class PcaCodec:
    """The tables of one decoder. C = H_kv·D numbers of all heads of a layer.

    digest: of the tables. layers: of the decoder, ascending. mean: float32 [2, L, C]. decode: float32 [2, L, C, C]; row
    i is what component i adds to x, the component with the largest share first. counts: [2][L] -> the number of bytes
    of each kind of `BITS`, which take the components in order. levels: float32 [2**bits] for each kind, ascending.
    """

    digest: str
    layers: tuple[int, ...]
    mean: Tensor
    decode: Tensor
    counts: tuple[tuple[tuple[int, ...], ...], ...]
    levels: tuple[Tensor, ...]

    def to_latent(self, tensor: Tensor, spec: MemorySpec) -> Latent:
        """[2, layers, H_kv, T, D] -> its bytes. The layers must be in the tables."""
        tokens = tensor.shape[3]
        kinds: list[list[Tensor]] = [[] for _ in BITS]
        for layer, place in enumerate(self._places(spec)):
            for side in (0, 1):
                flat = tensor[side, layer].transpose(0, 1).reshape(tokens, -1).float()
                components, at = (flat - self.mean[side, place]) @ self._encode[side, place], 0
                for kind, (bits, count) in enumerate(zip(BITS, self.counts[side][place], strict=True)):
                    width = count * 8 // bits
                    kinds[kind].append(self._codes(components[:, at : at + width], kind))
                    at += width
        return Latent(tokens, torch.cat([torch.cat(codes, dim=1).view(-1) for codes in kinds]).numpy().data)

    def to_tensor(self, latent: Latent, spec: MemorySpec) -> Tensor:
        """The latent's K and V, [2, layers, H_kv, T, D] in `spec.dtype`."""
        tokens, places = latent.tokens, self._places(spec)
        raw, at = torch.frombuffer(latent.data, dtype=torch.uint8), 0
        kinds: list[Tensor] = []
        for kind in range(len(BITS)):
            size = tokens * sum(self.counts[side][place][kind] for place in places for side in (0, 1))
            kinds.append(self._numbers[kind].index_select(0, raw[at : at + size].int()).view(tokens, -1))
            at += size
        whole = torch.empty(2, len(places), tokens, self.mean.shape[2])
        starts = [0] * len(BITS)
        for layer, place in enumerate(places):
            for side in (0, 1):
                parts = []
                for kind, (bits, count) in enumerate(zip(BITS, self.counts[side][place], strict=True)):
                    start = starts[kind]
                    starts[kind] += count * 8 // bits
                    parts.append(kinds[kind][:, start : starts[kind]])
                components = torch.cat(parts, dim=1)
                decode = self.decode[side, place, : components.shape[1]]
                torch.addmm(self.mean[side, place], components, decode, out=whole[side, layer])
        out = torch.empty(spec.shape(tokens), dtype=getattr(torch, spec.dtype))
        return out.copy_(whole.unflatten(3, (spec.num_kv_heads, spec.head_dim)).transpose(2, 3))

    def _places(self, spec: MemorySpec) -> list[int]:
        """Where each of the spec's layers stands in the tables."""
        return [self.layers.index(layer) for layer in spec.layers]

    @cached_property
    def _encode(self) -> Tensor:
        """float32 [2, L, C, C]: the inverse of `decode`."""
        return torch.linalg.inv(self.decode.double()).float()

    def _codes(self, components: Tensor, kind: int) -> Tensor:
        """[T, width] -> uint8 [T, bytes]: the nearest levels."""
        levels, bits = self.levels[kind], BITS[kind]
        digits = torch.bucketize(components.contiguous(), (levels[1:] + levels[:-1]) / 2, out_int32=True)
        shifts = torch.arange(0, 8, bits, dtype=torch.int32)
        return (digits.unflatten(1, (-1, 8 // bits)) << shifts).sum(-1, dtype=torch.uint8)

    @cached_property
    def _numbers(self) -> list[Tensor]:
        """For each kind: the components that each possible byte holds, [256, 8 / bits]."""
        stored = torch.arange(256)
        return [
            levels[torch.stack([stored >> shift & (2**bits - 1) for shift in range(0, 8, bits)], dim=1)]
            for bits, levels in zip(BITS, self.levels, strict=True)
        ]
