"""The sections of a training file (YAML), checked: unknown keys and values out of range are named, with the place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from awareness.errors import UsageError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, le=1)]


def _is_router(path: Path) -> Path:
    if path.suffix != ".safetensors" or path.name.endswith(".head.safetensors"):
        raise ValueError("the name of a router ends in .safetensors, and not in .head.safetensors")
    return path


class RouterData(_Section):
    """folders: repositories or unpacked packages, each a source of its own; `*` is allowed. pairs_per_folder: at most
    so many of one folder. names: share of the pairs kept whose words are only a definition's name. held_out: share of
    the folders that are measured on, not learned from."""

    folders: list[str] = Field(min_length=1)
    pairs_per_folder: int = Field(default=4000, ge=1)
    names: Share = 0.3
    held_out: Share = 0.1


class RouterModel(_Section):
    """start: `shipped` continues from the router that awareness comes with, `none` begins anew, else a router's file.
    dim and vocabulary are those of a new one; words_from: an embedding model whose vectors of words it begins with."""

    start: str = "shipped"
    dim: int = Field(default=256, ge=8, le=4096)
    vocabulary: int = Field(default=49_152, ge=100)
    words_from: str | None = None


class RouterTraining(_Section):
    """batch_size pairs a step, from folders_per_batch folders, so that most of what a pair must be told from is code of
    the same repository. forget: how likely a word that is said is left out of the code. temperature: of the softmax at
    the start, it is learned."""

    steps: int = Field(default=800, ge=1)
    batch_size: int = Field(default=1024, ge=2)
    folders_per_batch: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    forget: Share = 0.5
    seed: int = 0


class RouterConfig(_Section):
    """`task: router`: what `train/router.py` reads. output: the file that is written."""

    task: Literal["router"]
    data: RouterData
    model: RouterModel = RouterModel()
    training: RouterTraining = RouterTraining()
    output: Annotated[Path, AfterValidator(_is_router)] = Path("router.safetensors")


def _is_head(path: Path) -> Path:
    if not path.name.endswith(".head.safetensors"):
        raise ValueError("the name of a head ends in .head.safetensors")
    return path


class HiddenRouterModel(_Section):
    """decoder: whose hidden states, after so many of its layers. dim: of the vectors. queries: that look at the tokens,
    on each side."""

    decoder: str = "smollm2-135m"
    layer: int = Field(default=14, ge=1)
    dim: int = Field(default=256, ge=8, le=4096)
    queries: int = Field(default=4, ge=1)


class HiddenRouterTraining(_Section):
    """batch_size pairs a step, of two folders. temperature: of the softmax at the start, it is learned."""

    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=128, ge=4)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    seed: int = 0


class HiddenRouterConfig(_Section):
    """`task: hidden_router`: what `train/hidden.py` reads. output: the head, a file `….head.safetensors`."""

    task: Literal["hidden_router"]
    data: RouterData
    model: HiddenRouterModel = HiddenRouterModel()
    training: HiddenRouterTraining = HiddenRouterTraining()
    output: Annotated[Path, AfterValidator(_is_head)] = Path("router.head.safetensors")


TASKS = ("router", "hidden_router")
Config = RouterConfig | HiddenRouterConfig
_CONFIG: TypeAdapter[Config] = TypeAdapter(Annotated[Config, Field(discriminator="task")])


def read_config(path: Path, settings: list[str]) -> Config:
    """A training file, with `a.b=value` settings laid over it. Raises UsageError that names the key and the value."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read as YAML: {error}", hint="awareness train --config FILE") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} has no settings", hint="it begins with: task: router")
    for setting in settings:
        _lay_over(found, setting)
    try:
        return _CONFIG.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in TASKS) or "task"
        value = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
        raise UsageError(f"{path}: {place}: {first['msg']}{value}", hint=f"mend {place}, or --set {place}=…") from error


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
