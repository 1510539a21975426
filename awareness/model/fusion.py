"""Put memory into a Hugging Face decoder, and take it out again.

`fuse` points the decoder's attention at attention.py and gives its layers a class that passes on what they read;
`unfuse` undoes both. Weights and module names are never touched. A memory reaches a fused decoder only through
`attached`, which always clears.
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
from awareness.model.attention import IMPLEMENTATIONS, LayerMemory
from awareness.model.attention_record import AttentionRecord
from awareness.model.layer_reading import LayerReading
from awareness.model.router_state import RouterState
from awareness.model.session import Session, current_session, entered, inside_layer
from awareness.types import Memory


class _FusedLayer(nn.Module):
    """Mixed into a decoder layer's class. `__call__` looks up the session, so that whatever computes `forward` again
    later, maybe in another thread, gets it as an argument."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _unpickled, (type(self)._base,), vars(self)  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (current := current_session()) is not None:
            kwargs["session"] = current
            if (own := current.of(self)) is not None:
                own.count(self, args[0] if args else kwargs["hidden_states"])
        return super().__call__(*args, **kwargs)

    def forward(self, hidden_states: Tensor, *args: Any, session: Session | None = None, **kwargs: Any) -> Tensor:
        """hidden_states [B, T, d] -> the layer's output, of the same shape."""
        if session is None:
            return super().forward(hidden_states, *args, **kwargs)
        own = session.of(self)
        with inside_layer(own):
            reading = None if own is None else own.readings.get(self)
            if reading is None:
                return super().forward(hidden_states, *args, **kwargs)
            kwargs = {**hf.named_arguments(type(self)._base, args), **kwargs}  # type: ignore[attr-defined]
            call = hf.LayerCall.of(self, kwargs)
            if reading.block is None:
                joint = reading.joint(hidden_states, hf.attention_norm(self), call)
                return super().forward(hidden_states, reading=joint, **kwargs)
            read = functools.partial(reading.read, call=call, kernel=_kernel_of(self))
            if reading.block.mlp is None:
                return hf.run_layer(self, hidden_states, kwargs, between=read)
            return read(super().forward(hidden_states, **kwargs))


@functools.cache
def _fused(base: Any) -> Any:
    """The layer's class with `_FusedLayer` mixed in, under the name of `base`, which FSDP's wrapping goes by."""
    return type(base.__name__, (_FusedLayer, base), {"__module__": base.__module__, "_base": base})


def _unpickled(base: Any) -> Any:
    return _fused(base).__new__(_fused(base))


def _kernel_of(layer: nn.Module) -> str:
    name = hf.attention_name(layer)
    return next((choice for choice, known in IMPLEMENTATIONS.items() if known == name), "auto")


def fuse(model: PreTrainedModel, *, kernel: str = "auto") -> PreTrainedModel:
    """Make `model` able to read memory; without one it is exactly what it was with SDPA. Raises UsageError.

    kernel: `auto`, or `plain` (matrix products, for comparison). Both give the same numbers, apart from rounding.
    """
    name = type(model).__name__
    if name not in hf.ARCHITECTURES:
        raise UsageError(f"{name} is not one of the architectures that can read memory: {', '.join(hf.ARCHITECTURES)}")
    if kernel not in IMPLEMENTATIONS:
        removed = "; flex was removed" if kernel == "flex" else ""
        raise UsageError(f"there is no attention kernel '{kernel}': {', '.join(IMPLEMENTATIONS)}{removed}")
    hf.warn_if_untested()
    hf.use_attention(model, IMPLEMENTATIONS[kernel])
    for layer in hf.decoder_layers(model):
        if not isinstance(layer, _FusedLayer):
            layer.__class__ = _fused(type(layer))  # type: ignore[arg-type]
    return model


def unfuse(model: PreTrainedModel) -> PreTrainedModel:
    """Give `model` its stock SDPA attention and its own layer classes back."""
    hf.use_attention(model, hf.STOCK_ATTENTION)
    for layer in hf.decoder_layers(model):
        if isinstance(layer, _FusedLayer):
            layer.__class__ = type(layer)._base  # type: ignore[attr-defined]
    return model


@contextmanager
def attached(
    model: PreTrainedModel,
    memory: Memory | None,
    *,
    adapter: MemoryAdapter | None = None,
    record: AttentionRecord | None = None,
    prompt: Tensor | None = None,
    keep_choices: bool = False,
    continues: Session | None = None,
) -> Iterator[Session]:
    """Inside the block `model` (fused) reads `memory`, in this thread only. With nothing to read it is the base model.

    adapter: how the memory is read, and the bank; without one the untrained joint form. record: collects the attention
    to the memory. prompt: bool [B, P], the tokens that chapters are routed by, by default all of a forward pass.
    keep_choices: keep the routers' decisions, for their losses. continues: an earlier session whose KV caches go on in
    this block. Raises UsageError if the decoder is not fused, or the memory lacks layers that the adapter reads.
    """
    if memory is not None and (memory.tokens == 0 or (memory.mask is not None and not memory.mask.any())):
        memory = None
    routing = RouterState(prompt, [] if keep_choices else None)
    if continues is not None:
        routing.continue_from(continues.routing)
    readings = _readings(memory, adapter, record, routing)
    layers, outer = list(hf.decoder_layers(model)), current_session()
    if not isinstance(layers[0], _FusedLayer):
        if readings or outer is not None:
            raise UsageError(
                "this decoder cannot read memory yet", hint="call awareness.model.fusion.fuse(model) first"
            )
        yield Session()
        return
    if beyond := [reading.layer for reading in readings if reading.layer >= len(layers)]:
        raise UsageError(f"layer {beyond[0]} reads memory, but this decoder has {len(layers)} layers")
    by_layer = {layers[reading.layer]: reading for reading in readings}
    session = Session(layers, by_layer, routing, is_adapted=adapter is not None and bool(readings), outer=outer)
    with entered(session):
        yield session


def _readings(
    memory: Memory | None, adapter: MemoryAdapter | None, record: AttentionRecord | None, routing: RouterState
) -> list[LayerReading]:
    if adapter is not None:
        return adapter.readings(memory, record, routing)
    if memory is None:
        return []
    return [
        LayerReading(i, LayerMemory(key, memory.values[i], memory.mask), record=record)
        for i, key in memory.keys.items()
    ]
