"""Perplexity of lines that rest on a definition in another file: does it help to have that file in memory?

The model continues the lines above (next_lines.py). What it may read is the condition: `gold`, the chunk with the
definition among others of the repository; `shuffled`, as many chunks of another case, none of which has the name (the
control: does that definition help, or any code?); `none`. A reader that reads nothing has the last one only.

Perplexity is exp(-sum of log p / number of tokens) over all cases (Jelinek et al. 1977), of the line and of the name in
it, given what stands before it; the interval is a bootstrap over cases.

Several processes (`torchrun`) share the cases: each reads a part with readers of its own, and all get all likelihoods,
in the order of the cases, so that the report is that of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import RESAMPLES, TAILS, Estimate
from awareness.evals.readers import Reader
from awareness.evals.report import Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.evals.several_processes import gathered, share_of_this_process
from awareness.index.files.repository import SourceFile
from awareness.model.token_offsets import token_starts
from awareness.train.samples.next_lines import LineCase, make_cases
from awareness.types import Progress, silent

CONDITIONS = ("gold", "shuffled", "none")


@dataclass(frozen=True)
class Likelihood:
    """(-log p in nats, tokens) of a case: of the line, and of the name only."""

    line: tuple[float, int]
    name: tuple[float, int]


@dataclass(frozen=True)
class Perplexity:
    """Of one reader under one condition: of the lines, and of the names in them. tokens: of all lines."""

    arm: str
    condition: str
    line: Estimate
    name: Estimate
    tokens: int


Likelihoods = dict[tuple[str, str], list[Likelihood]]
"""(reader, condition) -> the likelihood of each case."""


def measure(setup: Setup, *, samples: int, chunks: int, chunk_tokens: int) -> Report:
    """samples: lines of a repository at most. chunks: that are read, the definition's among them."""
    settings = {"samples": samples, "chunks": chunks, "chunk_tokens": chunk_tokens}
    starts = token_starts(setup.folder.path)
    cases: list[LineCase] = []
    for repository in setup.repositories:
        files = {file.path: file.text for file in repository.scan() if isinstance(file, SourceFile)}
        cases += make_cases(files, starts, **settings, seed=setup.seed)
    readers = setup.open_readers()
    with setup.progress() as progress:
        cases, likelihoods = read_lines(readers, cases, progress)
    rows = [_row(*key, column, setup.seed) for key, column in likelihoods.items()]
    title = (
        f"{setup.folder.name}, {len(cases)} lines of {', '.join(setup.repository_names)}, {chunks} chunks of"
        f" {chunk_tokens} tokens, quant {setup.quant}, seed {setup.seed}"
    )
    cells = [(row.arm, row.condition, row.line, row.name) for row in rows]
    return Report(
        "perplexity",
        [Table(f"perplexity (95 % interval), {title}", ("arm", "reads", "line", "name in it"), cells)],
        {
            "perplexity": [as_json(row) for row in rows],
            "cases": [_case_json(i, case, likelihoods) for i, case in enumerate(cases)],
            **setup.settings,
            **settings,
            "repositories": setup.repository_names,
        },
        partial(_draw, rows, title),
    )


def read_lines(
    readers: Sequence[Reader], cases: Sequence[LineCase], progress: Progress = silent
) -> tuple[list[LineCase], Likelihoods]:
    """The cases that every reader has room for, and their likelihoods. Raises UsageError if there are none."""
    fitting = [case for case in cases if all(reader.fits(case.sample) for reader in readers)]
    if not fitting:
        raise UsageError(f"none of {len(cases)} cases fits the prompt of every arm", hint="fewer --chunks")
    columns = [(reader, how) for reader in readers for how in (CONDITIONS if reader.reads != "none" else ("none",))]
    own = share_of_this_process(fitting)
    rows: list[list[Likelihood]] = []
    for i, case in enumerate(own):
        texts = {"gold": case.sample.texts, "shuffled": case.shuffled, "none": ()}
        row = []
        for j, (reader, how) in enumerate(columns):
            line, name = (reader.nll(sample, texts=texts[how]) for sample in (case.sample, case.named))
            row.append(Likelihood(line, name))
            progress("reading lines", i * len(columns) + j + 1, len(own) * len(columns))
        rows.append(row)
    every = gathered(rows)
    return fitting, {(reader.name, how): [row[j] for row in every] for j, (reader, how) in enumerate(columns)}


def _row(reader: str, condition: str, likelihoods: Sequence[Likelihood], seed: int) -> Perplexity:
    lines, names = [likelihood.line for likelihood in likelihoods], [likelihood.name for likelihood in likelihoods]
    tokens = sum(count for _, count in lines)
    return Perplexity(reader, condition, perplexity(lines, seed=seed), perplexity(names, seed=seed), tokens)


def perplexity(likelihoods: Sequence[tuple[float, int]], *, seed: int) -> Estimate:
    """likelihoods: (-log p in nats, tokens) of each case. The interval is over draws of cases, with replacement."""
    nlls, tokens = np.array(likelihoods, dtype=np.float64).T  # [n]
    drawn = np.random.default_rng(seed).integers(len(nlls), size=(RESAMPLES, len(nlls)))
    low, high = np.percentile(np.exp(nlls[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)), TAILS)
    return Estimate(float(np.exp(nlls.sum() / tokens.sum())), float(low), float(high), len(nlls))


def _case_json(i: int, case: LineCase, likelihoods: Likelihoods) -> dict[str, Any]:
    """nll: of the i-th case by each reader and condition, so that readers can be compared case by case."""
    nll = {f"{r}/{how}": {"line": all_[i].line[0], "name": all_[i].name[0]} for (r, how), all_ in likelihoods.items()}
    return {"place": case.place, "name": case.name, "nll": as_json(nll)}


def _draw(rows: Sequence[Perplexity], title: str, folder: Path) -> list[str]:
    """A panel for lines and one for names; a bar for each condition of a reader."""
    figure, panels = pictures.panels(2, width=pictures.bars_width(len({row.arm for row in rows})))
    for panel, part, what in zip(panels, ("line", "name"), ("the line", "the name in it"), strict=True):
        heights: dict[tuple[str, str], Estimate] = {(row.arm, row.condition): getattr(row, part) for row in rows}
        pictures.bars(panel, heights, CONDITIONS, what=f"perplexity of {what}")
    pictures.legend_beside(panels[1], "in memory or prompt")
    return [pictures.save(figure, title, folder, "perplexity.png")]
