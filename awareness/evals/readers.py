"""Readers: the ways to give a model the chunks. Every measure gives the same samples to several of them.

`none` (the question alone), `text` (the chunks in the prompt) and `joint` (the chunks as memory, untrained) share one
decoder. A checkpoint brings its own decoder and is named by how it was trained (`Checkpoint.arm`). `bm25` has no
decoder: it ranks the chunks by the words of the question. The command line and the JSON call a reader an arm (arms.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from awareness.engine.models import LoadedModel, load_model, load_trained, pull_model
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import UsageError
from awareness.evals.arms import Arm, parse_arms
from awareness.evals.latent_folder import LatentFolder
from awareness.index.search.routing_index import rank_by_words
from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.answering import Answer, answer
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.checkpoint import Checkpoint
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import Generation, generate
from awareness.model.latent_cache import LatentCache
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.model_files import ModelFolder
from awareness.model.presets import ReadingSettings, settings_of
from awareness.model.prompts import answer_ids, sample_ids
from awareness.model.reading.question_reading import prepared
from awareness.types import AS_IT_IS, Chunk, KVEncoder, Latent, Memory, MemorySpec, QuestionReading, Sample

Reads = Literal["memory", "text", "none"]
UNTRAINED: dict[str, Reads] = {"none": "none", "text": "text", "joint": "memory"}
"""Readers of the decoder without training, and how each gets the chunks."""
CACHE_BYTES = 1 << 30  # of latents that readers keep, those with the same latents together


@dataclass(frozen=True)
class Reader:
    """reads: how the chunks of a sample reach the decoder. encoder: only with `memory`. module: what a checkpoint
    trained, None for the decoder without training. kept: latents, shared by readers with the same; by default its
    own. question_reading: how a memory is prepared for a question. sharpness: in place of the decoder's."""

    name: str
    reads: Reads
    decoder: Decoder
    encoder: KVEncoder | None = None
    module: MemoryDecoder | None = None
    kept: LatentCache[Latent] | None = None
    question_reading: QuestionReading = AS_IT_IS
    sharpness: float | None = None

    def __post_init__(self) -> None:
        if (self.reads == "memory") != (self.encoder is not None):
            given = "with" if self.encoder else "without"
            raise ValueError(f"reader {self.name} reads {self.reads}, {given} an encoder")

    @property
    def adapter(self) -> MemoryAdapter | None:
        return None if self.module is None else self.module.adapter

    @property
    def settings(self) -> ReadingSettings:
        """As `ask` reads with this decoder and adapter, but for what the arm sets."""
        settings = settings_of(self.decoder.folder.name, None if self.module is None else self.module.config)
        return settings if self.sharpness is None else replace(settings, sharpness=self.sharpness)

    @cached_property
    def _latents(self) -> LatentCache[Latent]:
        """Measures draw the chunks of their samples from one pool, so many texts come again."""
        assert self.encoder is not None
        return self.kept or cache_of(self.encoder)

    @cached_property
    def retrieval_layers(self) -> list[int]:
        """Layers whose attention tells which chunk was read; empty without memory."""
        sink = self._assemble([])
        return [] if sink is None else retrieval_layers(self.decoder.model, sink)

    def memory(self, texts: Sequence[str]) -> Memory | None:
        """The texts as `ask` attaches them, each span named by its place in `texts`; None if this reader has none."""
        return self._assemble(self._latents.get(texts)) if self.encoder is not None and texts else None

    def attach(self, latents: Sequence[Latent]) -> Memory | None:
        """The latents of chunks, the best chunk first, as `ask` attaches them: the best last, next to the question, and
        each span named by the place of its chunk."""
        return self._assemble(latents[::-1], [str(place) for place in reversed(range(len(latents)))])

    def _assemble(self, latents: Sequence[Latent], names: Sequence[str] | None = None) -> Memory | None:
        if self.encoder is None:
            return None
        reads = None if self.adapter is None else self.adapter.sets
        spec, sink, sharpness = self.encoder.spec, self.encoder.sink, self.settings.sharpness
        return assemble(self.decoder.model, spec, sink, latents, names, sharpness=sharpness, reads=reads)

    def answer(self, question: str, chunks: Sequence[Chunk], memory: Memory | None, *, max_new_tokens: int) -> Answer:
        """The answer of `ask`. chunks: the best first. memory: of these chunks, as `attach` makes it."""
        texts = [chunk.encoded_text for chunk in reversed(chunks)] if self.reads == "text" else ()
        return answer(
            self.decoder,
            self.settings,
            question,
            () if self.reads == "none" else chunks,
            memory,
            texts=texts,
            max_new_tokens=max_new_tokens,
            adapter=self.adapter,
            reading=self.question_reading,
        )

    def prompt(self, sample: Sample) -> list[int]:
        """Token ids."""
        has_memory = self.reads == "memory" and bool(sample.texts)
        with_system = self.settings.system_with_memory or not has_memory
        chunks = sample.texts if self.reads == "text" else ()
        return sample_ids(self.decoder.tokenizer, sample, chunks=chunks, with_system=with_system)

    def answer_about(self, question: str, texts: Sequence[str], *, max_new_tokens: int) -> Answer:
        """`answer` from texts of chunks in reading order, the last next to the question."""
        chunks = [chunk_of(text) for text in reversed(texts)]
        memory = self.attach(self._latents.get(texts)[::-1]) if self.encoder is not None and texts else None
        return self.answer(question, chunks, memory, max_new_tokens=max_new_tokens)

    def fits(self, sample: Sample) -> bool:
        """True if prompt and answer fit the positions that the decoder was trained on. Memory takes none of them."""
        needed = len(self.prompt(sample)) + len(answer_ids(self.decoder.tokenizer, sample))
        return needed <= self.decoder.model.config.max_position_embeddings

    def generate(
        self,
        sample: Sample,
        *,
        max_new_tokens: int,
        repetition_penalty: float = 1.0,
        record: AttentionRecord | None = None,
    ) -> Generation:
        """The greedy continuation of the prompt. record: by default of the retrieval layers, if there is a memory."""
        if record is None and self.reads == "memory":
            record = AttentionRecord(self.retrieval_layers)
        memory, prompt, started = self.memory(sample.texts), self.prompt(sample), time.perf_counter()
        memory = self._prepared(memory, sample, prompt)
        prepare_s = time.perf_counter() - started
        return generate(
            self.decoder,
            prompt,
            memory,
            max_new_tokens=max_new_tokens,
            record=record,
            repetition_penalty=repetition_penalty,
            adapter=self.adapter,
            refuse_above=self.settings.refuse_above,
        ).after(prepare_s)

    def _prepared(self, memory: Memory | None, sample: Sample, prompt: Sequence[int]) -> Memory | None:
        """The memory of the sample's texts as `ask` prepares it for the prompt."""
        if memory is None:
            return None
        return prepared(self.decoder, memory, sample.texts, prompt, self.question_reading, adapter=self.adapter)

    @torch.inference_mode()
    def nll(self, sample: Sample, *, texts: Sequence[str] | None = None) -> tuple[float, int]:
        """(−Σ log p of the answer's tokens, each given all before it, in nats; number of those tokens)

        texts: chunks to read instead of the sample's own, as a control.
        """
        if texts is not None:
            sample = replace(sample, texts=tuple(texts))
        prompt, answer = self.prompt(sample), answer_ids(self.decoder.tokenizer, sample)
        if not answer:
            return 0.0, 0
        device = self.decoder.model.device
        ids = torch.tensor([prompt + answer], device=device)
        mask = torch.ones(1, len(prompt), dtype=torch.bool, device=device)
        memory = self._prepared(self.memory(sample.texts), sample, prompt)
        with attached(self.decoder.model, memory, adapter=self.adapter, prompt=mask):
            logits = hf.last_logits(self.decoder.model, ids, len(answer) + 1)
        logits = logits[0, :-1].float()  # [A, V]: those at t predict the token at t + 1
        return float(cross_entropy(logits, ids[0, -len(answer) :], reduction="sum")), len(answer)


