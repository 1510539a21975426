"""A learning rate range test (Smith 2017, arXiv 1506.01186, section 3.3): the rate grows from step to step, and where
the loss falls fastest is a good one to begin with."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from awareness.config.training import TrainConfig
from awareness.errors import UsageError
from awareness.model.model_files import ModelFolder
from awareness.train.log import smooth
from awareness.train.run import prepare
from awareness.types import Progress, silent

LOWEST = 1e-5
"""The first rate as a share of the last."""
DIVERGED = 4.0
"""Times the lowest loss seen: then it is over."""


@dataclass(frozen=True)
class FoundRate:
    """curve: (rate of the memory, smoothed loss) a step. steepest: the rate where the loss falls fastest; lowest: where
    it is lowest, already too high to train with."""

    curve: tuple[tuple[float, float], ...]
    steepest: float
    lowest: float


def find_rate(
    config: TrainConfig,
    *,
    pull: Callable[[str], ModelFolder],
    steps: int,
    highest: float,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> FoundRate:
    """One step a rate; the other rates keep their proportion to `memory_lr`. Raises UsageError if the loss never
    falls."""
    with tempfile.TemporaryDirectory() as scratch:
        training = config.training.model_copy(update={"max_steps": steps, "gradient_accumulation_steps": 1})
        config = config.model_copy(update={"training": training, "output_dir": Path(scratch)})
        trainer = prepare(config, pull=pull, progress=progress, say=say).trainer
        optimizer = trainer.create_optimizer()
        shares = [group["lr"] / max(training.memory_lr, 1e-12) for group in optimizer.param_groups]
        rates, losses = [], []
        step = trainer.model.train()
        for number, inputs in enumerate(trainer.get_train_dataloader()):
            rate = highest * LOWEST ** (1 - number / max(1, steps - 1))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            loss = step(**trainer._prepare_inputs(inputs))["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(step.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            rates.append(rate)
            losses.append(loss.item())
            progress("trying", number + 1, steps)
            if not math.isfinite(losses[-1]) or losses[-1] > DIVERGED * min(losses):
                break
    return found_in(rates, losses)


def found_in(rates: list[float], losses: list[float]) -> FoundRate:
    """Raises UsageError if the loss never falls."""
    curve = smooth([loss for loss in losses if math.isfinite(loss)], 0.8)
    falls = [(later - earlier, rate) for earlier, later, rate in zip(curve, curve[1:], rates[1:], strict=False)]
    lowest = rates[curve.index(min(curve))] if curve else 0.0
    before = [fall for fall in falls if fall[1] <= lowest]
    if not before:
        raise UsageError("the loss never falls", hint="more --steps, or a lower --highest")
    return FoundRate(tuple(zip(rates, curve, strict=False)), min(before)[1], lowest)


def draw_rates(found: FoundRate, path: Path) -> None:
    """The curve, with the rate that is suggested."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*zip(*found.curve, strict=True))
    axes.axvline(found.steepest, linestyle="--", color="tab:green", label=f"falls fastest: {found.steepest:.1e}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate of the memory")
    axes.set_ylabel("loss, nats, smoothed")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
