"""A folder that holds what was trained, and the configuration it was trained by; never the frozen base.

config.json            format version, the sections `model:` and `memory:`, the base model's name and fingerprint
weights.safetensors    the trained tensors by the names that `MemoryDecoder` has for them
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from awareness.config.base import Section
from awareness.config.decoder import OF_ANY_BASE, ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import StorageFailed, UsageError
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.model_files import ModelFolder, sync_tree

FORMAT_VERSION = 1
_CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_CODES = "adapter.bank.codes"


class Checkpoint(Section):
    """What stands in a checkpoint's config.json. base, fingerprint: of the decoder it was trained on. bank: `none`, or
    the way the bank is quantised, which is then for use and no longer for training. reads: how chunks reached the
    decoder in training."""

    model: ModelConfig
    memory: MemoryConfig
    base: str
    fingerprint: str
    bank: Literal["none", "int8", "int4"] = "none"
    reads: Literal["memory", "text", "none"] = "memory"

    @property
    def arm(self) -> str:
        """What evaluations call a decoder that was trained so: `joint+lora`, `tanh`, `bank`, `text+lora`."""
        memory = self.memory
        if not memory.has_memory:
            return self.reads.replace("memory", "none") + ("+lora" if memory.has_lora else "")
        form: str = "bank" if self.reads == "none" else memory.memory_form
        if self.reads != "none" and memory.num_memory_tokens:
            form += "+bank"
        return form + ("+lora" if memory.has_lora else "")

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Checkpoint:
        if self.model.base_model_name not in (None, self.base):
            raise ValueError(f"base '{self.base}' is not base_model_name '{self.model.base_model_name}'")
        if self.bank != "none" and not (self.memory.has_memory and self.memory.num_memory_tokens):
            raise ValueError(f"bank {self.bank}, but the settings have none")
        return self

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Raises UsageError if the folder is no checkpoint of a known version."""
        hint = "awareness checkpoints show FOLDER, of a folder that training wrote"
        try:
            found: dict[str, Any] = json.loads((folder / _CONFIG).read_text("utf-8"))
            version = found.pop("format_version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{folder} is not a checkpoint: {type(error).__name__} in {_CONFIG}", hint=hint) from error
        if version != FORMAT_VERSION or type(version) is not int:
            raise UsageError(f"{folder} has format {version!r}; this program reads {FORMAT_VERSION}", hint=hint)
        try:
            return cls(**found)
        except (ValidationError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{folder / _CONFIG} is damaged or of another program: {reason:.200}", hint=hint
            ) from error

    def write(self, folder: Path) -> None:
        # Every setting, as a default may be another one day; of an existing model those of a new one are no setting.
        model = self.model.model_dump(include=None if self.model.base_model_name is None else set(OF_ANY_BASE))
        sections = {"format_version": FORMAT_VERSION, "model": model, **self.model_dump(exclude={"model"})}
        (folder / _CONFIG).write_text(json.dumps(sections, indent=2) + "\n", "utf-8")

    def tensors(self, folder: Path) -> dict[str, torch.Tensor]:
        """Raises UsageError if they can't be read, or are not numbers that were trained."""
        try:
            found = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{folder / WEIGHTS} can't be read: {error}") from error
        for name, tensor in found.items():
            if name != _CODES and not (tensor.is_floating_point() and tensor.isfinite().all()):
                raise UsageError(f"{folder / WEIGHTS}: {name} has values that are no finite numbers")
        return found