@dataclass(frozen=True)
class Bm25:
    """Ranks the chunks of a sample by the words of its question, as the routing index weighs them."""

    name: str = "bm25"

    def rank(self, sample: Sample) -> list[int]:
        """Places in `sample.texts`, best first; texts without any of the words last, in order."""
        return rank_by_words(sample.question, [chunk_of(text) for text in sample.texts])


def cache_of(encoder: KVEncoder, folder: Path | None = None) -> LatentCache[Latent]:
    """An empty one, which encodes what it does not have. folder: that keeps latents for other runs."""
    encode = encoder.encode if folder is None else LatentFolder(folder, encoder.spec).keeping(encoder)
    return LatentCache(encode, lambda latent: len(latent.data), CACHE_BYTES)


def chunk_of(text: str) -> Chunk:
    """The inverse of `Chunk.encoded_text`, without the lines' numbers."""
    header, _, body = text.partition("\n")
    path, _, symbol = header.removeprefix("# file: ").partition(" · ")
    return Chunk(path, 1, 1, symbol, body.removesuffix("\n"))


def open_readers(
    names: Sequence[str],
    checkpoints: Sequence[Path] = (),
    *,
    model: ModelFolder,
    quant: str = "none",
    weights: str | None = "none",
    latents: Path | None = None,
    reporter: Reporter = SILENT,
) -> list[Reader]:
    """The readers of `names` (arms.py) in their order, then those of the checkpoints that no name is about.

    model: of the `UNTRAINED` readers that name none; those of one model share one decoder. quant: how latents are
    stored. weights: what the decoders decode with, None for the choice of `ask`. latents: a folder that keeps them for
    other runs. Raises UsageError.
    """
    trained = _named(checkpoints)
    arms = parse_arms(names)
    for arm in arms:
        _check(arm, trained)
    arms += [Arm(name, name) for name in trained if name not in {arm.reader for arm in arms}]
    opened: dict[tuple[str, str | None, str], Reader] = {}
    decoders: dict[str | None, Decoder] = {}
    loaded: dict[str, LoadedModel] = {}
    caches: dict[MemorySpec, LatentCache[Latent]] = {}
    readers = []
    for arm in arms:
        stored = arm.settings.get("quant", quant)
        key = (arm.reader, arm.model, stored)
        if key not in opened:
            if arm.reader in trained:
                checkpoint = trained[arm.reader]
                if arm.reader not in loaded:
                    loaded[arm.reader] = load_trained(checkpoint, weights, reporter)
                reader = _trained_reader(arm.reader, checkpoint, loaded[arm.reader], stored)
            else:
                if arm.model not in decoders:
                    folder = model if arm.model is None else pull_model(arm.model, reporter)
                    decoders[arm.model] = load_model(folder, weights=weights, reporter=reporter).decoder
                reader = _untrained_reader(arm.reader, decoders[arm.model], stored)
            if reader.encoder is not None:
                kept = caches.setdefault(reader.encoder.spec, cache_of(reader.encoder, latents))
                reader = replace(reader, kept=kept)
            opened[key] = reader
        reader = opened[key]
        if arm.settings and reader.reads != "memory":
            raise UsageError(f"arm {arm.name}: {arm.reader} has no memory to read", hint=f"--arms {arm.reader}")
        sharpness = arm.settings.get("sharpness")
        readers.append(replace(reader, name=arm.name, question_reading=_reading(arm), sharpness=sharpness))
    return readers


