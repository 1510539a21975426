"""What every measure returns: tables for people, JSON for programs, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from awareness.index.files.own.own_files import REPORT_MARK

NOT_MEASURED = "—"


@dataclass(frozen=True)
class Table:
    """heading: the line above the columns. rows: None in a cell for what was not measured."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object | None]]


@dataclass(frozen=True)
class Report:
    """name: of the measure and its JSON file. draw: writes the pictures into a folder, and returns the names of their
    files. notes: remarks below the tables."""

    name: str
    tables: Sequence[Table]
    json: Mapping[str, Any]
    draw: Callable[[Path], list[str]]
    notes: Sequence[str] = ()

    def write(self, folder: Path) -> list[str]:
        """Writes the JSON and the pictures; returns the names of the files."""
        return [write_json(folder, self.name, self.json).name, *self.draw(folder)]


def write_json(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """The file `name`.json in `folder`, which is made if necessary. Its first field says who made it, so that it is not
    indexed where it lies in a work tree."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(dict((REPORT_MARK, *content.items())), indent=2) + "\n", "utf-8")
    return path


def as_json(value: Any) -> Any:
    """Dataclasses as objects, numbers with four digits."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
