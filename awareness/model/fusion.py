"""Putting memory into a Hugging Face decoder, and taking it out again.

`fuse` points the decoder's attention at ours (attention.py) and gives its layers a class that hands on what they read;
`unfuse` takes both back. Weights and module names are never touched. `attached` is the only way in which a memory
reaches a fused decoder, and it always clears.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.attention import IMPLEMENTATIONS, AttentionRecord
from awareness.model.kernels import LayerMemory
from awareness.model.reading import Attached, LayerCall, LayerReading, Routed, attached_now, inside, reading
from awareness.types import Memory

RETRIEVAL_DEPTH = (0.4, 0.8)
"""Share of the depth where retrieval heads sit (Wu et al. 2024): whose attention tells what was read."""


class _FusedLayer(nn.Module):
    """Mixed into a decoder layer's class: the layer as it is, and what it reads now.

    `__call__` looks up what is attached, so that whatever computes `forward` again later, maybe in another thread, gets
    it as an argument.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _unpickled, (type(self)._base,), vars(self)  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (now := attached_now()) is not None:
            kwargs["attached"] = now
        return super().__call__(*args, **kwargs)

    def forward(self, hidden_states: Tensor, *args: Any, attached: Attached | None = None, **kwargs: Any) -> Tensor:
        """hidden_states [B, T, d] -> the same behind the layer."""
        if attached is None:
            return super().forward(hidden_states, *args, **kwargs)
        with inside(self, attached):
            own = attached.layers.get(self)
            if own is None:
                return super().forward(hidden_states, *args, **kwargs)
            kwargs = {**hf.named_arguments(type(self)._base, args), **kwargs}  # type: ignore[attr-defined]
            call = LayerCall.of(self, kwargs)
            if own.block is None:
                joint = own.joint(hidden_states, hf.attention_norm(self), call)
                return super().forward(hidden_states, reading=joint, **kwargs)
            read = functools.partial(own.read, call=call, kernel=_kernel_of(self))
            if own.block.mlp is None:
                return hf.run_layer(self, hidden_states, kwargs, between=read)
            return read(super().forward(hidden_states, **kwargs))


@functools.cache
def _fused(base: Any) -> Any:
    """The layer's class with `_FusedLayer` mixed in, under its own name (which FSDP's wrapping goes by)."""
    return type(base.__name__, (_FusedLayer, base), {"__module__": base.__module__, "_base": base})


def _unpickled(base: Any) -> Any:
    return _fused(base).__new__(_fused(base))


def _kernel_of(layer: nn.Module) -> str:
    name = hf.attention_name(layer)
    return next((choice for choice, known in IMPLEMENTATIONS.items() if known == name), "auto")


def fuse(model: PreTrainedModel, *, kernel: str = "auto") -> PreTrainedModel:
    """Makes `model` able to read memory; without one it is exactly what it was with SDPA. Raises UsageError.

    kernel: `auto`, `plain` (matrix products, for comparison) or `flex` (FlexAttention, compiled on CUDA: pays in long
    runs). All give the same numbers but for rounding.
    """
    name = type(model).__name__
    if name not in hf.ARCHITECTURES:
        raise UsageError(f"{name} is not one of the architectures that can read memory: {', '.join(hf.ARCHITECTURES)}")
    if kernel not in IMPLEMENTATIONS:
        raise UsageError(f"there is no attention kernel '{kernel}': {', '.join(IMPLEMENTATIONS)}")
    hf.warn_if_untried()
    hf.use_attention(model, IMPLEMENTATIONS[kernel])
    for layer in hf.decoder_layers(model):
        if not isinstance(layer, _FusedLayer):
            layer.__class__ = _fused(type(layer))  # type: ignore[arg-type]
    return model


def unfuse(model: PreTrainedModel) -> PreTrainedModel:
    """Gives `model` back with the stock SDPA attention and its own layers."""
    hf.use_attention(model, hf.STOCK_ATTENTION)
    for layer in hf.decoder_layers(model):
        if isinstance(layer, _FusedLayer):
            layer.__class__ = type(layer)._base  # type: ignore[attr-defined]
    return model


def retrieval_layers(model: PreTrainedModel, memory: Memory) -> list[int]:
    """Of the layers that read `memory` those of `RETRIEVAL_DEPTH`, or all if there is none."""
    first, stop = (round(model.config.num_hidden_layers * share) for share in RETRIEVAL_DEPTH)
    return [layer for layer in memory.keys if first <= layer < stop] or list(memory.keys)


@contextmanager
def attached(
    model: PreTrainedModel,
    memory: Memory | None,
    *,
    adapter: MemoryAdapter | None = None,
    record: AttentionRecord | None = None,
    routed: Routed | None = None,
) -> Iterator[None]:
    """Inside the block `model` (fused) reads `memory`, in this thread only. With nothing to read: the base model.

    adapter: how it reads, and its bank; without one the joint form, untrained. A memory must have the layers that the
    adapter reads. record: collects the attention to the memory. routed: what the routers of chapters go by and decide.
    """
    if memory is not None and (memory.tokens == 0 or (memory.mask is not None and not memory.mask.any())):
        memory = None
    readings = _readings(memory, adapter, record, routed or Routed())
    outer = attached_now()
    if not readings and outer is None:
        yield
        return
    layers = list(hf.decoder_layers(model))
    if not isinstance(layers[0], _FusedLayer):
        raise UsageError("this decoder cannot read memory yet", hint="call awareness.model.fusion.fuse(model) first")
    if beyond := [found.layer for found in readings if found.layer >= len(layers)]:
        raise UsageError(f"layer {beyond[0]} reads memory, but this decoder has {len(layers)} layers")
    adapted = frozenset(layers) if adapter is not None and readings else frozenset()
    own = Attached({layers[found.layer]: found for found in readings}, adapted)
    with reading(own.beside(layers, outer)):
        yield


def _readings(
    memory: Memory | None, adapter: MemoryAdapter | None, record: AttentionRecord | None, routed: Routed
) -> list[LayerReading]:
    if adapter is not None:
        return adapter.readings(memory, record, routed)
    if memory is None:
        return []
    return [
        LayerReading(i, LayerMemory(key, memory.values[i], memory.mask), record=record)
        for i, key in memory.keys.items()
    ]
