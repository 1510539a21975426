"""How much attention the tokens of a memory got: recorded inside an `attached` block, and summed by span."""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from awareness.types import SINK, Memory

RETRIEVAL_DEPTH = (0.4, 0.8)
"""The part of the depth where retrieval heads sit (Wu et al. 2024). Their attention shows what was read."""


def retrieval_layers(model: PreTrainedModel, memory: Memory) -> list[int]:
    """The layers within `RETRIEVAL_DEPTH` that read `memory`; all that read it if there are none."""
    first, stop = (round(model.config.num_hidden_layers * share) for share in RETRIEVAL_DEPTH)
    return [layer for layer in memory.keys if first <= layer < stop] or list(memory.keys)


@dataclass
class AttentionRecord:
    """Collects the attention weights of memory tokens. Pass it to `attached`; without one no weights are computed.

    layers: which layers to record. keep: keep every weight, else only sums over tokens. steps: also keep a sum for
    each forward pass. heads: (layer, head) of those whose sum for each pass is also kept apart. every_token: also
    record passes over several tokens (teacher forcing, with gradients), else only decoding steps. last: of such a pass
    record only this many last tokens, None for all. power: sums are of the weights to this power: with 2, a head that
    looks at one place counts more than one that looks everywhere. dtype: of the weights that are kept.
    """

    layers: Container[int]
    keep: bool = False
    steps: bool = False
    heads: Collection[tuple[int, int]] = ()
    every_token: bool = False
    last: int | None = None
    power: int = 1
    dtype: torch.dtype = torch.float32
    _sums: dict[int, Tensor] = field(default_factory=dict, init=False)
    _kept: dict[int, list[Tensor]] = field(default_factory=dict, init=False)
    _by_step: dict[int, list[Tensor]] = field(default_factory=dict, init=False)
    _of_heads: dict[int, list[Tensor]] = field(default_factory=dict, init=False)

    def wants(self, layer: int, length: int) -> bool:
        """Whether a forward pass of this layer over `length` tokens is recorded."""
        return layer in self.layers and (self.every_token or length == 1)

    def recorded(self, rows: Tensor) -> Tensor:
        """The tokens of [B, H, T, …] that are recorded."""
        return rows if self.last is None else rows[:, :, -self.last :]

    def add(self, layer: int, probabilities: Tensor) -> None:
        """probabilities: [B, H, T, M] float32, of one forward pass."""
        total = (probabilities if self.power == 1 else probabilities**self.power).sum(dim=2)
        self._sums[layer] = self._sums[layer] + total if layer in self._sums else total
        if self.keep:
            self._kept.setdefault(layer, []).append(probabilities.to(self.dtype))
        if self.steps:
            self._by_step.setdefault(layer, []).append(total.sum(dim=(0, 1)))
            if chosen := [head for own, head in self.heads if own == layer]:
                self._of_heads.setdefault(layer, []).append(total[:, chosen].sum(dim=(0, 1)))

    @property
    def sums(self) -> dict[int, Tensor]:
        """layer -> [B, H, M] float32, summed over tokens."""
        return dict(self._sums)

    @property
    def step_count(self) -> int:
        """Forward passes that every layer has recorded, with `steps`."""
        return min(map(len, self._by_step.values()), default=0)

    def sum_of_steps(self, start: int, stop: int) -> Tensor | None:
        """[M] float32: the recorded passes start … stop - 1, summed over rows, heads and layers; None if there are
        none."""
        parts = [part for steps in self._by_step.values() for part in steps[start:stop]]
        return torch.stack(parts).sum(dim=0) if parts else None

    def steps_of_heads(self, start: int, stop: int) -> Tensor | None:
        """[stop - start, M] float32: each of these passes, summed over rows and `heads`, or over all heads where none
        are chosen; None if there are no passes."""
        layers = [steps[start:stop] for steps in (self._of_heads or self._by_step).values()]
        passes = [torch.stack(own).sum(dim=0) for own in zip(*layers, strict=True)]
        return torch.stack(passes) if passes else None

    @property
    def memory_attention_weights(self) -> dict[int, Tensor]:
        """layer -> [B, H, T, M] float32, all recorded tokens in order; empty without `keep`."""
        return {layer: torch.cat(parts, dim=2) for layer, parts in self._kept.items()}


def span_shares(memory: Memory, weights: Tensor) -> dict[str, float]:
    """Attention weights [M] of the memory's tokens -> the share of each chunk's span, with sum 1; empty if all are 0.

    The sink is left out: heads park the attention there that they do not use.
    """
    mass = {s.name: float(weights[s.start : s.stop].sum()) for s in memory.spans if s.name != SINK}
    total = sum(mass.values())
    return {name: share / total for name, share in mass.items()} if total > 0 else {}


def recorded_shares(memory: Memory | None, record: AttentionRecord | None) -> dict[str, float]:
    """`span_shares` of everything that was recorded; empty without a memory or a record."""
    if memory is None or record is None or not record.sums:
        return {}
    return span_shares(memory, torch.stack([total.sum(dim=(0, 1)) for total in record.sums.values()]).sum(dim=0))
