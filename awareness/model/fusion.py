"""Putting memory into a Hugging Face decoder, and taking it out again.

`fuse` points the decoder's attention at ours (attention.py), `unfuse` points it back; weights and module names are
never touched. `attached` is the only way in which a memory reaches a fused decoder, and it always clears.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from awareness.errors import UsageError
from awareness.model.attention import IMPLEMENTATION, AttentionTally, LayerMemory, reading
from awareness.model.quant import to_tensor
from awareness.types import SINK, Latent, Memory, MemorySpec, Span

SHARPNESS = 1.2
"""Of the scores of several chunks; chosen on needles in flask and httpx (docs/field-notes.md)."""
RETRIEVAL_DEPTH = (0.4, 0.8)
"""Share of the depth where retrieval heads sit (Wu et al. 2024): whose attention tells what was read."""
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def fuse(model: PreTrainedModel) -> PreTrainedModel:
    """Makes `model` able to read memory; without one it is exactly what it was with SDPA. Raises UsageError."""
    name = type(model).__name__
    if name not in ARCHITECTURES:
        raise UsageError(f"{name} is not one of the architectures that can read memory: {', '.join(ARCHITECTURES)}")
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def unfuse(model: PreTrainedModel) -> PreTrainedModel:
    """Gives `model` back with the stock SDPA attention."""
    model.set_attn_implementation("sdpa")
    return model


def attention_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The self-attention module of each decoder layer, in order."""
    return [layer.self_attn for layer in model.model.layers]


@contextmanager
def attached(model: PreTrainedModel, memory: Memory | None, *, tally: AttentionTally | None = None) -> Iterator[None]:
    """Inside the block `model` (fused) reads `memory`, in this thread only. With None or no tokens: the base model.

    tally: collects the memory attention of the layers of `RETRIEVAL_DEPTH`.
    """
    if memory is None or memory.tokens == 0:
        yield
        return
    if model.config._attn_implementation != IMPLEMENTATION:
        raise UsageError("this decoder cannot read memory yet", hint="call awareness.model.fusion.fuse(model) first")
    modules = attention_modules(model)
    first, stop = (round(len(modules) * share) for share in RETRIEVAL_DEPTH)
    layers = {
        modules[i]: LayerMemory(key, memory.values[i], memory.mask, tally if first <= i < stop else None)
        for i, key in memory.keys.items()
    }
    with reading(layers):
        yield


def assemble(
    model: PreTrainedModel,
    spec: MemorySpec,
    sink: Latent,
    chunks: Sequence[Latent],
    names: Sequence[str] | None = None,
    *,
    specs: Sequence[MemorySpec] | None = None,
    sharpness: float | None = None,
) -> Memory:
    """The sink and the chunks' latents, in reading order -> a Memory whose keys stand at the positions -M … -1.

    They lie one behind the other, as if they were text before the prompt, so the prompt keeps its positions from 0.
    sink: by `spec.raw`. chunks: by `spec`, or each by the spec of its own that `specs` gives, of the same geometry.
    names: what each chunk's span is called, by default its number.
    sharpness: what the scores of the chunks' keys are multiplied by. Chunks that were encoded apart never competed, so
    untrained attention spreads over too many of them; a lower temperature corrects it (APE, Yang et al. 2025, section
    4.2). The sink is left as it is: sharpened too, it takes what the chunks should get. By default `SHARPNESS`, and 1
    for a single chunk, which is then exactly the text in the prompt.
    """
    names = [str(i) for i in range(len(chunks))] if names is None else names
    if sharpness is None:
        sharpness = SHARPNESS if len(chunks) > 1 else 1.0
    total = sink.tokens + sum(latent.tokens for latent in chunks)
    like = next(model.parameters())
    keys, values = torch.empty((2, len(spec.layers), spec.num_kv_heads, total, spec.head_dim), dtype=like.dtype)
    spans: list[Span] = []
    start = 0
    stored_by = (spec.raw, *(specs or [spec] * len(chunks)))
    for name, latent, own in zip((SINK, *names), (sink, *chunks), stored_by, strict=True):
        stop = start + latent.tokens
        key, value = to_tensor(latent, own)
        keys[:, :, start:stop], values[:, :, start:stop] = key, value
        spans.append(Span(name, start, stop))
        start = stop
    keys, values = keys.to(like.device), values.to(like.device)
    keys = rotate(model, keys, torch.arange(-total, 0, device=like.device))
    keys[:, :, sink.tokens :] *= sharpness
    return Memory(
        keys={layer: keys[i][None] for i, layer in enumerate(spec.layers)},
        values={layer: values[i][None] for i, layer in enumerate(spec.layers)},
        spans=tuple(spans),
    )


def rotate(model: PreTrainedModel, keys: Tensor, positions: Tensor) -> Tensor:
    """RoPE (Su et al. 2021) of keys [..., M, D] at positions [M], by the decoder's own frequencies and rounding."""
    cos, sin = model.model.rotary_emb(keys, positions[None])  # [1, M, D]
    return keys * cos[0] + rotate_half(keys) * sin[0]
