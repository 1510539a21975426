"""Needle in a haystack: is the memory really read?

A needle (needle_shapes.py) is hidden in one of `chunks` real code chunks of a repository, at a given depth, and every
reader is asked for it: greedy decoding, one seed. Two things are scored: does the answer hold the value, and, of a
reader that can tell, which chunk it looked at. After Kamradt's test and RULER (Hsieh et al. 2024), on code.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import Estimate, wilson
from awareness.evals.readers import Bm25, Reader
from awareness.evals.report import NOT_MEASURED, Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.model.prompts import answer_ids
from awareness.train.samples.held_out_shapes import GROUPS, LIST_MARK, SHAPES, shapes_named
from awareness.types import Chunk, Progress, Sample, silent

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SPARE_TOKENS = 3  # that an answer may have beyond the right one
_BM25 = Bm25()


@dataclass(frozen=True)
class Case:
    """A question, and how deep its needle lies: 0 in the first chunk, 1 in the last, next to the question. without: the
    texts of the same chunks, in which the answer is not."""

    sample: Sample
    depth: float
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """What one reader made of one case. value_found: the share of the values in its answer, None without an answer.
    chunk_found: True if the chunk with most attention, or ranked first, holds the needle; None if it cannot tell."""

    reader: str
    shape: str
    chunks: int
    depth: float
    value_found: float | None
    chunk_found: bool | None


def measure(setup: Setup, *, samples: int, chunks: Sequence[int], chunk_tokens: int, shapes: Sequence[str]) -> Report:
    """samples: for each number of `chunks`. shapes: names of shapes or groups of them."""
    shapes = shapes_named(shapes)
    pool = setup.chunks(chunk_tokens)
    options: dict[str, Any] = {"samples": samples, "seed": setup.seed, "shapes": shapes}
    cases = {number: make_cases(pool, chunks=number, **options) for number in chunks}
    readers: list[Reader | Bm25] = [*setup.open_readers(without=[_BM25.name])]
    if _BM25.name in setup.reader_names:
        readers.append(_BM25)
    with setup.progress() as progress:
        scores = ask(readers, cases, progress)
    grid = Grid(tuple(reader.name for reader in readers), tuple(chunks), tuple(shapes), samples, tuple(scores))
    repository = setup.repository_folder
    size = f"{chunk_tokens}-token chunks of {repository}"
    title = f"{setup.folder.name}, {size}, quant {setup.quant}, n={samples}, seed={setup.seed}"
    settings = {**setup.settings, "samples": samples, "chunk_tokens": chunk_tokens, "repository": repository}
    is_complete = len(grid.in_common) == len(chunks)
    return Report(
        "needle",
        _tables(grid, title),
        {**_json(grid), **settings},
        partial(_draw, grid, title),
        () if is_complete else [f"{NOT_MEASURED}: the chunks are longer than the context the model was trained on"],
    )


def known_shapes() -> list[str]:
    """What `shapes` may name: shapes that one place answers first, then groups of them, then the others."""
    return list(dict.fromkeys(("single", *GROUPS, *SHAPES)))


def ask(
    readers: Sequence[Reader | Bm25], cases: Mapping[int, Sequence[Case]], progress: Progress = silent
) -> list[Score]:
    """Gives the cases of each number of chunks to every reader that has room for all of them."""
    columns = [
        (reader, column)
        for column in cases.values()
        for reader in readers
        if isinstance(reader, Bm25) or all(reader.fits(case.sample) for case in column)
    ]
    total = sum(len(column) for _, column in columns)
    scores: list[Score] = []
    for reader, column in columns:
        for case in column:
            scores.append(_score(reader, case))
            progress("asking", len(scores), total)
    return scores


def _score(reader: Reader | Bm25, case: Case) -> Score:
    sample = case.sample
    value_found: float | None = None
    chunk_found: bool | None = None
    if isinstance(reader, Bm25):
        chunk_found = reader.rank(sample)[0] in sample.gold
    else:
        length = len(answer_ids(reader.decoder.tokenizer, sample)) + _SPARE_TOKENS
        answer = reader.generate(sample, max_new_tokens=length)
        value_found = share_found(sample, answer.text)
        if answer.attention:
            chunk_found = int(max(answer.attention, key=lambda place: answer.attention[place])) in sample.gold
    return Score(reader.name, sample.kind, len(sample.texts), case.depth, value_found, chunk_found)


def share_found(sample: Sample, text: str) -> float:
    """The share of the sample's values that the first line of `text` holds, each as a whole word."""
    first_line = next(iter(text.strip().splitlines()), "")
    values = sample.answer.split(LIST_MARK)
    return sum(is_in(value, first_line) for value in values) / len(values)


