"""LoRA on a decoder's own projections, through PEFT: alone, or beside a memory adapter.

`W·x + alpha/rank · B·A·x` (Hu et al. 2021, section 4.1); B starts as zero, so a new LoRA is the base model. PEFT's
layers stand where the projections were, and hold them: `remove_lora` puts the same projections back.

LoRA that belongs to a memory adapter was trained with the memory attached and is off without one, so that "no memory =
base" holds. Whether it is on is asked of `active` at every call and kept nowhere: two threads may differ.
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
    """Puts LoRA on the `targets` (`q_proj` … `down_proj`) of every layer; returns its parameters, by name.

    They are trainable; whether the model's other parameters are stays as it was. active: asked by every layer at every
    call; when it says no the layer is the base's. Without it LoRA is always on. Raises UsageError for unknown targets.
    """
    if hf.lora_layers(model):
        raise UsageError("this decoder has LoRA already", hint="merge it or remove it first")
    there = hf.linear_names(model)
    unknown = [target for target in targets if target not in there]
    if unknown or not targets:
        named = ", ".join(unknown) or "none named"
        raise UsageError(f"lora_targets: {named}; the projections of this decoder are {', '.join(there)}")
    was_trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    hf.put_lora(model, targets, rank=rank, alpha=alpha, dropout=dropout)
    for parameter, trainable in was_trainable:  # PEFT freezes all but its own, a memory adapter too
        parameter.requires_grad_(trainable)
    for parameter in hf.lora_parameters(model).values():
        parameter.data = (
            parameter.data.float()
        )  # steps of training are too small for bfloat16; PEFT casts what comes in
    for layer in hf.lora_layers(model).values():
        layer.train(layer.base_layer.training)  # new modules are in training mode: dropout would be on
        if active is not None:
            layer.__class__ = _gated(layer.__class__)
            layer.active = active
    return hf.lora_parameters(model)


def remove_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Gives `model` back as it was before `add_lora`."""
    hf.take_lora(model)
    return model


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Folds LoRA into the weights it stands on, `W + alpha/rank · B·A`, and takes it out. It is then always on."""
    for layer in hf.lora_layers(model).values():
        layer.merge()
    return remove_lora(model)


class _Gated(nn.Module):
    """In front of a PEFT layer's class: the projection alone whenever `active` says no."""

    active: Callable[[], bool]
    base_layer: nn.Module

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(x, *args, **kwargs) if self.active() else self.base_layer(x)


@functools.cache
def _gated(kind: type[nn.Module]) -> type[nn.Module]:
    """PEFT chooses a layer's class by what it stands on (plain, quantised): each gets its own gated subclass."""
    return type(f"Gated{kind.__name__}", (_Gated, kind), {"__module__": __name__})
