"""Questions that the chunks do not answer: does a reader say so, and does it say so only then?

Each case is asked twice, as `ask` asks: with the invented lines that answer it, and with the same chunks without them
(of a two-hop shape without its first lines). An answer refuses if it says so (`refuses`) and does not have the value.
What is refused without the lines is right; what is refused with them is a false refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from awareness.evals import pictures
from awareness.evals.intervals import Estimate, wilson
from awareness.evals.needle import Case, is_in, make_cases
from awareness.evals.readers import Reader
from awareness.evals.report import Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.model.not_said import refuses
from awareness.train.samples.held_out_shapes import LIST_MARK, shapes_named
from awareness.types import Progress, silent


@dataclass(frozen=True)
class Asked:
    """One answer. is_answerable: the lines that answer were there. found: the share of the values in the answer."""

    arm: str
    chunks: int
    shape: str
    question: str
    is_answerable: bool
    answer: str
    refused: bool
    found: float


@dataclass(frozen=True)
class Scores:
    """Shares over the cases of one arm and number of chunks. refused: without the lines. false_refusals, found: with
    them."""

    arm: str
    chunks: int
    refused: Estimate
    false_refusals: Estimate
    found: Estimate


def measure(
    setup: Setup,
    *,
    samples: int,
    chunks: Sequence[int],
    chunk_tokens: int,
    shapes: Sequence[str],
    max_new_tokens: int,
) -> Report:
    """samples: for each number of `chunks`, each asked twice. shapes: names of shapes or groups of them."""
    shapes = shapes_named(shapes)
    pool = setup.chunks(chunk_tokens)
    options: dict[str, Any] = {"samples": samples, "seed": setup.seed, "shapes": shapes}
    cases = [case for number in chunks for case in make_cases(pool, chunks=number, **options)]
    readers = setup.open_readers(weights=None)
    with setup.progress() as progress:
        asked = ask(readers, cases, max_new_tokens=max_new_tokens, progress=progress)
    scores = scored(asked)
    title = (
        f"{setup.folder.name}, {chunk_tokens}-token chunks of {setup.repository_folder}, quant {setup.quant},"
        f" n={samples}, seed={setup.seed}"
    )
    columns = ("chunks", "arm", "refused without the lines", "refused with them", "value found")
    rows = [(s.chunks, s.arm, s.refused, s.false_refusals, s.found) for s in scores]
    size = {"samples": samples, "chunk_tokens": chunk_tokens, "max_new_tokens": max_new_tokens}
    return Report(
        "refusals",
        [Table(f"refusals (95 % interval), {title}", columns, rows)],
        {
            "refusals": [as_json(score) for score in scores],
            "answers": [asdict(answer) for answer in asked],
            **setup.settings,
            **size,
            "shapes": shapes,
            "repository": setup.repository_folder,
        },
        partial(_draw, scores, title),
    )


def ask(
    readers: Sequence[Reader], cases: Sequence[Case], *, max_new_tokens: int, progress: Progress = silent
) -> list[Asked]:
    """Every case of every reader that has room for it, with the lines that answer and without them."""
    asked: list[Asked] = []
    total = 2 * len(readers) * len(cases)
    for reader in readers:
        for case in cases:
            if reader.fits(case.sample):
                for is_answerable in (True, False):
                    asked.append(_asked(reader, case, is_answerable, max_new_tokens))
                    progress("asking", len(asked), total)
    return asked


def _asked(reader: Reader, case: Case, is_answerable: bool, max_new_tokens: int) -> Asked:
    sample = case.sample
    texts = sample.texts if is_answerable else case.without
    answer = reader.answer_about(sample.question, texts, max_new_tokens=max_new_tokens).text
    values = sample.answer.split(LIST_MARK)
    found = sum(is_in(value, answer) for value in values) / len(values)
    refused = refuses(answer) and not found
    return Asked(reader.name, len(texts), sample.kind, sample.question, is_answerable, answer, refused, found)


def scored(asked: Sequence[Asked]) -> list[Scores]:
    """In the order of the numbers of chunks, then of the arms."""
    arms = dict.fromkeys(answer.arm for answer in asked)
    numbers = sorted({answer.chunks for answer in asked})
    scores = []
    for number, arm in ((number, arm) for number in numbers for arm in arms):
        own = [answer for answer in asked if (answer.arm, answer.chunks) == (arm, number)]
        given = [answer for answer in own if answer.is_answerable]
        missing = [answer for answer in own if not answer.is_answerable]
        if own:
            rates = (
                wilson(sum(answer.refused for answer in missing), len(missing)),
                wilson(sum(answer.refused for answer in given), len(given)),
                wilson(sum(answer.found for answer in given), len(given)),
            )
            scores.append(Scores(arm, number, *rates))
    return scores


def _draw(scores: Sequence[Scores], title: str, folder: Path) -> list[str]:
    """A panel for each number of chunks: bars of the three shares, by arm."""
    kinds = {"refused without": "refused", "refused with": "false_refusals", "value found": "found"}
    numbers = sorted({score.chunks for score in scores})
    width = pictures.bars_width(len({score.arm for score in scores}))
    figure, panels = pictures.panels(len(numbers), width=width)
    for panel, number in zip(panels, numbers, strict=True):
        own = [score for score in scores if score.chunks == number]
        heights = {(score.arm, name): getattr(score, key) for score in own for name, key in kinds.items()}
        pictures.bars(panel, heights, tuple(kinds), what=f"{number} chunks")
        panel.set_ylim(0, 1.03)
    pictures.legend_beside(panels[-1], "the lines that answer")
    return [pictures.save(figure, f"Refusals:\n{title}", folder, "refusals.png")]
