"""Read a memory for one question: look at it once with the question, then read again what matters for it.

One forward pass of the prompt over the memory gives every token of the memory the attention of the retrieval layers. So
only the chunks with most of it stay in the memory (chunk_choice.py), or the lines with most of it are computed again,
together (recompute.py), with the first line of their chunks, which names the file. Nothing is trained, and the memory
that was given is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.encoder import outputs_of
from awareness.model.fusion import attached
from awareness.model.load import Decoder
from awareness.model.projected import ProjectedEncoder
from awareness.model.prompts import encode, sink_ids
from awareness.model.reading.chunk_choice import best_chunks, chunk_scores, with_chunks
from awareness.model.reading.recompute import recomputed
from awareness.model.reading.token_lines import token_lines
from awareness.types import SINK, Chunk, Memory, QuestionReading, Span


def prepared(
    decoder: Decoder,
    memory: Memory,
    texts: Sequence[str],
    prompt: Sequence[int],
    reading: QuestionReading,
    *,
    adapter: MemoryAdapter | None = None,
) -> Memory:
    """The memory as `reading` prepares it for the prompt; the same object if there is nothing to do.

    texts: of the memory's chunks, in its order. prompt: token ids of the question. adapter: what the memory is read by.
    Raises UsageError for numbers out of range, and to recompute latents that the decoder did not make from these texts.
    """
    if reading.top_chunks is not None and reading.top_chunks < 1:
        raise UsageError(f"top_chunks {reading.top_chunks} is not a number of chunks", hint="at least 1")
    if not 0.0 <= reading.recompute <= 1.0:
        raise UsageError(
            f"recompute {reading.recompute:g} is not a share of the memory", hint="a number from 0 to 1, such as 0.15"
        )
    if reading.top_chunks is not None and reading.top_chunks < len(texts):
        of_chunks = chunk_scores(memory, attention_to(decoder, memory, prompt, adapter))
        places = best_chunks(of_chunks, reading.top_chunks)
        memory = with_chunks(decoder.model, memory, places)
        texts = [texts[place] for place in places]
    if reading.recompute == 0.0 or not texts:
        return memory
    tokens = MemoryTokens.of(decoder.tokenizer, memory, texts, adapter)
    scores = attention_to(decoder, memory, prompt, adapter)
    lines = best_lines(scores, tokens, round(reading.recompute * memory.tokens))
    reads = None if adapter is None else adapter.sets
    return recomputed(decoder.model, memory, tokens.ids, lines, reads=reads)


def prepared_chunks(
    decoder: Decoder,
    memory: Memory,
    chunks: Sequence[Chunk],
    prompt: Sequence[int],
    reading: QuestionReading,
    *,
    adapter: MemoryAdapter | None = None,
) -> Memory:
    """As `prepared`, for a memory whose spans are named by the place of their chunk in `chunks`."""
    texts = [chunks[int(span.name)].encoded_text for span in memory.spans if span.name != SINK]
    return prepared(decoder, memory, texts, prompt, reading, adapter=adapter)


@dataclass(frozen=True)
class MemoryTokens:
    """ids: the token of each place of a memory; 0 where a learned vector stands. lines: the places of each line of each
    chunk, in order."""

    ids: tuple[int, ...]
    lines: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        memory: Memory,
        texts: Sequence[str],
        adapter: MemoryAdapter | None = None,
    ) -> MemoryTokens:
        """Raises UsageError if the memory is not of these texts."""
        if adapter is not None and isinstance(adapter.encoder, ProjectedEncoder):
            raise UsageError(
                "a projected encoder made these latents, and the decoder cannot compute them again",
                hint="leave --recompute out",
            )
        before, after = (0, 0) if adapter is None else adapter.around
        spans = [span for span in memory.spans if span.name != SINK]
        ids = [0] * memory.tokens
        for span in memory.spans:
            if span.name == SINK and span.stop > span.start:
                ids[span.start : span.stop] = _checked(sink_ids(tokenizer), span)
        lines = []
        for span, text in zip(spans, texts, strict=True):
            own = _checked(encode(tokenizer, text), span, before + after)
            start = span.start + before
            ids[start : start + len(own)] = own
            by_line: dict[int, list[int]] = {}
            for place, line in enumerate(token_lines(tokenizer, text), start):
                by_line.setdefault(line, []).append(place)
            lines.append(tuple(tuple(places) for places in by_line.values()))
        return cls(tuple(ids), tuple(lines))


def _checked(ids: list[int], span: Span, around: int = 0) -> list[int]:
    if len(ids) + around != span.stop - span.start:
        raise UsageError(
            f"chunk {span.name} of the memory has {span.stop - span.start} tokens, its text has {len(ids) + around}",
            hint="leave --recompute out",
        )
    return ids


@torch.inference_mode()
def attention_to(
    decoder: Decoder, memory: Memory, prompt: Sequence[int], adapter: MemoryAdapter | None = None
) -> Tensor:
    """[M] float32: the squared attention of the prompt's tokens in the retrieval layers, summed over tokens, heads and
    layers. Squared, because most heads spread their attention over all chunks, and few look at the right one. The pass
    ends after the last of these layers."""
    layers = retrieval_layers(decoder.model, memory)
    record = AttentionRecord(layers, every_token=True, power=2)
    ids = torch.tensor([list(prompt)], device=decoder.model.device)
    next_layer = hf.decoder_layers(decoder.model)[max(layers) + 1 :][:1]
    with (
        attached(decoder.model, memory, adapter=adapter, record=record, prompt=torch.ones_like(ids).bool()),
        outputs_of([hf.attention_norm(layer) for layer in next_layer]),
    ):
        hf.body(decoder.model)(ids, use_cache=False)
    return torch.stack([total.sum(dim=(0, 1)) for total in record.sums.values()]).sum(dim=0)


def best_lines(scores: Tensor, tokens: MemoryTokens, budget: int) -> list[int]:
    """Ascending places of whole lines, at most `budget` of them: the lines whose best token has the highest score, each
    with the first line of its chunk."""
    own = scores.tolist()
    ranked = sorted(
        ((max(own[place] for place in line), chunk, number) for chunk, lines in enumerate(tokens.lines)
         for number, line in enumerate(lines)),
        reverse=True,
    )  # fmt: skip
    chosen: set[int] = set()
    for _, chunk, number in ranked:
        added = {*tokens.lines[chunk][number], *tokens.lines[chunk][0]} - chosen
        if len(chosen) + len(added) <= budget:
            chosen |= added
    return sorted(chosen)
