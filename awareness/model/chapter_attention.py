"""Attention over the chapters of a bank that a router chose.

    o = mass · softmax(q·k·scale + log p) · V

over the tokens of the chosen chapters, each with its chapter's p; mass is the sum of p over the chosen chapters. The
prior inside the softmax gives the router its gradient if several chapters are read; the factor before it is
p_i(x)·E_i(x) of Switch (Fedus et al. 2021, eq. 2), and does so if one is read. With all chapters and an even router
this is plain attention over the bank: p is constant and mass is 1.

Only chosen chapters are gathered, for a block of tokens at a time, so nothing has the size tokens × memory. If a token
chooses so many chapters that its scores of all of them are fewer numbers, the others are masked instead.

Shapes: B rows, T tokens, H query heads, D head_dim, N tokens of the bank, C chapters, k chapters read, R decisions per
row (1 or T), L tokens of the longest chapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from awareness.model.attention import Kernel, plain
from awareness.model.chapter_router import ChapterChoice

BLOCK_TOKENS = 64
"""Tokens whose chapters are gathered at once."""


@dataclass(frozen=True)
class Gathered:
    """The chapters of one decision per row: key, value [B, H_kv, k·L, D]; bias [B, 1, 1, k·L], the prior."""

    key: Tensor
    value: Tensor
    bias: Tensor


def gather(key: Tensor, value: Tensor, choice: ChapterChoice, num_chapters: int) -> Gathered:
    """For a choice with R = 1, which may serve many steps; arguments as in `attend_chapters`."""
    gathered_key, gathered_value, bias = _gather(key, value, choice.chapters, choice.log_prior, num_chapters)
    return Gathered(gathered_key[:, 0], gathered_value[:, 0], bias[:, None])


def attend_chapters(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    choice: ChapterChoice,
    num_chapters: int,
    scale: float,
    *,
    weighted: bool | Tensor = True,
    kernel: Kernel = plain,
    gathered: Gathered | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """query: [B, H, T, D]; key, value: [B or 1, H_kv, N, D]; chapter c holds the tokens c·N//C to (c+1)·N//C.

    Returns the output [B, H, T, D] and the log-sum-exp [B, H, T, 1], float32, of the scores with the prior log(C·p):
    relative to an even router, so an even router with all chapters gives the bank's own log-sum-exp.

    weighted: False leaves the mass out, for an output that is merged with another softmax by exp(lse). There p already
    weighs the chosen tokens against the others (and gets its gradient at k = 1); with the mass it would count twice.
    bool [B]: per row.

    kernel: for a choice with R = 1 without gradients; it may be `gathered` already. With gradients a block is gathered
    again in the backward pass instead of kept.
    """
    if num_chapters > key.shape[2]:
        raise ValueError(f"{num_chapters} chapters are more than the {key.shape[2]} tokens of the bank")
    if choice.chapters.shape[1] == 1 and not torch.is_grad_enabled():
        chapters = gathered or gather(key, value, choice, num_chapters)
        read = partial(kernel, key=chapters.key, value=chapters.value, bias=chapters.bias, causal=False, scale=scale)
        output, lse = _joined([read(part) for part in query.split(block_tokens, dim=2)])
    else:
        if torch.is_grad_enabled():
            kernel = plain  # its lse has a gradient
        output, lse = _attend_in_blocks(query, key, value, choice, num_chapters, scale, block_tokens, kernel)
    if weighted is not False:
        mass = choice.mass if weighted is True else choice.mass.where(weighted[:, None], 1.0)
        output = output * mass[:, None, :, None].to(output.dtype)
    return output, lse + math.log(num_chapters)


def _joined(blocks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Outputs and lses of consecutive tokens, each in one tensor."""
    output, lse = (torch.cat(parts, dim=2) for parts in zip(*blocks, strict=True))
    return output, lse


