"""Report a running training: one line per step in `log.jsonl`, a progress bar, notes, trackers, and a picture of the
loss."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from awareness.index.files.own.own_files import PICTURE_SOFTWARE
from awareness.types import Progress, silent

LOG, PICTURE, SETTINGS = "log.jsonl", "loss.png", "train.json"
TERMS = ("answer", "kl", "citation", "sparsity", "load_balance_loss", "auxiliary_loss", "z_loss")
"""The terms of the loss that are drawn."""
DRAWN_S = 30.0
"""Seconds between two pictures of a running training, at least."""
SHOWN = 20
"""Steps whose mean loss the progress bar shows."""
GIB = 1 << 30


class RunLog(TrainerCallback):
    """A line of `log.jsonl` has `step`, `loss`, the terms, `tokens` of the answers, the learning rates of the step by
    part (`lr_memory`, `lr_gate`, `lr_lora`, `lr_base`; those that are trained), the highest of them (`lr`), and
    `seconds` since the start; or `step` and the `eval_…` figures. A resumed run deletes the lines of steps that it
    repeats.

    The first step, every `every` steps and the last one are told of, to `say` and to the trackers, by means over the
    steps since the time before. means: gives loss and terms of the last step. rates: gives the learning rates by part.
    """

    def __init__(self, folder: Path, *, every: int, progress: Progress = silent, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.progress, self.say = folder, every, progress, say
        self.means: Callable[[], dict[str, float]] = dict
        self.rates: Callable[[], dict[str, float]] = dict
        self.figures: dict[str, float] = {}
        """What was told last, for the trackers."""
        self._recent: list[dict[str, float]] = []
        self._losses: deque[float] = deque(maxlen=SHOWN)
        self._rates: dict[str, float] = {}
        self._first = 0
        self._began = self._since = self._drawn = 0.0
        self._seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = self._since = self._drawn = time.perf_counter()
        self._first, self._seconds = state.global_step + 1, 0.0
        self._recent.clear()
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(self.folder) if line["step"] <= state.global_step]
            text = "".join(json.dumps(line) + "\n" for line in kept) if state.global_step else ""
            (self.folder / LOG).write_text(text, "utf-8")
            self.progress("training", state.global_step, state.max_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._rates = self.rates()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        means, now, step = self.means(), time.perf_counter(), state.global_step
        self._recent.append(means)
        self._seconds, self._since = self._seconds + now - self._since, now
        left = (now - self._began) / (step - self._first + 1) * (state.max_steps - step)
        if state.is_world_process_zero:
            self._write({"step": step, **means, **_named(self._rates), "seconds": round(now - self._began, 2)})
            self._losses.append(means.get("loss", math.nan))
            self.progress(f"training · loss {fmean(self._losses):.4f}", step, state.max_steps)
        if step == self._first or step % self.every == 0 or step >= state.max_steps:
            control.should_log = True
            self._tell(args, state, f"{timedelta(seconds=math.ceil(left))} left")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and metrics:
            self._write({"step": state.global_step, **metrics})
            figures = f"validation loss {metrics['eval_loss']:.4f}, perplexity {metrics['eval_perplexity']:.2f}"
            self.say(f"step {state.global_step}: {figures}")
        self._since = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and time.perf_counter() - self._drawn >= DRAWN_S:
            draw_run(self.folder, self.say)
            self._drawn = time.perf_counter()
        self._since = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells of the last steps of a training that ends early."""
        if self._recent:
            self._tell(args, state, "the last one")

    def _tell(self, args: Any, state: Any, left: str) -> None:
        """Say a line, and set `figures`. left: how long the training still takes."""
        means, seconds = _means(self._recent), self._seconds / len(self._recent)
        speed = means.pop("tokens", 0.0) / max(seconds, 1e-9)
        memory = {"memory_gib": psutil.Process().memory_info().rss / GIB}
        if args.device.type == "cuda":
            memory["gpu_memory_gib"] = torch.cuda.memory_allocated(args.device) / GIB
        self.figures = {**means, **_named(self._rates), "step_seconds": seconds, "tokens_per_second": speed, **memory}
        self._recent, self._seconds = [], 0.0
        if not state.is_world_process_zero:
            return
        terms = [f"{name} {value:.4f}" for name, value in means.items() if name != "loss"]
        parts = [f"loss {means.get('loss', math.nan):.4f}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")]
        parts.append("lr " + " ".join(f"{part} {rate:.1e}" for part, rate in self._rates.items()))
        parts += [f"{seconds:.2f} s a step", f"{speed:,.1f} tokens/s"]
        parts += [left] if state.global_step < state.max_steps else []
        parts += [f"{name}{size:.1f} GiB" for name, size in zip(("", "GPU "), memory.values(), strict=False)]
        self.say(f"step {state.global_step} of {state.max_steps}: {', '.join(parts)}")

    def _write(self, line: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure, over the steps that have it."""
    values = {
        name: [own[name] for own in steps if name in own] for name in dict.fromkeys(n for own in steps for n in own)
    }
    return {name: fmean(own) for name, own in values.items()}


def _named(rates: Mapping[str, float]) -> dict[str, float]:
    """Learning rates by part, as they stand in the log."""
    return {"lr": max(rates.values(), default=0.0), **{f"lr_{part}": rate for part, rate in rates.items()}}


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


def draw_run(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Draw the losses of a run into its folder. Returns the picture; None, and says why, if it cannot be drawn."""
    path = folder / PICTURE
    try:
        draw_losses([folder], path)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        say(f"{path} is not drawn: {error}")
        return None
    return path


def draw_losses(runs: Sequence[Path], path: Path) -> None:
    """Draw smoothed loss by step, and validation loss as points. One run is drawn with its terms, several without."""
    figure, axes = loss_axes(7, 4)
    for folder in runs:
        lines = read_log(folder)
        terms = [name for name in TERMS if any(name in line for line in lines)] if len(runs) == 1 else []
        for name in ("loss", *(terms if len(terms) > 1 else [])):
            steps, values = _curve(lines, name)
            label = folder.name if len(runs) > 1 else name
            axes.plot(steps, smooth(values), label=label, linewidth=1.6 if name == "loss" else 1.0)
        steps, values = _curve(lines, "eval_loss")
        if steps:
            style: dict[str, Any] = {"label": "validation", "color": "black"}
            if len(runs) > 1:
                style = {"color": axes.lines[-1].get_color()}
            axes.plot(steps, values, "o", markersize=4, **style)
    axes.set_title(_title(runs), fontsize="medium")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats (of training: smoothed)")
    _scale(axes)
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside the curves, never on them
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png", bbox_inches="tight", metadata={"Software": PICTURE_SOFTWARE})
    partial.replace(path)


def _curve(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of the lines that have a finite value by this name."""
    own = [(line["step"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
    return [step for step, _ in own], [value for _, value in own]


def _title(runs: Sequence[Path]) -> str:
    """`runs/one · smollm2-135m` for one run."""
    if len(runs) != 1:
        return f"{len(runs)} trainings"
    try:
        model = json.loads((runs[0] / SETTINGS).read_text("utf-8"))["model"]
        name = Path(model["base_model_name"]).name if model["base_model_name"] else "from scratch"
    except (OSError, ValueError, KeyError, TypeError):
        return runs[0].name
    return f"{runs[0].name} · {name}"


def _scale(axes: Any) -> None:
    """A logarithmic y axis where the values span a factor of 10; what is not positive is left out of it."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    values = [value for line in axes.lines for value in line.get_ydata() if value > 0]
    if values and max(values) >= 10 * min(values):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


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
