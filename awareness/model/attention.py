"""Self-attention that also reads a memory: the joint form, registered with transformers as an attention function.

No projection is wrapped, so `generate()`, the KV cache and padding work as they are. What a layer reads is the argument
`reading`, which the fused layer (fusion.py) passes on. Without it the stock SDPA function runs: bitwise the base model.

    o = softmax([q·K_mem + b_h ; q·K_self]) · [V_mem ; V_self]

b_h is a learned bias per head, 0 at the start. With `lse` the log-sum-exp of a side's scores, this equals
`(1 - a)·o_self + a·o_mem` with `a = sigmoid(lse_mem + b_h - lse_self)` (FlashAttention's merge of blocks, Dao et al.
2022, section 3.1). A head may also have a sharpness s_h, which multiplies the memory's scores: q·K_mem becomes
s_h·q·K_mem. So there are three ways to compute it: concatenated (one SDPA call with a mask or bias over the
memory's columns; differentiable, with dropout), merged (one call per side, nothing is copied) and prefixed (one causal
call, for a memory much shorter than the prompt). Merging takes a kernel that returns the lse: the CPU's fused one, or
plain matrix products, which are differentiable.

A bank joins through a gate per head, g_h, 0 at the start because an untrained bank has nothing to say:

    o = (1 - tanh g_h)·o_[mem ; self] + tanh g_h·o_[bank ; mem ; self]

Shapes: B rows, H query heads, H_kv key heads, G = H/H_kv, T queries, S own keys, M memory tokens, D head_dim.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from awareness.model import hf
from awareness.model.attention_record import AttentionRecord

IMPLEMENTATIONS = {"auto": "awareness", "plain": "awareness_plain"}
"""Choice of kernel -> the name of the attention implementation."""


class Prompt(NamedTuple):
    """What self-attention itself reads. query: [B, H, T, D]; key, value: [B, H_kv, S, D] with S >= T, after RoPE and
    cache; mask: bool [B, 1, T, S], or None for causal."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class LayerMemory:
    """What one layer reads of a memory.

    key, value: [B or 1, H_kv, M, D], keys rotated. mask: [B, M] or [B, T, M], True where a row, or each of its tokens,
    may look, or None. bias: [H, 1 or M], added to the scores of a head, or None. sharpness: [H], multiplies them, or
    None.
    """

    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    sharpness: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.key.shape[2]

    def sharpened(self, query: Tensor) -> Tensor:
        """query [B, H, T, D], so that its products with the keys are the memory's scores."""
        return query if self.sharpness is None else query * self.sharpness.to(query.dtype)[:, None, None]

    @property
    def columns(self) -> Tensor | None:
        """bool [B, 1, 1 or T, M]: the mask beside the scores."""
        if self.mask is None:
            return None
        return self.mask[:, None] if self.mask.dim() == 3 else self.mask[:, None, None]

    def beside(self, other: LayerMemory) -> LayerMemory:
        """Both memories, this one's tokens first. Neither has a sharpness."""
        parts, rows = (self, other), max(self.key.shape[0], other.key.shape[0])
        key, value = (
            torch.cat([side.expand(rows, -1, -1, -1) for side in sides], dim=2)
            for sides in ((self.key, other.key), (self.value, other.value))
        )
        mask = bias = None
        if self.mask is not None or other.mask is not None:
            mask = torch.cat([part.full_mask(rows) for part in parts], dim=1)
        if heads := next((part.bias.shape[0] for part in parts if part.bias is not None), None):
            bias = torch.cat([part.full_bias(heads) for part in parts], dim=1)
        return LayerMemory(key, value, mask, bias)

    def full_mask(self, rows: int) -> Tensor:
        """bool [B, M]: the mask, all True if there is none."""
        if self.mask is None:
            return torch.ones(rows, self.tokens, dtype=torch.bool, device=self.key.device)
        return self.mask.expand(rows, -1)

    def full_bias(self, heads: int) -> Tensor:
        """[H, M]: the bias, 0 if there is none."""
        return self.key.new_zeros(heads, self.tokens) if self.bias is None else self.bias.expand(-1, self.tokens)


