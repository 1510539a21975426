"""A question and its memory -> an answer in whole sentences, each with its source, streamed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from awareness.model.adapter import MemoryAdapter
from awareness.model.attention_record import AttentionRecord, retrieval_layers, span_shares
from awareness.model.context_length import fitting_answer, fitting_chunks
from awareness.model.generate import Generation, generate
from awareness.model.load import Decoder
from awareness.model.presets import ReadingSettings
from awareness.model.prompt_cache import PromptCache
from awareness.model.prompts import encode, question_ids
from awareness.model.reading.line_attention import LineAttention
from awareness.model.reading.question_reading import prepared_chunks
from awareness.model.sentences import SENTENCES, Sentence, Sentences, Sources, is_whole, without_echo
from awareness.types import AS_IT_IS, SINK, Chunk, Memory, QuestionReading, Sampling

if TYPE_CHECKING:
    from awareness.model.encoder import SelfEncoder
    from awareness.model.projected import ProjectedEncoder

GRACE = 64
"""Tokens beyond the limit in which a started sentence may end."""


@dataclass(frozen=True)
class Answer:
    """sentences: in the order they were passed on. generation: the decoder's, with its times. chunks_read: chunks in
    the memory that was read; recomputed: its tokens that were computed again for the question; prepare_s: the seconds
    before it could be read, which are part of the times. prompt: token ids of what was asked."""

    sentences: tuple[Sentence, ...]
    generation: Generation
    chunks_read: int = 0
    recomputed: int = 0
    prepare_s: float = 0.0
    prompt: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The answer without marks and source numbers."""
        return "".join(sentence.text for sentence in self.sentences).strip()

    @property
    def marked(self) -> str:
        """The answer with the numbers of the sources, and marks after names that no source has."""
        return "".join(sentence.marked for sentence in self.sentences).strip()


@dataclass
class _Writer:
    """Takes pieces of text and passes sentences on. limit: of sentences, None for no limit."""

    sources: Sources
    memory: Memory | None
    record: AttentionRecord | None
    limit: int | None
    on_sentence: Callable[[Sentence], None]
    on_begun: Callable[[str], None]
    by_line: Callable[[], LineAttention] | None = None
    done: list[Sentence] = field(default_factory=list)
    is_full: bool = False
    _cut: Sentences = field(default_factory=Sentences)
    _step: int = 0

    def __call__(self, piece: str) -> None:
        for sentence in self._cut.add(piece):
            self._pass_on(sentence)
        self.on_begun("" if self.is_full else self._cut.rest())

    def _pass_on(self, text: str) -> None:
        text = without_echo(text)
        known = {" ".join(sentence.text.split()) for sentence in self.done}
        if self.is_full or not text.strip() or " ".join(text.split()) in known:
            self.is_full = self.is_full or bool(text.strip())  # a decoder that repeats a sentence has no other
            return
        sentence = self.sources.sentence(text, *self._attention())
        self.done.append(sentence)
        self.on_sentence(sentence)
        self.is_full = self.limit is not None and len(self.done) >= self.limit

    def _attention(self) -> tuple[list[float], list[float]]:
        """The memory attention since the last sentence: each chunk's share, and the most that each line got."""
        if self.record is None or self.memory is None:
            return [], []
        start, self._step = self._step, self.record.step_count
        weights = self.record.sum_of_steps(start, self._step)
        steps = self.record.steps_of_heads(start, self._step)
        if weights is None or steps is None:
            return [], []
        shares = span_shares(self.memory, weights)
        to_lines = [] if self.by_line is None else self.by_line()(steps)
        return [shares.get(str(place), 0.0) for place in range(len(self.sources.chunks))], to_lines

    def close(self, is_ended: bool) -> None:
        """Pass the rest on. A sentence that was cut off is left out, unless it is the only one."""
        rest = self._cut.rest()
        if rest.strip() and (is_ended or is_whole(rest)):
            self._pass_on(rest)
        elif rest.strip() and not self.done:
            self._pass_on(f"{rest.rstrip()} …")

    @property
    def is_between_sentences(self) -> bool:
        return bool(self.done) and is_whole(self._cut.rest() or ".")


def positions_of(decoder: Decoder) -> int:
    """Tokens that the decoder has positions for: memory, prompt and answer together."""
    return int(decoder.model.config.max_position_embeddings)


