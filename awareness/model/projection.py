"""The linear maps of a memory adapter: full or low-rank, random or copied from a decoder's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def trainable_copy(module: nn.Module) -> nn.Module:
    """A trainable copy in float32, also of a frozen module."""
    return copy.deepcopy(module).float().requires_grad_(True)


class Projection(nn.Module):
    """x [..., in] -> x·Wᵀ + b [..., out], in the dtype of x, whatever the dtype of the parameters.

    rank: W = up·down, with down [rank, in] and up [out, rank]; None for a full W. A low-rank copy of a decoder's layer
    is LoRA (Hu et al. 2021): W is that layer's own weight, which is no parameter of this module, plus up·down.
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
        self.register_buffer("base", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.weight is not None:
            return linear(x, self.weight.to(x.dtype), bias)
        low_rank = linear(linear(x, self.down.to(x.dtype)), self.up.to(x.dtype), bias)
        return low_rank if self.base is None else low_rank + linear(x, self.base.to(x.dtype))

    @torch.no_grad()
    def copy_(self, other: Any) -> Projection:
        """Start as a decoder's linear layer. With a rank `down` is random and `up` 0, as LoRA starts."""
        if self.weight is not None:
            self.weight.copy_(other.weight)
        else:
            self.base = other.weight.detach()
            self.down.normal_(std=self.down.shape[1] ** -0.5)
            self.up.zero_()
        if self.bias is not None:
            self.bias.copy_(other.bias)
        return self

    @torch.no_grad()
    def draw_(self, std: float) -> Projection:
        """Random entries of W ~ N(0, std²); with a rank, those of the product."""
        if self.weight is not None:
            self.weight.normal_(std=std)
        else:
            factor_std = (std / self.down.shape[0] ** 0.5) ** 0.5
            self.down.normal_(std=factor_std)
            self.up.normal_(std=factor_std)
        return self

    @torch.no_grad()
    def zero_(self) -> Projection:
        """W = 0. With a rank only `up` is 0, so that both factors learn."""
        if self.weight is not None:
            self.weight.zero_()
        else:
            self.base = None
            self.up.zero_()
        if self.bias is not None:
            self.bias.zero_()
        return self
