"""Trainings side by side: how well each predicts the answers of the same held-out samples, by kind of question."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from awareness.engine.models import pull_model
from awareness.evals import pictures
from awareness.evals.intervals import Estimate, bootstrap
from awareness.evals.readers import Reader, open_readers
from awareness.evals.report import Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.types import Progress, Sample, silent


@dataclass(frozen=True)
class Run:
    """A training. base: name of its base model. reads: how a run that trains nothing gets the chunks, `text` or `none`.
    checkpoint: the result, None if it trains nothing. settings: as they stand in the JSON."""

    name: str
    base: str
    reads: str
    checkpoint: Path | None
    settings: Mapping[str, Any]

    def open(self, setup: Setup) -> Reader:
        names, checkpoints = ([self.reads], []) if self.checkpoint is None else ([], [self.checkpoint])
        folder = pull_model(self.base, setup.reporter)
        (reader,) = open_readers(names, checkpoints, model=folder, quant=setup.quant, reporter=setup.reporter)
        return replace(reader, name=self.name)


def measure(
    setup: Setup,
    *,
    runs: Sequence[Run],
    held_out: Sequence[Sample],
    draw_losses: Callable[[Path], None],
) -> Report:
    """held_out: samples that no run has learned. draw_losses: draws the losses of the runs into a file."""
    readers = [run.open(setup) for run in runs]
    with setup.progress() as progress:
        perplexities, left_out = perplexities_of(readers, held_out, seed=setup.seed, progress=progress)
    title = f"{len(held_out)} samples of held-out repositories, seed {setup.seed}"
    cells = [(name, by_kind["all"], by_kind["all"].n) for name, by_kind in perplexities.items()]
    return Report(
        "compare",
        [Table(f"perplexity of the answer (95 % interval), {title}", ("run", "all", "samples"), cells)],
        {
            "seed": setup.seed,
            "samples": len(held_out),
            "left_out": left_out,
            "runs": {run.name: run.settings for run in runs},
            "perplexity": [as_json({"run": name, **by_kind}) for name, by_kind in perplexities.items()],
        },
        partial(_draw, perplexities, draw_losses, title),
    )


Perplexities = dict[str, dict[str, Estimate]]
"""reader -> kind of sample, or `all` -> exp of the mean, over samples, of the mean -log p of an answer's tokens."""


def perplexities_of(
    readers: Sequence[Reader], samples: Sequence[Sample], *, seed: int, progress: Progress = silent
) -> tuple[Perplexities, int]:
    """Also the number of samples that were left out for all, as they do not fit one of the readers."""
    fitting = [sample for sample in samples if all(reader.fits(sample) for reader in readers)]
    perplexities: Perplexities = {}
    for number, reader in enumerate(readers):
        by_kind: dict[str, list[float]] = defaultdict(list)
        for done, sample in enumerate(fitting):
            progress("comparing", number * len(fitting) + done, len(readers) * len(fitting))
            nll, tokens = reader.nll(sample)
            for kind in ("all", sample.kind):
                by_kind[kind].append(nll / max(1, tokens))
        perplexities[reader.name] = {kind: _exp(bootstrap(nlls, seed=seed)) for kind, nlls in sorted(by_kind.items())}
    return perplexities, len(samples) - len(fitting)


def _exp(mean: Estimate) -> Estimate:
    return Estimate(math.exp(mean.mean), math.exp(mean.low), math.exp(mean.high), mean.n)


def _draw(perplexities: Perplexities, draw_losses: Callable[[Path], None], title: str, folder: Path) -> list[str]:
    """Perplexity of each run over all samples; the losses of the trainings."""
    figure, (panel,) = pictures.panels(1, width=pictures.bars_width(len(perplexities)))
    heights = {(name, "all"): by_kind["all"] for name, by_kind in perplexities.items()}
    pictures.bars(panel, heights, ("all",), what="perplexity of the answer")
    draw_losses(folder / "compare_loss.png")
    return [pictures.save(figure, title, folder, "compare.png"), "compare_loss.png"]
