"""A checkpoint: a folder with what was trained and its configuration, without the frozen base.

config.json            format version, the sections `model:` and `memory:`, the base model's name and fingerprint
weights.safetensors    the trained tensors by their names in `MemoryDecoder`
memory.json            the repository memory of the training (memory_record.py); earlier versions did not write it
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
from awareness.config.problems import problems_of
from awareness.errors import StorageFailed, UsageError
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.memory_record import MEMORY_RECORD, MemoryRecord
from awareness.model.model_files import ModelFolder, sync_tree
from awareness.model.sharded import spread_like

FORMAT_VERSION = 1
_CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_CODES = "adapter.bank.codes"


class Checkpoint(Section):
    """The contents of config.json. base, fingerprint: of the decoder that was trained on. bank: the bank's quantisation
    or `none`; a quantised bank cannot be trained further. reads: how chunks reached the decoder in training."""

    model: ModelConfig
    memory: MemoryConfig
    base: str
    fingerprint: str
    bank: Literal["none", "int8", "int4"] = "none"
    reads: Literal["memory", "text", "none"] = "memory"

    @property
    def arm(self) -> str:
        """The name that evaluations give such a decoder: `joint+lora`, `tanh`, `bank`, `text+lora`."""
        memory = self.memory
        if not memory.has_memory:
            return self.reads.replace("memory", "none") + ("+lora" if memory.has_lora else "")
        form: str = "bank" if self.reads == "none" else memory.memory_form
        if self.reads != "none" and memory.num_memory_tokens:
            form += "+bank"
        return form + ("+lora" if memory.has_lora else "")

    @model_validator(mode="after")
    def _is_consistent(self) -> Checkpoint:
        if self.model.base_model_name not in (None, self.base):
            raise ValueError(f"base '{self.base}' is not base_model_name '{self.model.base_model_name}'")
        if self.bank != "none" and not self.memory.has_bank:
            raise ValueError(f"bank {self.bank}, but the settings have none")
        return self

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Raises UsageError if the folder is not a checkpoint of a known version."""
        hint = "awareness checkpoints show FOLDER, of a folder that training wrote"
        try:
            content: dict[str, Any] = json.loads((folder / _CONFIG).read_text("utf-8"))
            version = content.pop("format_version")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{folder} is not a checkpoint: {type(error).__name__} in {_CONFIG}", hint=hint) from error
        if version != FORMAT_VERSION or type(version) is not int:
            raise UsageError(f"{folder} has format {version!r}; this program reads {FORMAT_VERSION}", hint=hint)
        try:
            return cls(**content)
        except (ValidationError, TypeError) as error:
            why = str(error)
            if isinstance(error, ValidationError):
                first, *more = problems_of(error, cls, content)
                why = first.line + (f" (and {len(more)} more)" if more else "")
            raise UsageError(f"{folder / _CONFIG} is damaged or of another program: {why:.300}", hint=hint) from error

    def write(self, folder: Path) -> None:
        # Every setting, as defaults may change; of an existing model, those of a new one are not settings.
        model = self.model.model_dump(include=None if self.model.base_model_name is None else set(OF_ANY_BASE))
        sections = {"format_version": FORMAT_VERSION, "model": model, **self.model_dump(exclude={"model"})}
        (folder / _CONFIG).write_text(json.dumps(sections, indent=2) + "\n", "utf-8")

    def tensors(self, folder: Path) -> dict[str, torch.Tensor]:
        """Raises UsageError if they cannot be read or are not finite."""
        try:
            tensors = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{folder / WEIGHTS} can't be read: {error}") from error
        for name, tensor in tensors.items():
            if name != _CODES and not (tensor.is_floating_point() and tensor.isfinite().all()):
                raise UsageError(f"{folder / WEIGHTS}: {name} has values that are no finite numbers")
        return tensors


