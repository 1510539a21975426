"""Compute some tokens of a memory again, together: then they know what stands before them in other chunks.

Chunks are encoded apart, so no token of a memory has seen another chunk. CacheBlend (Yao et al. 2024, section 4) runs a
share of the tokens through the decoder again and leaves the others as they are. Here the caller says which.

The tokens run as one pass at their positions in the memory, together with the sink. In a layer that the memory has,
each sees the tokens of the memory before it: those of the pass as they are now, the others as they are stored. Below
these layers nothing of the memory is stored: there it sees the tokens of the pass alone. With all tokens and all layers
this is the text in the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.fusion import attached
from awareness.model.weights import exact_weights
from awareness.types import SINK, Memory


@torch.inference_mode()
def recomputed(
    model: PreTrainedModel,
    memory: Memory,
    ids: Sequence[int],
    places: Sequence[int],
    *,
    reads: Mapping[int, int] | None = None,
) -> Memory:
    """`memory` (of one row) with new keys and values at `places`; the others are the same numbers.

    ids: the token of each of the M places. places: ascending; those of the sink are computed as well, but stay. reads:
    as in `assemble`. The decoder runs with its published weights and without an adapter, as the encoder does. Raises
    UsageError if `ids` are not the memory's.
    """
    if len(ids) != memory.tokens:
        raise UsageError(f"{len(ids)} tokens for a memory of {memory.tokens}")
    sink = [place for span in memory.spans if span.name == SINK for place in range(span.start, span.stop)]
    reads = {layer: layer for layer in memory.keys} if reads is None else reads
    chosen = sorted(set(places) - set(sink))
    if not chosen:
        return memory
    device = model.device
    run = torch.tensor([*sink, *chosen], device=device)
    tokens = torch.tensor(ids, device=device)[run][None]
    with ExitStack() as stack:
        stack.enter_context(exact_weights())
        stack.enter_context(attached(model, _seen(memory, run, reads)))
        fresh = hf.rotated_keys_values(model, tokens, run - memory.tokens)
    at = run[len(sink) :]

    def put(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(2, at, new[:, :, len(sink) :].to(old.dtype))

    return replace(
        memory,
        keys={layer: put(key, fresh[reads[layer]][0] * memory.sharpness) for layer, key in memory.keys.items()},
        values={layer: put(value, fresh[reads[layer]][1]) for layer, value in memory.values.items()},
        recomputed=len(chosen),
    )


def _seen(memory: Memory, run: Tensor, reads: Mapping[int, int]) -> Memory | None:
    """What the tokens at the places `run` [T] see of the tokens that are not computed again: those before them. Each
    layer sees its own latents, if there are any; the encoder's keys are not sharpened."""
    others = torch.ones(memory.tokens, dtype=torch.bool, device=run.device)
    others[run] = False
    left = others.nonzero()[:, 0]
    if len(left) == 0:
        return None

    own = {source: layer for layer, source in reads.items()}  # a layer that reads the latents of `source`
    keys = {source: memory.keys[layer][:, :, left] for source, layer in own.items()}
    if memory.sharpness != 1.0:
        keys = {source: key / memory.sharpness for source, key in keys.items()}
    values = {source: memory.values[layer][:, :, left] for source, layer in own.items()}
    return Memory(keys, values, mask=(left[None, :] < run[:, None])[None])
