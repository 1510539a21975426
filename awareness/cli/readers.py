"""How a question is read: the mode, the adapter, and the model that both settle."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from awareness.cli.workspace import pull_known, pull_model
from awareness.errors import UsageError
from awareness.model.sources import DEFAULT_MODEL, PRESETS, ModelFolder

SHIPPED, NO_ADAPTER = "shipped", "none"
"""What `--adapter` takes beside a checkpoint's folder."""
_ADAPTERS = Path(__file__).parent.parent / "adapters"


class Mode(str, Enum):
    joint = "joint"
    tanh = "tanh"
    text = "text"
    none = "none"


@dataclass(frozen=True)
class Reader:
    """model: None until the index or the default settles it. adapter: a checkpoint. open: the adapter that comes with
    the model is taken, if there is one."""

    mode: Mode
    model: str | None
    adapter: Path | None = None
    open: bool = False

    def for_model(self, folder: ModelFolder) -> Reader:
        """The same with the model that it is; what comes with it is read by, unless something else was asked for."""
        shipped = shipped_adapter(folder) if self.open else None
        if shipped is None:
            return self
        return replace(self, mode=Mode(_config_of(shipped)["memory"]["memory_form"]), adapter=shipped)


def reader_asked(adapter: str | None, mode: Mode | None, model: str | None) -> Reader:
    """What is asked for, made whole by what the adapter's checkpoint says. Raises UsageError."""
    if adapter is None or adapter == NO_ADAPTER:
        if mode is Mode.tanh:
            raise UsageError("--mode tanh has to be trained", hint="--mode tanh --adapter CHECKPOINT")
        return Reader(mode or Mode.joint, model, open=adapter is None and mode is None)
    if adapter == SHIPPED:
        folder = pull_model(model or DEFAULT_MODEL)
        path = shipped_adapter(folder)
        if path is None:
            raise UsageError(f"no adapter comes with {folder.name}", hint="--adapter CHECKPOINT, or leave it out")
    else:
        path = Path(adapter)
    from awareness.model.checkpoint import Checkpoint

    read = Checkpoint.read(path)
    other = model is not None and model != os.environ.get("AWARENESS_MODEL")  # which is a default, and not asked for
    if model is not None and other and pull_model(model).fingerprint != read.fingerprint:
        raise UsageError(f"--adapter {adapter} is of the model {read.base}, not of {model}", hint="leave --model out")
    if read.model.base_model_name is None:
        raise UsageError(f"{adapter} is a decoder made from scratch: it can't be asked", hint="python: load_checkpoint")
    pull_known(read.base)
    form = Mode(read.memory.memory_form) if read.memory.has_memory else Mode.text
    if mode in (Mode.joint, Mode.tanh) and mode is not form:
        raise UsageError(f"--mode {mode.value}, but {adapter} was trained for {form.value}", hint="leave --mode out")
    return Reader(mode or form, read.base, path)


def shipped_adapter(folder: ModelFolder) -> Path | None:
    """The checkpoint that comes with awareness for exactly these weights."""
    path = _ADAPTERS / folder.name
    is_there = folder.name in PRESETS and (path / "config.json").is_file()
    return path if is_there and _config_of(path)["fingerprint"] == folder.fingerprint else None


def _config_of(shipped: Path) -> dict[str, Any]:
    """As the file has it: `Checkpoint` would import torch, and who abstains needs none."""
    found: dict[str, Any] = json.loads((shipped / "config.json").read_text("utf-8"))
    return found
