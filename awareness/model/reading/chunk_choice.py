"""Leave only some chunks in a memory: those that a question looks at.

A memory of many chunks spreads attention thin, because chunks that were encoded apart never competed for it. What the
retrieval layers look at tells which chunks matter long before the answer comes out right, so reading again with these
alone is routing by the decoder itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from awareness.model import hf
from awareness.types import SINK, Memory, Span


def chunk_scores(memory: Memory, weights: Tensor) -> list[float]:
    """The attention that each chunk gets, in the memory's order. weights: [M], of its tokens."""
    return [float(weights[span.start : span.stop].sum()) for span in memory.spans if span.name != SINK]


def best_chunks(scores: Sequence[float], count: int) -> list[int]:
    """Places of the `count` best chunks, ascending. The memory's order is left as it is: to move the best chunk next to
    the question answered no better."""
    return sorted(sorted(range(len(scores)), key=lambda place: scores[place])[-count:])


def with_chunks(model: PreTrainedModel, memory: Memory, places: Sequence[int]) -> Memory:
    """The sink and the chunks at `places` (in the memory's order, from 0), one after the other as in `assemble`.

    Keys are rotated from where they stood to where they stand now: RoPE of position p, then of q - p, is RoPE of q (Su
    et al. 2021, section 3.4.2).
    """
    chunks = [span for span in memory.spans if span.name != SINK]
    spans = [span for span in memory.spans if span.name == SINK] + [chunks[place] for place in places]
    device = next(iter(memory.keys.values())).device
    old = torch.cat([torch.arange(span.start, span.stop, device=device) for span in spans])
    moved, start = [], 0
    for span in spans:
        moved.append(Span(span.name, start, start + span.stop - span.start))
        start = moved[-1].stop
    shift = torch.arange(-start, 0, device=device) - (old - memory.tokens)

    def at_new_places(key: Tensor) -> Tensor:
        own = key[:, :, old].float()
        cos, sin = hf.rotary(model)(own, shift[None])
        length = (cos.square() + sin.square()).sqrt()  # some kinds of RoPE scale keys, which happened already
        return hf.rotated(own, cos / length, sin / length).to(key.dtype)

    return replace(
        memory,
        keys={layer: at_new_places(key) for layer, key in memory.keys.items()},
        values={layer: value[:, :, old] for layer, value in memory.values.items()},
        spans=tuple(moved),
    )