class Kernel(Protocol):
    """(query [B, H, T, D], key and value [B, H_kv, S, D], bias [B or 1, 1, T or 1, S] or None, causal, scale) ->
    (output [B, H, T, D], lse [B, H, T, 1] float32). A query that sees nothing gives 0 and -inf."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]: ...


class BankPart(Protocol):
    """The chosen chapters of a bank: (query [B, H, T, D], scale, kernel) -> (output [B, H, T, D], lse [B, H, T, 1])."""

    def __call__(self, query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class JointReading:
    """What self-attention reads beside the prompt: the repository's memory, and the bank with its gate [H].

    recompute: compute the reading again in the backward pass instead of keeping it (gradient checkpointing).
    """

    layer: int
    memory: LayerMemory | None = None
    bank: LayerMemory | BankPart | None = None
    gate: Tensor | None = None
    record: AttentionRecord | None = None
    recompute: bool = False


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    reading: JointReading | None = None,
    kernel: str = "auto",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Self-attention that also reads `reading`, if there is one: ([B, T, H, D], None). Shapes as in `Prompt`."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def stock() -> Tensor:
        return hf.stock_attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)

    if reading is None:
        if kernel == "auto":
            return stock(), None
        reading = JointReading(layer=-1)
    needs_grad = torch.is_grad_enabled()
    merging = pick_kernel(query, kernel, needs_grad=needs_grad, dropout=dropout)
    own = Prompt(query, key, value, attention_mask)
    memory, bank, gate = reading.memory, reading.bank, reading.gate

    def read() -> Tensor:
        """[B, H, T, D]"""
        if memory is not None:
            without_bank = _with_memory(own, memory, scale, dropout, kernel, merging)
        elif kernel == "auto":
            without_bank = stock().transpose(1, 2)
        else:
            without_bank = attend_self(own, scale, merging)[0]
        if bank is None or gate is None:
            return without_bank
        alike = memory is None or memory.sharpness is None
        if merging is not fused_cpu and kernel == "auto" and alike and isinstance(bank, LayerMemory):
            joined = attend_concatenated(own, bank if memory is None else memory.beside(bank), scale, dropout)
        else:
            lse = attend_self(own, scale, merging)[1]
            if memory is not None:
                lse = torch.logaddexp(lse, attend_memory(query, memory, scale, merging)[1])
            joined = merge((without_bank, lse), attend_part(bank, query, scale, merging))
        return between(without_bank, joined, torch.tanh(gate)[:, None, None])

    output: Tensor = checkpoint(read, use_reentrant=False) if reading.recompute and needs_grad else read()
    record = reading.record
    if record is not None and record.wants(reading.layer, query.shape[2]):
        record.add(reading.layer, _weights(query, attend_self(own, scale, plain)[1], reading, record, scale))
    return output.transpose(1, 2).contiguous(), None


def _with_memory(
    own: Prompt, memory: LayerMemory, scale: float, dropout: float, kernel: str, merging: Kernel
) -> Tensor:
    """Prompt and memory in one softmax, in the fastest of the three ways: [B, H, T, D]."""
    length = own.query.shape[2]
    if kernel == "auto" and memory.sharpness is None:
        bare = own.mask is None and memory.mask is None and memory.bias is None
        if bare and own.key.shape[2] == length >= memory.tokens * 4:
            return attend_prefixed(own, memory, scale, dropout)
        is_step = length == 1 and not torch.is_grad_enabled() and dropout == 0.0
        if merging is not fused_cpu and not is_step:
            return attend_concatenated(own, memory, scale, dropout)
    return merge(attend_self(own, scale, merging), attend_memory(own.query, memory, scale, merging))


def _weights(whole: Tensor, own_lse: Tensor, reading: JointReading, record: AttentionRecord, scale: float) -> Tensor:
    """The memory's attention weights [B, H, T, M] in the layer's output, of the tokens that are recorded; the bank's
    share is taken off. whole: the queries of all tokens; own_lse: of all tokens, too."""
    memory, query, own_lse = reading.memory, record.recorded(whole), record.recorded(own_lse)
    assert memory is not None
    without_bank = memory_probabilities(query, memory, own_lse, scale)
    if reading.bank is None or reading.gate is None:
        return without_bank
    if isinstance(reading.bank, LayerMemory):
        bank_lse = attend_memory(query, reading.bank, scale, plain)[1]
    else:  # each token of the text has its chapters
        bank_lse = record.recorded(reading.bank(whole, scale, plain)[1])
    joined = memory_probabilities(query, memory, torch.logaddexp(own_lse, bank_lse), scale)
    return between(without_bank, joined, torch.tanh(reading.gate)[:, None, None])


# Kernels


def pick_kernel(query: Tensor, choice: str, *, needs_grad: bool, dropout: float = 0.0) -> Kernel:
    """The kernel to merge with: fused on the CPU without gradients and dropout, else matrix products."""
    if choice == "auto" and query.device.type == "cpu" and not needs_grad and dropout == 0.0:
        return fused_cpu
    return functools.partial(plain, dropout=dropout) if dropout > 0.0 else plain


def plain(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`Kernel` by matrix products: output and lse are differentiable in every argument."""
    batch, heads, length, head_dim = query.shape
    rows = fold(query, key.shape[1])
    scores = (rows @ key.mT).float() * scale
    if causal:
        scores = scores + _additive(_causal_mask(length, key), scores).repeat(1, 1, heads // key.shape[1], 1)
    if bias is not None:
        scores = scores + bias.expand(-1, -1, length, -1).repeat(1, 1, heads // key.shape[1], 1)
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    probabilities = torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0))
    output = drop(probabilities, dropout).to(value.dtype) @ value
    return output.reshape(batch, heads, length, head_dim), lse.reshape(batch, heads, length, 1)


