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

    rank: W = up·down, with down [rank, in] and up [out, rank]; None for a whole W. Copied from a decoder's layer, W is
    that layer's own, which stays as it is and is no parameter of this one, plus up·down (LoRA, Hu et al. 2021).
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
            return functional.linear(x, self.weight.to(x.dtype), bias)
        low = functional.linear(functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype), bias)
        return low if self.base is None else low + functional.linear(x, self.base.to(x.dtype))

    @torch.no_grad()
    def copy_(self, linear: Any) -> Projection:
        """Starts as a decoder's linear layer; with a rank `down` is drawn and `up` 0, as LoRA starts."""
        if self.weight is not None:
            self.weight.copy_(linear.weight)
        else:
            self.base = linear.weight.detach()
            self.down.normal_(std=self.down.shape[1] ** -0.5)
            self.up.zero_()
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
            self.base = None
            self.up.zero_()
        if self.bias is not None:
            self.bias.zero_()
        return self
