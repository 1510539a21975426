"""Time to first token and decoding speed by the size of what is read, arms side by side in one process.

Memory's latents are encoded before and held in RAM, as a store would have them. Time to first token is all that is
left: attaching (taking latents apart, rotating keys) and prefilling the question over them; of an arm that reads text,
prefilling the prompt with the chunks in it. Tokens/s is decoding behind the first token. Both are medians of rounds in
which the arms alternate, behind one that warms up; `ratio` is to the text arm of the same size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from awareness.errors import UsageError
from awareness.evals.arms import LATENT_CACHE, Arm
from awareness.index.chunks.chunking import TokenStarts
from awareness.model.generate import generate
from awareness.types import Chunk, Progress, Sample, silent

QUESTION = "Where is the retry budget of the upload queue computed?"
_FULL = 0.9  # of the size that is asked for, at the least


@dataclass(frozen=True)
class Latency:
    """Of one arm at one size, `tokens` as they are in the chunks; None where the decoder has not so many positions.
    ratio: of first_token_s to that of the text arm, None without one."""

    arm: str
    tokens: int
    first_token_s: float | None
    tokens_per_s: float | None
    ratio: float | None = None


def run(
    arms: Sequence[Arm],
    pool: Sequence[Chunk],
    token_starts: TokenStarts,
    *,
    tokens: Sequence[int],
    rounds: int,
    decode: int,
    progress: Progress = silent,
) -> list[Latency]:
    """For each size as many chunks of `pool` as fit into it. decode: tokens of an answer. Raises UsageError."""
    sized = [(chunk.encoded_text, len(token_starts(chunk.encoded_text))) for chunk in pool]
    found = []
    for i, size in enumerate(tokens):
        texts, held = _filling(sized, size)
        _check_room(arms, held)
        found += _beside_text(arms, _measured(arms, Sample(texts, (), QUESTION, ""), held, rounds, decode))
        progress("measuring sizes", i + 1, len(tokens))
    return found


def _filling(sized: Sequence[tuple[str, int]], size: int) -> tuple[tuple[str, ...], int]:
    """Of the texts, from the first on, those that fit into `size` tokens together; and how many tokens those are."""
    texts, held = [], 0
    for text, own in sized:
        if held + own <= size:
            texts.append(text)
            held += own
    if held < _FULL * size:
        raise UsageError(
            f"--tokens {size}, but the chunks that fit have {held} tokens", hint="fewer --tokens, or a larger --repo"
        )
    return tuple(texts), held


def _check_room(arms: Sequence[Arm], tokens: int) -> None:
    """What is not held is encoded again, and that time is not to be measured."""
    for arm in arms:
        if arm.encoder is not None and (needed := arm.encoder.spec.latent_bytes(tokens)) > LATENT_CACHE:
            raise UsageError(
                f"{tokens} tokens of memory are {needed} bytes of latents, and {LATENT_CACHE} are held",
                hint="--quant int4, or fewer --tokens",
            )


def _measured(arms: Sequence[Arm], sample: Sample, tokens: int, rounds: int, decode: int) -> list[Latency]:
    asked = [arm for arm in arms if arm.fits(replace(sample, answer=" word" * decode))]
    times: dict[str, list[tuple[float, float]]] = {arm.name: [] for arm in asked}
    for i in range(rounds + 1):
        for arm in asked:
            timed = _timed(arm, sample, decode)
            if i:  # the first round warms up, and encodes
                times[arm.name].append(timed)
    medians = {name: [statistics.median(column) for column in zip(*own, strict=True)] for name, own in times.items()}
    return [Latency(arm.name, tokens, *medians.get(arm.name, (None, None))) for arm in arms]


def _timed(arm: Arm, sample: Sample, decode: int) -> tuple[float, float]:
    """(seconds to the first token, tokens a second behind it)"""
    started = time.perf_counter()
    memory, prompt = arm.memory(sample.texts), arm.prompt(sample)
    attached_s = time.perf_counter() - started
    said = generate(arm.decoder, prompt, memory, max_new_tokens=decode, min_new_tokens=decode, adapter=arm.adapter)
    return attached_s + said.first_token_s, said.tokens_per_s


def _beside_text(arms: Sequence[Arm], found: Sequence[Latency]) -> list[Latency]:
    text = next((one.first_token_s for arm, one in zip(arms, found, strict=True) if arm.reads == "text"), None)
    return [
        replace(one, ratio=one.first_token_s / text) if text and one.first_token_s is not None else one for one in found
    ]
