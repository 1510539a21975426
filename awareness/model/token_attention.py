"""How much each token of an answer looked at each token of its sources, by layer and head: for people who look.

An answer is given without it, as it would cost every token. It is computed again in one pass over prompt and answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.fusion import attached
from awareness.model.load import Decoder
from awareness.model.prompts import characters
from awareness.types import SINK, Chunk, Memory

MOST_BYTES = 1 << 28
"""Of the weights of one answer. Of a longer answer the first tokens are shown."""


@dataclass(frozen=True)
class ChunkTokens:
    """The tokens of one chunk in the memory: `[start, start + len(pieces))`. place: of the chunk among the hits.
    pieces: the text of each, of a token of the header an empty one; together they are the chunk's text. Without pieces
    nobody knows which token stands where: the latent has other tokens than the text."""

    place: int
    start: int
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class TokenAttention:
    """weights: [L, H, T, M] float16, the attention of each head for each of T tokens of the answer, when it was chosen,
    to each of M tokens of the memory. layers: of the decoder, in the order of weights; retrieval: those that show what
    was read. tokens: the text of each token of the answer. total: how many tokens the answer has. sink: the tokens of
    the memory [0, sink) where heads park the attention that they do not use."""

    weights: Tensor
    layers: tuple[int, ...]
    retrieval: tuple[int, ...]
    tokens: tuple[str, ...]
    total: int
    sink: int
    chunks: tuple[ChunkTokens, ...]

    @property
    def heads(self) -> int:
        return self.weights.shape[1]

    @cached_property
    def by_layer(self) -> Tensor:
        """[L, M] float32: the mean over heads and tokens of the answer."""
        return self.weights.mean(dim=(1, 2), dtype=torch.float32)

    def heat(self, layer: int | None = None, head: int | None = None, token: int | None = None) -> Tensor:
        """[M] float32: the mean weight of each token of the memory. layer: of the decoder, None for the retrieval
        layers. head, token: None for all of them."""
        layers = self.retrieval if layer is None else (layer,)
        rows = [self.layers.index(own) for own in layers]
        if head is None and token is None:
            return self.by_layer[rows].mean(dim=0)
        heads = slice(None) if head is None else slice(head, head + 1)
        tokens = slice(None) if token is None else slice(token, token + 1)
        chosen = [self.weights[row, heads, tokens].mean(dim=(0, 1), dtype=torch.float32) for row in rows]
        return torch.stack(chosen).mean(dim=0)


@torch.inference_mode()
def token_attention(
    decoder: Decoder,
    prompt: Sequence[int],
    answer: Sequence[int],
    memory: Memory,
    chunks: Sequence[Chunk],
    adapter: MemoryAdapter | None = None,
) -> TokenAttention:
    """prompt, answer: token ids, as they were generated. memory: as the answer read it; each span is named by its place
    in `chunks`. One pass over both, which also computes what heads gave to every token of the memory."""
    heads = int(decoder.model.config.num_attention_heads)
    fitting = max(1, MOST_BYTES // (2 * len(memory.keys) * heads * max(1, memory.tokens)))
    shown = list(answer[:fitting])
    device = decoder.model.device
    ids = torch.tensor([[*prompt, *shown[:-1]]], device=device)  # the token at t chooses the one at t + 1
    mask = torch.ones(1, len(prompt), dtype=torch.bool, device=device)
    record = AttentionRecord(memory.keys, keep=True, every_token=True, last=len(shown), dtype=torch.float16)
    with attached(decoder.model, memory, adapter=adapter, record=record, prompt=mask):
        hf.last_logits(decoder.model, ids, 1)
    kept = record.memory_attention_weights
    around = (0, 0) if adapter is None else adapter.around
    spans = [span for span in memory.spans if span.name != SINK]
    return TokenAttention(
        weights=torch.stack([weights[0] for weights in kept.values()]).cpu(),
        layers=tuple(kept),
        retrieval=tuple(retrieval_layers(decoder.model, memory)),
        tokens=_texts(decoder, shown),
        total=len(answer),
        sink=min((span.start for span in spans), default=memory.tokens),
        chunks=tuple(
            _chunk_tokens(decoder, int(span.name), chunks[int(span.name)], span.start, span.stop, around)
            for span in spans
        ),
    )


def _texts(decoder: Decoder, ids: list[int]) -> tuple[str, ...]:
    """What each token adds to the text. A character of several tokens belongs to its last one."""
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        text = str(decoder.tokenizer.decode(ids[:end], skip_special_tokens=True))
        if text.endswith("\ufffd") and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        before = text
    return tuple(texts)


def _chunk_tokens(
    decoder: Decoder, place: int, chunk: Chunk, start: int, stop: int, around: tuple[int, int]
) -> ChunkTokens:
    text, spans = characters(decoder.tokenizer, chunk.encoded_text)
    if sum(around) + len(spans) != stop - start:
        return ChunkTokens(place, start, ())
    at, end = len(chunk.header) + 1, len(text) - 1  # the header's line, and the last line break, are not of the chunk
    pieces = []
    for _, last in spans:
        last = min(max(last, at), end)
        pieces.append(text[at:last])
        at = last
    return ChunkTokens(place, start + around[0], tuple(pieces))