def save_checkpoint(
    folder: Path,
    module: MemoryDecoder,
    base: ModelFolder,
    model_config: ModelConfig,
    *,
    reads: Literal["memory", "text", "none"] = "memory",
    dtype: torch.dtype | None = None,
    tensors: Mapping[str, torch.Tensor] | None = None,
    record: MemoryRecord | None = None,
) -> None:
    """Write what was trained. dtype: by default the tensors' own. tensors: gathered from several devices, by name.
    record: the repository memory of the training.

    A folder of that name is replaced; it is complete or not there. Raises StorageFailed.
    """
    bank = module.adapter.bank if module.adapter is not None else None
    quant: Any = bank.spec.quant if isinstance(bank, QuantisedBank) else "none"
    trained: dict[str, torch.Tensor] = dict(module.trainable())
    if tensors is not None:
        trained = {name: tensors[name] for name in trained}
    kept = {name: p.detach().to("cpu", dtype).contiguous() for name, p in trained.items()}
    if isinstance(bank, QuantisedBank):
        kept[_CODES] = bank.codes.cpu()
    base_name = _absolute(base.name)
    if model_config.base_model_name is not None:
        model_config = model_config.model_copy(update={"base_model_name": base_name})
    elif Path(model_config.tokenizer_name).is_dir():
        model_config = model_config.model_copy(update={"tokenizer_name": _absolute(model_config.tokenizer_name)})
    encoder_model = module.config.encoder_model and _absolute(module.config.encoder_model)
    memory = module.config.model_copy(update={"encoder_model": encoder_model})
    config = Checkpoint(
        model=model_config, memory=memory, base=base_name, fingerprint=base.fingerprint, bank=quant, reads=reads
    )
    with written_aside(folder) as partial:
        save_file(kept, partial / WEIGHTS)
        config.write(partial)
        if record is not None:
            record.write(partial)


def _absolute(name: str) -> str:
    """A model's name; for a folder its absolute path, so that the checkpoint can be read from anywhere."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


@contextlib.contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write to. At the end it becomes `folder`, replacing an earlier one; on failure it is
    deleted. For a moment neither may be there, but never a part. Raises StorageFailed."""
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
        why = getattr(error, "strerror", None) or error
        raise StorageFailed(
            f"{folder} can't be written: {why}", hint="free some space, or choose another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(
    folder: Path, *, pull: Callable[[str], ModelFolder], dtype: torch.dtype | str | None = None
) -> tuple[MemoryDecoder, Decoder]:
    """What `build_memory_decoder` returns, with the trained tensors, in eval mode.

    Raises UsageError if the folder is damaged, or the base model is not the one that was trained on.
    """
    checkpoint = Checkpoint.read(folder)
    record = MemoryRecord.read(folder)
    if record is not None and record.fingerprint != checkpoint.fingerprint:
        raise UsageError(
            f"{folder / MEMORY_RECORD} is of a training on {record.base} ({record.fingerprint}), and config.json of one"
            f" on {checkpoint.base} ({checkpoint.fingerprint})",
            hint="copy the whole folder of one training",
        )
    module, base = build_memory_decoder(checkpoint.model, checkpoint.memory, pull=pull, dtype=dtype)
    _must_be_trained_on(folder, checkpoint, base.folder)
    if checkpoint.bank != "none" and module.adapter is not None and isinstance(module.adapter.bank, MemoryBank):
        module.adapter.bank = module.adapter.bank.quantised(checkpoint.bank)
    _fill(folder, checkpoint, module)
    return module.eval(), base


def load_for_use(
    folder: Path, *, pull: Callable[[str], ModelFolder], dtype: torch.dtype | str | None = None
) -> tuple[MemoryDecoder, Decoder]:
    """`load_checkpoint` with the trained tensors in the decoder's dtype; only training needs float32."""
    module, base = load_checkpoint(folder, pull=pull, dtype=dtype)
    for parameter in module.trainable().values():
        parameter.data = parameter.data.to(base.model.dtype)
    return module, base


def begin_with(folder: Path, module: MemoryDecoder, base: ModelFolder) -> None:
    """Copy the trained tensors of a checkpoint into a module that was built from other settings. Raises UsageError for
    another base model, or other tensors than the module trains."""
    checkpoint = Checkpoint.read(folder)
    _must_be_trained_on(folder, checkpoint, base)
    _fill(folder, checkpoint, module)


def _must_be_trained_on(folder: Path, checkpoint: Checkpoint, base: ModelFolder) -> None:
    if base.fingerprint != checkpoint.fingerprint:
        raise UsageError(
            f"{folder} was trained on {checkpoint.base} ({checkpoint.fingerprint});"
            f" here {base.name} is {base.fingerprint}",
            hint=f"the same model as in training, or train again on {base.name}",
        )


def _fill(folder: Path, checkpoint: Checkpoint, module: MemoryDecoder) -> None:
    tensors = checkpoint.tensors(folder)
    own: dict[str, torch.Tensor] = dict(module.trainable())
    if checkpoint.bank != "none":
        own[_CODES] = module.get_buffer(_CODES)
    for name in sorted(own.keys() ^ tensors.keys()):
        state = "is missing" if name in own else "belongs to no part of it"
        raise UsageError(f"{folder / WEIGHTS}: {name} {state}; config.json and weights are not of one training")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise UsageError(f"{folder / WEIGHTS}: {name} is {list(tensors[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(spread_like(tensors[name], tensor))
