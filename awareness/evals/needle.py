"""Needle in a haystack: is the memory really read?

A needle (needle_shapes.py) is hidden in one of `chunks` real code chunks of a repository, at a given depth.
Each case is put to every arm (arms.py): greedy decoding, one seed. Two things are scored: was the value said, and, of
an arm that can tell, which chunk it looked at. After Kamradt's test and RULER (Hsieh et al. 2024), on code.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from awareness.errors import UsageError
from awareness.evals.arms import Arm, Bm25
from awareness.evals.intervals import Estimate, wilson
from awareness.evals.needle_shapes import LIST_MARK, SHAPES
from awareness.model.attention_record import AttentionRecord
from awareness.model.generate import Generation
from awareness.model.prompts import answer_ids
from awareness.types import Chunk, Progress, Sample, silent

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SPARE_TOKENS = 3  # that an answer may have beyond the one that is right


@dataclass(frozen=True)
class Case:
    """A question, and how deep its needle lies: 0 at the first chunk, 1 at the last, next to the question."""

    sample: Sample
    depth: float


@dataclass(frozen=True)
class Answer:
    """What one arm made of one case. found: the share of the values that it said, None if it says nothing. chunk_found:
    is the chunk that it looked at most one of those that hold the answer, None if it can't tell."""

    arm: str
    shape: str
    chunks: int
    depth: float
    found: float | None
    chunk_found: bool | None


@dataclass(frozen=True)
class NeedleReport:
    """arms, chunks, shapes: what was to be asked; where an arm has no answers, the chunks did not fit its context."""

    model: str
    seed: int
    samples: int
    chunk_tokens: int
    arms: tuple[str, ...]
    chunks: tuple[int, ...]
    shapes: tuple[str, ...]
    answers: tuple[Answer, ...]

    def accuracy(
        self,
        arm: str,
        chunks: int | None = None,
        *,
        depth: float | None = None,
        shape: str | None = None,
        of_chunk: bool = False,
    ) -> Estimate | None:
        """Of the values, or `of_chunk`, over the answers that are of this kind; None if there is none.

        chunks: without it, of the numbers that all arms could be asked at, so that their means can be compared.
        """
        numbers = self.in_common if chunks is None else (chunks,)
        chosen = [
            answer.chunk_found if of_chunk else answer.found
            for answer in self.answers
            if answer.arm == arm
            and answer.chunks in numbers
            and depth in (None, answer.depth)
            and shape in (None, answer.shape)
        ]
        scores = [float(score) for score in chosen if score is not None]
        return wilson(sum(scores), len(scores)) if scores else None

    @property
    def in_common(self) -> tuple[int, ...]:
        """The numbers of chunks at which every arm was asked that was asked at all."""
        asked = {(answer.arm, answer.chunks) for answer in self.answers}
        arms = {arm for arm, _ in asked}
        return tuple(number for number in self.chunks if all((arm, number) in asked for arm in arms))

    def cases(self, chunks: int) -> Counter[float]:
        """depth -> how many cases there are at this number of chunks, asked or not."""
        return Counter(depth for depth, _ in _drawn(chunks, self.samples))


def _drawn(chunks: int, samples: int) -> list[tuple[float, int]]:
    """Depth of each case, and the place of its gold chunk."""
    places = list(depths_of(chunks).items())
    return [places[i % len(places)] for i in range(samples)]


def depths_of(chunks: int) -> dict[float, int]:
    """depth -> place of the gold chunk; depths that fall on the same place are one."""
    places: dict[int, float] = {}
    for depth in DEPTHS:
        places.setdefault(round(depth * (chunks - 1)), depth)
    return {depth: place for place, depth in places.items()}


