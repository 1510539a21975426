"""Reads the logs of training runs, as `awareness train` writes them, without torch: one JSON object a line with `step`
and figures. Only what lies in the folder that the server was started with is ever read."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awareness.errors import storage_errors

LOG = "log.jsonl"
MOST_BYTES = 1 << 26
MOST_POINTS = 2_000
"""Of a curve: more than a screen shows."""
MOST_RUNS = 500
DEPTH = 2
"""Folders below the given one in which runs are looked for."""
FIRST = ("loss", "eval_loss", "eval_perplexity", "lr", "tokens")


@dataclass(frozen=True)
class Curve:
    steps: tuple[int, ...]
    values: tuple[float, ...]


def find_runs(folder: Path) -> dict[str, Path]:
    """name -> log of the runs in a folder, by name: itself, or folders in it. No symlink is followed below it."""
    found: dict[str, Path] = {}
    with storage_errors(folder):
        if (folder / LOG).is_file():
            found[folder.resolve().name or "run"] = folder / LOG
        level = [folder]
        for _ in range(DEPTH):
            below = [Path(entry.path) for here in level for entry in os.scandir(here) if _is_folder(entry)]
            for run in sorted(below)[:MOST_RUNS]:
                log = run / LOG
                if log.is_file() and not log.is_symlink() and len(found) < MOST_RUNS:
                    found.setdefault(run.relative_to(folder).as_posix(), log)
            level = sorted(below)[:MOST_RUNS]
    return dict(sorted(found.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")


def read_curves(log: Path) -> dict[str, Curve]:
    """name of a figure -> its values by step, thinned evenly to MOST_POINTS; what is drawn first stands first."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in _lines(log):
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            continue
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((step, float(value)))
    names = [name for name in FIRST if name in points] + sorted(points.keys() - set(FIRST))
    return {name: _thinned(points[name]) for name in names}


def count_steps(log: Path) -> int:
    """The last step that was logged."""
    return max((line["step"] for line in _lines(log) if isinstance(line.get("step"), int)), default=0)


def _lines(log: Path) -> list[dict[str, Any]]:
    """Up to a line that was cut off."""
    with storage_errors(log), log.open("rb") as file:
        text = file.read(MOST_BYTES).decode("utf-8", "replace")
    lines = []
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):
            break
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _thinned(points: list[tuple[int, float]]) -> Curve:
    stride = -(-len(points) // MOST_POINTS)
    kept = points[::stride]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return Curve(tuple(step for step, _ in kept), tuple(value for _, value in kept))
