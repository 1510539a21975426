"""Self-attention that also reads: the joint form, as an attention function of transformers.

`attention_forward` is registered with transformers (hf.py), so no projection is wrapped and
`generate()`, the KV cache and padding work as they are. What a layer reads reaches it as an argument, `reading`, which
the fused layer (fusion.py) passes on; a layer that has nothing to read calls the stock SDPA function: bitwise the base
model.

The memory of a repository joins the softmax (kernels.py), with a learned bias a head, b_h, 0 at the start. A bank joins
it behind a gate a head, g_h, 0 at the start, since untrained it has nothing to say:

    o = (1 - tanh g_h)·o_[mem ; self] + tanh g_h·o_[bank ; mem ; self]
"""

from __future__ import annotations

import functools
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from awareness.model import hf
from awareness.model.kernels import (
    Kernel,
    LayerMemory,
    attend_concatenated,
    attend_memory,
    attend_merged,
    attend_prefixed,
    attend_self,
    between,
    flex,
    fused_cpu,
    memory_probabilities,
    merge,
    plain,
)

IMPLEMENTATIONS = {"auto": "awareness", "plain": "awareness_plain", "flex": "awareness_flex"}
"""Choice of kernel -> the name of the attention implementation."""


class BankPart(Protocol):
    """The chapters of a bank that were chosen, as a part of what is read: (query [B, H, T, D], scale, kernel) ->
    (output [B, H, T, D], lse [B, H, T, 1])."""

    def __call__(self, query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]: ...


def attend_part(part: LayerMemory | BankPart, query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """One of the things that are read: (output [B, H, T, D], lse [B, H, T, 1])."""
    return attend_memory(query, part, scale, kernel) if isinstance(part, LayerMemory) else part(query, scale, kernel)


@dataclass
class AttentionRecord:
    """Collects the attention weights of memory tokens, given to `attached` by who wants to know; nothing is computed
    without one.

    layers: of which. keep: every weight, else only sums over tokens. steps: also a sum for each forward pass.
    every_token: also of what is not generated, that is of forward passes over several tokens (teacher forcing, with
    gradients); else of decoding steps alone. last: of such a pass only so many tokens at its end, None for all.
    """

    layers: Container[int]
    keep: bool = False
    steps: bool = False
    every_token: bool = False
    last: int | None = None
    _sums: dict[int, Tensor] = field(default_factory=dict, init=False)
    _kept: dict[int, list[Tensor]] = field(default_factory=dict, init=False)
    _by_step: dict[int, list[Tensor]] = field(default_factory=dict, init=False)

    def wants(self, layer: int, length: int) -> bool:
        return layer in self.layers and (self.every_token or length == 1)

    def of(self, rows: Tensor) -> Tensor:
        """Of [B, H, T, …] the tokens that are recorded."""
        return rows if self.last is None else rows[:, :, -self.last :]

    def add(self, layer: int, probabilities: Tensor) -> None:
        """probabilities: [B, H, T, M] float32, of one forward pass."""
        total = probabilities.sum(dim=2)
        self._sums[layer] = self._sums[layer] + total if layer in self._sums else total
        if self.keep:
            self._kept.setdefault(layer, []).append(probabilities)
        if self.steps:
            self._by_step.setdefault(layer, []).append(total.sum(dim=(0, 1)))

    @property
    def sums(self) -> dict[int, Tensor]:
        """layer -> [B, H, M] float32, summed over tokens."""
        return dict(self._sums)

    @property
    def step_count(self) -> int:
        """Forward passes that were recorded with `steps`, in the last of the layers."""
        return min(map(len, self._by_step.values()), default=0)

    def of_steps(self, start: int, stop: int) -> Tensor | None:
        """[M] float32: summed over rows, heads and layers, of some of the recorded forward passes; None for none."""
        parts = [part for steps in self._by_step.values() for part in steps[start:stop]]
        return torch.stack(parts).sum(dim=0) if parts else None

    @property
    def memory_attention_weights(self) -> dict[int, Tensor]:
        """layer -> [B, H, T, M] float32, of all tokens one behind the other; empty unless `keep`."""
        return {layer: torch.cat(parts, dim=2) for layer, parts in self._kept.items()}


@dataclass(frozen=True)
class JointReading:
    """What self-attention reads beside the prompt. memory: of the repository; bank with its gate [H]: the learned one.

    recompute: the reading is computed again for the backward pass instead of being kept (gradient checkpointing).
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
    """Self-attention that also reads `reading`, if there is one.

    query: [B, H, T, D]; key, value: [B, H_kv, S, D] with S >= T, after RoPE and cache; attention_mask: bool
    [B, 1, T, S] or None for causal. Returns ([B, T, H, D], None).
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def stock() -> Tensor:
        return hf.stock_attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)

    if reading is None and kernel == "auto":
        return stock(), None
    needs_grad = torch.is_grad_enabled()
    merging = pick_kernel(query, kernel, needs_grad=needs_grad, dropout=dropout)
    own = (query, key, value, attention_mask)
    memory, bank = (None, None) if reading is None else (reading.memory, reading.bank)

    def read() -> Tensor:
        """[B, H, T, D]"""
        if memory is not None:
            without = _with_memory(*own, memory, scale, dropout, kernel, merging)
        elif kernel == "auto":
            without = stock().transpose(1, 2)
        else:
            without = attend_self(*own, scale, merging)[0]
        if bank is None or reading is None or reading.gate is None:
            return without
        if merging is not fused_cpu and kernel == "auto" and isinstance(bank, LayerMemory):
            joined = attend_concatenated(*own, bank if memory is None else memory.beside(bank), scale, dropout)
        else:
            lse = attend_self(*own, scale, merging)[1]
            if memory is not None:
                lse = torch.logaddexp(lse, attend_memory(query, memory, scale, merging)[1])
            joined = merge((without, lse), attend_part(bank, query, scale, merging))
        return between(without, joined, torch.tanh(reading.gate)[:, None, None])

    if reading is not None and reading.recompute and needs_grad:
        output: Tensor = checkpoint(read, use_reentrant=False)
    else:
        output = read()
    if reading is not None and reading.record is not None and reading.record.wants(reading.layer, query.shape[2]):
        own_lse = reading.record.of(attend_self(*own, scale, plain)[1])
        reading.record.add(reading.layer, _weights(reading.record.of(query), own_lse, reading, scale))
    return output.transpose(1, 2).contiguous(), None


