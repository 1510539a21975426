"""What the layers of one decoder read now: bound for a `with attached(...)` block, handed to each layer as an argument.

A reading is looked up when a fused layer is called and travels on as an argument, so that a layer which is computed
again for the backward pass (gradient checkpointing), maybe in another thread, reads the same. Nothing is stored on a
module; the only state, what a router has seen of a text, hangs on that text's KV cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.attention import AttentionRecord, BankPart, JointReading
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.chapter_attention import Gathered, attend_chapters, gather
from awareness.model.chapter_router import ChapterChoice, ChapterRouter, RoutingPast
from awareness.model.cross_attention import JointGates, MemoryBlock
from awareness.model.kernels import Kernel, LayerMemory


@dataclass
class Routed:
    """What routers go by and decide inside one `attached` block. prompt: bool [B, P], the tokens that a sequence is
    routed by, None for all of a forward pass. choices: collected for the losses, None where nobody asks."""

    prompt: Tensor | None = None
    choices: list[ChapterChoice] | None = None


@dataclass(frozen=True)
class _Seen:
    """What a router has seen of the text behind a KV cache: so many tokens, what it keeps of them, and the chapters of
    a decision that holds for all that follows."""

    tokens: int
    past: RoutingPast
    gathered: Gathered | None


_seen: WeakKeyDictionary[Cache, dict[nn.Module, _Seen]] = WeakKeyDictionary()


@dataclass(frozen=True)
class LayerCall:
    """What a decoder layer is called with.

    position_embeddings: cos and sin, each [B or 1, T, D]. cache: the KV cache, or None. start: tokens that the cache
    held before this forward pass. mask: [B or 1, 1, T, S], or None if the layer is causal.
    """

    position_embeddings: tuple[Tensor, Tensor]
    cache: Cache | None = None
    start: int = 0
    mask: Tensor | None = None

    @classmethod
    def of(cls, layer: nn.Module, kwargs: Mapping[str, Any]) -> LayerCall:
        """kwargs: of the call."""
        cache = hf.cache_in((), kwargs)
        return cls(hf.position_embeddings_in(kwargs), cache, hf.cached_tokens(cache, layer), hf.mask_in(kwargs))


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

    def read(self, hidden_states: Tensor, *, call: LayerCall, kernel: str) -> Tensor:
        """The tanh form: hidden_states [B, T, d] -> the same, having read."""
        assert self.block is not None
        parts = self.sources(hidden_states, self.block.attention.normed, call)
        if not parts:
            return hidden_states
        step = partial(
            self.block,
            position_embeddings=call.position_embeddings,
            parts=parts,
            kernel=kernel,
            record=self.record if self.memory is not None else None,
            layer=self.layer,
        )
        if self.recompute and torch.is_grad_enabled():
            read: Tensor = checkpoint(step, hidden_states, use_reentrant=False)
        else:
            read = step(hidden_states)
        memory = self._memory_of(len(hidden_states))
        if self.bank is None and memory is not None and memory.mask is not None:
            return torch.where(memory.mask.any(dim=1)[:, None, None], read, hidden_states)  # nothing: the base
        return read

    def sources(
        self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: LayerCall
    ) -> list[LayerMemory | BankPart]:
        """What is read, the repository's memory first. norm: of the hidden states [B, T, d] that a router goes by."""
        found: list[LayerMemory | BankPart] = []
        if (memory := self._memory_of(len(hidden_states))) is not None:
            bias = None if self.gates is None else self.gates.bias[:, None]
            found.append(replace(memory, value=self._dropped(memory.value), bias=bias))
        if self.bank is not None:
            found.append(self._bank_part(self.bank, hidden_states, norm, call))
        return found

    def joint(self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: LayerCall) -> JointReading:
        """For `attention_forward`; arguments as of `sources`."""
        sources = self.sources(hidden_states, norm, call)
        memory = sources[0] if self.memory is not None else None
        return JointReading(
            self.layer,
            memory if isinstance(memory, LayerMemory) else None,
            sources[-1] if self.bank is not None else None,
            None if self.gates is None else self.gates.bank_gate,
            self.record if self.memory is not None else None,
            self.recompute,
        )

    def _memory_of(self, rows: int) -> LayerMemory | None:
        """For so many rows: one for all, one each, or one for the beams of each. Raises UsageError."""
        memory = self.memory
        if memory is None:
            return None
        own = max(memory.key.shape[0], 1 if memory.mask is None else memory.mask.shape[0])
        if own in (1, rows):
            return memory
        if rows % own:
            raise UsageError(f"a memory of {own} rows is read by a batch of {rows}", hint="one row, or one for each")
        beams = partial(torch.repeat_interleave, repeats=rows // own, dim=0)
        mask = None if memory.mask is None else beams(memory.mask)
        return replace(memory, key=beams(memory.key), value=beams(memory.value), mask=mask)

    def _dropped(self, value: Tensor) -> Tensor:
        return drop(value, self.dropout) if self.dropout > 0.0 else value

    def _bank_part(
        self,
        bank: MemoryBank | QuantisedBank,
        hidden_states: Tensor,
        norm: Callable[[Tensor], Tensor],
        call: LayerCall,
    ) -> LayerMemory | BankPart:
        known = self.bank_keys_values
        if known is None or torch.is_grad_enabled():
            known = bank.keys_values(self.layer)
        key, value = (side.to(hidden_states.dtype) for side in known)
        value = self._dropped(value)
        router = bank.router(self.layer)
        if router is None:
            return LayerMemory(key, value)
        choice, gathered = self._route(router, norm(hidden_states), key, value, call)
        if self.routed.choices is not None:
            self.routed.choices.append(choice)
        chapters: int = router.classifier.out_features
        # Beside a memory, and in the joint form beside the prompt, p weighs the bank by the softmax that they share.
        memory = self._memory_of(len(hidden_states))
        weighted: bool | Tensor = self.gates is None and memory is None
        if self.gates is None and memory is not None and memory.mask is not None:
            weighted = ~memory.mask.any(dim=1)

        def part(query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
            options: dict[str, Any] = {"weighted": weighted, "kernel": kernel, "gathered": gathered}
            return attend_chapters(query, key, value, choice, chapters, scale, **options)

        return part

    def _route(
        self, router: ChapterRouter, x: Tensor, key: Tensor, value: Tensor, call: LayerCall
    ) -> tuple[ChapterChoice, Gathered | None]:
        """The choice for this forward's tokens x [B, T, d], and what it lets gather where it holds for a whole text.
        Raises UsageError where the router has not seen the text behind the cache as it is."""
        cache, start, length = call.cache, call.start, x.shape[1]
        of_cache = {} if cache is None else _seen.setdefault(cache, {})
        seen = of_cache.get(router) if start else None
        known = 0 if seen is None else seen.tokens
        if router.strategy == "sequence":
            known = min(known, start)  # what it has decided holds, also if the cache was cropped
        if start and router.strategy != "token" and known != start:
            raise UsageError(
                f"the KV cache holds {start} tokens, of which the router of chapters has seen {known}",
                hint="a new cache, or routing_strategy_inference: token",
            )
        prompt = self.routed.prompt
        if prompt is not None and prompt.shape[0] != len(x) and len(x) % prompt.shape[0] == 0:
            prompt = prompt.repeat_interleave(len(x) // prompt.shape[0], dim=0)  # beams
        by_prompt = router.strategy in ("sequence", "hybrid")
        if prompt is not None and by_prompt and not start and prompt[:, length:].any():
            raise UsageError(
                f"a prompt of {prompt.shape[1]} tokens comes in pieces, the first of {length}, and can't be routed",
                hint="all of it in one forward pass, or routing_strategy_inference: token or rolling",
            )
        real = _real(call.mask, start, x)
        choice, past = router(x, real=real, prompt=_between(prompt, start, x), past=None if seen is None else seen.past)
        gathered = None if seen is None else seen.gathered
        if router.strategy == "sequence" and gathered is None and not torch.is_grad_enabled():
            gathered = gather(key, value, choice, router.classifier.out_features)
        if past is not None and cache is not None:
            of_cache[router] = _Seen(start + length, past, gathered)
        return choice, gathered


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
    """What decoder layers read now. adapted: the layers of decoders that read as an adapter says, all of them."""

    layers: Mapping[nn.Module, LayerReading]
    adapted: frozenset[nn.Module] = frozenset()

    def beside(self, layers: Iterable[nn.Module], outer: Attached | None) -> Attached:
        """This, of a decoder of these layers, and what is attached to other decoders outside of it."""
        own = set(layers)
        if outer is None or outer.layers.keys() <= own:
            return self
        others = {layer: found for layer, found in outer.layers.items() if layer not in own}
        return Attached({**others, **self.layers}, self.adapted | (outer.adapted - own))


_attached: ContextVar[Attached | None] = ContextVar("awareness_attached", default=None)
_in_adapted_layer: ContextVar[bool] = ContextVar("awareness_in_adapted_layer", default=False)


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


@contextmanager
def inside(layer: nn.Module, what: Attached) -> Iterator[None]:
    """Around the forward pass of a decoder layer."""
    token = _in_adapted_layer.set(layer in what.adapted)
    try:
        yield
    finally:
        _in_adapted_layer.reset(token)


def adapter_is_read() -> bool:
    """Is this inside a layer of a decoder that has something to read, as an adapter says? LoRA of a memory adapter is
    on only there."""
    return _in_adapted_layer.get()
