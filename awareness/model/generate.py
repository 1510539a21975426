"""Memory and prompt -> an answer, streamed, through transformers' own `generate()`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)

from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.attention_record import AttentionRecord, recorded_shares
from awareness.model.batches import padded
from awareness.model.fusion import attached
from awareness.model.load import Decoder
from awareness.model.not_said import NOT_SAID
from awareness.model.prompt_cache import PromptCache
from awareness.model.prompts import encode
from awareness.types import Memory, Sampling


@dataclass(frozen=True)
class Generation:
    """Times are in seconds from the call. attention: each span's share of the memory attention, with sum 1. is_ended:
    the decoder ended the text itself, not a limit. token_ids: of the answer, with the end token if there is one."""

    text: str
    tokens: int
    first_token_s: float
    total_s: float
    attention: dict[str, float]
    is_ended: bool = True
    token_ids: tuple[int, ...] = ()

    def after(self, seconds: float) -> Generation:
        """The same, with times from a call that began this long before."""
        return replace(self, first_token_s=seconds + self.first_token_s, total_s=seconds + self.total_s)

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed after the first token."""
        rest = self.total_s - self.first_token_s
        return (self.tokens - 1) / rest if self.tokens > 1 and rest > 0 else 0.0


class _Stream(TextStreamer):
    """Passes finished pieces of text on, counts tokens, and notes the time of the first."""

    def __init__(self, decoder: Decoder, on_text: Callable[[str], None]) -> None:
        super().__init__(decoder.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text = on_text
        self.first_at: float | None = None
        self.count = 0

    def put(self, value: Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.count += 1
            if self.first_at is None:
                self.first_at = time.perf_counter()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.on_text(text)


class _StopWhen(StoppingCriteria):
    """Ends generation when `stop` returns True."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self.stop(), device=input_ids.device)


class _RefuseAbove(LogitsProcessor):
    """Forbids the token that `NOT_SAID` begins with at the beginning of the answer, unless its probability is above
    `threshold`.

    A refusal is one sentence, an answer is one of many. So the most probable sentence is often the refusal although an
    answer, whichever, is more probable. At 0.5 the model refuses where it believes that there is no answer.
    """

    def __init__(self, decoder: Decoder, start: int, threshold: float) -> None:
        self.token, self.start, self.threshold = encode(decoder.tokenizer, NOT_SAID)[0], start, threshold

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] != self.start:
            return scores
        is_unlikely = scores.float().softmax(-1)[:, self.token] <= self.threshold
        scores[is_unlikely, self.token] = -torch.inf
        return scores


def generate(
    decoder: Decoder,
    prompt_ids: Sequence[int],
    memory: Memory | None = None,
    *,
    max_new_tokens: int,
    on_text: Callable[[str], None] = lambda _: None,
    min_new_tokens: int = 0,
    record: AttentionRecord | None = None,
    repetition_penalty: float = 1.0,
    adapter: MemoryAdapter | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    stop: Callable[[], bool] = lambda: False,
    refuse_above: float = 0.0,
    past: PromptCache | None = None,
) -> Generation:
    """Continue one prompt, reading `memory` by `adapter`. `on_text` gets the answer piece by piece.

    stop: called after every token; True ends the answer. repetition_penalty (Keskar et al. 2019) applies to generated
    tokens, not to the prompt, which an answer may quote. refuse_above: the answer `NOT_SAID` is given only if the
    probability of its first token is above this; for a decoder that was taught to give it. past: what it knows of the
    prompt is not computed again; it keeps the KV cache of this one.
    """
    pieces: list[str] = []

    def collect(text: str) -> None:
        pieces.append(text)
        on_text(text)

    started = time.perf_counter()
    stream = _Stream(decoder, collect)
    input_ids = torch.tensor([list(prompt_ids)], device=decoder.model.device)
    prompt = torch.ones_like(input_ids, dtype=torch.bool)
    penalty = RepetitionPenaltyLogitsProcessor(repetition_penalty, prompt_ignore_length=input_ids.shape[1])
    processors = LogitsProcessorList([penalty])
    if refuse_above:
        processors.append(_RefuseAbove(decoder, input_ids.shape[1], refuse_above))
    routes = adapter is not None and adapter.bank is not None  # routers have to see the whole prompt
    kept = None if past is None or routes else past.beginning_of(prompt_ids)
    with _reading(decoder, memory, adapter, record, prompt, sampling):
        out = decoder.model.generate(  # type: ignore[operator]
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            **({} if kept is None else hf.named_cache(decoder.model, kept)),
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            **sampling.options,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([_StopWhen(stop)]),
            streamer=stream,
        )
    now = time.perf_counter()
    if past is not None and kept is not None:
        past.keep(out[0].tolist(), kept)
    return Generation(
        text="".join(pieces),
        tokens=stream.count,
        first_token_s=(stream.first_at or now) - started,
        total_s=now - started,
        attention=recorded_shares(memory, record),
        is_ended=int(out[0, -1]) in hf.end_tokens(decoder.model),
        token_ids=tuple(out[0, input_ids.shape[1] :].tolist()),
    )


def generate_batch(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    memory: Memory | None = None,
    *,
    max_new_tokens: int,
    adapter: MemoryAdapter | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> list[str]:
    """Continue several prompts at once, each up to its own end of text: the same answers as by `generate` alone.

    memory: of one row, read by all prompts, or of a row for each (`assemble.stacked`).
    """
    device = decoder.model.device
    input_ids, lengths = padded(prompts, device, fill=hf.pad_token(decoder.model), left=True)
    width = input_ids.shape[1]
    mask = torch.arange(width, device=device) >= width - lengths[:, None]
    with _reading(decoder, memory, adapter, None, mask, sampling):
        out = decoder.model.generate(  # type: ignore[operator]
            input_ids, attention_mask=mask.long(), max_new_tokens=max_new_tokens, **sampling.options
        )
    return [_until_end(decoder, row[width:].tolist()) for row in out]


def _until_end(decoder: Decoder, ids: list[int]) -> str:
    """The text before the first end token; the rest is padding beside a longer row."""
    ends = hf.end_tokens(decoder.model)
    stop = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return str(decoder.tokenizer.decode(ids[:stop], skip_special_tokens=True))


@contextmanager
def _reading(
    decoder: Decoder,
    memory: Memory | None,
    adapter: MemoryAdapter | None,
    record: AttentionRecord | None,
    prompt: Tensor,
    sampling: Sampling,
) -> Iterator[None]:
    """Around a `generate()`: memory attached, chapters routed by the prompt [B, P], sampling seeded."""
    with (
        torch.inference_mode(),
        torch.random.fork_rng(enabled=sampling.temperature > 0.0),
        attached(decoder.model, memory, adapter=adapter, record=record, prompt=prompt),
    ):
        if sampling.temperature > 0.0:
            torch.manual_seed(sampling.seed)
        yield
