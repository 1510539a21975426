"""`awareness train`: fine-tunes what a YAML file says."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.cli.workspace import pull_model
from awareness.errors import UsageError

if TYPE_CHECKING:
    from awareness.config.routers import HiddenRouterConfig, RouterConfig
    from awareness.train.pairs import Trained


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="A YAML file, like configs/router.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Lays a value over the file: training.steps=100; repeatable.")
    ] = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fine-tune the router on code of your own, as a YAML file says."""
    from awareness.config.read import read_config
    from awareness.config.routers import RouterConfig

    started = time.perf_counter()
    read = read_config(config, settings or [])
    _may_be_written(read.output)
    done = _term_vectors(read) if isinstance(read, RouterConfig) else _head(read)
    seconds = round(time.perf_counter() - started, 1)
    if format is options.Format.json:
        figures = {name: round(value, 4) for name, value in asdict(done).items()}
        render.data({"task": read.task, "output": str(read.output), **figures, "seconds": seconds})
        return
    if done.held_out:
        before_after = f"{done.before:.3f} before, {done.after:.3f} after"
        render.text(f"MRR on {done.held_out} folders that were not learned from: {before_after}")
    else:
        render.text("no folder was held out, so nothing says whether this is better: data.held_out")
    render.text(f"{read.output}: learned from {done.pairs} pairs in {seconds:.0f} s")
    render.note(f"use it: awareness index --router {read.output}")


def _may_be_written(path: Path) -> None:
    """Before hours of training. Raises UsageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fits = not path.is_dir() and os.access(path.parent, os.W_OK)
    except OSError:
        fits = False
    if not fits:
        raise UsageError(f"output: {path} can't be written", hint="--set output=FILE")


def _term_vectors(config: RouterConfig) -> Trained:
    from awareness.train.router import train_router

    embed_words = None
    if config.model.words_from:
        from awareness.model.embed import TextEmbedder

        embed_words = TextEmbedder(pull_model(config.model.words_from)).words
    with render.progress() as progress:
        return train_router(config, embed_words=embed_words, progress=progress, log=render.note)


def _head(config: HiddenRouterConfig) -> Trained:
    from awareness.model.load import load
    from awareness.train.hidden import train_hidden_router

    decoder = load(pull_model(config.model.decoder))
    with render.progress() as progress:
        return train_hidden_router(config, decoder, progress=progress, log=render.note)
