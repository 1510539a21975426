"""What a run that goes on needs beside its checkpoint: its log, its best model, and the settings of now.

transformers restores the state of a checkpoint as it was, but not the counter of early stopping. Settings that may
change in a run (`max_steps`, the intervals) have to be put into that state again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from awareness.config.training import TrainingConfig
from awareness.model.checkpoint import WEIGHTS, written_aside
from awareness.train.log import LOG, read_log
from awareness.train.resuming.run_start import BEST
from awareness.train.resuming.saved_steps import PREFIX, SavedStep

_EVALUATION = "evaluation.json"  # in the folder of the best model


class GoingOn(TrainerCallback):
    """Puts the settings of now into the state of a checkpoint, and the counter of that state into early stopping.
    keeps_best: the best model of that state is there."""

    def __init__(self, training: TrainingConfig, trainer: Trainer, saved: SavedStep, *, keeps_best: bool) -> None:
        self._training, self._trainer, self._keeps_best = training, trainer, keeps_best
        self._was = saved.about.get("steps", training.max_steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)
        if not self._keeps_best:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                noted = state.stateful_callbacks.get(type(callback).__name__, {}).get("attributes", {})
                callback.early_stopping_patience_counter = noted.get("early_stopping_patience_counter", 0)
        if self._was != self._training.max_steps:
            _follow_schedule(kwargs["optimizer"], kwargs["lr_scheduler"])


def _follow_schedule(optimizer: Any, scheduler: Any) -> None:
    """Give the next step its learning rates: the optimizer's state has those of the earlier `max_steps`."""
    rates = zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, highest, factor in rates:
        group["lr"] = highest * factor(scheduler.last_epoch)


def bring_log(saved: SavedStep, output_dir: Path) -> None:
    """Copy the lines of the steps done to an output folder that has no log, from the folder of the checkpoint."""
    own = output_dir / LOG
    if not own.exists():
        lines = [line for line in read_log(saved.path.parent) if line["step"] <= saved.step]
        if lines:
            own.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def bring_best(saved: SavedStep, output_dir: Path) -> None:
    """Copy the best model of a checkpoint's state to `output_dir` if another or none is there."""
    step, run = saved.state.get("best_global_step"), saved.path.parent
    if step is None or has_best(saved, output_dir):
        return
    for folder in (run / BEST, run / f"{PREFIX}{step}"):
        if _is_best(folder, step):
            with written_aside(output_dir / BEST) as partial:
                for name in ("config.json", WEIGHTS):
                    shutil.copyfile(folder / name, partial / name)
            note_best(output_dir / BEST, step)
            return


def has_best(saved: SavedStep, output_dir: Path) -> bool:
    """Whether the best model of a checkpoint's state is in `output_dir`, or there is none."""
    step = saved.state.get("best_global_step")
    return step is None or _is_best(output_dir / BEST, step)


def note_best(folder: Path, step: int) -> None:
    """Write down of which step the best model is."""
    (folder / _EVALUATION).write_text(json.dumps({"step": step}) + "\n", "utf-8")


def _is_best(folder: Path, step: int) -> bool:
    """Whether a folder has the tensors of this step. Best models of earlier versions do not say of which they are."""
    if not (folder / WEIGHTS).is_file():
        return False
    if folder.name == f"{PREFIX}{step}" or not (folder / _EVALUATION).is_file():
        return True
    return bool(json.loads((folder / _EVALUATION).read_text("utf-8")) == {"step": step})


def last_loss(output_dir: Path, state: Any, every: int) -> float | None:
    """Mean loss over the last `every` steps: of the log, or else as transformers noted it; None if it is not known."""
    lines = read_log(output_dir)
    losses = [line["loss"] for line in lines if "loss" in line and line["step"] <= state.global_step][-every:]
    if losses:
        return float(sum(losses) / len(losses))
    noted = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return float(noted[-1]) if noted else None
