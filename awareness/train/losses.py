"""Losses beside the cross-entropy of the answer: distillation from a teacher, attention to gold chunks, sparsity.

Each is a mean over its own items, so coefficients mean the same at any batch size.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def distillation_loss(logits: Tensor, top_ids: Tensor, top_log_probs: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student), mean over tokens. The teacher's k most likely tokens are given; the rest is one outcome:

        τ² · ( Σ_i p_i·log(p_i / q_i) + p_rest·log(p_rest / q_rest) )

    Distillation after Hinton et al. 2015 (arXiv 1503.02531, section 2); of a context into what replaces it after Snell
    et al. 2022 (arXiv 2209.15189). logits: [N, V] of the student; top_ids, top_log_probs: [N, k] of the teacher at the
    same temperature.
    """
    student = log_softmax(logits.float() / temperature, dim=-1).gather(-1, top_ids)
    teacher = torch.cat([top_log_probs, _log_rest(top_log_probs)], dim=-1)
    student = torch.cat([student, _log_rest(student)], dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1).mean()


def _log_rest(log_probs: Tensor) -> Tensor:
    """log(1 - Σp) of [N, k] -> [N, 1]. A rest below 1e-6 counts as 1e-6, which keeps its gradient finite."""
    return torch.log((1.0 - log_probs.exp().sum(dim=-1, keepdim=True)).clamp_min(1e-6))


def citation_loss(attention: Iterable[Tensor], chunks: Tensor, gold: Tensor, answers: Tensor) -> Tensor:
    """-log of the share of memory attention that the gold chunks get, mean over rows with gold chunks.

        L = -log( Σ_{l,h,t} A_gold / Σ_{l,h,t} A_chunks )

    over layers, heads and the tokens that predict the answer. Citations are ordered by the same share. (Izacard and
    Grave 2021, arXiv 2012.04584, section 2.2, use attention as supervision; here it is supervised.)
    attention: weights [B, H, T, M] of each layer. chunks: bool [B, M], memory tokens of chunks, not of the sink. gold:
    bool [B, M], those of gold chunks. answers: bool [B, T], the tokens that predict the answer.
    """
    mass = sum((layer * answers[:, None, :, None]).sum(dim=(1, 2)) for layer in attention)  # [B, M]
    assert isinstance(mass, Tensor)
    rows = gold.any(dim=1) & answers.any(dim=1)
    if not rows.any():
        return mass.sum() * 0.0
    mass = mass[rows]
    share = (mass * gold[rows]).sum(dim=1) / (mass * chunks[rows]).sum(dim=1).clamp_min(1e-9)
    return -torch.log(share.clamp_min(1e-9)).mean()


def sparsity_loss(attention: Iterable[Tensor], chunks: Tensor, answers: Tensor) -> Tensor:
    """Entropy of the attention over memory tokens as a share of its maximum, mean over rows, layers, heads and the
    tokens that predict the answer. A low value means that few tokens are read.

        L = -Σ_m a_m·log a_m / log M,   a = A / Σ A

    Entropy minimisation after Grandvalet and Bengio 2004. Arguments as of `citation_loss`.
    """
    log_size = torch.log(chunks.sum(dim=1).clamp_min(2).float())[:, None, None]
    means = []
    for layer in attention:
        own = layer * chunks[:, None, None]
        own = own / own.sum(dim=-1, keepdim=True).clamp_min(1e-9)
        entropy = -(own * torch.log(own.clamp_min(1e-9))).sum(dim=-1) / log_size  # [B, H, T]
        weight = answers[:, None].expand_as(entropy)
        means.append((entropy * weight).sum() / weight.sum().clamp_min(1))
    return torch.stack(means).mean()
