"""Measure a ranking: nDCG@10, recall@k and MRR over places in files.

A target is a file, or a span of lines in it. A hit reaches it if it is in that file and, for a span, shares a line
with it. Relevant and secondary targets count alike. A target counts once, at the first hit that reaches it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = ("symbol", "semantic", "architecture", "exact", "issue", "language", "tiny")
"""Those of the questions that have an answer; the others are `absent`."""


@dataclass(frozen=True)
class Place:
    """Lines of a file, counted from 1, both included; None for the whole file. score: the system's own score."""

    path: str
    start: int | None = None
    end: int | None = None
    score: float = 0.0

    def reaches(self, target: Place) -> bool:
        if self.path != target.path:
            return False
        if target.start is None or target.end is None or self.start is None or self.end is None:
            return True
        return self.start <= target.end and target.start <= self.end


@dataclass(frozen=True)
class Question:
    query: str
    category: str
    relevant: tuple[Place, ...]
    secondary: tuple[Place, ...]

    @property
    def targets(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(self.relevant + self.secondary))

    @property
    def files(self) -> tuple[Place, ...]:
        """The files of the targets, to judge by files only."""
        return tuple(dict.fromkeys(Place(target.path) for target in self.targets))


def questions(file: Path) -> list[Question]:
    """Read `[{query, relevant: [path | {path, start_line, end_line}], secondary: […], category}, …]`.

    The repository does not answer a question without `relevant`.
    """
    return [
        Question(
            entry["query"],
            entry.get("category", "semantic") if entry["relevant"] else "absent",
            tuple(map(_place, entry["relevant"])),
            tuple(map(_place, entry.get("secondary", ()))),
        )
        for entry in json.loads(file.read_text())
    ]


def _place(entry: str | dict[str, Any]) -> Place:
    if isinstance(entry, str):
        return Place(entry)
    return Place(entry["path"], entry.get("start_line"), entry.get("end_line"))


def ranks(hits: Sequence[Place], targets: Sequence[Place]) -> list[int]:
    """For each target that is reached, the rank (from 1) of the first hit that reaches it."""
    found = (next((rank for rank, hit in enumerate(hits, 1) if hit.reaches(target)), None) for target in targets)
    return [rank for rank in found if rank is not None]


def ndcg(hits: Sequence[Place], targets: Sequence[Place], k: int = 10) -> float:
    """Binary gains, logarithmic discount (Järvelin and Kekäläinen 2002). A hit that reaches several targets gains once
    for each. No ranking is better than the ideal one, with one target per rank."""
    gained = sum(1 / math.log2(rank + 1) for rank in ranks(hits[:k], targets))
    return min(1.0, gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(targets)) + 1)))


def recall(hits: Sequence[Place], targets: Sequence[Place], k: int) -> float:
    return len(ranks(hits[:k], targets)) / len(targets)


def reciprocal_rank(hits: Sequence[Place], targets: Sequence[Place]) -> float:
    return 1 / min(ranks(hits, targets), default=math.inf)
