"""Read and check a YAML training file. Errors name the key of an unknown setting or a value out of range."""

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
    """A training file. settings: `a.b=value`, each replaces a value of the file. `extends: FILE` in the file names
    another one, in the same folder, whose settings it replaces. Raises UsageError that names the key and the value."""
    content = _extended(path)
    for setting in settings:
        _replace(content, setting)
    if content.get("task") == "hidden_router":
        raise UsageError(
            f"{path}: task: hidden_router was removed; it was hardly better than the shipped router (docs/routing.md)",
            hint="train term vectors instead: task: router, as in configs/router.yaml",
        )
    try:
        return _CONFIG.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in TASKS) or "task"
        given = str(first["input"]) if isinstance(first["input"], Path) else first["input"]
        value = "" if first["type"] == "missing" else f" (got {given!r:.80})"
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{path}: {place}: {reason}{value}", hint=f"correct {place}, or --set {place}=VALUE"
        ) from error


def _extended(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in extending:
        raise UsageError(f"{path} extends itself", hint=f"correct extends: in {extending[0]}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read as YAML: {error}", hint="awareness train --config FILE") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no settings", hint="it begins with: task: router")
    base = content.pop("extends", None)
    if base is None:
        return content
    return _merged(_extended(path.parent / str(base), (*extending, path.resolve())), content)


def _merged(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """`base` with its sections merged and its other values replaced by those of `content`."""
    merged = {**base, **content}
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merged[name] = _merged(base[name], value)
    return merged


def _replace(content: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise UsageError(f"'{setting}' is not a setting", hint="write it as --set training.steps=100")
    section = content
    for name in names[:-1]:
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"'{name}' in '{setting}' is not a section", hint="--set training.steps=100")
        section = inner
    try:
        section[names[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"the value of '{setting}' can't be read", hint="--set training.steps=100") from error
