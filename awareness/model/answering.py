"""A question, and what was attached for it -> an answer in whole sentences, each with its source, while it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from awareness.model.adapter import MemoryAdapter
from awareness.model.attention_record import AttentionRecord, retrieval_layers, span_shares
from awareness.model.generate import Generation, generate
from awareness.model.load import Decoder
from awareness.model.presets import ReadingSettings
from awareness.model.prompts import question_ids
from awareness.model.sentences import SENTENCES, Sentence, Sentences, Sources, is_whole, without_echo
from awareness.types import Chunk, Memory, Sampling

GRACE = 64
"""Tokens beyond the limit within which a sentence that was begun may end."""


@dataclass(frozen=True)
class Answer:
    """sentences: as they were handed on. generation: of the decoder, with its times."""

    sentences: tuple[Sentence, ...]
    generation: Generation

    @property
    def text(self) -> str:
        """Without marks and numbers."""
        return "".join(sentence.text for sentence in self.sentences).strip()

    @property
    def marked(self) -> str:
        """As it is shown: with the numbers of the sources, and marks at names that stand in none."""
        return "".join(sentence.marked for sentence in self.sentences).strip()


@dataclass
class _Writer:
    """Takes pieces of text, hands on sentences. limit: of sentences, None for none."""

    sources: Sources
    memory: Memory | None
    record: AttentionRecord | None
    limit: int | None
    on_sentence: Callable[[Sentence], None]
    on_begun: Callable[[str], None]
    done: list[Sentence] = field(default_factory=list)
    is_full: bool = False
    _cut: Sentences = field(default_factory=Sentences)
    _step: int = 0

    def __call__(self, piece: str) -> None:
        for sentence in self._cut.add(piece):
            self._hand_on(sentence)
        self.on_begun("" if self.is_full else self._cut.rest())

    def _hand_on(self, text: str) -> None:
        text = without_echo(text)
        known = {" ".join(sentence.text.split()) for sentence in self.done}
        if self.is_full or not text.strip() or " ".join(text.split()) in known:
            self.is_full = self.is_full or bool(text.strip())  # who says a thing again has nothing else to say
            return
        sentence = self.sources.sentence(text, self._attention())
        self.done.append(sentence)
        self.on_sentence(sentence)
        self.is_full = self.limit is not None and len(self.done) >= self.limit

    def _attention(self) -> list[float]:
        """The share of each chunk in the memory attention since the last sentence."""
        if self.record is None or self.memory is None:
            return []
        start, self._step = self._step, self.record.step_count
        weights = self.record.sum_of_steps(start, self._step)
        if weights is None:
            return []
        shares = span_shares(self.memory, weights)
        return [shares.get(str(place), 0.0) for place in range(len(self.sources.chunks))]

    def close(self, is_ended: bool) -> None:
        """The last words: a sentence that was cut off is left out, unless it is the only one."""
        rest = self._cut.rest()
        if rest.strip() and (is_ended or is_whole(rest)):
            self._hand_on(rest)
        elif rest.strip() and not self.done:
            self._hand_on(f"{rest.rstrip()} …")

    @property
    def is_between_sentences(self) -> bool:
        return bool(self.done) and is_whole(self._cut.rest() or ".")


def answer(
    decoder: Decoder,
    settings: ReadingSettings,
    question: str,
    chunks: Sequence[Chunk],
    memory: Memory | None = None,
    *,
    texts: Sequence[str] = (),
    with_system: bool = True,
    max_new_tokens: int = 128,
    is_long: bool = False,
    adapter: MemoryAdapter | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    on_sentence: Callable[[Sentence], None] = lambda _: None,
    on_begun: Callable[[str], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Answer:
    """Asks, and cuts what comes into sentences while it comes.

    chunks: what sentences may rest on, best first; memory: their latents, each span called by its place in `chunks`.
    texts: to stand in the prompt instead, in reading order. with_system: as of `question_ids`. is_long: explains, where
    a short answer ends after three sentences. max_new_tokens: a sentence begun before is finished all the same.
    on_sentence: gets each sentence once it is complete; on_begun: what has been said of the next one, as it grows.
    is_cancelled: asked after every token; once True, the answer ends with what is complete.
    """
    record = AttentionRecord(retrieval_layers(decoder.model, memory), steps=True) if memory is not None else None
    sources = Sources(chunks, question)
    writer = _Writer(sources, memory, record, None if is_long else SENTENCES, on_sentence, on_begun)
    tokens = 0

    def stop() -> bool:
        nonlocal tokens
        tokens += 1
        return is_cancelled() or writer.is_full or (tokens >= max_new_tokens and writer.is_between_sentences)

    asked = question + (settings.long if is_long else settings.brief)
    generation = generate(
        decoder,
        question_ids(decoder.tokenizer, asked, chunks=texts, with_system=with_system),
        memory,
        max_new_tokens=max_new_tokens + GRACE,
        on_text=writer,
        record=record,
        repetition_penalty=settings.repetition_penalty,
        adapter=adapter,
        sampling=sampling,
        stop=stop,
    )
    writer.close(generation.is_ended)
    return Answer(tuple(writer.done), generation)
