"""Choose where a run begins: at its first step, after the latest whole checkpoint, or after one that is named.

A run goes on with the settings that it began with, but for `training.max_steps`. Everything else that decides its
losses must be the same (differences.py), or the run is refused with all that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awareness.config.training import TrainConfig, TrainingConfig
from awareness.errors import UsageError
from awareness.train.log import LOG
from awareness.train.resuming.differences import STEPS, Difference, changed_split, differences, restored
from awareness.train.resuming.saved_steps import SavedStep, saved_step, saved_steps

FINAL, BEST, RESULT = "final", "best", "result.json"
"""Of an output folder: the checkpoint for use, the one of the best evaluation, and what a finished run returned."""
_ELSEWHERE = "--set output_dir=ANOTHER_FOLDER"
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunStart:
    """saved: the checkpoint that the run goes on from; None for the first step. is_finished: no step is left. lines:
    what to tell about it."""

    saved: SavedStep | None = None
    is_finished: bool = False
    lines: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Number of steps done."""
        return 0 if self.saved is None else self.saved.step


def find_start(
    config: TrainConfig, resume: str | None, about: Mapping[str, Any], warn: Say, *, checks_files: bool = True
) -> RunStart:
    """Where the run of these settings begins. resume: None goes on with the run in `output_dir` if it is the same and
    not finished; `latest` also if it is finished, and with other `max_steps`; a folder is the checkpoint to go on from,
    for a new `output_dir` too. about: as in differences.py. A part of it, and checks_files false, give a first answer
    before anything is read.

    Raises UsageError for a run of other settings, a finished one, and a folder that is no whole checkpoint.
    """
    damage = _damage if checks_files else _unfinished
    own = _latest_whole(config.output_dir, damage, warn)
    if resume is not None and resume != "latest":
        return _from_folder(config, Path(resume), own, damage, about)
    if own is None:
        if (config.output_dir / FINAL).exists():
            raise UsageError(
                f"{config.output_dir} already holds a run: {FINAL}/, without a whole checkpoint to go on from",
                hint=f"{_ELSEWHERE}, or with --set start_from={config.output_dir / FINAL} too",
            )
        begins = resume is not None or (config.output_dir / LOG).exists()
        lines = (f"{config.output_dir} has no checkpoint yet: the run starts from the beginning",) if begins else ()
        return RunStart(lines=lines)
    if resume is None:
        _must_be_the_same(config.output_dir, own, about)
        start = _after(own, config, about)
        if start.is_finished and is_complete(config.output_dir):
            raise UsageError(f"{config.output_dir} is finished: {_end(own, config.training)}", hint=_more(own, config))
        return start
    return _after(own, config, about)


def is_complete(output_dir: Path) -> bool:
    """Whether a run ended and wrote its result."""
    return (output_dir / RESULT).is_file() and (output_dir / FINAL).is_dir()


def _damage(saved: SavedStep) -> str:
    return saved.damage


def _unfinished(saved: SavedStep) -> str:
    return saved.unfinished


def _latest_whole(output_dir: Path, damage: Callable[[SavedStep], str], warn: Say) -> SavedStep | None:
    for saved in saved_steps(output_dir):
        if not (why := damage(saved)):
            return saved
        warn(f"{saved.path} is skipped: {why}")
    return None


def _from_folder(
    config: TrainConfig,
    path: Path,
    own: SavedStep | None,
    damage: Callable[[SavedStep], str],
    about: Mapping[str, Any],
) -> RunStart:
    """After the checkpoint that is named, or a later one of the same run in `output_dir`: the same command again."""
    named = saved_step(path)
    if named is None:
        raise _no_checkpoint(path)
    if why := damage(named):
        raise UsageError(f"--resume {path}: {why}", hint="--resume latest")
    if own is None and (config.output_dir / FINAL).exists():
        raise UsageError(f"{config.output_dir} already holds a run: {FINAL}/", hint=_ELSEWHERE)
    if own is None or own.path.resolve() == path.resolve():
        return _after(named, config, about)
    _must_agree(named, about)
    if differences(own.about, about) or own.step < named.step:
        raise UsageError(
            f"{config.output_dir} already holds a run, up to step {own.step}; {path} would be mixed with it",
            hint=f"--resume {path} {_ELSEWHERE}",
        )
    return _after(own, config, about)


