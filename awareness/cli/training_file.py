"""Read the training file that a command line names, and say so if it is one that comes with awareness."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.cli import render

if TYPE_CHECKING:
    from awareness.config.read import Config


def read_training_file(path: Path, settings: list[str] | None) -> Config:
    """path: of the file, or its name (training_files.py). settings: `a.b=value`, each replaces a value of the file.
    Raises UsageError."""
    from awareness.config.read import read_config
    from awareness.config.training_files import find_file

    found = find_file(path)
    if found != path and path.suffix and "LOCAL_RANK" not in os.environ:  # of several processes, the first one said it
        render.note(f"{path} is not here; the file that comes with awareness is used: {found}")
    return read_config(found, settings or [])