def _with_memory(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    memory: LayerMemory,
    scale: float,
    dropout: float,
    kernel: str,
    merging: Kernel,
) -> Tensor:
    """Prompt and memory in one softmax, by what is fastest: [B, H, T, D]."""
    if kernel == "auto":
        bare = attention_mask is None and memory.mask is None and memory.bias is None
        if bare and key.shape[2] == query.shape[2] >= memory.tokens * 4:
            return attend_prefixed(query, key, value, memory, scale, dropout)
        is_step = query.shape[2] == 1 and not torch.is_grad_enabled() and dropout == 0.0
        if merging is not fused_cpu and not is_step:
            return attend_concatenated(query, key, value, attention_mask, memory, scale, dropout)
    return attend_merged(query, key, value, attention_mask, memory, scale, merging)


def _weights(query: Tensor, own_lse: Tensor, reading: JointReading, scale: float) -> Tensor:
    """The memory's attention weights [B, H, T, M] in what the layer gives out, what the bank takes of them included."""
    memory = reading.memory
    assert memory is not None
    without = memory_probabilities(query, memory, own_lse, scale)
    if reading.bank is None or reading.gate is None:
        return without
    bank_lse = attend_part(reading.bank, query, scale, plain)[1]
    joined = memory_probabilities(query, memory, torch.logaddexp(own_lse, bank_lse), scale)
    return between(without, joined, torch.tanh(reading.gate)[:, None, None])


def pick_kernel(query: Tensor, choice: str, *, needs_grad: bool, dropout: float = 0.0) -> Kernel:
    """The kernel that merging uses: as chosen, else fused where nothing is differentiated, else matrix products."""
    on_cpu = query.device.type == "cpu"
    if choice == "flex" and dropout == 0.0 and not (on_cpu and needs_grad):
        return flex
    if choice == "auto" and on_cpu and not needs_grad and dropout == 0.0:
        return fused_cpu
    return functools.partial(plain, dropout=dropout) if dropout > 0.0 else plain


for _choice, _name in IMPLEMENTATIONS.items():
    hf.register_attention(_name, functools.partial(attention_forward, kernel=_choice))
