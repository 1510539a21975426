"""How a question is read: the mode, the adapter, and the model that both imply."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from awareness.config.environment import environment
from awareness.engine.models import pull_known, pull_model
from awareness.engine.question_options import Mode
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import UsageError
from awareness.model.model_files import ModelFolder
from awareness.model.presets import DEFAULT_MODEL, PRESETS

SHIPPED, NO_ADAPTER = "shipped", "none"
"""Names that stand for an adapter, beside the folder of a checkpoint."""
_ADAPTERS = Path(__file__).parent.parent / "adapters"


@dataclass(frozen=True)
class ReadingChoice:
    """model: None until the index or the default settles it. adapter: a checkpoint. may_ship: the adapter that is
    shipped for the model is used, if there is one."""

    mode: Mode
    model: str | None
    adapter: Path | None = None
    may_ship: bool = False

    @property
    def is_shipped(self) -> bool:
        """Whether the adapter is the one that is shipped for the model, and nobody named it."""
        return self.may_ship and self.adapter is not None

    def for_model(self, folder: ModelFolder) -> ReadingChoice:
        """The same once the model is known; uses the adapter that is shipped for it, unless another was chosen."""
        shipped = shipped_adapter(folder) if self.may_ship else None
        if shipped is None:
            return self
        return replace(self, mode=Mode(_read_config(shipped)["memory"]["memory_form"]), adapter=shipped)


def choose_reading(
    adapter: str | None, mode: Mode | None, model: str | None, reporter: Reporter = SILENT
) -> ReadingChoice:
    """Completes the user's choice by what the adapter's checkpoint says. Raises UsageError."""
    if adapter is None or adapter == NO_ADAPTER:
        if mode is Mode.tanh:
            raise UsageError("--mode tanh has to be trained", hint="--mode tanh --adapter CHECKPOINT")
        return ReadingChoice(mode or Mode.joint, model, may_ship=adapter is None and mode is None)
    if adapter == SHIPPED:
        folder = pull_model(model or DEFAULT_MODEL, reporter)
        path = shipped_adapter(folder)
        if path is None:
            raise UsageError(f"no adapter is shipped for {folder.name}", hint="--adapter CHECKPOINT, or leave it out")
    else:
        path = Path(adapter)
    from awareness.model.checkpoint import Checkpoint

    checkpoint = Checkpoint.read(path)
    is_explicit = model is not None and model != environment().model  # the variable is only a default
    if model is not None and is_explicit and pull_model(model, reporter).fingerprint != checkpoint.fingerprint:
        raise UsageError(
            f"--adapter {adapter} was trained for the model {checkpoint.base}, not for {model}",
            hint="leave --model out",
        )
    if checkpoint.model.base_model_name is None:
        raise UsageError(
            f"{adapter} is a decoder made from scratch: it cannot answer questions", hint="python: load_checkpoint"
        )
    pull_known(checkpoint.base, reporter)
    form = Mode(checkpoint.memory.memory_form) if checkpoint.memory.has_memory else Mode.text
    if mode is not None and mode.reads_memory and mode is not form:
        raise UsageError(f"--mode {mode.value}, but {adapter} was trained for {form.value}", hint="leave --mode out")
    return ReadingChoice(mode or form, checkpoint.base, path)


def shipped_adapter(folder: ModelFolder) -> Path | None:
    """The checkpoint that is shipped with awareness for exactly these weights."""
    path = _ADAPTERS / folder.name
    is_there = folder.name in PRESETS and (path / "config.json").is_file()
    return path if is_there and _read_config(path)["fingerprint"] == folder.fingerprint else None


def _read_config(shipped: Path) -> dict[str, Any]:
    """The file as it is: `Checkpoint` would import torch, which a refusal does not need."""
    config: dict[str, Any] = json.loads((shipped / "config.json").read_text("utf-8"))
    return config