def fused_cpu(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """`Kernel` by the CPU's fused attention, in the dtype of `value`. For inference: its lse has no gradient."""
    batch, heads, length, head_dim = query.shape
    if length > 1 and not causal and (bias is None or bias.shape[2] == 1):
        # Every query sees the same columns: fold the heads of a group into rows, so that a key is fetched once for all.
        # For one query that is slower, as so few rows leave the kernel half idle.
        rows = fold(query, key.shape[1])
        bias = None if bias is None else bias.expand(batch, 1, rows.shape[2], -1)
        output, lse = hf.flash_cpu(rows, key, value, bias=bias, causal=False, scale=scale)
    else:
        bias = None if bias is None else bias.expand(batch, 1, length, -1)
        output, lse = hf.flash_cpu(query, key, value, bias=bias, causal=causal, scale=scale)
    output, lse = output.reshape(batch, heads, length, head_dim), lse.reshape(batch, heads, length, 1)
    if bias is None:
        return output, lse
    blind = bias[:, :1, :length].isneginf().all(dim=-1, keepdim=True)
    return output.masked_fill(blind, 0.0), lse.masked_fill(blind, -torch.inf)


# Attention to the prompt, to a memory, and to both


def merge(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """Two sides of one softmax, each (output [B, H, T, D], lse [B, H, T, 1]) -> the output over both."""
    share = torch.sigmoid(right[1] - left[1]).nan_to_num(0.0)  # nan: neither side sees anything
    return between(left[0], right[0], share)


def between(left: Tensor, right: Tensor, share: Tensor) -> Tensor:
    """(1 - share)·left + share·right in the dtype of left; share [..., 1], and 0 gives `left` bit for bit."""
    return torch.lerp(left, right.to(left.dtype), share.to(left.dtype).expand_as(left))


def attend_part(part: LayerMemory | BankPart, query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """A memory or chosen chapters alone: (output [B, H, T, D], lse [B, H, T, 1])."""
    return attend_memory(query, part, scale, kernel) if isinstance(part, LayerMemory) else part(query, scale, kernel)


def attend_memory(query: Tensor, memory: LayerMemory, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The memory alone: (output [B, H, T, D], lse [B, H, T, 1]); a row without memory gives 0 and -inf."""
    key, value = (side.expand(query.shape[0], -1, -1, -1) for side in (memory.key, memory.value))
    bias = None if memory.columns is None else _additive(memory.columns, query)
    output, lse = kernel(memory.sharpened(query), key, value, bias, causal=False, scale=scale)
    return output, lse if memory.bias is None else lse + memory.bias.float()[:, None]


def attend_self(own: Prompt, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The prompt and its cache alone: (output [B, H, T, D], lse [B, H, T, 1])."""
    query, key, value, mask = own
    length, width = query.shape[2], key.shape[2]
    if mask is None and (length == 1 or width == length):
        return kernel(query, key, value, None, causal=length > 1, scale=scale)
    bias = _additive(_own_mask(mask, length, key), query)
    return kernel(query, key, value, bias, causal=False, scale=scale)


def attend_concatenated(own: Prompt, memory: LayerMemory, scale: float, dropout: float = 0.0) -> Tensor:
    """One softmax over `[memory ; self]`, as one SDPA call: [B, H, T, D].

    The query heads of a group become rows of one head: they share keys and, apart from the bias, see the same columns.
    So grouped-query attention needs no repeated keys.
    """
    query, key, value, attention_mask = own
    batch, heads, length, head_dim = query.shape
    kv_heads, group = key.shape[1], heads // key.shape[1]
    visible = torch.ones(batch, 1, length, memory.tokens, dtype=torch.bool, device=query.device)
    if memory.columns is not None:
        visible &= memory.columns
    own_mask = _own_mask(attention_mask, length, key).expand(batch, 1, -1, -1)
    mask = torch.cat([visible, own_mask], dim=-1).repeat(1, 1, group, 1)  # [B, 1, G·T, M+S]
    if memory.bias is not None:
        rows = memory.full_bias(heads).to(query.dtype).view(1, kv_heads, group, 1, -1).expand(batch, -1, -1, length, -1)
        bias = pad(rows.reshape(batch, kv_heads, group * length, -1), (0, own_mask.shape[-1]))
        mask = bias.masked_fill(~mask, -torch.inf)
    joined_key, joined_value = _joined(memory, key, value)
    output = scaled_dot_product_attention(
        fold(query, kv_heads), joined_key, joined_value, attn_mask=mask, dropout_p=dropout, scale=scale
    )
    return output.reshape(batch, heads, length, head_dim)


def attend_prefixed(own: Prompt, memory: LayerMemory, scale: float, dropout: float = 0.0) -> Tensor:
    """The same by one causal call over the memory and a longer prompt, for a short memory such as the sink.

    There is no mask, no bias and no cache: S = T. Each memory column gets an idle query, which makes the causal matrix
    square and costs M/T of the attention. Differentiable. Returns [B, H, T, D].
    """
    query, key, value, _ = own
    batch, heads, _, head_dim = query.shape
    idle = query.new_zeros(batch, heads, memory.tokens, head_dim)
    joined_key, joined_value = _joined(memory, key, value)
    rows = torch.cat([idle, query], dim=2)
    options: dict[str, Any] = {"dropout_p": dropout, "is_causal": True, "scale": scale, "enable_gqa": True}
    return scaled_dot_product_attention(rows, joined_key, joined_value, **options)[:, :, memory.tokens :]


def _joined(memory: LayerMemory, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of `[memory ; self]`, [B, H_kv, M+S, D]."""
    sides = ((memory.key, key), (memory.value, value))
    joined_key, joined_value = (torch.cat([read.expand(len(own), -1, -1, -1), own], dim=2) for read, own in sides)
    return joined_key, joined_value


def memory_probabilities(query: Tensor, memory: LayerMemory, own_lse: Tensor | None, scale: float) -> Tensor:
    """[B, H, T, M] float32: attention weights of the memory, in one softmax with the columns that gave `own_lse`."""
    batch, heads, length, _ = query.shape
    rows = fold(memory.sharpened(query), memory.key.shape[1])
    scores = (rows @ memory.key.mT).float().view(batch, heads, length, -1) * scale
    if memory.bias is not None:
        scores = scores + memory.bias.float()[:, None]
    if memory.columns is not None:
        scores = scores.masked_fill(~memory.columns, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    if own_lse is not None:
        lse = torch.logaddexp(lse, own_lse)
    return torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0))


def fold(query: Tensor, kv_heads: int) -> Tensor:
    """[B, H, T, D] -> [B, H_kv, G·T, D]: the query heads of a group one after the other."""
    return query.reshape(query.shape[0], kv_heads, -1, query.shape[3])


def _own_mask(attention_mask: Tensor | None, length: int, key: Tensor) -> Tensor:
    """bool [B or 1, 1, T, S]: what the prompt's tokens see of the prompt and its cache."""
    if attention_mask is None:
        return _causal_mask(length, key)
    return attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0


def _causal_mask(length: int, key: Tensor) -> Tensor:
    """bool [1, 1, T, S]; the last query sees every key."""
    width = key.shape[2]
    return torch.ones(length, width, dtype=torch.bool, device=key.device).tril(width - length)[None, None]


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as a float bias in the dtype of `like`; -inf hides a column."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


for _choice, _name in IMPLEMENTATIONS.items():
    hf.register_attention(_name, functools.partial(attention_forward, kernel=_choice))
