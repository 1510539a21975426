"""A learned router that picks the chapters of a bank to read, and the losses that keep it even.

A bank of N tokens is split into C chapters. The router is one linear map from hidden states to C logits; the k chapters
with the highest logits are read (chapter_attention.py). The strategy says what a decision is made from: the prompt, a
window of the last tokens, or the token alone. What decoding steps need of earlier tokens is passed as a `RoutingPast`.

Shapes: B rows, T tokens, C chapters, k chapters read, R decisions per row (1, or T for one per token).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from awareness.config.memory import MemoryConfig, Strategy


@dataclass(frozen=True)
class ChapterChoice:
    """The chapters to read, for all tokens of a row (R = 1) or for each its own (R = T).

    logits: [B, R, C] float32. chapters: [B, R, k] int64, best first. log_prior: [B, R, k], log p of each of them, where
    p is the softmax over all C chapters. mass: [B, R], the sum of p over them.
    """

    logits: Tensor
    chapters: Tensor
    log_prior: Tensor
    mass: Tensor


@dataclass(frozen=True)
class RoutingPast:
    """What the tokens in the KV cache leave for the next ones.

    prompt: [B, 1, C], the logits of the prompt. recent: [B, P, C], the logits of the last tokens, at most one fewer
    than the window. real: bool [B, P], False for padding among them.
    """

    prompt: Tensor
    recent: Tensor
    real: Tensor


class ChapterRouter(nn.Module):
    """Hidden states -> the top_k of num_chapters, with one strategy in training and one at inference.

    sequence: the mean of the prompt's tokens makes one decision for everything after. token: each token by itself.
    rolling: the mean of the last window_size tokens, the token's own included. hybrid: the mean of the logits of
    sequence and rolling. Padding is left out.
    """

    def __init__(
        self,
        hidden_size: int,
        num_chapters: int,
        top_k: int,
        *,
        strategy_train: str,
        strategy_inference: str,
        window_size: int,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        for strategy in (strategy_train, strategy_inference):
            if strategy not in get_args(Strategy):
                raise ValueError(f"routing strategy '{strategy}' is not one of {', '.join(get_args(Strategy))}")
        if top_k > num_chapters:
            raise ValueError(f"top_k {top_k} is more than num_chapters {num_chapters}")
        self.num_chapters, self.top_k, self.window_size = num_chapters, top_k, window_size
        self.strategy_train, self.strategy_inference = strategy_train, strategy_inference
        self.classifier = nn.Linear(hidden_size, num_chapters, bias=False)
        nn.init.normal_(self.classifier.weight, std=init_std)

    @property
    def strategy(self) -> str:
        return self.strategy_train if self.training else self.strategy_inference

    def forward(
        self, x: Tensor, *, real: Tensor | None = None, prompt: Tensor | None = None, past: RoutingPast | None = None
    ) -> tuple[ChapterChoice, RoutingPast | None]:
        """x: [B, T, d]. real: bool [B, T], False for padding; None without any. past: of the same rows, None at first.

        prompt: bool [B, T], the tokens that sequence and hybrid decide by, by default all of this forward pass. It is
        not read with a past: the decision was made. Returns the choice, and the past for the next forward pass.

        The map has no bias, so the logits of a mean are the mean of the logits: C numbers per token are kept, not d.
        """
        if real is None:
            real = x.new_ones(x.shape[:2], dtype=torch.bool)
        else:
            x = x.masked_fill(~real[..., None], 0.0)  # whatever padding holds, even NaN, reaches no sum or gradient
        with torch.autocast(x.device.type, enabled=False):  # always float32: Switch, section 2.4
            logits = linear(x.float(), self.classifier.weight.float())
        if self.strategy == "token":
            return _choose(logits, self.top_k), None
        if past is None:
            of_prompt = _mean(logits, real if prompt is None else real & prompt)[:, None]
            past = RoutingPast(of_prompt, logits[:, :0], real[:, :0])
        if self.strategy == "sequence":
            return _choose(past.prompt, self.top_k), past
        rolling, past = self._roll(logits, real, past)
        if self.strategy == "hybrid":
            rolling = (rolling + past.prompt) / 2
        return _choose(rolling, self.top_k), past

    def _roll(self, logits: Tensor, real: Tensor, past: RoutingPast) -> tuple[Tensor, RoutingPast]:
        """The mean of the window that ends in each token [B, T, C], and what the windows of later tokens need."""
        length = logits.shape[1]
        logits, real = torch.cat([past.recent, logits], dim=1), torch.cat([past.real, real], dim=1)
        rank = pad(real.cumsum(1), (1, 0))  # [B, S+1], tokens before a place, without padding
        total = pad(logits.cumsum(1), (0, 0, 1, 0))  # [B, S+1, C]
        before = (rank - self.window_size).clamp(min=0)
        start = torch.searchsorted(rank, before)  # the place with that many tokens before it
        mean = (total - _take(total, start)) / (rank - before).clamp(min=1)[..., None]
        kept = real.int().argsort(dim=1, stable=True)  # padding first, then the tokens in order
        kept = kept[:, max(0, real.shape[1] - self.window_size + 1) :]
        return mean[:, -length:], RoutingPast(past.prompt, _take(logits, kept), real.gather(1, kept))


def _take(rows: Tensor, places: Tensor) -> Tensor:
    """rows: [B, S, C], places: [B, P] -> [B, P, C]."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))


