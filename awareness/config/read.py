"""Read and check a YAML training file. An error names every wrong setting, with its value, and what to type instead.

Files of the earlier system are read as they are: they have no `task`, and their `output_dir` stands in `training:`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from awareness.config.base import Place
from awareness.config.problems import Problem, corrections, nearest, problems_of, refusal, set_value
from awareness.config.routers import RouterConfig
from awareness.config.training import TrainConfig
from awareness.config.training_files import find_file
from awareness.config.yaml_text import BadYaml, read_yaml
from awareness.errors import UsageError

TASKS: dict[str, type[RouterConfig] | type[TrainConfig]] = {"router": RouterConfig, "memory": TrainConfig}
Config = RouterConfig | TrainConfig
_SET = "--set"
_EXAMPLE = "awareness train --config configs/smollm2-memory.yaml"


def read_config(path: Path, settings: list[str]) -> Config:
    """A training file. settings: `a.b=value`, each replaces a value of the file. `extends: FILE` in the file names
    another one, in the same folder, whose settings it replaces. Raises UsageError with every wrong setting."""
    files = _extended(path)
    content: dict[str, Any] = {}
    for _, own in files:
        content = _merged(content, own)
    typed: dict[str, Any] = {}
    for setting in settings:
        name, value = _parsed(setting)
        for target in (content, typed):
            set_value(target, name, copy.deepcopy(value))
    names_task = "task" in content
    section = TASKS[_task(path, content)]
    try:
        return section.model_validate(content)
    except ValidationError as error:
        problems = problems_of(error, section, content)

    def check(changed: dict[str, Any]) -> list[Problem]:
        try:
            section.model_validate(changed)
        except ValidationError as error:
            return problems_of(error, section, changed)
        return []

    sources = [*((str(file), own) for file, own in files), (_SET, typed)]

    def written_in(place: Place) -> str:
        return next((source for source, own in reversed(sources) if _holds(own, place)), str(path))

    if not names_task and (other := _other_task(content)):
        raise refusal(str(path), problems, f"--set task={other}")
    raise refusal(str(path), problems, corrections(problems, content, check, written_in))


def _task(path: Path, content: dict[str, Any]) -> str:
    task = content.setdefault("task", "memory")
    name = task.strip().casefold() if isinstance(task, str) else task
    if name == "hidden_router":
        raise UsageError(
            f"{path}: task: hidden_router was removed; it was hardly better than the shipped router (docs/routing.md)",
            hint="train term vectors instead: task: router, as in configs/router.yaml",
        )
    if name not in list(TASKS):
        meant = nearest(str(task), list(TASKS)) or "memory"
        raise UsageError(
            f"{path}: task: there is no such task (got {task!r}); known: {', '.join(TASKS)}", hint=f"--set task={meant}"
        )
    return str(name)


def _other_task(content: dict[str, Any]) -> str | None:
    """The task that a file without `task` is of, if it is not `memory`."""
    for task, section in TASKS.items():
        try:
            section.model_validate({**content, "task": task})
            return task
        except ValidationError:
            continue
    return None


def _extended(path: Path, extending: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """The file and those that it extends, each with its own settings; the one that replaces no other is first."""
    if path.resolve() in extending:
        raise UsageError(f"{path} extends itself", hint=f"correct extends: in {extending[0]}")
    try:
        content = read_yaml(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path} can't be read: {why}", hint=_EXAMPLE) from error
    except BadYaml as error:
        raise UsageError(f"{path} can't be read as YAML: {error}", hint=f"correct {path}") from error
    if content is None or content == {}:
        raise UsageError(f"{path} has no settings", hint=_EXAMPLE)
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"the one value {content!r:.60}"
        raise UsageError(f"{path} has no settings: it is {kind}, not lines of KEY: VALUE", hint=_EXAMPLE)
    above = content.pop("extends", None)
    if above is not None and not isinstance(above, str):
        raise UsageError(f"{path}: extends: must be the name of one file (got {above!r:.80})", hint=f"correct {path}")
    _move_output_dir(path, content)
    files = [(path, content)]
    return files if above is None else [*_extended(_above(path, above), (*extending, path.resolve())), *files]


def _above(path: Path, name: str) -> Path:
    """The file that another one extends: beside it, or one that comes with awareness."""
    beside = path.parent / name
    if beside.exists():
        return beside
    try:
        return find_file(Path(name))
    except UsageError as error:
        raise UsageError(f"{path}: extends: {error.message}", hint=f"correct {path}") from error


def _move_output_dir(path: Path, content: dict[str, Any]) -> None:
    """The earlier system's `training.output_dir` is `output_dir`. Raises UsageError if a file has both and they
    differ."""
    training = content.get("training")
    if not isinstance(training, dict) or "output_dir" not in training:
        return
    given = training.pop("output_dir")
    if given is None:
        return
    own = content.setdefault("output_dir", given)
    if str(own) != str(given) and Path(str(own)) != Path(str(given)):
        raise UsageError(
            f"{path}: output_dir is {own!r}, and training.output_dir, which means the same, is {given!r}",
            hint=f"remove one of them from {path}",
        )


def _merged(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """`base` with its sections merged and its other values replaced by those of `content`."""
    merged = {**base, **content}
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merged[name] = _merged(base[name], value)
    return merged


def _parsed(setting: str) -> tuple[str, Any]:
    """`a.b=value` -> the name and the value."""
    name, equals, value = setting.partition("=")
    name = name.strip()
    if not equals or not all(name.split(".")):
        raise UsageError(f"'{setting}' is not a setting", hint="--set training.max_steps=100")
    try:
        return "output_dir" if name == "training.output_dir" else name, read_yaml(value)
    except BadYaml as error:
        raise UsageError(
            f"the value of '{setting}' can't be read as YAML: {error}", hint="--set 'data.sources=[./my/repo]'"
        ) from error


def _holds(content: Any, place: Place) -> bool:
    for key in place:
        if not isinstance(content, dict) or key not in content:
            return isinstance(content, list)
        content = content[key]
    return True