def _reading(arm: Arm) -> QuestionReading:
    top = arm.settings.get("top")
    return QuestionReading(arm.settings.get("recompute", 0.0), None if top is None else int(top))


def _check(arm: Arm, trained: Mapping[str, Path]) -> None:
    """Raises UsageError."""
    if arm.reader in trained and arm.model is not None:
        raise UsageError(f"arm {arm.name}: a checkpoint has a model of its own", hint=f"--arms {arm.reader}")
    if arm.reader not in UNTRAINED and arm.reader not in trained:
        raise UsageError(
            f"unknown arm {arm.reader}; there are {', '.join((*UNTRAINED, *trained))}",
            hint="--checkpoint FOLDER adds the arm that was trained there",
        )


def _named(checkpoints: Sequence[Path]) -> dict[str, Path]:
    """Name of a reader -> its checkpoint. The folder becomes part of the name where it would not be unique."""
    forms = [Checkpoint.read(checkpoint).arm for checkpoint in checkpoints]
    named: dict[str, Path] = {}
    for form, checkpoint in zip(forms, checkpoints, strict=True):
        name = f"{form} ({checkpoint.name})" if forms.count(form) > 1 or form in UNTRAINED else form
        if name in named:
            raise UsageError(f"{named[name]} and {checkpoint} would both be the arm {name}", hint="rename a folder")
        named[name] = checkpoint
    return named


def _untrained_reader(name: str, decoder: Decoder, quant: str) -> Reader:
    encoder = None
    if UNTRAINED[name] == "memory":
        fingerprint = decoder.folder.fingerprint
        own = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=fingerprint, quant=quant)
        encoder = own.for_many()  # as `index` makes latents
    return Reader(name, UNTRAINED[name], decoder, encoder)


def reader_of(loaded: LoadedModel) -> Reader:
    """The reader that answers as `ask` does with this model: by its adapter, or as memory without training."""
    if loaded.trained is not None and loaded.trained.adapter is not None:
        return Reader("trained", "memory", loaded.decoder, loaded.encoder, loaded.trained)
    return _untrained_reader("joint", loaded.decoder, loaded.quant)


def _trained_reader(name: str, checkpoint: Path, loaded: LoadedModel, quant: str) -> Reader:
    reads = Checkpoint.read(checkpoint).reads
    module, decoder = loaded.trained, loaded.decoder
    assert module is not None
    if reads == "memory" and module.adapter is None:
        reads = "none"
    return Reader(name, reads, decoder, module.encoder(decoder, quant) if reads == "memory" else None, module)
