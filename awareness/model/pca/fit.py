"""Fit the tables of `PcaCodec` to latents of a decoder: which components, how many bits for each, which levels.

The error that counts is not that of a key but that of an answer. With the weights W of answer_gradients.py an error e
of the numbers x of a layer counts e·W·eᵀ, so the components are those of x·W^½. Without weights every number counts the
same; on questions about other repositories that gave 2.4 times the divergence of the answers (docs/asking.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from awareness.model.pca.codec import BITS, PcaCodec, int8_rows

ROUNDS = 200
"""Of Lloyd's algorithm."""
SMALLEST = 0.05
"""Added to the eigenvalues of W, as a share of their mean: no direction counts for nothing."""


_GAUSSIAN_ERROR = {4: 0.009497, 2: 0.1175, 1: 0.3634}
"""Bits -> the error of a normal number, as a share of its variance (Max 1960, table 1)."""


def fit(
    tensors: Sequence[Tensor], layers: Sequence[int], size: int, weights: Tensor | None = None
) -> tuple[PcaCodec, Tensor]:
    """tensors: latents without quantisation, each [2, L, H_kv, T, D]. size: bytes for a token of a layer. weights:
    [2, L, C, C]. Returns the codec and the error that is expected, [2, L]."""
    mean = torch.empty(2, len(layers), tensors[0].shape[2] * tensors[0].shape[4])
    decode = torch.empty(*mean.shape, mean.shape[2])
    variances = torch.empty(mean.shape).double()
    samples: tuple[list[Tensor], list[Tensor]] = ([], [])  # [layers][N / 8, C]
    for layer in range(len(layers)):
        for side in (0, 1):
            x = torch.cat([tensor[side, layer].transpose(0, 1).flatten(1) for tensor in tensors]).double()  # [N, C]
            mean[side, layer] = x.mean(0).half()
            root, inverse = _roots(None if weights is None else weights[side, layer], x.shape[1])
            centred = x - mean[side, layer]
            moved = centred @ root
            own, vectors = torch.linalg.eigh(moved.T @ moved / len(moved))
            own, vectors = own.flip(0).clamp_min(1e-12), vectors.flip(1)
            variances[side, layer] = own
            codes, scale = int8_rows((own.sqrt()[:, None] * (vectors.T @ inverse)).float())
            decode[side, layer] = codes * scale[:, None]  # as the file holds it
            samples[side].append((centred[::8] @ torch.linalg.inv(decode[side, layer].double())).float())
    # A layer's share is the root of its variance: some questions weigh one layer a hundred times as much as the next.
    shares = variances / variances.sum((0, 2), keepdim=True).sqrt()
    tables = [_splits(side.sum(0).tolist(), size) for side in shares]
    keys = min(range(size + 1), key=lambda n: tables[0][n][0] + tables[1][size - n][0])
    counts = (tables[0][keys][1], tables[1][size - keys][1])
    pooled: list[list[Tensor]] = [[] for _ in BITS]
    errors = variances.clone()
    for side in (0, 1):
        at = 0
        for kind, (bits, number) in enumerate(zip(BITS, counts[side], strict=True)):
            end = at + number * 8 // bits
            pooled[kind] += [numbers[:, at:end].flatten() for numbers in samples[side]]
            errors[side, :, at:end] *= _GAUSSIAN_ERROR[bits]
            at = end
    levels = tuple(_lloyd(torch.cat(own), 2**bits) for own, bits in zip(pooled, BITS, strict=True))
    return PcaCodec("", tuple(layers), mean, decode, counts, levels), errors.sum(2).float()


def _roots(weights: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """W^½ and W^-½, float64 [C, C]."""
    if weights is None:
        return torch.eye(width).double(), torch.eye(width).double()
    values, vectors = torch.linalg.eigh(weights.double())
    values = values.clamp_min(0) + SMALLEST * values.mean()
    return (vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T


def _splits(variances: Sequence[float], total: int) -> list[tuple[float, tuple[int, ...]]]:
    """For each number of bytes from 0 to `total`: the least error, and how many bytes of each kind give it.

    variances: descending. Components with larger variances get more bits.
    """
    left = [math.fsum(variances[i:]) for i in range(len(variances) + 1)]  # the error of what has no byte
    sums = [left[0] - rest for rest in left]
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0.0, ())}
    """(components, bytes) -> (error, counts)"""
    for bits in BITS:
        size, error = 8 // bits, _GAUSSIAN_ERROR[bits]
        grown: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (at, used), (sum_, counts) in best.items():
            for number in range(min(total - used, (len(variances) - at) // size) + 1):
                key = (at + number * size, used + number)
                value = sum_ + error * (sums[key[0]] - sums[at])
                if key not in grown or value < grown[key][0]:
                    grown[key] = (value, (*counts, number))
        best = grown
    least: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())] * (total + 1)
    for (at, used), (sum_, counts) in best.items():
        least[used] = min(least[used], (sum_ + left[at], counts))
    return least


def _lloyd(numbers: Tensor, count: int) -> Tensor:
    """The levels with the least mean square error for these numbers, ascending (Lloyd 1982)."""
    numbers = numbers.sort().values
    if len(numbers) < count:
        return torch.linspace(-1.5, 1.5, count)
    levels = numbers[(torch.arange(count) * 2 + 1) * len(numbers) // (2 * count)]
    sums = torch.cat([torch.zeros(1).double(), numbers.double().cumsum(0)])
    for _ in range(ROUNDS):
        ends = torch.searchsorted(numbers, (levels[1:] + levels[:-1]) / 2)
        ends = torch.cat([torch.tensor([0]), ends, torch.tensor([len(numbers)])])
        held = (ends[1:] - ends[:-1]).clamp_min(1)
        means = ((sums[ends[1:]] - sums[ends[:-1]]) / held).float()
        levels = torch.where(ends[1:] > ends[:-1], means, levels)
    return levels
