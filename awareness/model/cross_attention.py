"""The tanh form: a block of gated cross-attention in a decoder layer, after Flamingo (Alayrac et al. 2022, 2.2).

    h = h + W_o·(tanh(g_h) · Attn(W_q·norm(h), K_mem, V_mem))          variants A and B
    h = h + tanh(g_mlp) · MLP(norm(h))                                 variant B

g_h is one gate per head. With `init: copy`, norm, W_q, W_o and MLP start as the layer's own and the gates at 0. With
W_o zero, the gates start at 1. Either way the block is the identity at first, and it learns because only one of the two
is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from awareness.model import hf
from awareness.model.attention import BankPart, LayerMemory, attend_part, fold, memory_probabilities, merge, pick_kernel
from awareness.model.attention_record import AttentionRecord
from awareness.model.projection import Projection, trainable_copy


class GatedCrossAttention(nn.Module):
    """hidden_states [B, T, d] -> what is added to them, [B, T, d].

    layer: the decoder layer that gives norm and geometry, and with init `copy` the projections. rank: of W_q and W_o.
    """

    def __init__(self, layer: Any, *, init: str, zero_output: bool, std: float, rank: int | None) -> None:
        super().__init__()
        own = hf.attention_parts(layer)
        query, output = own.query, own.output
        self.head_dim, self.scaling = own.head_dim, own.scaling
        self.norm: nn.Module = trainable_copy(hf.attention_norm(layer))
        self.q_proj = Projection(*reversed(query.weight.shape), rank=rank, bias=query.bias is not None)
        self.o_proj = Projection(*reversed(output.weight.shape), rank=rank)  # a bias would not be the identity
        self.q_norm = None if own.query_norm is None else trainable_copy(own.query_norm)
        for projection, linear in ((self.q_proj, query), (self.o_proj, output)):
            projection.copy_(linear) if init == "copy" else projection.draw_(std)
        if zero_output:  # last, so that no later initialisation undoes it
            self.o_proj.zero_()
        heads = query.weight.shape[0] // self.head_dim
        self.gate = nn.Parameter(torch.full((heads,), 1.0 if zero_output else 0.0))

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        parts: Sequence[LayerMemory | BankPart],
        *,
        kernel: str = "auto",
        record: AttentionRecord | None = None,
        layer: int = -1,
    ) -> Tensor:
        """position_embeddings: cos and sin, each [B or 1, T, D]. parts: what is read, in one softmax; `record` records
        the attention to the first of them."""
        query = self.q_proj(self.normed(hidden_states)).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None:
            query = self.q_norm(query)
        cos, sin = (side[:, :, None].to(query.dtype) for side in position_embeddings)
        query = hf.rotated(query, cos, sin).to(hidden_states.dtype).transpose(1, 2)
        gate = torch.tanh(self.gate).to(query.dtype)[:, None, None]
        output = gate * self._attend(query, parts, kernel, record, layer)
        return self.o_proj(output.transpose(1, 2).flatten(2))

    def normed(self, hidden_states: Tensor) -> Tensor:
        """The input of W_q and of a router."""
        return self.norm(hidden_states).to(hidden_states.dtype)

    def _attend(
        self,
        query: Tensor,
        parts: Sequence[LayerMemory | BankPart],
        kernel: str,
        record: AttentionRecord | None,
        layer: int,
    ) -> Tensor:
        """[B, H, T, D]"""
        first, *others = parts
        recorded = record is not None and record.wants(layer, query.shape[2]) and isinstance(first, LayerMemory)
        columns = [part for part in parts if isinstance(part, LayerMemory)]
        needs_grad, lse = torch.is_grad_enabled(), None
        if kernel == "auto" and len(columns) == len(parts) and (not others or (needs_grad and not recorded)):
            output = _attend_alone(query, functools.reduce(LayerMemory.beside, columns), self.scaling)
        else:
            merging = pick_kernel(query, kernel, needs_grad=needs_grad)
            output, own_lse = attend_part(first, query, self.scaling, merging)
            for part in others:
                other, lse = attend_part(part, query, self.scaling, merging)
                output = merge((output, own_lse), (other, lse))
        if recorded and record is not None and isinstance(first, LayerMemory):
            lse = None if lse is None else record.recorded(lse)
            record.add(layer, memory_probabilities(record.recorded(query), first, lse, self.scaling))
        return output


def _attend_alone(query: Tensor, memory: LayerMemory, scale: float) -> Tensor:
    """The memory alone by one SDPA call, without bias: [B, H, T, D]; a row without memory gives 0."""
    batch, _, length, _ = query.shape
    key, value = (side.expand(batch, -1, -1, -1) for side in (memory.key, memory.value))
    is_step = length == 1  # see `attention.fused_cpu`
    rows = query if is_step else fold(query, key.shape[1])
    mask = blind = None
    if memory.mask is not None:
        seen = memory.full_mask(batch)[:, None, None]
        blind = ~seen.any(dim=-1, keepdim=True)
        mask = (seen | blind).expand(-1, 1, rows.shape[2], -1)
    output = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scale, enable_gqa=is_step)
    output = output.reshape(query.shape)
    return output if blind is None else output.masked_fill(blind, 0.0)


class GatedMLP(nn.Module):
    """hidden_states [B, T, d] -> what variant B adds to them, [B, T, d]: tanh(g)·MLP(norm(h))."""

    def __init__(self, layer: Any, *, init: str, zero_output: bool, std: float) -> None:
        super().__init__()
        self.norm: nn.Module = trainable_copy(hf.mlp_norm(layer))
        linears = hf.mlp_parts(layer)
        self.gate_proj, self.up_proj, self.down_proj = (
            Projection(linear.weight.shape[1], linear.weight.shape[0], bias=linear.bias is not None)
            for linear in linears.values()
        )
        for name, linear in linears.items():
            own = getattr(self, name)
            own.copy_(linear) if init == "copy" else own.draw_(std)
        if zero_output:
            self.down_proj.zero_()
        self.gate = nn.Parameter(torch.full((1,), 1.0 if zero_output else 0.0))

    def forward(self, hidden_states: Tensor) -> Tensor:
        x = self.norm(hidden_states).to(hidden_states.dtype)
        return torch.tanh(self.gate).to(x.dtype) * self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class MemoryBlock(nn.Module):
    """The block of a layer. variant: A, between self-attention and MLP; B, after the MLP, with an MLP of its own.

    rank: of the attention's projections; the MLP of variant B is always full.
    """

    def __init__(self, layer: Any, *, variant: str, init: str, zero_output: bool, std: float, rank: int | None) -> None:
        super().__init__()
        self.attention = GatedCrossAttention(layer, init=init, zero_output=zero_output, std=std, rank=rank)
        self.mlp = GatedMLP(layer, init=init, zero_output=zero_output, std=std) if variant == "B" else None

    def forward(self, hidden_states: Tensor, **reading: Any) -> Tensor:
        """hidden_states [B, T, d] -> the same after reading. reading: the other arguments of `GatedCrossAttention`."""
        hidden_states = hidden_states + self.attention(hidden_states, **reading)
        return hidden_states if self.mlp is None else hidden_states + self.mlp(hidden_states)


class JointGates(nn.Module):
    """What the joint form learns in a layer: bias b_h of the repository's memory [H], its sharpness s_h as 1 + a number
    [H] that begins at 0, and gate g_h of the bank [H]."""

    def __init__(self, layer: Any, *, with_bank: bool, with_sharpness: bool = False) -> None:
        super().__init__()
        own = hf.attention_parts(layer)
        heads = own.query.weight.shape[0] // own.head_dim
        self.bias = nn.Parameter(torch.zeros(heads))
        self.sharpness = nn.Parameter(torch.zeros(heads)) if with_sharpness else None
        self.bank_gate = nn.Parameter(torch.zeros(heads)) if with_bank else None
