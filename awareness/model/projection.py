"""What a memory adapter is made of: linear maps, whole or of low rank, drawn or copied from a decoder's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def trainable_copy(module: nn.Module) -> nn.Module:
    """A copy in float32 that is trained, whatever the original, which may be frozen, is."""
    return copy.deepcopy(module).float().requires_grad_(True)


class Projection(nn.Module):
    """x [..., in] -> x·Wᵀ + b [..., out] in the dtype of x, whatever the parameters have.

    rank: W = up·down, with down [rank, in] and up [out, rank]; None for a whole W.
    """

    def __init__(self, in_features: int, out_features: int, *, rank: int | None = None, bias: bool = False) -> None:
        super().__init__()
        if rank is None or rank >= min(in_features, out_features):
            self.weight: nn.Parameter | None = nn.Parameter(torch.zeros(out_features, in_features))
            self.register_parameter("down", None)
            self.register_parameter("up", None)
        else:
            self.register_parameter("weight", None)
            self.down = nn.Parameter(torch.zeros(rank, in_features))
            self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.weight is not None:
            return functional.linear(x, self.weight.to(x.dtype), bias)
        return functional.linear(functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype), bias)

    @torch.no_grad()
    def copy_(self, linear: Any) -> Projection:
        """Starts from a decoder's linear layer; with a rank from its best approximation (Eckart and Young 1936)."""
        weight = linear.weight.detach().float()
        if self.weight is not None:
            self.weight.copy_(weight)
        else:
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
            rank = self.down.shape[0]
            root = values[:rank].sqrt()
            self.up.copy_(left[:, :rank] * root)
            self.down.copy_(root[:, None] * right[:rank])
        if self.bias is not None:
            self.bias.copy_(linear.bias)
        return self

    @torch.no_grad()
    def draw_(self, std: float) -> Projection:
        """Entries of W ~ N(0, std²); of its factors so that those of the product are."""
        if self.weight is not None:
            self.weight.normal_(std=std)
        else:
            each = (std / self.down.shape[0] ** 0.5) ** 0.5
            self.down.normal_(std=each)
            self.up.normal_(std=each)
        return self

    @torch.no_grad()
    def zero_(self) -> Projection:
        """W = 0; of two factors only the outer one, so that both learn."""
        if self.weight is not None:
            self.weight.zero_()
        else:
            self.up.zero_()
        if self.bias is not None:
            self.bias.zero_()
        return self