def _attend_in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    choice: ChapterChoice,
    num_chapters: int,
    scale: float,
    block_tokens: int,
    kernel: Kernel,
) -> tuple[Tensor, Tensor]:
    """As `attend_chapters`, with the prior p instead of C·p."""
    queries = query.split(block_tokens, dim=2)
    read: Callable[..., tuple[Tensor, Tensor]]
    blocks: list[tuple[Tensor, ...]]
    if choice.chapters.shape[1] == 1:
        chosen = _gather(key, value, choice.chapters, choice.log_prior, num_chapters)
        read, blocks = _attend, [(part, *chosen) for part in queries]
    else:
        chapters, log_prior = (t.split(block_tokens, dim=1) for t in (choice.chapters, choice.log_prior))
        longest = -(-key.shape[2] // num_chapters)
        gathered = choice.chapters.shape[2] * longest * key.shape[1] * key.shape[3]  # numbers per token, of K or of V
        if query.shape[1] * key.shape[2] <= gathered:  # the scores of all chapters are fewer numbers
            read = partial(_attend_masked, bank=(key, value), num_chapters=num_chapters, kernel=kernel)
        else:
            read = partial(_attend_gathered, bank=(key, value), num_chapters=num_chapters)
        blocks = list(zip(queries, chapters, log_prior, strict=True))
    read = partial(read, scale=scale)
    if torch.is_grad_enabled() and len(blocks) > 1:
        read = partial(checkpoint, read, use_reentrant=False, preserve_rng_state=False)
    return _joined([read(*block) for block in blocks])


def _attend_masked(
    query: Tensor,
    chapters: Tensor,
    log_prior: Tensor,
    *,
    bank: tuple[Tensor, Tensor],
    num_chapters: int,
    kernel: Kernel,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Read all chapters, with a bias of -inf for those that were not chosen."""
    size = bank[0].shape[2]
    places = torch.arange(size, device=query.device)
    chapter_of = ((places + 1) * num_chapters - 1) // size  # c·N//C <= n < (c+1)·N//C
    prior = log_prior.new_full((*chapters.shape[:2], num_chapters), -torch.inf).scatter(2, chapters, log_prior)
    key, value = (side.expand(query.shape[0], -1, -1, -1) for side in bank)
    return kernel(query, key, value, prior[:, None, :, chapter_of], causal=False, scale=scale)


def _attend_gathered(
    query: Tensor, chapters: Tensor, log_prior: Tensor, *, bank: tuple[Tensor, Tensor], num_chapters: int, scale: float
) -> tuple[Tensor, Tensor]:
    return _attend(query, *_gather(*bank, chapters, log_prior, num_chapters), scale=scale)


def _gather(
    key: Tensor, value: Tensor, chapters: Tensor, log_prior: Tensor, num_chapters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """K and V of the chapters [B, R, k], padded to the longest: [B, R, H_kv, k·L, D], and the bias [B, R, k·L]."""
    size, device = key.shape[2], key.device
    start, stop = ((c * size // num_chapters)[..., None] for c in (chapters, chapters + 1))
    tokens = start + torch.arange(-(-size // num_chapters), device=device)  # [B, R, k, L]
    bias = log_prior[..., None].masked_fill(tokens >= stop, -torch.inf)
    places = (
        torch.arange(key.shape[0], device=device)[:, None, None, None],
        torch.arange(key.shape[1], device=device)[:, None],
        tokens.minimum(stop - 1).flatten(2)[:, :, None],
    )
    return key[places], value[places], bias.flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """query: [B, H, b, D]; key, value: [B, R, H_kv, M, D]; bias: [B, R, M], with R = 1 or b. Returns ([B, H, b, D],
    [B, H, b, 1]).

    The query heads of a group, and the tokens of one decision, become rows of one head: they read the same keys.
    """
    batch, heads, length, head_dim = query.shape
    decisions, kv_heads = key.shape[1:3]
    shape = (batch, kv_heads, heads // kv_heads, decisions, length // decisions)
    rows = query.reshape(*shape, head_dim).permute(0, 3, 1, 2, 4, 5).flatten(3, 4)  # [B, R, H_kv, rows, D]
    scores = (rows @ key.mT).float() * scale + bias[:, :, None, None]
    lse = scores.logsumexp(dim=-1, keepdim=True)
    weights = torch.exp(scores - lse)
    output, lse = (
        t.unflatten(3, (shape[2], shape[4])).permute(0, 2, 3, 1, 4, 5).reshape(batch, heads, length, -1)
        for t in (weights.to(value.dtype) @ value, lse)
    )
    return output, lse
