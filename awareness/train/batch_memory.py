"""Chunks of samples -> the memory that a batch reads, with latents of frozen encoders kept in RAM."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awareness.model.assemble import joined, stacked
from awareness.model.encoder import SelfEncoder
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.projected import ProjectedEncoder
from awareness.model.quantisation import to_tensor
from awareness.types import SINK, Memory, Sample


@dataclass(frozen=True)
class BatchMemory:
    """memory: of a row for each sample. chunks, gold: bool [B, M], which of its tokens are of chunks (and not of the
    sink or padding), and which of gold ones."""

    memory: Memory
    chunks: Tensor
    gold: Tensor


class LatentCache:
    """Keys and values of texts, [2, L, H_kv, T, D] each, those used least recently forgotten beyond `limit` bytes.

    Every text is encoded alone: in a batch its bits would depend on its neighbours, and a run that was resumed would
    not be the run that was not.
    """

    def __init__(self, encoder: SelfEncoder | ProjectedEncoder, limit: int) -> None:
        self.encoder, self.limit, self.size = encoder, limit, 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __getitem__(self, text: str) -> Tensor:
        if text in self._kept:
            self._kept.move_to_end(text)
            return self._kept[text]
        with torch.no_grad():
            (latent,) = self.encoder.keys_values([text])
        self._kept[text] = latent = latent.detach().contiguous()
        self.size += latent.nbytes
        while self.size > self.limit and len(self._kept) > 1:
            self.size -= self._kept.popitem(last=False)[1].nbytes
        return latent


class MemoryMaker:
    """Samples -> BatchMemory, as `module` reads it; differentiable where its encoder learns."""

    def __init__(self, module: MemoryDecoder, base: Decoder, cache_bytes: int) -> None:
        self.module, self.base = module, base
        self.encoder = module.encoder(base)
        self.cache = None if module.learns_to_encode else LatentCache(self.encoder, cache_bytes)

    def __call__(self, samples: Sequence[Sample]) -> BatchMemory:
        """Raises nothing; a sample without texts reads the sink alone."""
        sink = to_tensor(self.encoder.sink, self.encoder.spec.raw)
        rows = []
        for sample in samples:
            texts = list(sample.texts)
            parts = self.encoder.keys_values(texts) if self.cache is None else [self.cache[text] for text in texts]
            rows.append(self._joined([sink, *parts]))
        memory = stacked(rows)
        chunks = torch.zeros(len(rows), memory.tokens, dtype=torch.bool, device=self.module.decoder.device)
        gold = chunks.clone()
        for i, (row, sample) in enumerate(zip(rows, samples, strict=True)):
            padding = memory.tokens - row.tokens
            for span in row.spans:
                if span.name != SINK:
                    chunks[i, padding + span.start : padding + span.stop] = True
                    gold[i, padding + span.start : padding + span.stop] = int(span.name) in sample.gold
        return BatchMemory(memory, chunks, gold)

    def _joined(self, parts: Sequence[Tensor]) -> Memory:
        adapter = self.module.adapter
        assert adapter is not None
        names = [SINK, *map(str, range(len(parts) - 1))]
        layers = self.encoder.spec.layers
        return joined(self.module.decoder, layers, parts, names, sharpness=1.0, reads=adapter.sets)