def _no_checkpoint(path: Path) -> UsageError:
    message = f"--resume {path}: "
    if not path.is_dir():
        return UsageError(message + "there is no such folder", hint="--resume latest")
    if steps := [saved for saved in saved_steps(path) if not saved.unfinished]:
        return UsageError(message + "it holds checkpoints and is none", hint=f"--resume {steps[0].path}")
    if (path / "config.json").is_file():
        return UsageError(
            message + "it has trained tensors but no state of the optimizer, so no run can go on from it",
            hint=f"--set start_from={path} {_ELSEWHERE}, which begins a new run with its tensors",
        )
    return UsageError(message + "it is no checkpoint", hint="--resume latest")


def _must_be_the_same(output_dir: Path, own: SavedStep, about: Mapping[str, Any]) -> None:
    """For a command without --resume, which may be meant for a new run."""
    if found := differences(own.about, about):
        others = [difference for difference in found if difference.key != STEPS]
        hint = f"--resume latest, which goes on after step {own.step}" if not others else restored(found)
        raise _refused(f"{output_dir} already holds a run", found, hint)


def _must_agree(saved: SavedStep, about: Mapping[str, Any]) -> None:
    """For a run that goes on, in which `max_steps` may change."""
    if found := [difference for difference in differences(saved.about, about) if difference.key != STEPS]:
        raise _refused(f"{saved.path} is of another run", found, restored(found))


def _refused(message: str, found: list[Difference], hint: str) -> UsageError:
    hints = ", or ".join(filter(None, (hint, _ELSEWHERE)))
    return UsageError(f"{message}, of which this differs:", hint=hints, details=[each.line for each in found])


def _after(saved: SavedStep, config: TrainConfig, about: Mapping[str, Any]) -> RunStart:
    """Raises UsageError."""
    _must_agree(saved, about)
    training = config.training
    if training.max_steps < saved.step:
        raise UsageError(
            f"training.max_steps: {training.max_steps} is less than the {saved.step} steps of {saved.path}",
            hint=f"--set training.max_steps={saved.step}, or {_ELSEWHERE}",
        )
    if ends := saved.step == training.max_steps or _ended_early(saved, training):
        lines = [f"{saved.path}: {_end(saved, training)}; {config.output_dir / FINAL} is written from it"]
    else:
        lines = [f"continues at step {saved.step} of {training.max_steps}, from {saved.path}"]
    was = saved.about.get("steps", training.max_steps)
    if was != training.max_steps and not ends:
        stages = " and the stages of data.chunks" if config.data is not None and len(config.data.chunks) > 1 else ""
        line = f"{STEPS} was {was}: from here on the learning rates{stages} follow {training.max_steps} steps"
        lines.append(line)
    if dealt := changed_split(saved.about, about):
        lines.append(dealt)
    return RunStart(saved, ends, tuple(lines))


def _ended_early(saved: SavedStep, training: TrainingConfig) -> bool:
    return saved.stopped_early is not None and saved.stopped_early == early_stopping(training)


def early_stopping(training: TrainingConfig) -> dict[str, Any] | None:
    """The settings of early stopping, None without it."""
    if not training.early_stopping:
        return None
    return {"patience": training.early_stopping_patience, "threshold": training.early_stopping_threshold}


def _end(saved: SavedStep, training: TrainingConfig) -> str:
    how = "" if saved.step == training.max_steps else ", by early stopping"
    return f"step {saved.step} of {training.max_steps}{how}"


def _more(saved: SavedStep, config: TrainConfig) -> str:
    """What goes on with a finished run."""
    if saved.step < config.training.max_steps:
        return f"--set training.early_stopping=false, or {_ELSEWHERE}"
    return f"--resume latest --set {STEPS}={2 * saved.step}, or {_ELSEWHERE}"