def save_checkpoint(
    folder: Path,
    module: MemoryDecoder,
    base: ModelFolder,
    model_config: ModelConfig,
    *,
    reads: Literal["memory", "text", "none"] = "memory",
    dtype: torch.dtype | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes what is trained, by default in the dtype that it has. tensors: gathered from several devices, by name. The
    folder is there whole or not at all; one of that name is replaced. Raises StorageFailed."""
    bank = module.adapter.bank if module.adapter is not None else None
    quant: Any = bank.spec.quant if isinstance(bank, QuantisedBank) else "none"
    trained: dict[str, torch.Tensor] = dict(module.trainable())
    if tensors is not None:
        trained = {name: tensors[name] for name in trained}
    kept = {name: p.detach().to("cpu", dtype).contiguous() for name, p in trained.items()}
    if isinstance(bank, QuantisedBank):
        kept[_CODES] = bank.codes.cpu()
    base_name = _found_from_anywhere(base.name)
    if model_config.base_model_name is not None:
        model_config = model_config.model_copy(update={"base_model_name": base_name})
    elif Path(model_config.tokenizer_name).is_dir():
        tokenizer_name = _found_from_anywhere(model_config.tokenizer_name)
        model_config = model_config.model_copy(update={"tokenizer_name": tokenizer_name})
    encoder_model = module.config.encoder_model and _found_from_anywhere(module.config.encoder_model)
    memory = module.config.model_copy(update={"encoder_model": encoder_model})
    with written_aside(folder) as partial:
        save_file(kept, partial / WEIGHTS)
        fingerprint = base.fingerprint
        Checkpoint(
            model=model_config, memory=memory, base=base_name, fingerprint=fingerprint, bank=quant, reads=reads
        ).write(partial)


def _found_from_anywhere(name: str) -> str:
    """A model's name; of a folder the whole path, which holds wherever the checkpoint is read."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A new folder to write to, which becomes `folder` at the end, or is gone if the writing fails. Of one that was
    there before there is a moment with neither, but never a half. Raises StorageFailed."""
    partial, aside = (folder.with_name(f".{folder.name}.{state}-{os.getpid()}") for state in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        sync_tree(partial)
        if folder.exists():
            folder.rename(aside)
        partial.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageFailed(f"{folder} can't be written: {reason}", hint="more room, or another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(
    folder: Path, *, pull: Callable[[str], ModelFolder], dtype: torch.dtype | str | None = None
) -> tuple[MemoryDecoder, Decoder]:
    """The module in eval mode, as `build_memory_decoder` gives it, with the trained tensors.

    Raises UsageError if the folder is damaged, or the base model isn't the one that it was trained on.
    """
    read = Checkpoint.read(folder)
    module, base = build_memory_decoder(read.model, read.memory, pull=pull, dtype=dtype)
    _must_be_of(folder, read, base.folder)
    if read.bank != "none" and module.adapter is not None and isinstance(module.adapter.bank, MemoryBank):
        module.adapter.bank = module.adapter.bank.quantised(read.bank)
    _fill(folder, read, module)
    return module.eval(), base


def load_for_use(
    folder: Path, *, pull: Callable[[str], ModelFolder], dtype: torch.dtype | str | None = None
) -> tuple[MemoryDecoder, Decoder]:
    """As `load_checkpoint`, the trained tensors in the decoder's dtype: float32 was for training."""
    module, base = load_checkpoint(folder, pull=pull, dtype=dtype)
    for parameter in module.trainable().values():
        parameter.data = parameter.data.to(base.model.dtype)
    return module, base


def begin_with(folder: Path, module: MemoryDecoder, base: ModelFolder) -> None:
    """Copies the trained tensors of a checkpoint into a module that was built by settings of one's own. Raises
    UsageError if it is of another base model, or its tensors are not those that the module trains."""
    read = Checkpoint.read(folder)
    _must_be_of(folder, read, base)
    _fill(folder, read, module)


def _must_be_of(folder: Path, read: Checkpoint, base: ModelFolder) -> None:
    if base.fingerprint != read.fingerprint:
        raise UsageError(
            f"{folder} was trained on {read.base} ({read.fingerprint}); here {base.name} is {base.fingerprint}",
            hint=f"the same model as in training, or train again on {base.name}",
        )


def _fill(folder: Path, read: Checkpoint, module: MemoryDecoder) -> None:
    tensors = read.tensors(folder)
    own: dict[str, torch.Tensor] = dict(module.trainable())
    if read.bank != "none":
        own[_CODES] = module.get_buffer(_CODES)
    for name in sorted(own.keys() ^ tensors.keys()):
        state = "is missing" if name in own else "belongs to no part of it"
        raise UsageError(f"{folder / WEIGHTS}: {name} {state}; config.json and weights are not of one training")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise UsageError(f"{folder / WEIGHTS}: {name} is {list(tensors[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(tensors[name])
