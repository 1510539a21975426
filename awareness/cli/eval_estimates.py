"""How estimates stand in the tables and the JSON of `awareness eval`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awareness.evals.intervals import Estimate


def as_json(found: Estimate | None) -> dict[str, Any] | None:
    """{mean, low, high, n}"""
    return None if found is None else {name: round(value, 4) for name, value in asdict(found).items()}


def cell(found: Estimate, digits: int = 2) -> str:
    """`0.85 (0.64-0.95)`"""
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f}-{found.high:.{digits}f})"