def _mean(rows: Tensor, mask: Tensor) -> Tensor:
    """rows: [..., n, C], mask: bool [..., n] -> [..., C], the mean of the rows with True, 0 without any."""
    shown = rows.masked_fill(~mask[..., None], 0.0).sum(dim=-2)
    return shown / mask.sum(dim=-1, keepdim=True).clamp(min=1)


def _choose(logits: Tensor, top_k: int) -> ChapterChoice:
    chapters = logits.topk(top_k, dim=-1).indices
    log_prior = logits.log_softmax(dim=-1).gather(-1, chapters)
    return ChapterChoice(logits, chapters, log_prior, log_prior.exp().sum(dim=-1))


def load_balance_loss(logits: Tensor, chapters: Tensor, mask: Tensor | None = None) -> Tensor:
    """C · Σ_i f_i · P_i (Switch, Fedus et al. 2021, eq. 4-6): 1 for an even router, up to C if all read one chapter.

    f_i: chapter i's share of the choices, without gradient. P_i: the mean probability of chapter i in the softmax over
    all C. logits: [B, R, C]; chapters: [B, R, k]; mask: bool [B, R], False is left out.
    """
    chosen = torch.zeros_like(logits).scatter(-1, chapters, 1 / chapters.shape[-1])
    return logits.shape[-1] * (_batch_mean(chosen, mask) * _batch_mean(logits.softmax(dim=-1), mask)).sum()


def importance_loss(logits: Tensor, chapters: Tensor, mask: Tensor | None = None) -> Tensor:
    """CV(Σ_x G(x))², the squared coefficient of variation of the chapters' summed gate values (Shazeer et al. 2017,
    eq. 6-7).

    G(x): the gates that reading applies: p of the chosen chapters by the softmax over all C, 0 for the others. (The
    paper's softmax over the chosen ones is 1 at k = 1 and has no gradient.) Shapes as in `load_balance_loss`.
    """
    gates = logits.softmax(dim=-1)
    gates = torch.zeros_like(gates).scatter(-1, chapters, gates.gather(-1, chapters))
    importance = _batch_mean(gates, mask)  # a mean and a sum have the same coefficient of variation
    return importance.var(correction=0) / importance.mean().square().clamp(min=1e-10)


def z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """mean_x (log Σ_i exp logits_i)²: keeps the logits small (ST-MoE, Zoph et al. 2022, eq. 5).

    Shapes as in `load_balance_loss`.
    """
    return _batch_mean(logits.logsumexp(dim=-1, keepdim=True).square(), mask).squeeze()


def router_losses(
    choices: Sequence[ChapterChoice], config: MemoryConfig, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """The losses that `config` switches on, by name: each times its coefficient, summed over the layers' choices.

    mask: bool [B, T], False for padding; a row with one decision counts if it has a token.
    """
    terms: dict[str, list[Tensor]] = {}
    for choice in choices:
        logits, chapters, shown = choice.logits, choice.chapters, mask
        if mask is not None and logits.shape[1] == 1:
            shown = mask.any(dim=1, keepdim=True)
        if config.use_load_balance_loss:
            loss = config.load_balance_coefficient * load_balance_loss(logits, chapters, shown)
            terms.setdefault("load_balance_loss", []).append(loss)
        if config.use_auxiliary_loss:
            loss = config.auxiliary_loss_coefficient * importance_loss(logits, chapters, shown)
            terms.setdefault("auxiliary_loss", []).append(loss)
        if config.use_z_loss:
            terms.setdefault("z_loss", []).append(config.z_loss_coefficient * z_loss(logits, shown))
    return {name: torch.stack(losses).sum() for name, losses in terms.items()}


def _batch_mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    """rows: [B, R, C], mask: bool [B, R] or None -> [C]."""
    rows = rows.flatten(0, 1)
    return rows.mean(dim=0) if mask is None else _mean(rows, mask.flatten())