def is_in(value: str, line: str) -> bool:
    """Whether `line` holds the value as a whole word."""
    return re.search(rf"(?<![\w/-]){re.escape(value)}(?![\w/-])", line) is not None


# --- cases -----------------------------------------------------------------------------------------------------------


def make_cases(
    pool: Sequence[Chunk], *, chunks: int, samples: int, seed: int, shapes: Sequence[str] = ("constant",)
) -> list[Case]:
    """`samples` cases, spread evenly over depths and shapes, and each shape over all depths. Raises UsageError if the
    pool is too small."""
    if len(pool) < chunks:
        raise UsageError(
            f"--chunks {chunks}, but the repository has only {len(pool)} chunks of the right size",
            hint="fewer --chunks, smaller --chunk-tokens, or a larger --repo",
        )
    rng = random.Random(f"{seed}/{chunks}")
    turn = math.lcm(len(shapes), len(depths_of(chunks)))  # after it the same shapes would meet the same depths again
    return [
        _make_case(rng, pool, chunks, depth, gold, shapes[(i + i // turn) % len(shapes)])
        for i, (depth, gold) in enumerate(_places(chunks, samples))
    ]


def _make_case(rng: random.Random, pool: Sequence[Chunk], chunks: int, depth: float, gold: int, shape: str) -> Case:
    """The first block of the needle lies in the chunk `gold`, further ones anywhere, or in chunks of their own."""
    drawn = rng.sample(pool, chunks)
    needle = SHAPES[shape](rng, "\n".join(chunk.text for chunk in drawn))
    if needle.is_apart:
        if chunks < (least := len(needle.blocks)):
            raise UsageError(f"--chunks {chunks}, but {shape} lies in {least} chunks", hint=f"--chunks {least}")
        others = rng.sample([place for place in range(chunks) if place != gold], len(needle.blocks) - 1)
    else:
        others = [rng.randrange(chunks) for _ in needle.blocks[1:]]
    places = [gold, *others]
    hidden = {place: chunk.text.split("\n") for place, chunk in enumerate(drawn)}
    without = {place: list(lines) for place, lines in hidden.items()}
    left_out = 1 if needle.is_apart else needle.golds
    for i, (place, block) in enumerate(zip(places, needle.blocks, strict=True)):
        at = rng.randint(0, len(hidden[place]))
        hidden[place][at:at] = block
        if i >= left_out:
            without[place][at:at] = block
    golds = tuple(sorted(set(places[: needle.golds])))
    texts, texts_without = (
        tuple(
            f"{chunk.header}\n" + "\n".join(lines[place]) + "\n" if place in places else chunk.encoded_text
            for place, chunk in enumerate(drawn)
        )
        for lines in (hidden, without)
    )
    sample = Sample(texts, golds, needle.question, needle.answer, needle.answer_prefix, kind=shape)
    return Case(sample, depth, texts_without)


def _places(chunks: int, samples: int) -> list[tuple[float, int]]:
    """Depth and place of the gold chunk of each case."""
    places = list(depths_of(chunks).items())
    return [places[i % len(places)] for i in range(samples)]


def depths_of(chunks: int) -> dict[float, int]:
    """depth -> place of the gold chunk. Depths that fall on the same place count once."""
    places: dict[int, float] = {}
    for depth in DEPTHS:
        places.setdefault(round(depth * (chunks - 1)), depth)
    return {depth: place for place, depth in places.items()}


# --- the report ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """What was asked, and all scores. A reader without scores at a number of chunks had no room for them."""

    readers: tuple[str, ...]
    chunks: tuple[int, ...]
    shapes: tuple[str, ...]
    samples: int
    scores: tuple[Score, ...]

    def accuracy(
        self,
        reader: str,
        chunks: int | None = None,
        *,
        depth: float | None = None,
        shape: str | None = None,
        of_chunk: bool = False,
    ) -> Estimate | None:
        """The mean share of values found, or of chunks found, over these scores; None without any.

        chunks: None for the numbers that all readers had room for, so that their means can be compared.
        """
        numbers = self.in_common if chunks is None else (chunks,)
        found = [
            float(value)
            for score in self.scores
            if score.reader == reader
            and score.chunks in numbers
            and depth in (None, score.depth)
            and shape in (None, score.shape)
            and (value := score.chunk_found if of_chunk else score.value_found) is not None
        ]
        return wilson(sum(found), len(found)) if found else None

    @property
    def in_common(self) -> tuple[int, ...]:
        """The numbers of chunks at which every reader was asked that was asked at all."""
        asked = {(score.reader, score.chunks) for score in self.scores}
        readers = {reader for reader, _ in asked}
        return tuple(number for number in self.chunks if all((reader, number) in asked for reader in readers))

    def cases(self, chunks: int) -> Counter[float]:
        """depth -> number of cases at this number of chunks."""
        return Counter(depth for depth, _ in _places(chunks, self.samples))

    def scored(self, *, of_chunk: bool) -> list[str]:
        """The readers that have any accuracy of this kind."""
        return [r for r in self.readers if any(self.accuracy(r, n, of_chunk=of_chunk) for n in self.chunks)]


def _json(grid: Grid) -> dict[str, Any]:
    """arms: the mean at `in_common`. Null where a reader had no room."""
    cells = [(reader, number) for reader in grid.readers for number in grid.chunks]
    means = {reader: grid.accuracy(reader) for reader in grid.readers}
    columns: dict[str, list[dict[str, Any]]] = {"grid": [], "intervals": [], "which_chunk": [], "shapes": []}
    for reader, number in cells:
        place = {"arm": reader, "chunks": number}
        for depth, n in sorted(grid.cases(number).items()):
            accuracy = _flat(grid.accuracy(reader, number, depth=depth))["accuracy"]
            columns["grid"].append({**place, "depth": depth, "accuracy": accuracy, "n": n})
        columns["intervals"].append({**place, **_flat(grid.accuracy(reader, number))})
        columns["which_chunk"].append({**place, **_flat(grid.accuracy(reader, number, of_chunk=True))})
    for shape in grid.shapes:
        for reader, number in cells:
            accuracy = _flat(grid.accuracy(reader, number, shape=shape))
            columns["shapes"].append({"shape": shape, "arm": reader, "chunks": number, **accuracy})
    return {"arms": {r: None if mean is None else round(mean.mean, 4) for r, mean in means.items()}, **columns}


def _flat(accuracy: Estimate | None) -> dict[str, Any]:
    if accuracy is None:
        return {"accuracy": None, "low": None, "high": None, "n": 0}
    rounded = as_json(accuracy)
    return {"accuracy": rounded.pop("mean"), **rounded}


def _tables(grid: Grid, title: str) -> list[Table]:
    def by_chunks(heading: str, readers: list[str], of_chunk: bool) -> Table:
        rows = [(n, *(grid.accuracy(r, n, of_chunk=of_chunk) for r in readers)) for n in grid.chunks]
        return Table(heading, ("chunks", *readers), rows)

    speakers = [reader for reader in grid.readers if reader != _BM25.name]
    tables = [by_chunks(f"needles found (95 % interval), {title}", speakers, of_chunk=False)]
    if len(grid.shapes) > 1:
        rows = [(shape, *(grid.accuracy(r, shape=shape) for r in speakers)) for shape in grid.shapes]
        heading = f"by shape, at {', '.join(map(str, grid.in_common))} chunks"
        tables.append(Table(heading, ("shape", *speakers), rows))
    heading = "the right chunk gets most attention, or is ranked first"
    tables.append(by_chunks(heading, grid.scored(of_chunk=True), of_chunk=True))
    return [table for table in tables if len(table.columns) > 1]


def _draw(grid: Grid, title: str, folder: Path) -> list[str]:
    shapes = grid.shapes[0] if len(grid.shapes) == 1 else f"{len(grid.shapes)} shapes"
    title = f"Needles found ({shapes}):\n{title}"
    return [_draw_map(grid, title, folder), _draw_curves(grid, title, folder)]


def _draw_map(grid: Grid, title: str, folder: Path) -> str:
    """One panel a reader: depth down, number of chunks across, accuracy as colour and number."""
    depths = sorted({depth for number in grid.chunks for depth in grid.cases(number)})
    columns = min(4, len(grid.readers))
    size = {"width": 1.2 + 0.52 * max(3, len(grid.chunks)), "height": 1.3 + 0.36 * len(depths)}
    figure, panels = pictures.panels(columns, math.ceil(len(grid.readers) / columns), **size)
    for panel in panels[len(grid.readers) :]:
        panel.set_visible(False)
    for panel, reader in zip(panels, grid.readers, strict=False):
        of_chunk = reader in grid.scored(of_chunk=True) and reader not in grid.scored(of_chunk=False)
        values = [[math.nan] * len(grid.chunks) for _ in depths]
        for column, number in enumerate(grid.chunks):
            for depth in grid.cases(number):
                row, found = depths.index(depth), grid.accuracy(reader, number, depth=depth, of_chunk=of_chunk)
                values[row][column] = math.nan if found is None else found.mean
                text = NOT_MEASURED if found is None else f"{found.mean:.2f}"
                colour = "white" if values[row][column] > 0.55 else "black"
                panel.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
        panel.imshow(values, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
        panel.grid(visible=False)
        panel.set_xticks(range(len(grid.chunks)), [str(number) for number in grid.chunks])
        panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
        mean = grid.accuracy(reader, of_chunk=of_chunk)
        name = f"{reader} (which chunk)" if of_chunk else reader
        panel.set_title(name if mean is None else f"{name}  {mean.mean:.2f}", fontsize=9)
    figure.supxlabel("chunks", fontsize=8)
    figure.supylabel("depth of the needle", fontsize=8)
    return pictures.save(figure, title, folder, "needle.png")


def _draw_curves(grid: Grid, title: str, folder: Path) -> str:
    """Accuracy over the number of chunks, a line a reader: of the values; of the chunks that were looked at most."""
    titles = {False: "the value is found", True: "the right chunk: most attention, or ranked first"}
    sides = [of_chunk for of_chunk in titles if grid.scored(of_chunk=of_chunk)]
    figure, panels = pictures.panels(max(1, len(sides)))
    for panel, of_chunk in zip(panels, sides, strict=False):
        curves = {
            reader: {n: found for n in grid.chunks if (found := grid.accuracy(reader, n, of_chunk=of_chunk))}
            for reader in grid.scored(of_chunk=of_chunk)
        }
        pictures.lines(panel, curves, grid.chunks, what=titles[of_chunk])
        panel.set_ylim(-0.03, 1.03)
        panel.set_xlabel("chunks", fontsize=8)
        panel.legend(fontsize=8)
    panels[0].set_ylabel("share found, 95 % interval", fontsize=8)
    return pictures.save(figure, title, folder, "needle_curve.png")
