"""What `--memory` names: packs, and memories of many repositories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.cli import render
from awareness.engine.engine import DEFAULT_BUDGET

if TYPE_CHECKING:
    from awareness.engine.memory_source import MemorySource


def split(names: Sequence[str] | None, budget: int = DEFAULT_BUDGET) -> tuple[list[Path], list[MemorySource]]:
    """The packs and the memories of `awareness fleet`, in the order given. budget: bytes of what is kept here of a
    memory. Raises UsageError."""
    packs, stores = named(names)
    if not stores:
        return packs, []
    from awareness.fleet.fleet_memory import FleetMemory  # imported late: it needs numpy

    return packs, [FleetMemory(store, budget=budget, reporter=render.REPORTER) for store in stores]


def named(names: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """The packs, and the stores of `awareness fleet`, in the order given."""
    stores = [name for name in names or () if "://" in name or (Path(name) / "catalogue.json").is_file()]
    return [Path(name) for name in names or () if name not in stores], stores
