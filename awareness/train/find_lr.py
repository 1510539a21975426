"""Find a learning rate by a range test (Smith 2017, arXiv 1506.01186, section 3.3): raise the rate at every step, and
suggest the one at which the loss falls fastest."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from awareness.config.training import TrainConfig
from awareness.errors import UsageError
from awareness.index.files.own.own_files import PICTURE_SOFTWARE
from awareness.model.model_files import ModelFolder
from awareness.train.log import loss_axes, smooth
from awareness.train.preparation import prepare
from awareness.train.setting_checks import check_settings, rates_of_what_is_trained
from awareness.train.tell_unused import tell_unused
from awareness.types import Progress, silent

LOWEST = 1e-5  # the first rate as a share of the last
DIVERGED = 4.0  # the test stops at a loss of this many times the lowest


@dataclass(frozen=True)
class RangeTest:
    """curve: (learning rate of the memory, smoothed loss) of each step. steepest: the rate at which the loss falls
    fastest. lowest: the rate of the lowest loss, which is too high to train with."""

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
) -> RangeTest:
    """Train one step per rate; the other rates keep their ratio to `memory_lr`. Raises UsageError if the loss never
    falls."""
    check_settings(config, pull=pull)
    tell_unused(config, say)  # of the training, whose steps and output folder are replaced here
    with tempfile.TemporaryDirectory() as scratch:
        training = config.training.model_copy(update={"max_steps": steps, "gradient_accumulation_steps": 1})
        config = config.model_copy(update={"training": training, "output_dir": Path(scratch), "quiet_unused": True})
        trainer = prepare(config, pull=pull, progress=progress, say=say).trainer
        step, optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
        shares = [group["lr"] / max(training.memory_lr, 1e-12) for group in optimizer.param_groups]
        rates, losses = [], []
        step.train()
        for number, inputs in enumerate(trainer.get_train_dataloader()):
            rate = highest * LOWEST ** (1 - number / max(1, steps - 1))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            loss = step(**trainer._prepare_inputs(inputs))["loss"]
            trainer.accelerator.backward(loss)
            trainer.accelerator.clip_grad_norm_(step.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            rates.append(rate)
            losses.append(loss.item())
            progress("trying", number + 1, steps)
            if not math.isfinite(losses[-1]) or losses[-1] > DIVERGED * min(losses):
                break
    return steepest_fall(rates, losses)


def steepest_fall(rates: list[float], losses: list[float]) -> RangeTest:
    """Find where the smoothed loss falls fastest, up to its minimum. Raises UsageError if the loss never falls."""
    curve = smooth([loss for loss in losses if math.isfinite(loss)], 0.8)
    falls = [(later - earlier, rate) for earlier, later, rate in zip(curve, curve[1:], rates[1:], strict=False)]
    lowest = rates[curve.index(min(curve))] if curve else 0.0
    candidates = [fall for fall in falls if fall[1] <= lowest]
    if not candidates:
        raise UsageError("the loss never falls", hint="more --steps, or a lower --highest")
    return RangeTest(tuple(zip(rates, curve, strict=False)), min(candidates)[1], lowest)


def rates_at(config: TrainConfig, memory_lr: float) -> dict[str, float]:
    """Name -> rate of each part that is trained, where the memory has `memory_lr`: in the ratio of `config`."""
    own = config.training.memory_lr
    return {name: rate * memory_lr / max(own, 1e-12) for name, rate in rates_of_what_is_trained(config).items()}


def draw_rates(result: RangeTest, path: Path) -> None:
    """Draw the curve and the suggested rate to a PNG file."""
    figure, axes = loss_axes(6, 3.6)
    axes.plot(*zip(*result.curve, strict=True))
    axes.axvline(result.steepest, linestyle="--", color="tab:green", label=f"falls fastest: {result.steepest:.1e}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate of the memory")
    axes.set_ylabel("loss, nats, smoothed")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Software": PICTURE_SOFTWARE})
