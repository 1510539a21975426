"""Where the bits go, and what the weights change."""

from __future__ import annotations

import itertools

import pytest
import torch

from awareness.model.pca.codec import BITS
from awareness.model.pca.fit import _GAUSSIAN_ERROR, _lloyd, _splits, fit
from tests.model.pca.test_codec import SPEC, numbers


@pytest.mark.parametrize("total", [0, 1, 3, 5])
def test_the_bits_go_where_they_save_most(total):
    """Against every other way to spend the bytes."""
    variances = [2.0 * 0.7**i for i in range(24)]

    def error(counts: tuple[int, ...]) -> float:
        shares = [_GAUSSIAN_ERROR[bits] for bits, n in zip(BITS, counts, strict=True) for _ in range(n * 8 // bits)]
        shares += [1.0] * (24 - len(shares))
        return sum(share * variance for share, variance in zip(shares, variances, strict=True))

    possible = [
        counts
        for counts in itertools.product(range(total + 1), repeat=3)
        if sum(counts) == total and sum(n * 8 // bits for bits, n in zip(BITS, counts, strict=True)) <= 24
    ]
    best = min(map(error, possible))
    least, counts = _splits(variances, total)[total]
    assert least == pytest.approx(best)
    assert error(counts) == pytest.approx(best)


@pytest.mark.parametrize("bits", BITS)
def test_levels_of_normal_numbers_are_those_of_max(bits):
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    levels = _lloyd(normal, 2**bits)
    nearest = levels[torch.bucketize(normal, (levels[1:] + levels[:-1]) / 2)]
    assert (normal - nearest).square().mean().item() == pytest.approx(_GAUSSIAN_ERROR[bits], rel=0.05)


def test_the_same_numbers_give_the_same_tables():
    first, second = (fit([numbers(300)], SPEC.layers, SPEC.pca_bytes)[0] for _ in range(2))
    assert first.counts == second.counts
    assert torch.equal(first.decode, second.decode)


def test_weights_move_the_error_to_where_it_counts_less():
    """Half of the key numbers count a hundred times as much as the others."""
    weights = torch.eye(32).repeat(2, 3, 1, 1)
    weights[0, :, :16, :16] *= 100.0
    tensor = numbers(400, 9)
    errors = []
    for given in (None, weights):
        codec, _ = fit([numbers(1500)], SPEC.layers, SPEC.pca_bytes, given)
        error = codec.to_tensor(codec.to_latent(tensor, SPEC), SPEC) - tensor
        errors.append(error[0].transpose(1, 2).flatten(2)[..., :16].square().mean().item())
    assert errors[1] < 0.85 * errors[0]
