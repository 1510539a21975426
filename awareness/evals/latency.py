"""Time to first token and decoding speed by the size of what is read, readers side by side in one process.

The latents of a memory are encoded before and held in RAM. What is measured is attaching them (taking latents apart,
rotating keys) and prefilling the question; for a reader of text, prefilling the prompt with the chunks in it. Tokens/s
is decoding after the first token. Both are medians of rounds in which the readers take turns, after one round to warm
up; `ratio` is to the reader of text at the same size.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import Estimate
from awareness.evals.readers import CACHE_BYTES, Reader
from awareness.evals.report import NOT_MEASURED, Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.index.chunks.chunking import TokenStarts
from awareness.model.generate import generate
from awareness.model.token_offsets import token_starts
from awareness.types import Chunk, Sample

QUESTION = "Where is the retry budget of the upload queue computed?"
_FULL = 0.9  # share of a size that the chunks have to fill


@dataclass(frozen=True)
class Texts:
    """Chunks to read, and the number of their tokens."""

    texts: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class Latency:
    """Of one reader at one size, `tokens` of the chunks. None where the decoder has fewer positions. ratio: of
    first_token_s to that of the reader of text, None without one."""

    arm: str
    tokens: int
    first_token_s: float | None
    tokens_per_s: float | None
    ratio: float | None = None


def measure(setup: Setup, *, tokens: Sequence[int], rounds: int, decode: int, chunk_tokens: int) -> Report:
    """tokens: sizes of what is read. decode: tokens of an answer."""
    pool = setup.chunks(chunk_tokens)
    random.Random(setup.seed).shuffle(pool)
    sizes = fill(pool, token_starts(setup.folder.path), tokens)
    readers = setup.open_readers()
    rows: list[Latency] = []
    with setup.progress() as progress:
        for i, texts in enumerate(sizes):
            rows += time_readers(readers, texts, rounds=rounds, decode=decode)
            progress("measuring sizes", i + 1, len(sizes))
    repository = setup.repository_folder
    title = (
        f"{setup.folder.name}, chunks of {repository}, quant {setup.quant}, median of {rounds}, latents encoded before"
    )
    cells = [(row.tokens, row.arm, *map(_cell, (row.first_token_s, row.ratio, row.tokens_per_s))) for row in rows]
    is_complete = all(row.first_token_s is not None for row in rows)
    return Report(
        "latency",
        [Table(title, ("tokens", "arm", "first token, s", "of text's", "tokens/s"), cells)],
        {
            "latency": [as_json(row) for row in rows],
            **setup.settings,
            "rounds": rounds,
            "decode": decode,
            "chunk_tokens": chunk_tokens,
            "repository": repository,
            "latents": "encoded before",
        },
        partial(_draw, rows, title),
        () if is_complete else [f"{NOT_MEASURED}: longer than the context that the model was trained on"],
    )


def _cell(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def fill(pool: Sequence[Chunk], token_starts: TokenStarts, sizes: Sequence[int]) -> list[Texts]:
    """For each size the chunks of the pool, from the first on, that fit into it together. Raises UsageError."""
    counted = [(chunk.encoded_text, len(token_starts(chunk.encoded_text))) for chunk in pool]
    filled = []
    for size in sizes:
        texts, tokens = [], 0
        for text, count in counted:
            if tokens + count <= size:
                texts.append(text)
                tokens += count
        if tokens < _FULL * size:
            raise UsageError(
                f"--tokens {size}, but the chunks that fit have {tokens} tokens",
                hint="fewer --tokens, or a larger --repo",
            )
        filled.append(Texts(tuple(texts), tokens))
    return filled


def time_readers(readers: Sequence[Reader], texts: Texts, *, rounds: int, decode: int) -> list[Latency]:
    """Every reader at one size. Raises UsageError if latents would be encoded again in a round, as they do not fit the
    cache."""
    for reader in readers:
        if reader.encoder is not None and (needed := reader.encoder.spec.latent_bytes(texts.tokens)) > CACHE_BYTES:
            raise UsageError(
                f"{texts.tokens} tokens of memory are {needed} bytes of latents; the cache holds {CACHE_BYTES}",
                hint="--quant int4, or fewer --tokens",
            )
    sample = Sample(texts.texts, (), QUESTION, "")
    fitting = [reader for reader in readers if reader.fits(replace(sample, answer=" word" * decode))]
    times: dict[str, list[tuple[float, float]]] = {reader.name: [] for reader in fitting}
    for i in range(rounds + 1):
        for reader in fitting:
            timed = _timed(reader, sample, decode)
            if i:  # the first round warms up, and encodes
                times[reader.name].append(timed)
    medians = {name: [statistics.median(column) for column in zip(*own, strict=True)] for name, own in times.items()}
    rows = [Latency(reader.name, texts.tokens, *medians.get(reader.name, (None, None))) for reader in readers]
    text_s = next((row.first_token_s for row, r in zip(rows, readers, strict=True) if r.reads == "text"), None)
    return [replace(row, ratio=row.first_token_s / text_s) if text_s and row.first_token_s else row for row in rows]


def _timed(reader: Reader, sample: Sample, decode: int) -> tuple[float, float]:
    """(seconds to the first token, tokens a second after it)"""
    started = time.perf_counter()
    memory, prompt = reader.memory(sample.texts), reader.prompt(sample)
    attach_s = time.perf_counter() - started
    options: dict[str, Any] = {"max_new_tokens": decode, "min_new_tokens": decode, "adapter": reader.adapter}
    generation = generate(reader.decoder, prompt, memory, **options)
    return attach_s + generation.first_token_s, generation.tokens_per_s


def _draw(rows: Sequence[Latency], title: str, folder: Path) -> list[str]:
    """Seconds to the first token, and tokens a second after it, by size; a line a reader."""
    figure, panels = pictures.panels(2)
    sizes = sorted({row.tokens for row in rows})
    columns = {"seconds to first token": "first_token_s", "tokens/s after it": "tokens_per_s"}
    for panel, (what, field) in zip(panels, columns.items(), strict=True):
        curves: dict[str, dict[int, Estimate | float]] = {row.arm: {} for row in rows}
        for row in rows:
            if (value := getattr(row, field)) is not None:
                curves[row.arm][row.tokens] = value
        pictures.lines(panel, curves, sizes, what=what)
        panel.set_xlabel("tokens in memory or prompt", fontsize=8)
        panel.set_ylim(bottom=0)
    for row in rows:
        if row.ratio not in (None, 1.0) and row.first_token_s and row.tokens == sizes[-1]:
            at = (row.tokens, row.first_token_s)
            panels[0].annotate(f"×{row.ratio:.2f}", at, (-4, 6), textcoords="offset points", ha="right", fontsize=8)
    panels[0].legend(fontsize=8)
    return [pictures.save(figure, title, folder, "latency.png")]
