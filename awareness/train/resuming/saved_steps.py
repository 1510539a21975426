"""Complete, find, check and delete the checkpoints of a run (`checkpoint-STEP` folders).

A folder is whole once it has `complete.json`: its files with their checksums, and the settings of the run. That file is
written last, so a run killed at any moment leaves earlier checkpoints whole, and at most one that is skipped.
run_start.py chooses the one that a run goes on from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

PREFIX, MANIFEST = "checkpoint-", "complete.json"
STATE = "trainer_state.json"
"""The TrainerState of transformers, in a checkpoint."""


@dataclass(frozen=True)
class SavedStep:
    """A checkpoint folder. step: number of optimizer steps done."""

    path: Path
    step: int

    @cached_property
    def damage(self) -> str:
        """Why it cannot be resumed from; empty if it can. The first call reads every byte."""
        return _damage(self.path)

    @property
    def unfinished(self) -> str:
        """As `damage`, without a look at the files that it lists."""
        return _damage(self.path, checks_files=False)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The settings of its run. Only of a whole checkpoint."""
        return dict(self._manifest["about"])

    @property
    def stopped_early(self) -> dict[str, Any] | None:
        """The settings of early stopping that ended the run at this step; None if it was not ended so."""
        return self._manifest.get("stopped_early")

    @cached_property
    def state(self) -> dict[str, Any]:
        """The TrainerState of transformers, with `best_metric`, `best_global_step` and `log_history`."""
        return dict(json.loads((self.path / STATE).read_text("utf-8")))

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.path / MANIFEST).read_text("utf-8")))

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def complete(folder: Path, about: Mapping[str, Any], stopped_early: Mapping[str, Any] | None = None) -> None:
    """Declare a checkpoint whole. about: settings that a run must share to resume from it. stopped_early: the settings
    of early stopping, if it ends the run here."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    files = {str(path.relative_to(folder)): _checksum(path) for path in paths}
    partial = folder / f".{MANIFEST}"
    with partial.open("w", encoding="utf-8") as out:
        ended = {} if stopped_early is None else {"stopped_early": stopped_early}
        json.dump({"about": about, **ended, "files": files}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(folder / MANIFEST)


def saved_steps(output_dir: Path) -> list[SavedStep]:
    """The checkpoints of a run, the latest first."""
    steps = [saved for path in output_dir.glob(f"{PREFIX}[0-9]*") if path.is_dir() and (saved := saved_step(path))]
    return sorted(steps, key=lambda saved: -saved.step)


def saved_step(path: Path) -> SavedStep | None:
    """The checkpoint of this path, which may be damaged; None for any other folder. A copy of one may have any name."""
    step = path.name.removeprefix(PREFIX)
    if path.name.startswith(PREFIX) and step.isdecimal() and step.isascii():
        return SavedStep(path, int(step))
    if not (path / MANIFEST).is_file():
        return None
    try:
        return SavedStep(path, int(json.loads((path / STATE).read_text("utf-8"))["global_step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def outdated(output_dir: Path, keep: int) -> list[SavedStep]:
    """All but the `keep` latest whole checkpoints, and the damaged ones older than the latest whole one. A newer one
    may not be finished yet."""
    steps = saved_steps(output_dir)
    whole = [saved for saved in steps if not saved.damage]
    if not whole:
        return []
    return [*whole[keep:], *(saved for saved in steps if saved.damage and saved.step < whole[0].step)]


def rotate(output_dir: Path, keep: int) -> list[Path]:
    """Delete outdated checkpoints. Returns their folders."""
    steps = outdated(output_dir, keep)
    for saved in steps:
        (saved.path / MANIFEST).unlink(
            missing_ok=True
        )  # first, so that a half-deleted checkpoint never counts as whole
        shutil.rmtree(saved.path)
    return [saved.path for saved in steps]


def _damage(path: Path, *, checks_files: bool = True) -> str:
    if not path.is_dir():
        return "there is no such folder"
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        manifest["about"].items()  # fails for another shape
        for name, checksum in manifest["files"].items() if checks_files else ():
            if _checksum(path / name) != checksum:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing: the checkpoint was not finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} can't be read: {type(error).__name__}"
    return ""


def _checksum(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
