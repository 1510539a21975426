"""`awareness train`: trains from a YAML configuration; `train find-lr` finds a learning rate for it."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.cli.training_file import read_training_file
from awareness.engine.models import pull_model
from awareness.errors import StorageFailed, UsageError, make_writable
from awareness.evals.report import write_json

if TYPE_CHECKING:
    from awareness.config.read import Config
    from awareness.config.routers import RouterConfig
    from awareness.config.training import TrainConfig
    from awareness.train.router_training import TrainedRouter

app = typer.Typer(invoke_without_command=True)
_PULL = functools.partial(pull_model, reporter=render.REPORTER)
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="A YAML file, like configs/smollm2-memory.yaml.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value of the file: training.max_steps=100; repeatable.")
]


@app.callback()
def train(
    context: typer.Context,
    config: ConfigOption = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Resume from `latest` or from a checkpoint folder.")
    ] = None,
    settings: SetOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Train a memory, LoRA, a decoder or a router from a YAML configuration."""
    if context.invoked_subcommand is not None:
        return
    read = _read(config, settings)
    if read.task == "memory":
        _memory(read, resume, format)
        return
    if resume is not None:
        raise UsageError("--resume works for task: memory only", hint="leave --resume out")
    _router(read, format)


@app.command("find-lr")
def find_lr(
    config: ConfigOption = None,
    settings: SetOption = None,
    steps: Annotated[int, typer.Option("--steps", min=5, help="Number of learning rates to try.")] = 60,
    highest: Annotated[float, typer.Option("--highest", help="Last learning rate; the first is 1e-5 of it.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for find_lr.json and find_lr.png.")] = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Raise the learning rate step by step and report where the loss falls fastest. Writes no checkpoint."""
    read = _read(config, settings)
    if read.task != "memory":
        raise UsageError(f"find-lr is for task: memory, not {read.task}", hint="--config configs/smollm2-memory.yaml")
    from awareness.train.find_lr import draw_rates, find_rate, rates_at

    with render.progress() as progress:
        found = find_rate(read, pull=_PULL, steps=steps, highest=highest, progress=progress, say=render.note)
    result = asdict(found)
    if out is not None:
        write_json(out, "find_lr", result)
        draw_rates(found, out / "find_lr.png")
    if format is options.Format.json:
        render.data(result)
        return
    render.table(
        ("learning rate", "loss"),
        [(f"{rate:.1e}", f"{loss:.3f}") for rate, loss in found.curve[:: max(1, steps // 12)]],
    )
    render.text(f"the loss falls fastest at {found.steepest:.1e}; it is lowest at {found.lowest:.1e}")
    rates = rates_at(read, found.steepest)
    render.note(f"try: {' '.join(f'--set training.{name}={rate:.1e}' for name, rate in rates.items())}")


def _read(config: Path | None, settings: list[str] | None) -> Config:
    if config is None:
        raise UsageError("no configuration was given", hint="awareness train --config configs/smollm2-memory.yaml")
    return read_training_file(config, settings)


def _memory(config: TrainConfig, resume: str | None, format: options.Format) -> None:
    from awareness.config.secrets import load_env

    render.hide(load_env(Path.cwd()))
    _may_be_written(config.output_dir / "checkpoint", "output_dir")
    from awareness.train.processes import launch, one_of_several, process_index, to_start

    if processes := to_start(config):
        raise typer.Exit(launch(processes, sys.argv[1:]))
    from awareness.train.run import train_memory

    if process_index():
        render.set_volume(quiet=True)
    with one_of_several(), render.progress() as progress:
        done = train_memory(config, pull=_PULL, resume=resume, progress=progress, say=render.note)
    if process_index():
        return
    result = {"task": config.task, **asdict(done), "output": str(done.output), "seconds": round(done.seconds, 1)}
    if format is options.Format.json:
        render.data(result)
        return
    best = (
        "" if done.validation is None else f"; validation {done.validation:.4f} at step {done.best_step}, which is kept"
    )
    loss = "unknown" if done.loss is None else f"{done.loss:.4f}"
    render.text(f"{done.output}: {done.parameters:,} parameters, {done.steps} steps, loss {loss}{best}")
    render.note(f"each step: {config.output_dir / 'log.jsonl'}; use it: awareness ask --adapter {done.output}")


def _router(config: RouterConfig, format: options.Format) -> None:
    started = time.perf_counter()
    _may_be_written(config.output, "output")
    done = _term_vectors(config)
    seconds = round(time.perf_counter() - started, 1)
    if format is options.Format.json:
        figures = {name: round(value, 4) for name, value in asdict(done).items()}
        render.data({"task": config.task, "output": str(config.output), **figures, "seconds": seconds})
        return
    if done.held_out:
        before_after = f"{done.before:.3f} before, {done.after:.3f} after"
        render.text(f"MRR on {done.held_out} held-out folders: {before_after}")
    else:
        render.text("no folder was held out (data.held_out), so it is unknown whether this is better")
    render.text(f"{config.output}: learned from {done.pairs} pairs in {seconds:.0f} s")
    render.note(f"use it: awareness index --router {config.output}")


def _may_be_written(path: Path, key: str) -> None:
    """Checks the output path before hours of training. Raises UsageError for a folder, StorageFailed for a place that
    may not be written."""
    if path.is_dir():
        raise UsageError(f"{key}: {path} cannot be written: it is a folder", hint=f"--set {key}=ANOTHER")
    try:
        make_writable(path.parent)
    except StorageFailed as error:
        raise StorageFailed(f"{key}: {path} cannot be written: {error.message}", hint=f"--set {key}=ANOTHER") from error


def _term_vectors(config: RouterConfig) -> TrainedRouter:
    from awareness.train.router_training import train_router

    embed_words = None
    if config.model.words_from:
        from awareness.model.text_embedder import TextEmbedder

        embed_words = TextEmbedder(pull_model(config.model.words_from, render.REPORTER)).words
    with render.progress() as progress:
        return train_router(config, embed_words=embed_words, progress=progress, log=render.note)
