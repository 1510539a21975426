"""Checkpoints of a run: `checkpoint-STEP` folders that are complete or not counted, found, checked and cleared away.

A folder is complete once it has `complete.json`: its files with their checksums, and what the run was about. It is
written last, so that a run killed at any moment leaves checkpoints of before whole, and at most one that is skipped.
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

PREFIX, MANIFEST = "checkpoint-", "complete.json"


@dataclass(frozen=True)
class SavedStep:
    """step: optimizer steps that were done."""

    path: Path
    step: int

    @cached_property
    def damage(self) -> str:
        """Why it can't be resumed from, empty if it can. Every byte is read to tell, the first time."""
        return _damage(self.path)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def complete(folder: Path, about: Mapping[str, Any]) -> None:
    """Declares a checkpoint whole. about: what a run must agree with to go on from it."""
    files = {str(f.relative_to(folder)): _checksum(f) for f in sorted(folder.rglob("*")) if f.name != MANIFEST}
    partial = folder / f".{MANIFEST}"
    with partial.open("w", encoding="utf-8") as out:
        json.dump({"about": about, "files": {name: found for name, found in files.items() if found}}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(folder / MANIFEST)


def saved_steps(output_dir: Path) -> list[SavedStep]:
    """The checkpoints of a run, the latest first."""
    found = []
    for path in output_dir.glob(f"{PREFIX}*"):
        step = path.name.removeprefix(PREFIX)
        if step.isdigit() and path.is_dir():
            found.append(SavedStep(path, int(step)))
    return sorted(found, key=lambda saved: -saved.step)


def resumable(output_dir: Path, asked: str, about: Mapping[str, Any], warn: Callable[[str], None]) -> Path | None:
    """What to resume from: `latest`, None where there is none yet, or a folder. Damaged ones are skipped with a
    warning. Raises UsageError for a folder that can't be, or one of another run."""
    if asked == "latest":
        for saved in saved_steps(output_dir):
            if not saved.damage:
                _must_agree(saved.path, about)
                return saved.path
            warn(f"{saved.path} is skipped: {saved.damage}")
        return None
    path = Path(asked)
    if damage := _damage(path):
        raise UsageError(f"--resume {path}: {damage}", hint="--resume latest")
    _must_agree(path, about)
    return path


def outdated(output_dir: Path, keep: int) -> list[SavedStep]:
    """All but the latest whole checkpoints, and damaged ones that are older than the latest whole one: what is newer
    may just be being written."""
    steps = saved_steps(output_dir)
    whole = [saved for saved in steps if not saved.damage]
    if not whole:
        return []
    return [*whole[keep:], *(saved for saved in steps if saved.damage and saved.step < whole[0].step)]


def rotate(output_dir: Path, keep: int) -> list[Path]:
    """Deletes what is outdated, and returns it."""
    gone = outdated(output_dir, keep)
    for saved in gone:
        (saved.path / MANIFEST).unlink(missing_ok=True)  # first, so that half of one never counts
        shutil.rmtree(saved.path)
    return [saved.path for saved in gone]


def _damage(path: Path) -> str:
    if not path.is_dir():
        return "there is no such folder"
    try:
        listed = json.loads((path / MANIFEST).read_text("utf-8"))["files"]
        for name, checksum in listed.items():
            if _checksum(path / name) != checksum:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing; it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} can't be read: {type(error).__name__}"
    return ""


def _must_agree(path: Path, about: Mapping[str, Any]) -> None:
    then = json.loads((path / MANIFEST).read_text("utf-8"))["about"]
    for name, now in about.items():
        if then.get(name) != json.loads(json.dumps(now)):
            raise UsageError(
                f"{path} is of another run: its {name} was {then.get(name)!r:.120}, now it is {now!r:.120}",
                hint="the settings of then, or another --set output_dir=FOLDER",
            )


def _checksum(path: Path) -> str:
    """Of a file; of anything else nothing."""
    if path.is_dir():
        return ""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