def prompt_ids(
    decoder: Decoder,
    settings: ReadingSettings,
    question: str,
    *,
    texts: Sequence[str] = (),
    earlier: Sequence[tuple[str, str]] = (),
    is_long: bool = False,
    has_memory: bool,
) -> list[int]:
    """The prompt of `answer`, with the instruction of the settings after each question. texts: chunks in the prompt.
    earlier: (question, answer) pairs."""
    instruction = settings.long if is_long else settings.brief
    with_system = not has_memory or settings.system_with_memory
    return question_ids(
        decoder.tokenizer,
        question + instruction,
        chunks=texts,
        earlier=[(asked + instruction, answered) for asked, answered in earlier],
        with_system=with_system,
    )


def count_fitting(
    decoder: Decoder,
    settings: ReadingSettings,
    question: str,
    chunks: Sequence[Chunk],
    *,
    encoder: SelfEncoder | ProjectedEncoder | None,
    earlier: Sequence[tuple[str, str]] = (),
    is_long: bool = False,
    answer_tokens: int,
) -> int:
    """How many of the chunks, the best first, fit beside the prompt and an answer of `answer_tokens`; at least one.
    encoder: what makes their latents; None for chunks in the prompt. earlier: as for `answer`."""
    prompt = prompt_ids(decoder, settings, question, earlier=earlier, is_long=is_long, has_memory=encoder is not None)
    sink, around = (0, 0) if encoder is None else (encoder.sink.tokens, encoder.around)
    tokens = [len(encode(decoder.tokenizer, chunk.encoded_text)) + around for chunk in chunks]
    return fitting_chunks(tokens, positions_of(decoder) - len(prompt) - sink - answer_tokens - GRACE)


def answer(
    decoder: Decoder,
    settings: ReadingSettings,
    question: str,
    chunks: Sequence[Chunk],
    memory: Memory | None = None,
    *,
    texts: Sequence[str] = (),
    earlier: Sequence[tuple[str, str]] = (),
    past: PromptCache | None = None,
    max_new_tokens: int = 128,
    is_long: bool = False,
    adapter: MemoryAdapter | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    reading: QuestionReading = AS_IT_IS,
    on_sentence: Callable[[Sentence], None] = lambda _: None,
    on_begun: Callable[[str], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Answer:
    """Ask, and pass the answer on sentence by sentence.

    settings: of the decoder and its adapter. chunks: the possible sources, best first. memory: their latents; each span
    is named by its place in `chunks`. texts: chunks in the prompt instead, in reading order. earlier: the
    (question, answer) pairs of the turns before. past: their KV cache, kept for the next question. is_long: explain; a
    short answer ends after three sentences. max_new_tokens: a sentence that started before this limit is finished.
    reading: how the memory is prepared for the question.
    on_sentence: called with each complete sentence. on_begun: called with the growing text of the next one.
    is_cancelled: called after every token; True ends the answer with the complete sentences. Memory, prompt and answer
    stay within the decoder's positions: the answer is shortened. Raises UsageError if they leave no room for one.
    """
    has_memory = memory is not None
    prompt = prompt_ids(
        decoder, settings, question, texts=texts, earlier=earlier, is_long=is_long, has_memory=has_memory
    )
    started = time.perf_counter()
    record = by_line = None
    if memory is not None:
        memory = prepared_chunks(decoder, memory, chunks, prompt, reading, adapter=adapter)
        layers = retrieval_layers(decoder.model, memory)
        record = AttentionRecord(layers, steps=True, heads=settings.evidence_heads)
        around = (0, 0) if adapter is None else adapter.around
        by_line = functools.cache(functools.partial(LineAttention, decoder.tokenizer, memory, chunks, around))
    prepare_s = time.perf_counter() - started
    sources = Sources(chunks, question)
    writer = _Writer(sources, memory, record, None if is_long else SENTENCES, on_sentence, on_begun, by_line)
    tokens = 0

    def stop() -> bool:
        nonlocal tokens
        tokens += 1
        return is_cancelled() or writer.is_full or (tokens >= max_new_tokens and writer.is_between_sentences)

    taken = len(prompt) + (0 if memory is None else memory.tokens)
    generation = generate(
        decoder,
        prompt,
        memory,
        max_new_tokens=fitting_answer(max_new_tokens + GRACE, positions_of(decoder), taken, decoder.folder.name),
        on_text=writer,
        record=record,
        repetition_penalty=settings.repetition_penalty,
        adapter=adapter,
        sampling=sampling,
        stop=stop,
        refuse_above=settings.refuse_above,
        past=past,
    )
    writer.close(generation.is_ended)
    generation = generation.after(prepare_s)
    if memory is None:
        return Answer(tuple(writer.done), generation, prompt=tuple(prompt))
    chunks_read = sum(span.name != SINK for span in memory.spans)
    return Answer(tuple(writer.done), generation, chunks_read, memory.recomputed, prepare_s, tuple(prompt))
