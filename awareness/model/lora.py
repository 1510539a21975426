"""LoRA on a decoder's own projections, through PEFT: alone, or beside a memory adapter.

`W·x + alpha/rank · B·A·x` (Hu et al. 2021, section 4.1); B starts as zero, so a new LoRA is the base model. PEFT's
layers replace the projections and hold them; `remove_lora` puts the same projections back.

LoRA of a memory adapter was trained with the memory attached. It is off without one, so that without memory the decoder
is the base model. `active` says whether it is on at every call; nothing is stored, so two threads may differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from awareness.errors import UsageError
from awareness.model import hf


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str],
    active: Callable[[], bool] | None = None,
) -> dict[str, nn.Parameter]:
    """Put LoRA on the `targets` (`q_proj` … `down_proj`) of every layer; return its parameters by name.

    They are trainable; the model's other parameters stay as they were. active: called by every layer at every call;
    with False the layer is the base's. Without it LoRA is always on. Raises UsageError for unknown targets.
    """
    if hf.lora_layers(model):
        raise UsageError("this decoder has LoRA already", hint="merge it or remove it first")
    known = hf.linear_names(model)
    unknown = [target for target in targets if target not in known]
    if unknown or not targets:
        named = ", ".join(unknown) or "none named"
        raise UsageError(f"lora_targets: {named}; the projections of this decoder are {', '.join(known)}")
    was_trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    hf.put_lora(model, targets, rank=rank, alpha=alpha, dropout=dropout)
    for parameter, trainable in was_trainable:  # PEFT freezes all but its own, a memory adapter too
        parameter.requires_grad_(trainable)
    for parameter in hf.lora_parameters(model).values():
        # Training steps are too small for bfloat16; PEFT casts its input.
        parameter.data = parameter.data.float()
    for layer in hf.lora_layers(model).values():
        layer.train(layer.base_layer.training)  # new modules are in training mode: dropout would be on
        if active is not None:
            layer.__class__ = _gated(layer.__class__)
            layer.active = active
    return hf.lora_parameters(model)


def remove_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Give `model` back as it was before `add_lora`."""
    hf.take_lora(model)
    return model


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Fold LoRA into the weights, `W + alpha/rank · B·A`, and remove it. It is then always on."""
    for layer in hf.lora_layers(model).values():
        layer.merge()
    return remove_lora(model)


class _Gated(nn.Module):
    """Mixed in before a PEFT layer's class: the projection alone when `active` returns False."""

    active: Callable[[], bool]
    base_layer: nn.Module

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(x, *args, **kwargs) if self.active() else self.base_layer(x)


@functools.cache
def _gated(kind: type[nn.Module]) -> type[nn.Module]:
    """A gated subclass of a PEFT layer's class; PEFT has several, for full and quantised projections."""
    return type(f"Gated{kind.__name__}", (_Gated, kind), {"__module__": __name__})