def make_cases(
    pool: Sequence[Chunk], *, chunks: int, samples: int, seed: int, shapes: Sequence[str] = ("constant",)
) -> list[Case]:
    """`samples` cases, spread evenly over depths and shapes, and each shape over all depths. Raises UsageError if the
    pool is too small."""
    if len(pool) < chunks:
        raise UsageError(
            f"{chunks} chunks are asked for, but the repository has only {len(pool)} of the right size",
            hint="fewer --chunks, smaller --chunk-tokens, or a larger --repo",
        )
    rng = random.Random(f"{seed}/{chunks}")
    turn = math.lcm(len(shapes), len(depths_of(chunks)))  # after it the same shapes would meet the same depths again
    return [
        _make_case(rng, pool, chunks, depth, gold, shapes[(i + i // turn) % len(shapes)])
        for i, (depth, gold) in enumerate(_drawn(chunks, samples))
    ]


def _make_case(rng: random.Random, pool: Sequence[Chunk], chunks: int, depth: float, gold: int, shape: str) -> Case:
    """The first block of the needle lies in the chunk `gold`, further ones anywhere."""
    drawn = rng.sample(pool, chunks)
    needle = SHAPES[shape](rng, "\n".join(chunk.text for chunk in drawn))
    hidden = {place: chunk.text.split("\n") for place, chunk in enumerate(drawn)}
    places = [gold] + [rng.randrange(chunks) for _ in needle.blocks[1:]]
    for place, block in zip(places, needle.blocks, strict=True):
        at = rng.randint(0, len(hidden[place]))
        hidden[place][at:at] = block
    texts = [chunk.encoded_text for chunk in drawn]
    for place in places:
        texts[place] = f"{drawn[place].header}\n" + "\n".join(hidden[place]) + "\n"
    golds = tuple(sorted(set(places[: needle.golds])))
    return Case(Sample(tuple(texts), golds, needle.question, needle.answer, needle.answer_prefix, kind=shape), depth)


def run(
    arms: Sequence[Arm | Bm25],
    pool: Sequence[Chunk],
    *,
    model: str,
    samples: int,
    chunks: Sequence[int],
    chunk_tokens: int,
    seed: int,
    shapes: Sequence[str],
    progress: Progress = silent,
) -> NeedleReport:
    """Puts `samples` cases for each number of chunks to every arm that has room for all of them."""
    cases = {number: make_cases(pool, chunks=number, samples=samples, seed=seed, shapes=shapes) for number in chunks}
    asked = [
        (arm, number)
        for number, column in cases.items()
        for arm in arms
        if isinstance(arm, Bm25) or all(arm.fits(case.sample) for case in column)
    ]
    answers = []
    for arm, number in asked:
        for case in cases[number]:
            answers.append(_ask(arm, case))
            progress("asking", len(answers), len(asked) * samples)
    return NeedleReport(
        model,
        seed,
        samples,
        chunk_tokens,
        tuple(arm.name for arm in arms),
        tuple(chunks),
        tuple(shapes),
        tuple(answers),
    )


def _ask(arm: Arm | Bm25, case: Case) -> Answer:
    sample = case.sample
    found: float | None = None
    chunk_found: bool | None = None
    if isinstance(arm, Bm25):
        chunk_found = arm.rank(sample)[0] in sample.gold
    else:
        said = _say(arm, sample)
        found = share_found(sample, said.text)
        if said.attention:
            most = max(said.attention, key=lambda name: said.attention[name])
            chunk_found = int(most) in sample.gold
    return Answer(arm.name, sample.kind, len(sample.texts), case.depth, found, chunk_found)


def _say(arm: Arm, sample: Sample) -> Generation:
    record = AttentionRecord(arm.retrieval_layers) if arm.reads == "memory" else None
    length = len(answer_ids(arm.decoder.tokenizer, sample)) + _SPARE_TOKENS
    return arm.say(sample, max_new_tokens=length, record=record)


def share_found(sample: Sample, said: str) -> float:
    """The share of the answer's values that stand in the first line of what is said, each as a whole word."""
    first_line = next(iter(said.strip().splitlines()), "")
    values = sample.answer.split(LIST_MARK)
    return sum(_is_in(value, first_line) for value in values) / len(values)


def _is_in(value: str, line: str) -> bool:
    return re.search(rf"(?<![\w/-]){re.escape(value)}(?![\w/-])", line) is not None
