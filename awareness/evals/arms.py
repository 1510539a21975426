"""The ways to ask, side by side: each arm gets the same samples.

`none` (nothing but the question), `text` (the chunks in the prompt) and `joint` (the chunks as memory, read untrained)
share one decoder; a checkpoint brings its own and is called by how it was trained (`Checkpoint.arm`). `bm25` has no
decoder: words alone say which chunk it is. What is asked and how answers are scored is left to the evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import apsw
import torch
from torch.nn.functional import cross_entropy

from awareness.errors import UsageError
from awareness.index.search import postings
from awareness.index.search.postings import Postings
from awareness.index.search.routing_index import terms_of
from awareness.index.search.terms import weighted_terms
from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.checkpoint import Checkpoint, load_for_use
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import Generation, generate
from awareness.model.load import Decoder, load
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.model_files import ModelFolder
from awareness.model.presets import settings_of
from awareness.model.prompts import answer_ids, sample_ids
from awareness.types import Chunk, KVEncoder, Latent, Memory, Sample

Reads = Literal["memory", "text", "none"]
BASE_ARMS: dict[str, Reads] = {"none": "none", "text": "text", "joint": "memory"}
"""Those of the decoder as it is, and how each gets the chunks."""
LATENT_CACHE = 1 << 30  # bytes of latents that an encoder's arms keep


class CachedEncoder:
    """A `KVEncoder` that keeps what it encoded, up to `limit` bytes, the least recently used out: the cells of a grid
    draw their chunks from the same pool."""

    def __init__(self, encoder: KVEncoder, limit: int = LATENT_CACHE) -> None:
        self.encoder, self.limit = encoder, limit
        self._kept: dict[str, Latent] = {}
        self._bytes = 0

    def latents(self, texts: Sequence[str]) -> list[Latent]:
        """One a text, in order."""
        found = {text: self._kept.pop(text) for text in dict.fromkeys(texts) if text in self._kept}
        missing = sorted({text for text in texts if text not in found}, key=lambda text: (len(text), text))
        new = dict(zip(missing, self.encoder.encode(missing), strict=True))
        self._bytes += sum(len(latent.data) for latent in new.values())
        self._kept |= found | new
        while self._bytes > self.limit and self._kept:
            self._bytes -= len(self._kept.pop(next(iter(self._kept))).data)
        return [found[text] if text in found else new[text] for text in texts]


@dataclass(frozen=True)
class Arm:
    """One way to ask a decoder. reads: how the chunks of a sample reach it. encoder: with `memory` alone. module: of a
    checkpoint, None for the decoder as it is."""

    name: str
    reads: Reads
    decoder: Decoder
    encoder: KVEncoder | None = None
    module: MemoryDecoder | None = None

    def __post_init__(self) -> None:
        if (self.reads == "memory") != (self.encoder is not None):
            raise ValueError(f"arm {self.name} reads {self.reads}, {'with' if self.encoder else 'without'} an encoder")

    @property
    def adapter(self) -> MemoryAdapter | None:
        return None if self.module is None else self.module.adapter

    @cached_property
    def _cache(self) -> CachedEncoder | None:
        return None if self.encoder is None else CachedEncoder(self.encoder)

    @cached_property
    def retrieval_layers(self) -> list[int]:
        """Whose attention says which chunk was read, for an `AttentionRecord`; none of an arm without memory."""
        sink_alone = self._assembled([])
        return [] if sink_alone is None else retrieval_layers(self.decoder.model, sink_alone)

    def memory(self, texts: Sequence[str]) -> Memory | None:
        """The texts as `ask` attaches them, each span called by its place; None for an arm that reads none."""
        return self._assembled(self._cache.latents(texts)) if self._cache is not None and texts else None

    def _assembled(self, latents: Sequence[Latent]) -> Memory | None:
        if self.encoder is None:
            return None
        reads = None if self.adapter is None else self.adapter.sets
        # what was trained to read has learned its own sharpness
        sharpness = settings_of(self.decoder.folder.name).sharpness if reads is None else 1.0
        spec, sink = self.encoder.spec, self.encoder.sink
        return assemble(self.decoder.model, spec, sink, latents, sharpness=sharpness, reads=reads)

    def prompt(self, sample: Sample) -> list[int]:
        """Token ids. The sink is the system turn, for self-attention that reads it; a block of its own leaves the
        prompt as it is."""
        joint = self.module is None or self.module.config.memory_form == "joint"
        sink_is_read = self.reads == "memory" and joint and bool(sample.texts)
        chunks = sample.texts if self.reads == "text" else ()
        return sample_ids(self.decoder.tokenizer, sample, chunks=chunks, with_system=not sink_is_read)

    def fits(self, sample: Sample) -> bool:
        """Are prompt and answer within the positions that the decoder was trained on? Memory takes none of them."""
        needed = len(self.prompt(sample)) + len(answer_ids(self.decoder.tokenizer, sample))
        return needed <= self.decoder.model.config.max_position_embeddings

    def say(
        self,
        sample: Sample,
        *,
        max_new_tokens: int,
        record: AttentionRecord | None = None,
        repetition_penalty: float = 1.0,
    ) -> Generation:
        """The likeliest continuation of the prompt. record, repetition_penalty: as of `generate`."""
        return generate(
            self.decoder,
            self.prompt(sample),
            self.memory(sample.texts),
            max_new_tokens=max_new_tokens,
            record=record,
            repetition_penalty=repetition_penalty,
            adapter=self.adapter,
        )

    @torch.inference_mode()
    def nll(self, sample: Sample, *, texts: Sequence[str] | None = None) -> tuple[float, int]:
        """−Σ log p of the answer's tokens, each given all before it, in nats, and how many they are.

        texts: other chunks than the sample's own, as a control.
        """
        if texts is not None:
            sample = replace(sample, texts=tuple(texts))
        prompt, answer = self.prompt(sample), answer_ids(self.decoder.tokenizer, sample)
        if not answer:
            return 0.0, 0
        device = self.decoder.model.device
        ids = torch.tensor([prompt + answer], device=device)
        mask = torch.ones(1, len(prompt), dtype=torch.bool, device=device)
        with attached(self.decoder.model, self.memory(sample.texts), adapter=self.adapter, prompt=mask):
            logits = hf.last_logits(self.decoder.model, ids, len(answer) + 1)
        logits = logits[0, :-1].float()  # [A, V]: those of t tell of the token at t + 1
        return float(cross_entropy(logits, ids[0, -len(answer) :], reduction="sum")), len(answer)


@dataclass(frozen=True)
class Bm25:
    """The words of the question against those of the chunks, as the routing index weighs them."""

    name: str = "bm25"

    def rank(self, sample: Sample) -> list[int]:
        """Places in `sample.texts`, best first; those without any of the words last, in order."""
        connection = apsw.Connection(":memory:")
        connection.execute(postings.SCHEMA)
        index = Postings(connection)
        for place, text in enumerate(sample.texts):
            index.add(place, *terms_of(_chunk_of(text)))
        index.flush()
        best = [place for place, _ in index.rank(weighted_terms(sample.question)).best(len(sample.texts))]
        connection.close()
        return best + [place for place in range(len(sample.texts)) if place not in set(best)]


def _chunk_of(text: str) -> Chunk:
    """`Chunk.encoded_text` read back."""
    header, _, body = text.partition("\n")
    path, _, symbol = header.removeprefix("# file: ").partition(" · ")
    return Chunk(path, 1, 1, symbol, body)


def open_arms(
    names: Sequence[str],
    checkpoints: Sequence[Path] = (),
    *,
    model: ModelFolder,
    pull: Callable[[str], ModelFolder],
    quant: str = "none",
) -> list[Arm]:
    """The arms of `names` in their order, and one of each checkpoint, behind them unless it is named.

    model: of `BASE_ARMS`, loaded once for all of them. pull: name -> folder of a checkpoint's base. quant: how latents
    are stored. Raises UsageError for a name that is neither.
    """
    trained = _called_apart(checkpoints)
    if unknown := [name for name in names if name not in BASE_ARMS and name not in trained]:
        raise UsageError(
            f"unknown arm {', '.join(unknown)}; there are {', '.join((*BASE_ARMS, *trained))}",
            hint="--checkpoint FOLDER brings the arm that was trained there",
        )
    found: dict[str, Arm] = {}
    if base := [name for name in names if name in BASE_ARMS]:
        decoder = load(model)
        for name in base:
            encoder = None
            if BASE_ARMS[name] == "memory":
                own = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=model.fingerprint, quant=quant)
                encoder = own.for_many()  # as `index` makes them
            found[name] = Arm(name, BASE_ARMS[name], decoder, encoder)
    for name, checkpoint in trained.items():
        found[name] = _trained_arm(name, checkpoint, pull, quant)
    return [found[name] for name in dict.fromkeys((*names, *trained))]


def _called_apart(checkpoints: Sequence[Path]) -> dict[str, Path]:
    """Arm -> checkpoint; of several that were trained alike, or as an arm of the base, the folder is named too."""
    names = [Checkpoint.read(checkpoint).arm for checkpoint in checkpoints]
    found: dict[str, Path] = {}
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if names.count(name) > 1 or name in BASE_ARMS:
            name = f"{name} ({checkpoint.name})"
        if name in found:
            raise UsageError(f"{found[name]} and {checkpoint} would both be the arm {name}", hint="rename a folder")
        found[name] = checkpoint
    return found


def _trained_arm(name: str, checkpoint: Path, pull: Callable[[str], ModelFolder], quant: str) -> Arm:
    read = Checkpoint.read(checkpoint)
    module, decoder = load_for_use(checkpoint, pull=pull)
    reads: Reads = "none" if read.reads == "memory" and module.adapter is None else read.reads
    return Arm(name, reads, decoder, module.encoder(decoder, quant) if reads == "memory" else None, module)
