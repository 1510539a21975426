"""Train by a `task: memory` file: begin or go on, do the steps, and write the result."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerState

from awareness.config.training import TrainConfig
from awareness.config.unused import UnusedSetting
from awareness.model.checkpoint import begin_with
from awareness.model.model_files import ModelFolder
from awareness.train.log import SETTINGS, draw_run
from awareness.train.preparation import DTYPES, Prepared, prepare, settings_about
from awareness.train.processes import process_index, with_processes
from awareness.train.resuming.going_on import GoingOn, bring_best, bring_log, has_best, last_loss
from awareness.train.resuming.interruption import Interruption
from awareness.train.resuming.run_lock import alone_in
from awareness.train.resuming.run_start import FINAL, RESULT, RunStart, find_start
from awareness.train.resuming.saved_steps import STATE, SavedStep
from awareness.train.run_summary import run_summary
from awareness.types import Progress, silent


@dataclass(frozen=True)
class TrainedMemory:
    """output: the final checkpoint. parameters: number of trained ones. loss: mean over the last `logging_steps` steps;
    None if neither the log nor the checkpoint has it. validation: loss of the kept tensors, those of step `best_step`;
    None without a validation split. unused: settings of the configuration that had no effect."""

    output: Path
    parameters: int
    steps: int
    loss: float | None
    validation: float | None
    best_step: int | None
    seconds: float
    unused: tuple[UnusedSetting, ...] = ()


def train_memory(
    config: TrainConfig,
    *,
    pull: Callable[[str], ModelFolder],
    resume: str | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> TrainedMemory:
    """Go on with the run in `output_dir` if it was interrupted, or begin one. resume: `latest` or the folder of a
    checkpoint (run_start.py). Ctrl-C and SIGTERM end the program after a step that is saved.

    Raises UsageError for settings that contradict each other, the machine or an earlier run; IndexLocked if another
    process trains in `output_dir`.
    """
    began = time.perf_counter()
    resume = resume or config.training.resume_from_checkpoint
    config = with_processes(config)
    with alone_in(config.output_dir) if process_index() == 0 else contextlib.nullcontext():
        find_start(config, resume, settings_about(config), lambda _: None, checks_files=False)
        run = prepare(config, pull=pull, progress=progress, say=say)
        trainer = run.trainer
        start = find_start(config, resume, trainer.about, say)
        for line in start.lines:
            say(line)
        trainer.accelerator.wait_for_everyone()  # all have chosen before anything is written
        if trainer.args.should_save:
            _begin_output(config, run.report, start.saved)
        trainer.accelerator.wait_for_everyone()
        _train(config, run, start, say)
        done = _finish(config, run, time.perf_counter() - began, say)
    return done


def _begin_output(config: TrainConfig, report: Mapping[str, Any], saved: SavedStep | None) -> None:
    """Write what the output folder has before the first step."""
    folder = config.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    (folder / "data.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (folder / SETTINGS).write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
    if saved is not None:
        bring_log(saved, folder)
        if config.training.save_best_model:
            bring_best(saved, folder)


def _train(config: TrainConfig, run: Prepared, start: RunStart, say: Callable[[str], None]) -> None:
    """Do the steps that are left. Ends the program if a signal asks for it."""
    trainer, saved = run.trainer, start.saved
    keeps_best = saved is None or not config.training.save_best_model or has_best(saved, config.output_dir)
    if not keeps_best:
        say(f"{trainer.best} is not the best model that {start.step} steps had: the best one from here on is kept")
    if start.is_finished and saved is not None:
        begin_with(saved.path, run.module, run.base.folder)
        trainer.state = TrainerState.load_from_json(str(saved.path / STATE))
        if not keeps_best:
            trainer.state.best_metric = None
        return
    if saved is not None:
        trainer.add_callback(GoingOn(config.training, trainer, saved, keeps_best=keeps_best))
    resumed = None if saved is None else saved.path
    say(run_summary(config, trainer, base=run.base.folder.name, report=run.report, resumed=resumed))
    interruption = Interruption(say)
    trainer.add_callback(interruption)
    with interruption.waiting():
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    done = trainer.state.global_step
    if interruption.number and done < config.training.max_steps:
        say(f"step {done} of {config.training.max_steps} is saved; the same command goes on from there")
        trainer.accelerator.wait_for_everyone()  # a launcher ends all processes when one has ended
        interruption.end()


def _finish(config: TrainConfig, run: Prepared, seconds: float, say: Callable[[str], None]) -> TrainedMemory:
    """Write `final/`, the picture and the result."""
    trainer, state = run.trainer, run.trainer.state
    validation, best_step = None, None
    if state.best_metric is not None and config.training.save_best_model:
        trainer.load_best()
        validation, best_step = float(state.best_metric), state.best_global_step
    done = TrainedMemory(
        config.output_dir / FINAL,
        sum(p.numel() for p in run.module.trainable().values()),
        state.global_step,
        last_loss(config.output_dir, state, config.training.logging_steps),
        validation,
        best_step,
        seconds,
        run.unused,
    )
    tensors = trainer.trained_tensors()
    if trainer.args.should_save:
        run.save(done.output, tensors, DTYPES[config.training.save_precision])
        if picture := draw_run(config.output_dir, say):
            say(f"losses: {picture}")
        partial = config.output_dir / f".{RESULT}"
        partial.write_text(json.dumps({**asdict(done), "output": str(done.output)}, indent=1) + "\n", "utf-8")
        partial.rename(config.output_dir / RESULT)
    return done
