"""Report a running training: one line per step in `log.jsonl`, a progress bar, notes, and a picture of the loss."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from awareness.index.files.own.own_files import PICTURE_SOFTWARE
from awareness.types import Progress, silent

LOG, PICTURE = "log.jsonl", "loss.png"
TERMS = ("answer", "kl", "citation", "sparsity")
"""The terms of the loss that are drawn."""


class RunLog(TrainerCallback):
    """A line of `log.jsonl` has `step`, `loss`, the terms, `lr` (the highest) and `seconds`, or `step` and the `eval_…`
    figures. A resumed run deletes the lines of steps that it repeats. means: gives loss and terms of the last step."""

    def __init__(self, folder: Path, *, every: int, progress: Progress = silent, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.progress, self.say = folder, every, progress, say
        self.means: Callable[[], dict[str, float]] = dict
        self._recent: list[float] = []
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(self.folder) if line["step"] <= state.global_step]
            text = "".join(json.dumps(line) + "\n" for line in kept) if state.global_step else ""
            (self.folder / LOG).write_text(text, "utf-8")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        means = self.means()
        if not state.is_world_process_zero:
            return
        rates = kwargs["lr_scheduler"].get_last_lr()
        seconds = round(time.perf_counter() - self._began, 2)
        self._write({"step": state.global_step, **means, "lr": max(rates), "seconds": seconds})
        self._recent.append(means.get("loss", float("nan")))
        self.progress("training", state.global_step, state.max_steps)
        if state.global_step % self.every == 0:
            mean = sum(self._recent) / len(self._recent)
            self.say(f"step {state.global_step} of {state.max_steps}: loss {mean:.4f}, {seconds:.0f} s")
            self._recent.clear()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and metrics:
            self._write({"step": state.global_step, **metrics})
            self.say(f"step {state.global_step}: validation loss {metrics['eval_loss']:.4f}")

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, up to a line that was cut off."""
    lines = []
    path = folder / LOG
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def draw_losses(runs: Sequence[Path], path: Path) -> None:
    """Draw smoothed loss by step, and validation loss as points. One run is drawn with its terms, several without."""
    figure, axes = loss_axes(7, 4)
    for folder in runs:
        lines = read_log(folder)
        steps = [line for line in lines if "loss" in line]
        terms = [name for name in steps[-1] if name in TERMS] if len(runs) == 1 and steps else []
        for name in ("loss", *(terms if len(terms) > 1 else [])):
            label = folder.name if len(runs) > 1 else name
            values = smooth([line[name] for line in steps])
            axes.plot([line["step"] for line in steps], values, label=label, linewidth=1.6 if name == "loss" else 1.0)
        measured = [line for line in lines if "eval_loss" in line]
        if measured:
            style: dict[str, Any] = {"label": "validation", "color": "black"}
            if len(runs) > 1:
                style = {"color": axes.lines[-1].get_color()}
            axes.plot([m["step"] for m in measured], [m["eval_loss"] for m in measured], "o", **style)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Software": PICTURE_SOFTWARE})


def loss_axes(width: float, height: float) -> tuple[Any, Any]:
    """(figure, axes) of an empty picture. width, height: in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average with bias correction (Kingma and Ba 2015, section 3)."""
    smooth, mean = [], 0.0
    for count, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        smooth.append(mean / (1 - weight**count))
    return smooth
