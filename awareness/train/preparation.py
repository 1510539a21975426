"""Put the parts of a run together before its first step: data, module, teacher and trainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awareness.config.training import TrainConfig
from awareness.config.unused import UnusedSetting
from awareness.model.checkpoint import begin_with, save_checkpoint
from awareness.model.load import Decoder
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.model_files import ModelFolder
from awareness.train.log import RunLog
from awareness.train.repository_memory import changed_memory, record_of
from awareness.train.run_data import RunData, fetch_writers, repository_data, text_data
from awareness.train.setting_checks import check_settings
from awareness.train.step import TrainingStep
from awareness.train.tell_unused import tell_unused
from awareness.train.trainer import MemoryTrainer
from awareness.types import Progress, digest, silent

_OF_SAMPLES = {"kinds", "chunks", "reads", "written", "written_by"}
_OF_READING = {"validation", "licences", "chunk_tokens", "chunks_per_source", "near_duplicates"}
_OF_TEXTS = {"training_mode", "dataset_subset", "dataset_split", "eval_split", "text_field", "max_length"}
_OF_RATES = {
    *("memory_lr", "gate_lr", "lora_lr", "base_model_lr", "warmup_steps", "scheduler", "min_lr_ratio"),
    *("optimizer", "weight_decay", "max_grad_norm"),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


@dataclass(frozen=True)
class Prepared:
    """The parts of a run before its first step. report: what was read. save: (folder, tensors, dtype) writes a
    checkpoint, as `save_checkpoint`."""

    module: MemoryDecoder
    base: Decoder
    trainer: MemoryTrainer
    report: Mapping[str, Any]
    save: Callable[..., None]
    unused: tuple[UnusedSetting, ...]


def prepare(
    config: TrainConfig,
    *,
    pull: Callable[[str], ModelFolder],
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Say which settings have no effect, read the data, load the model and build the trainer. Raises UsageError."""
    training = config.training
    check_settings(config, pull=pull)
    unused = tell_unused(config, say)
    writing = fetch_writers(config, pull)
    torch.manual_seed(training.seed)  # for the initial tensors
    precision = training.mixed_precision if config.model.freeze_base_model else "no"
    module, base = build_memory_decoder(config.model, config.memory, pull=pull, dtype=DTYPES[precision])
    if config.start_from is not None:
        begin_with(config.start_from, module, base.folder)
    if training.gradient_checkpointing:
        module.decoder.gradient_checkpointing_enable({"use_reentrant": False})
    log = RunLog(config.output_dir, every=training.logging_steps, progress=progress, say=say)
    if config.data is not None:
        data = repository_data(config, module, base, pull, progress, say, writing)
        if data.validation is None:
            unused = tell_unused(config, say, told=unused, validates=False)
    else:
        data = text_data(config, base, progress)
    spec = None if data.memory is None else data.memory.encoder.spec
    record = record_of(config, base.folder, data.stack, spec, learned=module.learns_to_encode)
    if config.start_from is not None and (line := changed_memory(config.start_from, record)):
        say(line)
    step = TrainingStep(module, config.losses, data.memory, data.teacher)

    reads = "none" if config.data is None else config.data.reads

    def save(folder: Path, tensors: Mapping[str, Tensor] | None, dtype: torch.dtype | None = None) -> None:
        how: dict[str, Any] = {"reads": reads, "record": record, "tensors": tensors, "dtype": dtype}
        save_checkpoint(folder, module, base.folder, config.model, **how)

    trainer = MemoryTrainer(
        step,
        training,
        config.output_dir,
        rows=data.rows,
        train=data.train,
        validation=data.validation,
        save=save,
        load=lambda folder: begin_with(folder, module, base.folder),
        about=_about(config, base, data),
        log=log,
    )
    return Prepared(module, base, trainer, data.report, save, unused)


def _about(config: TrainConfig, base: Decoder, data: RunData) -> dict[str, Any]:
    """What decides the losses of a run. It must be the same to resume it (differences.py)."""
    return {
        "base": base.folder.fingerprint,
        "memory": "none" if data.memory is None else data.memory.encoder.spec.key,
        "data": digest(json.dumps(_counts(data.report), sort_keys=True, default=str)),
        "sources": data.sources,
        **settings_about(config),
    }


def _counts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report what checkpoints of earlier versions have."""
    return {name: value for name, value in report.items() if name != "written"}


def settings_about(config: TrainConfig) -> dict[str, Any]:
    """The part of `_about` that is known before anything is read."""
    training = config.training
    samples = config.data.model_dump(mode="json", include=_OF_SAMPLES) if config.data else {}
    return {
        "settings": config.model_dump(mode="json", include={"model", "memory", "losses", "start_from"}),
        "samples": samples,
        "reading": config.data.model_dump(mode="json", include=_OF_READING) if config.data else {},
        "texts": {} if config.data else training.model_dump(mode="json", include=_OF_TEXTS),
        "rates": training.model_dump(mode="json", include=_OF_RATES),
        "precision": training.mixed_precision,
        "batch": [training.batch_size, training.gradient_accumulation_steps, training.num_gpus],
        "steps": training.max_steps,
        "seed": training.seed,
    }
