"""Attention over a prompt and a memory beside it: the same numbers by whichever kernel fits.

    o = softmax([q·K_mem + b_h ; q·K_self]) · [V_mem ; V_self]

With `lse` the log-sum-exp of a side's scores this is `o = (1 - a)·o_self + a·o_mem`, `a = sigmoid(lse_mem + b_h -
lse_self)` (FlashAttention's merge of blocks, Dao et al. 2022, section 3.1). So it can be computed concatenated (one
SDPA call with a mask or bias over the memory's columns: differentiable, with dropout), merged (one call a side, nothing
copied) or prefixed (one causal call, for a memory much shorter than the prompt). Merging takes any kernel that tells
its lse: the fused one of the CPU, FlexAttention (CUDA), or plain matrix products, which are differentiable anywhere.

Shapes: B rows, H query heads, H_kv key heads, G = H/H_kv, T queries, S own keys, M memory tokens, D head_dim.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from awareness.model.hf import flash_cpu


@dataclass(frozen=True)
class LayerMemory:
    """What one layer reads of a memory. key, value: [B or 1, H_kv, M, D], keys rotated; mask: [B, M], True where a row
    may look, or None; bias: [H, 1 or M], added to the scores of a head, or None."""

    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.key.shape[2]

    def beside(self, other: LayerMemory) -> LayerMemory:
        """Both, this one's tokens first."""
        rows = max(self.key.shape[0], other.key.shape[0])
        sides = ((one.key.expand(rows, -1, -1, -1), one.value.expand(rows, -1, -1, -1)) for one in (self, other))
        keys, values = zip(*sides, strict=True)
        mask = bias = None
        if self.mask is not None or other.mask is not None:
            mask = torch.cat([one.seen(rows) for one in (self, other)], dim=1)
        if self.bias is not None or other.bias is not None:
            heads = next(one.bias.shape[0] for one in (self, other) if one.bias is not None)
            bias = torch.cat([one.added(heads) for one in (self, other)], dim=1)
        return LayerMemory(torch.cat(keys, dim=2), torch.cat(values, dim=2), mask, bias)

    def seen(self, rows: int) -> Tensor:
        """bool [B, M]: the mask, also where there is none."""
        if self.mask is None:
            return torch.ones(rows, self.tokens, dtype=torch.bool, device=self.key.device)
        return self.mask.expand(rows, -1)

    def added(self, heads: int) -> Tensor:
        """[H, M]: the bias, also where there is none."""
        return self.key.new_zeros(heads, self.tokens) if self.bias is None else self.bias.expand(-1, self.tokens)


class Kernel(Protocol):
    """(query [B, H, T, D], key and value [B, H_kv, S, D], bias [B or 1, 1, T or 1, S] or None, causal, scale) ->
    (output [B, H, T, D], lse [B, H, T, 1] float32). A query that sees nothing gives 0 and -inf."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


def plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *,
    causal: bool,
    scale: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`Kernel` by matrix products: differentiable in everything, the lse too."""
    batch, heads, length, head_dim = query.shape
    rows = fold(query, key.shape[1])
    scores = (rows @ key.mT).float() * scale
    if causal:
        scores = scores + _additive(causal_mask(length, key), scores).repeat(1, 1, heads // key.shape[1], 1)
    if bias is not None:
        scores = scores + bias.expand(-1, -1, length, -1).repeat(1, 1, heads // key.shape[1], 1)
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    probabilities = torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0))
    output = drop(probabilities, dropout).to(value.dtype) @ value
    return output.reshape(batch, heads, length, head_dim), lse.reshape(batch, heads, length, 1)


