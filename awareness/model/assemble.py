"""Latents -> the one `Memory` that is attended to: one after the other, at the positions before the prompt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from awareness.model import hf
from awareness.model.quantisation import to_tensor
from awareness.types import SINK, Latent, Memory, MemorySpec, Span


def assemble(
    model: PreTrainedModel,
    spec: MemorySpec,
    sink: Latent,
    chunks: Sequence[Latent],
    names: Sequence[str] | None = None,
    *,
    specs: Sequence[MemorySpec] | None = None,
    sharpness: float = 1.0,
    reads: Mapping[int, int] | None = None,
) -> Memory:
    """The sink and the chunks' latents, in reading order -> a Memory whose keys stand at the positions -M … -1.

    They follow each other as if they were text before the prompt, so the prompt keeps its positions from 0.
    sink: stored by `spec.raw`. chunks: stored by `spec`, or each by its own of `specs`, of the same geometry.
    names: of the chunks' spans, by default their numbers.
    sharpness: factor on the scores of the keys if there are several chunks (presets.py). A single chunk is always
    exactly the text in the prompt. The sink is not sharpened: it would take what the chunks should get.
    reads: decoder layer -> the layer whose stored latents it reads, by default its own for each of `spec.layers`.
    """
    names = [str(i) for i in range(len(chunks))] if names is None else names
    stored_by = (spec.raw, *(specs or [spec] * len(chunks)))
    parts = [to_tensor(latent, own) for latent, own in zip((sink, *chunks), stored_by, strict=True)]
    return joined(model, spec.layers, parts, (SINK, *names), sharpness=sharpness, reads=reads)


def joined(
    model: PreTrainedModel,
    layers: Sequence[int],
    parts: Sequence[Tensor],
    names: Sequence[str],
    *,
    sharpness: float = 1.0,
    reads: Mapping[int, int] | None = None,
) -> Memory:
    """`assemble` from tensors, differentiable. parts: each [2, len(layers), H_kv, tokens, D], keys before RoPE; parts
    named `SINK` are not sharpened."""
    like = next(model.parameters())
    reads = {layer: layer for layer in layers} if reads is None else reads
    used = [i for i, layer in enumerate(layers) if layer in set(reads.values())]
    # If all layers are used, no copy is made.
    chosen = [part if len(used) == part.shape[1] else part[:, used] for part in parts]
    keys, values = torch.cat([part.to(like.device, like.dtype) for part in chosen], dim=3)
    if sum(name != SINK for name in names) < 2:
        sharpness = 1.0
    total = keys.shape[2]
    ends = list(itertools.accumulate(part.shape[3] for part in parts))
    spans = tuple(Span(name, end - part.shape[3], end) for name, part, end in zip(names, parts, ends, strict=True))
    keys = rotate(model, keys, torch.arange(-total, 0, device=like.device))
    if sharpness != 1.0:
        factors = torch.cat([keys.new_full((s.stop - s.start,), 1.0 if s.name == SINK else sharpness) for s in spans])
        keys = keys * factors[:, None]
    place = {layers[i]: at for at, i in enumerate(used)}
    return Memory(
        keys={layer: keys[place[source]][None] for layer, source in reads.items()},
        values={layer: values[place[source]][None] for layer, source in reads.items()},
        spans=spans,
        sharpness=sharpness,
    )


def stacked(memories: Sequence[Memory]) -> Memory:
    """Memories of one row each -> one with a row for each: [B, H_kv, M, D], padded in front, with a mask, without
    spans."""
    longest = max(memory.tokens for memory in memories)
    starts = [longest - memory.tokens for memory in memories]

    def rows(sides: Sequence[Mapping[int, Tensor]]) -> dict[int, Tensor]:
        return {
            layer: torch.cat([pad(side[layer], (0, 0, start, 0)) for side, start in zip(sides, starts, strict=True)])
            for layer in sides[0]
        }

    keys, values = rows([memory.keys for memory in memories]), rows([memory.values for memory in memories])
    device = next(iter(keys.values())).device
    mask = torch.arange(longest, device=device) >= torch.tensor(starts, device=device)[:, None]
    return Memory(keys, values, mask=mask)


def rotate(model: PreTrainedModel, keys: Tensor, positions: Tensor) -> Tensor:
    """RoPE (Su et al. 2021) of keys [..., M, D] at positions [M], with the decoder's own frequencies and rounding."""
    cos, sin = hf.rotary(model)(keys, positions[None])  # [1, M, D]
    return hf.rotated(keys, cos[0], sin[0])
