"""How a decoder layer reads a `Memory`: the joint form.

    o = softmax([q·K_mem ; q·K_self]) · [V_mem ; V_self]

The memory's keys join the softmax of self-attention. With `lse` the log-sum-exp of a side's scores this is the same
as gating, `o = (1 - a)·o_self + a·o_mem` with `a = sigmoid(lse_mem - lse_self)` (FlashAttention's merge of blocks,
Dao et al. 2022, section 3.1): the gate is the softmax's own. Three ways of computing it are here, and are equal:
concatenated (one SDPA call with a mask: differentiable, any memory), merged (two fused calls, nothing copied: for
inference) and prefixed (one causal call: for a memory much shorter than the prompt).

`attention_forward` is registered with transformers' `AttentionInterface`, so no layer is wrapped and `generate()`,
the KV cache and padding work as they are. A layer that has nothing to read calls the stock SDPA function: bitwise
the base model. What a layer reads enters through `reading()`, which is per thread and always clears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

IMPLEMENTATION = "awareness"


@dataclass
class AttentionTally:
    """Collects how much of the memory attention of generated tokens went to each memory token.

    weights: [M] float32, the attention probabilities summed over layers, heads and decoding steps. Given to
    `reading()` by who wants to know; without one, nothing is computed.
    """

    weights: Tensor | None = None

    def add(self, probabilities: Tensor) -> None:
        """probabilities: [B, H_kv, H/H_kv, M], of one decoding step in one layer."""
        total = probabilities.float().sum(dim=(0, 1, 2))
        self.weights = total if self.weights is None else self.weights + total


@dataclass(frozen=True)
class LayerMemory:
    """What one layer reads. key, value: [B or 1, H_kv, M, D], keys rotated; mask: [B, M] or None."""

    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    tally: AttentionTally | None = None


_read_by: ContextVar[Mapping[nn.Module, LayerMemory] | None] = ContextVar("awareness_read_by", default=None)


@contextmanager
def reading(layers: Mapping[nn.Module, LayerMemory]) -> Iterator[None]:
    """Inside the block, in this thread, each attention module reads its memory on top of those already being read."""
    token = _read_by.set({**(_read_by.get() or {}), **layers})
    try:
        yield
    finally:
        _read_by.reset(token)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Self-attention that also reads the module's memory, if there is one.

    query: [B, H, T, D]; key, value: [B, H_kv, S, D] with S >= T, after RoPE and cache; attention_mask: bool
    [B, 1, T, S] or None for causal. Returns ([B, T, H, D], None).
    """
    memory = (_read_by.get() or {}).get(module)
    if memory is None or memory.key.shape[2] == 0:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if memory.tally is not None and query.shape[2] == 1:
        memory.tally.add(_memory_share(query, key, attention_mask, memory, scale))
    plain = attention_mask is None and memory.mask is None and key.shape[2] == query.shape[2]
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, memory.key, memory.value))
    if plain and memory.key.shape[2] * 4 <= query.shape[2]:
        output = attend_prefixed(query, key, value, memory, scale, dropout)
    elif query.device.type == "cpu" and memory.mask is None and dropout == 0.0 and not needs_grad:
        output = attend_merged(query, key, value, attention_mask, memory, scale)
    else:
        output = attend_concatenated(query, key, value, attention_mask, memory, scale, dropout)
    return output.transpose(1, 2).contiguous(), None


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

    The query heads of a group stand behind each other as rows of one head, since they share keys and, in memory,
    see the same columns: grouped-query attention without repeating the keys.
    """
    batch, heads, length, head_dim = query.shape
    kv_heads, group = key.shape[1], heads // key.shape[1]
    width = memory.key.shape[2]
    visible = torch.ones(batch, 1, length, width, dtype=torch.bool, device=query.device)
    if memory.mask is not None:
        visible &= memory.mask[:, None, None, :]
    own = _own_mask(attention_mask, length, key).expand(batch, 1, -1, -1)
    mask = torch.cat([visible, own], dim=-1).repeat(1, 1, group, 1)  # [B, 1, group·T, M+S]
    joined_key = torch.cat([memory.key.expand(batch, -1, -1, -1), key], dim=2)
    joined_value = torch.cat([memory.value.expand(batch, -1, -1, -1), value], dim=2)
    rows = query.reshape(batch, kv_heads, group * length, head_dim)
    output = scaled_dot_product_attention(
        rows, joined_key, joined_value, attn_mask=mask, dropout_p=dropout, scale=scale
    )
    return output.reshape(batch, heads, length, head_dim)


def attend_prefixed(
    query: Tensor, key: Tensor, value: Tensor, memory: LayerMemory, scale: float, dropout: float = 0.0
) -> Tensor:
    """The same by one causal call over the memory and a longer prompt, for a short memory such as the sink.

    No mask and no cache: S = T. Each memory column gets an idle query, which makes the causal square whole and costs
    M/T of the attention. Differentiable; shapes as in `attention_forward`; returns [B, H, T, D].
    """
    batch, heads, _, head_dim = query.shape
    idle = query.new_zeros(batch, heads, memory.key.shape[2], head_dim)
    output = scaled_dot_product_attention(
        torch.cat([idle, query], dim=2),
        torch.cat([memory.key.expand(batch, -1, -1, -1), key], dim=2),
        torch.cat([memory.value.expand(batch, -1, -1, -1), value], dim=2),
        dropout_p=dropout,
        is_causal=True,
        scale=scale,
        enable_gqa=True,
    )
    return output[:, :, memory.key.shape[2] :]


def attend_merged(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, memory: LayerMemory, scale: float
) -> Tensor:
    """The same by two fused calls, merged by their log-sum-exp: neither memory nor cache is copied.

    CPU, no gradient, every row sees all of the memory. Shapes as in `attention_forward`; returns [B, H, T, D].
    """
    batch, heads, length, head_dim = query.shape
    group = heads // key.shape[1]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # takes grouped queries; tells the lse
    rows = query.reshape(batch, key.shape[1], group * length, head_dim)
    mem_key, mem_value = (t.expand(batch, -1, -1, -1) for t in (memory.key, memory.value))
    mem_out, mem_lse = flash(rows, mem_key, mem_value, scale=scale)

    causal = length > 1 and attention_mask is None and key.shape[2] == length
    own = None if causal or (length == 1 and attention_mask is None) else _own_mask(attention_mask, length, key)
    bias = None if own is None else _additive(own, query).expand(batch, 1, -1, -1)
    if length == 1:  # a decoding step: the heads of a group as rows, so that a key is fetched once for all of them
        bias = None if bias is None else bias.expand(batch, 1, group, -1)
        own_out, own_lse = flash(rows, key, value, attn_mask=bias, scale=scale)
    else:
        own_out, own_lse = flash(query, key, value, is_causal=causal, attn_mask=bias, scale=scale)
    mem_out, own_out = (t.reshape(batch, heads, length, head_dim) for t in (mem_out, own_out))
    mem_lse, own_lse = (t.reshape(batch, heads, length, 1) for t in (mem_lse, own_lse))
    if own is not None:  # a row of padding sees nothing of its own: it reads the memory alone
        blind = ~own.any(dim=-1, keepdim=True)
        own_lse = own_lse.masked_fill(blind, -torch.inf)
        own_out = own_out.masked_fill(blind, 0.0)
    gate = torch.sigmoid(mem_lse - own_lse).to(query.dtype)
    return torch.lerp(own_out, mem_out, gate.expand_as(own_out))


def _own_mask(attention_mask: Tensor | None, length: int, key: Tensor) -> Tensor:
    """bool [B or 1, 1, T, S]: what the prompt's tokens see of the prompt and its cache."""
    if attention_mask is None:
        width = key.shape[2]
        return torch.ones(length, width, dtype=torch.bool, device=key.device).tril(width - length)[None, None]
    return attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as the float bias that the fused call takes; -inf hides a column."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _memory_share(
    query: Tensor, key: Tensor, attention_mask: Tensor | None, memory: LayerMemory, scale: float
) -> Tensor:
    """Attention probabilities over the memory's columns at a decoding step: [B, H_kv, H/H_kv, M]."""
    batch, heads, _, head_dim = query.shape
    rows = query.reshape(batch, key.shape[1], heads // key.shape[1], head_dim)
    scores = (rows @ memory.key.mT).float() * scale
    if memory.mask is not None:
        scores = scores.masked_fill(~memory.mask[:, None, None, :], -torch.inf)
    own = (rows @ key.mT).float() * scale
    if attention_mask is not None:
        own = own.masked_fill(~_own_mask(attention_mask, 1, key), -torch.inf)
    lse = torch.logsumexp(torch.cat([scores, own], dim=-1), dim=-1, keepdim=True)
    return torch.exp(scores - lse)


AttentionInterface.register(IMPLEMENTATION, attention_forward)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
