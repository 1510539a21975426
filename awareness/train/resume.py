"""Complete, find, check and delete the checkpoints of a run (`checkpoint-STEP` folders).

A folder is whole once it has `complete.json`: its files with their checksums, and the settings of the run. That file is
written last, so a run killed at any moment leaves earlier checkpoints whole, and at most one that is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

from awareness.errors import UsageError
from awareness.train.processes import is_same_batch

PREFIX, MANIFEST = "checkpoint-", "complete.json"


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
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def complete(folder: Path, about: Mapping[str, Any]) -> None:
    """Declare a checkpoint whole. about: settings that a run must share to resume from it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    files = {str(path.relative_to(folder)): _checksum(path) for path in paths}
    partial = folder / f".{MANIFEST}"
    with partial.open("w", encoding="utf-8") as out:
        json.dump({"about": about, "files": files}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(folder / MANIFEST)


def saved_steps(output_dir: Path) -> list[SavedStep]:
    """The checkpoints of a run, the latest first."""
    steps = []
    for path in output_dir.glob(f"{PREFIX}*"):
        step = path.name.removeprefix(PREFIX)
        if step.isdigit() and path.is_dir():
            steps.append(SavedStep(path, int(step)))
    return sorted(steps, key=lambda saved: -saved.step)


def resumable(output_dir: Path, resume: str, about: Mapping[str, Any], warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to resume from. resume: a folder, or `latest`, which skips damaged checkpoints with a warning and
    gives None if there is none. Raises UsageError for a damaged folder, and for a checkpoint of another run."""
    if resume == "latest":
        for saved in saved_steps(output_dir):
            if not saved.damage:
                _must_agree(saved.path, about)
                return saved.path
            warn(f"{saved.path} is skipped: {saved.damage}")
        return None
    path = Path(resume)
    if damage := _damage(path):
        raise UsageError(f"--resume {path}: {damage}", hint="--resume latest")
    _must_agree(path, about)
    return path


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


def _damage(path: Path) -> str:
    if not path.is_dir():
        return "there is no such folder"
    try:
        listed = json.loads((path / MANIFEST).read_text("utf-8"))["files"]
        for name, checksum in listed.items():
            if _checksum(path / name) != checksum:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing: the checkpoint was not finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} can't be read: {type(error).__name__}"
    return ""


def _must_agree(path: Path, about: Mapping[str, Any]) -> None:
    saved = json.loads((path / MANIFEST).read_text("utf-8"))["about"]
    for name, now in about.items():
        if name == "batch" and is_same_batch(saved.get(name), now):
            continue
        if saved.get(name) != json.loads(json.dumps(now)):
            raise UsageError(
                f"{path} is of another run: its {name} was {saved.get(name)!r:.120}, now it is {now!r:.120}",
                hint="use the settings of that run, or --set output_dir=ANOTHER_FOLDER",
            )


def _checksum(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
