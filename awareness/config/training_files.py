"""Find a training file: by its path, or by the name of one that comes with awareness.

Those are in config/shipped/ (`configs/` in a checkout leads there). So a command that names `configs/compare-lora.yaml`
works in any folder.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from awareness.errors import UsageError

_SHIPPED = Path(__file__).parent / "shipped"
_FOLDER, _SUFFIX = "configs", ".yaml"
COMPARED = tuple(f"compare-{name}" for name in ("vanilla", "memory", "lora", "both"))
"""The files, by name, of the runs that `awareness eval compare` trains and measures."""


def shipped_files() -> dict[str, Path]:
    """Name (`smollm2-memory`) -> the file that comes with awareness."""
    return {path.stem: path for path in sorted(_SHIPPED.glob(f"*{_SUFFIX}"))}


def find_questions(path: Path) -> Path:
    """The file of questions itself if it is there, else the one of this name that comes with awareness."""
    shipped = _SHIPPED / path.name
    return shipped if not path.is_file() and str(path.parent) in (".", _FOLDER) and shipped.is_file() else path


def find_file(path: Path) -> Path:
    """The file itself if it is there, else the shipped one of this name: `compare-lora`, `compare-lora.yaml` and
    `configs/compare-lora.yaml` name the same. Raises UsageError if there is neither."""
    if path.is_file():
        return path
    shipped = shipped_files()
    if str(path.parent) in (".", _FOLDER) and path.suffix in ("", _SUFFIX) and path.stem in shipped:
        return shipped[path.stem]
    nearest = next(iter(get_close_matches(path.stem, shipped, 1)), "smollm2-memory")
    what = "is a folder, not a training file" if path.is_dir() else "does not exist"
    raise UsageError(
        f"{path} {what}; awareness comes with {', '.join(shipped)}", hint=f"--config {_FOLDER}/{nearest}{_SUFFIX}"
    )
