"""What the layers of one decoder read now: bound for a `with attached(...)` block, handed to each layer as an argument.

A reading is looked up when a fused layer is called and travels on as an argument, so that a layer which is computed
again for the backward pass (gradient checkpointing), maybe in another thread, reads the same. Nothing is stored on a
module; the only state, what a router has seen of a text, hangs on that text's KV cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from awareness.model.attention import AttentionRecord, BankPart, JointReading
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.chapters import attend_chapters
from awareness.model.gca import JointGates, MemoryBlock
from awareness.model.kernels import Kernel, LayerMemory
from awareness.model.router import ChapterChoice, RoutingPast


@dataclass
class Routed:
    """What routers decide inside one `attached` block, by layer. prompt: bool [B, P], the tokens that a sequence is
    routed by, None for all of a forward pass. choices: collected for the losses, None where nobody asks."""

    prompt: Tensor | None = None
    choices: list[ChapterChoice] | None = None
    pasts: WeakKeyDictionary[Cache, dict[int, RoutingPast]] = field(default_factory=WeakKeyDictionary)


@dataclass(frozen=True)
class LayerReading:
    """What one layer reads, and by which modules.

    memory: of the repository, None without one. bank: the learned one, with its keys and values if they are known
    before the forward pass. dropout: of the values that are read. recompute: gradient checkpointing of the reading.
    """

    layer: int
    memory: LayerMemory | None = None
    block: MemoryBlock | None = None
    gates: JointGates | None = None
    bank: MemoryBank | QuantisedBank | None = None
    bank_keys_values: tuple[Tensor, Tensor] | None = None
    routed: Routed = field(default_factory=Routed)
    record: AttentionRecord | None = None
    dropout: float = 0.0
    recompute: bool = False

    def read(self, hidden_states: Tensor, *, call: Mapping[str, Any], start: int, kernel: str) -> Tensor:
        """The tanh form: hidden_states [B, T, d] -> the same, having read. call: the layer's keyword arguments; start:
        tokens that the cache held before this forward pass."""
        assert self.block is not None
        parts = self.sources(hidden_states, self.block.attention.normed, call, start)
        if not parts:
            return hidden_states
        step = partial(
            self.block,
            position_embeddings=call["position_embeddings"],
            parts=parts,
            kernel=kernel,
            record=self.record if self.memory is not None else None,
            layer=self.layer,
        )
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(step, hidden_states, use_reentrant=False)
        return step(hidden_states)

    def sources(
        self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: Mapping[str, Any], start: int
    ) -> list[LayerMemory | BankPart]:
        """What is read, the repository's memory first. norm: of the hidden states [B, T, d] that a router goes by."""
        found: list[LayerMemory | BankPart] = []
        if self.memory is not None:
            bias = None if self.gates is None else self.gates.bias[:, None]
            found.append(replace(self.memory, value=self._dropped(self.memory.value), bias=bias))
        if self.bank is not None:
            found.append(self._bank_part(self.bank, hidden_states, norm, call, start))
        return found

    def joint(
        self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: Mapping[str, Any], start: int
    ) -> JointReading:
        """For `attention_forward`; arguments as of `sources`."""
        sources = self.sources(hidden_states, norm, call, start)
        memory = sources[0] if self.memory is not None else None
        return JointReading(
            self.layer,
            memory if isinstance(memory, LayerMemory) else None,
            sources[-1] if self.bank is not None else None,
            None if self.gates is None else self.gates.bank_gate,
            self.record,
            self.recompute,
        )

    def _dropped(self, value: Tensor) -> Tensor:
        return drop(value, self.dropout) if self.dropout > 0.0 else value

    def _bank_part(
        self,
        bank: MemoryBank | QuantisedBank,
        hidden_states: Tensor,
        norm: Callable[[Tensor], Tensor],
        call: Mapping[str, Any],
        start: int,
    ) -> LayerMemory | BankPart:
        known = self.bank_keys_values or bank.keys_values(self.layer)
        key, value = (side.to(hidden_states.dtype) for side in known)
        value = self._dropped(value)
        router = bank.router(self.layer)
        if router is None:
            return LayerMemory(key, value)
        x = norm(hidden_states)
        cache = call.get("past_key_values")
        pasts = {} if cache is None else self.routed.pasts.setdefault(cache, {})
        real = _real(call.get("attention_mask"), start, x)
        prompt = _between(self.routed.prompt, start, x)
        choice, past = router(x, real=real, prompt=prompt, past=pasts.get(self.layer) if start else None)
        if past is not None:
            pasts[self.layer] = past
        if self.routed.choices is not None:
            self.routed.choices.append(choice)

        def part(query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
            # The joint form weighs the bank against the prompt by the softmax that they share, p in it.
            chapters: int = router.classifier.out_features
            return attend_chapters(query, key, value, choice, chapters, scale, weighted=self.gates is None)

        return part


def _real(attention_mask: Tensor | None, start: int, x: Tensor) -> Tensor | None:
    """bool [B, T]: which of this forward's tokens are no padding. The last query sees every token that is none."""
    if attention_mask is None:
        return None
    seen = attention_mask[:, 0, -1] if attention_mask.dtype == torch.bool else attention_mask[:, 0, -1] == 0
    return seen[:, start : start + x.shape[1]].expand(x.shape[0], -1)


def _between(prompt: Tensor | None, start: int, x: Tensor) -> Tensor | None:
    """The part of the prompt's mask that is about this forward's tokens; behind the prompt there is none of it."""
    if prompt is None:
        return None
    stop = start + x.shape[1]
    return pad(prompt, (0, max(0, stop - prompt.shape[1])))[:, start:stop]


@dataclass(frozen=True)
class Attached:
    """What all layers read now. by_adapter: an adapter says how; without one an untrained memory is read."""

    layers: Mapping[nn.Module, LayerReading]

    @cached_property
    def by_adapter(self) -> bool:
        return any(found.block is not None or found.gates is not None for found in self.layers.values())


_attached: ContextVar[Attached | None] = ContextVar("awareness_attached", default=None)


@contextmanager
def reading(what: Attached) -> Iterator[None]:
    """Inside the block, in this thread, decoder layers read this, instead of what they read outside of it."""
    token = _attached.set(what)
    try:
        yield
    finally:
        _attached.reset(token)


def attached_now() -> Attached | None:
    """What is read now, in this thread."""
    return _attached.get()


def adapter_is_read() -> bool:
    """Does an adapter with something to read stand behind this call? LoRA of a memory adapter is on only then."""
    now = _attached.get()
    return now is not None and now.by_adapter
