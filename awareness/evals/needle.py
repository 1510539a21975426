"""Needle in a haystack: is the memory really read?

A constant is hidden in one of `chunks` real code chunks of a repository, at a given depth, and asked for. Each case
is put to every arm: `none` (nothing but the question), `text` (the chunks in the prompt), `joint` (the chunks as
memory, read untrained). Greedy decoding, exact match of the number, one seed. After Kamradt's test and RULER
(Hsieh et al. 2024), on code.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from awareness.errors import UsageError
from awareness.model.assembly import assemble
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.prompt import question_ids
from awareness.types import Chunk, KVEncoder, Memory, Progress, silent

ARMS = ("none", "text", "joint")
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_FIRST = "session cache retry upload auth queue shard lease page burst token proxy index worker socket batch".split()
_SECOND = "ttl limit budget max window depth count time size rate quota offset weight floor stride margin".split()


@dataclass(frozen=True)
class NeedleCase:
    """One question: `texts` as they are encoded, in order; the needle is in texts[gold]."""

    texts: tuple[str, ...]
    gold: int
    depth: float
    question: str
    answer_prefix: str
    answer: str


@dataclass(frozen=True)
class Cell:
    """Accuracy of one arm at one number of chunks and one depth, over n cases."""

    arm: str
    chunks: int
    depth: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class NeedleReport:
    model: str
    seed: int
    samples: int
    chunk_tokens: int
    grid: tuple[Cell, ...]

    def accuracy(self, arm: str, chunks: int | None = None) -> float:
        """Mean over the cases of an arm, of one number of chunks or of all."""
        cells = [cell for cell in self.grid if cell.arm == arm and chunks in (None, cell.chunks)]
        return sum(cell.accuracy * cell.n for cell in cells) / sum(cell.n for cell in cells)


def depths_of(chunks: int) -> dict[float, int]:
    """depth -> place of the gold chunk; depths that fall on the same place are one."""
    places: dict[int, float] = {}
    for depth in DEPTHS:
        places.setdefault(round(depth * (chunks - 1)), depth)
    return {depth: place for place, depth in places.items()}


def make_cases(pool: Sequence[Chunk], *, chunks: int, samples: int, seed: int) -> list[NeedleCase]:
    """`samples` cases, spread evenly over the depths. Raises UsageError if the pool is too small."""
    if len(pool) < chunks:
        raise UsageError(
            f"{chunks} chunks are asked for, but the repository has only {len(pool)} of the right size",
            hint="fewer --chunks, smaller --chunk-tokens, or a larger --repo",
        )
    rng = random.Random(f"{seed}/{chunks}")
    places = list(depths_of(chunks).items())
    return [_make_case(rng, pool, chunks, *places[i % len(places)]) for i in range(samples)]


def _make_case(rng: random.Random, pool: Sequence[Chunk], chunks: int, depth: float, gold: int) -> NeedleCase:
    drawn = rng.sample(pool, chunks)
    everything = "\n".join(chunk.text for chunk in drawn)
    while (name := f"{rng.choice(_FIRST)}_{rng.choice(_SECOND)}".upper()) in everything:
        pass
    value = str(rng.randint(1000, 9999))
    lines = drawn[gold].text.split("\n")
    at = rng.randint(0, len(lines))
    lines[at:at] = ["# config", f"{name} = {value}"]
    texts = [chunk.encoded_text for chunk in drawn]
    texts[gold] = f"{drawn[gold].header}\n" + "\n".join(lines) + "\n"
    question = f"What is the value of {name} in the code? Answer with the number only."
    return NeedleCase(tuple(texts), gold, depth, question, f"{name} = ", value)


def run(
    decoder: Decoder,
    encoder: KVEncoder,
    pool: Sequence[Chunk],
    *,
    samples: int,
    chunks: Sequence[int],
    chunk_tokens: int,
    seed: int,
    arms: Sequence[str] = ARMS,
    progress: Progress = silent,
) -> NeedleReport:
    """Puts `samples` cases for each number of chunks to every arm."""
    if unknown := set(arms) - set(ARMS):
        raise UsageError(f"unknown arm {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    cases = {number: make_cases(pool, chunks=number, samples=samples, seed=seed) for number in chunks}
    total, done = len(arms) * sum(map(len, cases.values())), 0
    right: dict[tuple[str, int, float], list[bool]] = {}
    for number, asked in cases.items():
        for case in asked:
            for arm in arms:
                found = _ask(decoder, encoder, case, arm) == case.answer
                right.setdefault((arm, number, case.depth), []).append(found)
                done += 1
                progress("asking", done, total)
    grid = [
        Cell(*key, sum(hits) / len(hits), len(hits))
        for key, hits in sorted(right.items(), key=lambda item: (arms.index(item[0][0]), *item[0]))
    ]
    return NeedleReport(decoder.folder.name, seed, samples, chunk_tokens, tuple(grid))


def _ask(decoder: Decoder, encoder: KVEncoder, case: NeedleCase, arm: str) -> str:
    if arm == "joint":
        memory = assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode(case.texts)))
        return answered(decoder, case, memory)
    return answered(decoder, case, None, as_text=arm == "text")


def answered(decoder: Decoder, case: NeedleCase, memory: Memory | None, *, as_text: bool = False) -> str:
    """The number that the model answers with, or an empty string. as_text: the chunks stand in the prompt."""
    prompt = question_ids(
        decoder.tokenizer,
        case.question,
        chunks=case.texts if as_text else (),
        with_system=memory is None,
        answer_prefix=case.answer_prefix,
    )
    answer = generate(decoder, prompt, memory, max_new_tokens=8).text
    found = re.match(r"\s*(\d+)", answer)
    return found[1] if found else ""