def fused_cpu(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """`Kernel` by the CPU's fused attention, in the dtype of `value`: no gradient for the lse, so for inference."""
    batch, heads, length, head_dim = query.shape
    if length > 1 and not causal and (bias is None or bias.shape[2] == 1):
        # Every query sees the same columns: the heads of a group as rows, so that a key is fetched once for all.
        # For one query that is slower, as so few rows leave the kernel half idle.
        rows = fold(query, key.shape[1])
        bias = None if bias is None else bias.expand(batch, 1, rows.shape[2], -1)
        output, lse = flash_cpu(rows, key, value, bias=bias, causal=False, scale=scale)
    else:
        bias = None if bias is None else bias.expand(batch, 1, length, -1)
        output, lse = flash_cpu(query, key, value, bias=bias, causal=causal, scale=scale)
    output, lse = output.reshape(batch, heads, length, head_dim), lse.reshape(batch, heads, length, 1)
    if bias is None:
        return output, lse
    blind = bias[:, :1, :length].isneginf().all(dim=-1, keepdim=True)
    return output.masked_fill(blind, 0.0), lse.masked_fill(blind, -torch.inf)


def flex(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """`Kernel` by FlexAttention (Dong et al. 2024), compiled on CUDA and differentiable there."""
    shift = key.shape[2] - query.shape[2]
    bias = None if bias is None else bias.expand(query.shape[0], 1, query.shape[2], -1)

    def score(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        if causal:
            score = torch.where(q + shift >= k, score, -torch.inf)
        return score if bias is None else score + bias[b, 0, q, k]

    from torch.nn.attention.flex_attention import AuxRequest

    output, aux = _flex_attention(query.device.type)(
        query, key, value, score_mod=score, scale=scale, enable_gqa=True, return_aux=AuxRequest(lse=True)
    )
    return output, aux.lse[..., None]


@functools.cache
def _flex_attention(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Two sides of one softmax, each (output [B, H, T, D], lse [B, H, T, 1]) -> the output of the whole."""
    (left, left_lse), (right, right_lse) = one, other
    share = torch.sigmoid(right_lse - left_lse).nan_to_num(0.0)  # nan: both see nothing
    return between(left, right, share)


def between(left: Tensor, right: Tensor, share: Tensor) -> Tensor:
    """(1 - share)·left + share·right in the dtype of left; share [..., 1], and 0 gives `left` bit for bit."""
    return torch.lerp(left, right.to(left.dtype), share.to(left.dtype).expand_as(left))


def attend_memory(query: Tensor, memory: LayerMemory, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The memory alone: (output [B, H, T, D], lse [B, H, T, 1]); a row without memory gives 0 and -inf."""
    key, value = (side.expand(query.shape[0], -1, -1, -1) for side in (memory.key, memory.value))
    bias = None if memory.mask is None else _additive(memory.mask[:, None, None], query)
    output, lse = kernel(query, key, value, bias, causal=False, scale=scale)
    return output, lse if memory.bias is None else lse + memory.bias.float()[:, None]


def attend_alone(query: Tensor, memory: LayerMemory, scale: float) -> Tensor:
    """The memory alone by one SDPA call, without bias: [B, H, T, D]; a row without memory gives 0."""
    batch, _, length, _ = query.shape
    key, value = (side.expand(batch, -1, -1, -1) for side in (memory.key, memory.value))
    step = length == 1  # see `fused_cpu`
    rows = query if step else fold(query, key.shape[1])
    mask = blind = None
    if memory.mask is not None:
        seen = memory.seen(batch)[:, None, None]
        blind = ~seen.any(dim=-1, keepdim=True)
        mask = (seen | blind).expand(-1, 1, rows.shape[2], -1)
    output = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scale, enable_gqa=step)
    output = output.reshape(query.shape)
    return output if blind is None else output.masked_fill(blind, 0.0)


def attend_self(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scale: float, kernel: Kernel
) -> tuple[Tensor, Tensor]:
    """The prompt and its cache alone, with the lse; attention_mask as in `attention_forward`."""
    length, width = query.shape[2], key.shape[2]
    if attention_mask is None and (length == 1 or width == length):
        return kernel(query, key, value, None, causal=length > 1, scale=scale)
    return kernel(query, key, value, _additive(own_mask(attention_mask, length, key), query), causal=False, scale=scale)


def attend_merged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    memory: LayerMemory,
    scale: float,
    kernel: Kernel = fused_cpu,
) -> Tensor:
    """Memory and prompt by two calls, merged: neither is copied. Returns [B, H, T, D]."""
    return merge(
        attend_self(query, key, value, attention_mask, scale, kernel), attend_memory(query, memory, scale, kernel)
    )


def attend_concatenated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    memory: LayerMemory,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """One softmax over `[memory ; self]`, as one SDPA call. Shapes as in `attention_forward`; returns [B, H, T, D].

    The query heads of a group stand behind each other as rows of one head, since they share keys and, but for the
    bias, see the same columns: grouped-query attention without repeating the keys.
    """
    batch, heads, length, head_dim = query.shape
    kv_heads, group = key.shape[1], heads // key.shape[1]
    visible = torch.ones(batch, 1, length, memory.tokens, dtype=torch.bool, device=query.device)
    if memory.mask is not None:
        visible &= memory.mask[:, None, None, :]
    own = own_mask(attention_mask, length, key).expand(batch, 1, -1, -1)
    mask = torch.cat([visible, own], dim=-1).repeat(1, 1, group, 1)  # [B, 1, G·T, M+S]
    if memory.bias is not None:
        rows = memory.added(heads).to(query.dtype).view(1, kv_heads, group, 1, -1).expand(batch, -1, -1, length, -1)
        bias = torch.nn.functional.pad(rows.reshape(batch, kv_heads, group * length, -1), (0, own.shape[-1]))
        mask = bias.masked_fill(~mask, -torch.inf)
    joined_key = torch.cat([memory.key.expand(batch, -1, -1, -1), key], dim=2)
    joined_value = torch.cat([memory.value.expand(batch, -1, -1, -1), value], dim=2)
    output = scaled_dot_product_attention(
        fold(query, kv_heads), joined_key, joined_value, attn_mask=mask, dropout_p=dropout, scale=scale
    )
    return output.reshape(batch, heads, length, head_dim)


def attend_prefixed(
    query: Tensor, key: Tensor, value: Tensor, memory: LayerMemory, scale: float, dropout: float = 0.0
) -> Tensor:
    """The same by one causal call over the memory and a longer prompt, for a short memory such as the sink.

    No mask, no bias and no cache: S = T. Each memory column gets an idle query, which makes the causal square whole and
    costs M/T of the attention. Differentiable; shapes as in `attention_forward`; returns [B, H, T, D].
    """
    batch, heads, _, head_dim = query.shape
    idle = query.new_zeros(batch, heads, memory.tokens, head_dim)
    output = scaled_dot_product_attention(
        torch.cat([idle, query], dim=2),
        torch.cat([memory.key.expand(batch, -1, -1, -1), key], dim=2),
        torch.cat([memory.value.expand(batch, -1, -1, -1), value], dim=2),
        dropout_p=dropout,
        is_causal=True,
        scale=scale,
        enable_gqa=True,
    )
    return output[:, :, memory.tokens :]


def memory_probabilities(query: Tensor, memory: LayerMemory, own_lse: Tensor | None, scale: float) -> Tensor:
    """[B, H, T, M] float32: the attention weights of the memory's tokens, in one softmax with what has `own_lse`."""
    batch, heads, length, _ = query.shape
    scores = (fold(query, memory.key.shape[1]) @ memory.key.mT).float().view(batch, heads, length, -1) * scale
    if memory.bias is not None:
        scores = scores + memory.bias.float()[:, None]
    if memory.mask is not None:
        scores = scores.masked_fill(~memory.mask[:, None, None], -torch.inf)
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    if own_lse is not None:
        lse = torch.logaddexp(lse, own_lse)
    return torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0))


def fold(query: Tensor, kv_heads: int) -> Tensor:
    """[B, H, T, D] -> [B, H_kv, G·T, D]: the query heads of a group behind each other."""
    return query.reshape(query.shape[0], kv_heads, -1, query.shape[3])


def own_mask(attention_mask: Tensor | None, length: int, key: Tensor) -> Tensor:
    """bool [B or 1, 1, T, S]: what the prompt's tokens see of the prompt and its cache."""
    if attention_mask is None:
        return causal_mask(length, key)
    return attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0


def causal_mask(length: int, key: Tensor) -> Tensor:
    """bool [1, 1, T, S]; the last query sees every key."""
    width = key.shape[2]
    return torch.ones(length, width, dtype=torch.bool, device=key.device).tril(width - length)[None, None]


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as a float bias; -inf hides a column."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
