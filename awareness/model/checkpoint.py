"""A folder that holds what was trained, and the configuration it was trained by; never the frozen base.

config.json            format version, the sections `model:` and `memory:`, the base model's name and fingerprint
weights.safetensors    the trained tensors by the names that `MemoryDecoder` has for them
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import StorageFailed, UsageError
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.sources import ModelFolder

FORMAT_VERSION = 1
_CONFIG, WEIGHTS = "config.json", "weights.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a checkpoint's config.json. base, fingerprint: of the decoder it was trained on. bank: `none`, or
    the way the bank is quantised, which is then for use and no longer for training."""

    model: ModelConfig
    memory: MemoryConfig
    base: str
    fingerprint: str
    bank: str = "none"

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Raises UsageError if the folder is no checkpoint of a known version."""
        hint = "awareness checkpoints show FOLDER, of a folder that training wrote"
        try:
            found: dict[str, Any] = json.loads((folder / _CONFIG).read_text("utf-8"))
            version = found.pop("format_version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{folder} is not a checkpoint: {type(error).__name__} in {_CONFIG}", hint=hint) from error
        if version != FORMAT_VERSION:
            raise UsageError(f"{folder} has format {version}; this program reads {FORMAT_VERSION}", hint=hint)
        try:
            texts = {name: found.pop(name) for name in ("base", "fingerprint", "bank")}
            model, memory = ModelConfig(**found["model"]), MemoryConfig(**found["memory"])
        except (ValidationError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{folder / _CONFIG} is damaged or of another program: {reason}", hint=hint) from error
        return cls(model, memory, **texts)

    def write(self, folder: Path) -> None:
        sections = {name: getattr(self, name).model_dump(exclude_unset=True) for name in ("model", "memory")}
        rest = {name: value for name, value in vars(self).items() if name not in sections}
        text = json.dumps({"format_version": FORMAT_VERSION, **sections, **rest}, indent=2)
        (folder / _CONFIG).write_text(text + "\n", "utf-8")


def save_checkpoint(folder: Path, module: MemoryDecoder, base: ModelFolder, model_config: ModelConfig) -> None:
    """Writes what is trained. The folder is there whole or not at all; one of that name is replaced.
    Raises StorageFailed."""
    bank = module.adapter.bank if module.adapter is not None else None
    quant = bank.spec.quant if isinstance(bank, QuantisedBank) else "none"
    tensors = {name: p.detach().cpu().contiguous() for name, p in module.trainable().items()}
    if isinstance(bank, QuantisedBank):
        tensors["adapter.bank.codes"] = bank.codes.cpu()
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        save_file(tensors, partial / WEIGHTS)
        Checkpoint(model_config, module.config, base.name, base.fingerprint, quant).write(partial)
        _replace(partial, folder)
    except OSError as error:
        raise StorageFailed(f"{folder} can't be written: {error.strerror or error}") from error


def _replace(new: Path, old: Path) -> None:
    """`new` becomes `old`; in between there is a moment with neither, but never a half."""
    import shutil

    if old.exists():
        aside = old.with_name(f".{old.name}.old-{os.getpid()}")
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)
    else:
        new.rename(old)


def load_checkpoint(
    folder: Path, *, pull: Callable[[str], ModelFolder], dtype: torch.dtype | None = None
) -> tuple[MemoryDecoder, Decoder]:
    """The module in eval mode, as `build_memory_decoder` gives it, with the trained tensors.

    Raises UsageError if the folder is damaged, or the base model isn't the one that it was trained on.
    """
    read = Checkpoint.read(folder)
    module, base = build_memory_decoder(read.model, read.memory, pull=pull, dtype=dtype)
    if base.folder.fingerprint != read.fingerprint:
        raise UsageError(
            f"{folder} was trained on {read.base} ({read.fingerprint}); here {base.folder.name} is"
            f" {base.folder.fingerprint}",
            hint=f"the same model as in training, or train again on {base.folder.name}",
        )
    if read.bank != "none" and module.adapter is not None and isinstance(module.adapter.bank, MemoryBank):
        module.adapter.bank = module.adapter.bank.quantised(read.bank)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{folder / WEIGHTS} can't be read: {error}") from error
    own: dict[str, torch.Tensor] = dict(module.trainable())
    if read.bank != "none":
        own["adapter.bank.codes"] = module.get_buffer("adapter.bank.codes")
    for name in sorted(own.keys() ^ tensors.keys()):
        state = "is missing" if name in own else "belongs to no part of it"
        raise UsageError(f"{folder / WEIGHTS}: {name} {state}; config.json and weights are not of one training")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise UsageError(f"{folder / WEIGHTS}: {name} is {list(tensors[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(tensors[name])
    return module.eval(), base
