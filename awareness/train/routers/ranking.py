"""What both routers are trained by, and measured by."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def info_nce(asked: torch.Tensor, answers: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """InfoNCE in both directions (van den Oord et al. 2018, arXiv 1807.03748), the other pairs being the negatives.

    asked, answers: unit vectors [B, D], row by row a pair. sharpness: log of 1 / temperature, learned, at most 100 as a
    factor.
    """
    logits = asked @ answers.T * sharpness.exp().clamp(max=100)
    own = torch.arange(len(asked))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def reciprocal_rank(asked: torch.Tensor, answers: torch.Tensor) -> float:
    """Mean reciprocal rank of each row's own answer among all answers [B, D]."""
    scores = asked @ answers.T
    ranks = (scores > scores.diag()[:, None]).sum(1) + 1
    return (1 / ranks.float()).mean().item()


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors as they are now."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
