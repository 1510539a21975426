"""Build the memory of a batch from the chunks of its samples. Latents of frozen encoders are cached in RAM."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awareness.model.assemble import joined, stacked
from awareness.model.latent_cache import LatentCache
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.quantisation import to_tensor
from awareness.train.data.fleet_sources import FleetLatents
from awareness.train.latent_disk import LatentDisk
from awareness.types import SINK, Memory, Sample


@dataclass(frozen=True)
class BatchMemory:
    """memory: one row for each sample. chunks: bool [B, M], tokens of chunks, not of the sink or padding. gold: bool
    [B, M], tokens of gold chunks."""

    memory: Memory
    chunks: Tensor
    gold: Tensor


_FILLER = "pass\n"
"""Encoded, and not read, where another process has more to encode."""


class MemoryMaker:
    """Samples -> BatchMemory, as `module` reads it; differentiable if its encoder is trained.

    passes: the number of forward passes that this process needs for a batch -> that every process makes. With FSDP each
    pass gathers weights from all processes, so a process with fewer passes would leave the others waiting forever.
    disk: where latents are kept for later trainings. fleet: what has those of its repositories.
    """

    def __init__(self, module: MemoryDecoder, base: Decoder, cache_bytes: int) -> None:
        self.module, self.base = module, base
        self.encoder = module.encoder(base)
        spec = self.encoder.spec  # a digest of what is learned, which FSDP spreads later
        self._layers, self._sink = spec.layers, to_tensor(self.encoder.sink, spec.raw)
        self.passes: Callable[[int], int] | None = None
        self.cache: LatentCache[Tensor] | None = None
        self.disk: LatentDisk | None = None
        self.fleet: FleetLatents | None = None
        if not module.learns_to_encode:
            self.cache = LatentCache(self._encode_alone, lambda latent: latent.nbytes, cache_bytes)

    def __call__(self, samples: Sequence[Sample]) -> BatchMemory:
        """A sample without texts reads the sink alone."""
        texts = [list(sample.texts) for sample in samples]
        sink = self._evened(texts, self._sink)
        if self.cache is None:
            parts = [self.encoder.keys_values(own) for own in texts]
        else:
            latents = iter(self.cache.get([text for own in texts for text in own]))
            parts = [list(itertools.islice(latents, len(own))) for own in texts]
        rows = [self._joined([sink, *own]) for own in parts]
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

    def _evened(self, texts: Sequence[Sequence[str]], sink: Tensor) -> Tensor:
        """Make the passes that only other processes need. Returns the sink, to which their gradient is tied: a pass
        without a backward pass would be one too few as well."""
        if self.passes is None:
            return sink
        if self.cache is None:
            own = sum(self.encoder.passes(one) for one in texts)
        else:
            own = len(self.cache.missing([text for one in texts for text in one]))
        for _ in range(self.passes(own) - own):
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.cache is None):
                (extra,) = self.encoder.keys_values([_FILLER])
            if extra.requires_grad:
                sink = sink + 0.0 * extra.sum().to(sink.device, sink.dtype)
        return sink

    def _encode_alone(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """[2, L, H_kv, T, D] of each text. In a batch its bits would depend on the other texts, and a run that was
        resumed would differ from one that was not."""
        for text in texts:
            latent = None if self.fleet is None else self.fleet.get(text)
            if latent is None and self.disk is not None:
                latent = self.disk.get(text)
            if latent is None:
                with torch.no_grad():
                    latent = self.encoder.keys_values([text])[0].detach().contiguous()
                if self.disk is not None:
                    self.disk.put(text, latent)
            yield latent

    def _joined(self, parts: Sequence[Tensor]) -> Memory:
        adapter = self.module.adapter
        assert adapter is not None
        names = [SINK, *map(str, range(len(parts) - 1))]
        return joined(self.module.decoder, self._layers, parts, names, sharpness=1.0, reads=adapter.sets)
