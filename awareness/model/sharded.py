"""Tensors of a module that FSDP has spread over several processes: gather one, fill one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP holds the parameters of this module together, as one unit."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def reshard(module: nn.Module) -> None:
    """Free what a forward pass without a backward pass has gathered: every parameter is this process's part again."""
    for unit in module.modules():
        if is_sharded(unit):
            unit.reshard()  # type: ignore[operator]


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes, each of which has to call this. A plain tensor is itself."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread_like(full: Tensor, like: Tensor) -> Tensor:
    """`full`, the same in every process, placed as `like` is. Nothing is sent."""
    if not hasattr(like, "full_tensor"):
        return full
    from torch.distributed.tensor import distribute_tensor

    own: Any = like
    return distribute_tensor(full.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
