"""A YAML file -> its checked sections: unknown keys and values out of range are named, with the place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from awareness.config.routers import RouterConfig
from awareness.config.training import TrainConfig
from awareness.errors import UsageError

TASKS = ("router", "memory")
Config = RouterConfig | TrainConfig
_CONFIG: TypeAdapter[Config] = TypeAdapter(Annotated[Config, Field(discriminator="task")])


def read_config(path: Path, settings: list[str]) -> Config:
    """A training file, with `a.b=value` settings laid over it. `extends: FILE`, beside it, is the file that its own
    settings are laid over. Raises UsageError that names the key and the value."""
    found = _extended(path)
    for setting in settings:
        _lay_over(found, setting)
    if found.get("task") == "hidden_router":
        raise UsageError(
            f"{path}: task: hidden_router was removed; it was hardly better than the shipped router (docs/routing.md)",
            hint="train term vectors instead: task: router, as in configs/router.yaml",
        )
    try:
        return _CONFIG.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in TASKS) or "task"
        value = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
        raise UsageError(f"{path}: {place}: {first['msg']}{value}", hint=f"mend {place}, or --set {place}=…") from error


def _extended(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in extending:
        raise UsageError(f"{path} extends itself", hint=f"mend extends: in {extending[0]}")
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read as YAML: {error}", hint="awareness train --config FILE") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} has no settings", hint="it begins with: task: router")
    below = found.pop("extends", None)
    if below is None:
        return found
    return _merged(_extended(path.parent / str(below), (*extending, path.resolve())), found)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged, everything else is replaced."""
    both = {**below, **above}
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            both[name] = _merged(below[name], value)
    return both


def _lay_over(found: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise UsageError(f"'{setting}' is not a setting", hint="--set training.steps=100")
    section = found
    for name in names[:-1]:
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"'{name}' in '{setting}' is not a section", hint="--set training.steps=100")
        section = inner
    try:
        section[names[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"the value of '{setting}' can't be read", hint="--set training.steps=100") from error
