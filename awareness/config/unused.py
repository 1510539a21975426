"""Which settings of a `task: memory` file have no effect in this configuration, and why.

Only what the file (or `--set`) says is told, never a default. Every setting has a rule here or stands in `ALWAYS_USED`;
a test compares both with the sections. A rule is a function of the configuration: the reason, or "" if the setting has
an effect. What asks for nothing (false, null, 0, an empty list) is not told, apart from `ZERO_ASKS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from awareness.config.base import Section
from awareness.config.decoder import OF_ANY_BASE, ModelConfig, ignored_settings
from awareness.config.memory import MemoryConfig
from awareness.config.training import ASKED_KINDS, PREPARED_KINDS, UNKNOWN_KINDS, TrainConfig


@dataclass(frozen=True)
class UnusedSetting:
    """A setting without effect. setting: `training.eval_steps`. value: as the file has it."""

    setting: str
    value: Any
    why: str

    @property
    def shown(self) -> str:
        """`training.eval_steps: 50`, as in YAML."""
        shown = self.value if isinstance(self.value, str) else json.dumps(self.value, default=str)
        return f"{self.setting}: {shown:.60}"


@dataclass(frozen=True)
class _Use:
    """What the configuration makes use of. validates: False if the sources turned out to leave none for validation."""

    config: TrainConfig
    validates: bool = True

    @property
    def memory(self) -> MemoryConfig:
        return self.config.memory

    @property
    def trains_base(self) -> bool:
        return self.config.model.base_model_name is None or not self.config.model.freeze_base_model

    @property
    def reads_memory(self) -> bool:
        """Whether samples come with a memory of their repository."""
        return self.memory.has_memory and self.config.data is not None and self.config.data.reads == "memory"

    @property
    def has_projections(self) -> bool:
        """Whether the adapter has projections: of the tanh form, or of a bank."""
        return self.memory.has_memory and (self.memory.memory_form == "tanh" or self.memory.has_bank)

    @property
    def learns_encoder(self) -> bool:
        memory = self.memory
        return memory.encoder == "projected" or bool(memory.num_header_tokens or memory.num_trailer_tokens)


_Rule = Callable[[_Use], str]


def unused_settings(config: TrainConfig, *, validates: bool = True) -> list[UnusedSetting]:
    """The settings that the file sets and nothing uses, in the order of the sections. validates: False if the sources
    turned out to leave none for validation."""
    use = _Use(config, validates)
    found = []
    for path, value in _written(config):
        why = _why(path, use)
        if why and (value or (path in ZERO_ASKS and value is not None)):
            found.append(UnusedSetting(path, value, why))
    return found


def why_unused(config: TrainConfig, path: str) -> str:
    """Why a setting (`training.memory_lr`) has no effect; "" if it has one."""
    return _why(path, _Use(config))


def unused_lines(unused: Iterable[UnusedSetting]) -> list[str]:
    """One line for each reason, with all of its settings."""
    by_reason: dict[str, list[str]] = {}
    for one in unused:
        by_reason.setdefault(one.why, []).append(one.shown)
    return [f"{_listed(shown)} no effect: {why}" for why, shown in by_reason.items()]


def _listed(shown: Sequence[str]) -> str:
    if len(shown) == 1:
        return f"{shown[0]} has"
    return f"{', '.join(shown[:-1])} and {shown[-1]} have"


def _written(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every setting that was given, also the weight of each kind of sample."""
    for name in type(section).model_fields:
        if isinstance(section, ModelConfig) and name in (ignored := ignored_settings(section)):
            yield f"{prefix}{name}", ignored[name]
        if name not in section.model_fields_set:
            continue
        value, path = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, Section):
            yield from _written(value, f"{path}.")
        elif isinstance(value, dict):
            yield from ((f"{path}.{key}", own) for key, own in value.items())
        else:
            yield path, value


def _why(path: str, use: _Use) -> str:
    rule = RULES.get(path)
    return rule(use) if rule is not None else ""


# The parts that a setting may belong to


def _either(*rules: _Rule) -> _Rule:
    """The first reason of several rules."""
    return lambda use: next((why for rule in rules if (why := rule(use))), "")


def _needs(section: str, **values: Any) -> _Rule:
    """A setting that needs another one of `memory` or `training` to have a value, or one of a tuple of values."""
    ((name, wanted),) = values.items()
    accepted = wanted if isinstance(wanted, tuple) else (wanted,)

    def rule(use: _Use) -> str:
        value = getattr(getattr(use.config, section), name)
        return "" if value in accepted else f"{section}.{name} is {json.dumps(value).strip(chr(34))}"

    return rule


def _no_memory_or_lora(use: _Use) -> str:
    return "memory.vanilla_mode is true" if use.memory.vanilla_mode else ""


def _no_adapter(use: _Use) -> str:
    return _no_memory_or_lora(use) or ("" if use.memory.use_memory_adapter else "memory.use_memory_adapter is false")


def _no_bank(use: _Use) -> str:
    return _no_adapter(use) or ("" if use.memory.has_bank else "there is no bank (memory.num_memory_tokens is 0)")


def _no_memory_read(use: _Use) -> str:
    if why := _no_adapter(use):
        return why
    if use.config.data is None:
        return "a data set is read without a memory of a repository (that needs data:)"
    return (
        ""
        if use.reads_memory
        else f"the training reads no memory of a repository (data.reads is {use.config.data.reads})"
    )


def _nothing_read(use: _Use) -> str:
    """No memory and no bank."""
    if why := _no_adapter(use):
        return why
    return (
        ""
        if use.memory.has_bank or use.reads_memory
        else "neither a memory nor a bank is read (data.reads, memory.num_memory_tokens)"
    )


def _no_lora(use: _Use) -> str:
    if why := _no_memory_or_lora(use):
        return why
    if not use.memory.has_lora:
        return "there is no LoRA (memory.use_lora is false)"
    is_off = use.memory.has_memory and _nothing_read(use)
    return "LoRA is on only while a memory or a bank is read, and none is" if is_off else ""


def _no_projections(use: _Use) -> str:
    return _no_adapter(use) or ("" if use.has_projections else "the joint form has no projections without a bank")


def _no_copies(use: _Use) -> str:
    heads = use.memory.encoder == "projected" and use.memory.encoder_model is None
    return _no_adapter(use) or ("" if heads else _no_projections(use))


def _nothing_random(use: _Use) -> str:
    memory, random = use.memory, use.memory.memory_init == "zero"
    blocks = memory.memory_form == "tanh" and random
    heads = memory.encoder == "projected" and (random or memory.encoder_model is not None)
    drawn = use.memory.has_bank or blocks or heads
    return _no_adapter(use) or ("" if drawn else "nothing of this adapter starts at random")


def _no_validation_data(use: _Use) -> str:
    if use.config.data is None:
        return "" if use.config.training.eval_split else "there is no validation (set training.eval_split)"
    if not use.config.data.validation:
        return "there is no validation (set data.validation)"
    return "" if use.validates else "there is no validation (no source is left for it: name more data.sources)"


def _no_validation(use: _Use) -> str:
    skipped = "" if use.config.training.eval_samples else "there is no validation (training.eval_samples is 0)"
    return _no_validation_data(use) or skipped


def _no_data_set(use: _Use) -> str:
    return "" if use.config.data is None else "the samples come from data:"


def _no_scheduler(use: _Use) -> str:
    training = use.config.training
    if training.max_steps - training.warmup_steps > 1:
        return ""
    return f"training.warmup_steps {training.warmup_steps} leaves nothing of training.max_steps {training.max_steps}"


def _one_process(use: _Use) -> str:
    return "" if use.config.training.num_gpus > 1 else "training.num_gpus is 1"


def _only_gates(use: _Use) -> str:
    """Nothing is trained with memory_lr."""
    if why := _nothing_read(use):
        return why
    trained = use.has_projections or (use.reads_memory and use.learns_encoder)
    return "" if trained else "the joint form without a bank trains only biases (training.gate_lr)"


def _nothing_decays(use: _Use) -> str:
    nothing = not use.trains_base and _no_lora(use) and _only_gates(use)
    return "only gates and biases are trained, which do not decay" if nothing else ""


def _no_teacher(use: _Use) -> str:
    return "" if use.config.losses.kl_coefficient else "losses.kl_coefficient is 0"


def _latents_change(use: _Use) -> str:
    trained = use.trains_base or use.learns_encoder
    return _no_memory_read(use) or ("the encoder is trained, so no latents are kept" if trained else "")


def _no_kind(use: _Use, kinds: Sequence[str]) -> str:
    data = use.config.data
    has_one = data is not None and any(data.kinds.get(kind) for kind in kinds)
    return "" if has_one else f"data.kinds has neither {' nor '.join(kinds)}"


def _no_prepared_kind(use: _Use) -> str:
    return "" if use.config.data is None else _no_kind(use, PREPARED_KINDS)


def _no_asked_kind(use: _Use) -> str:
    return "" if use.config.data is None else _no_kind(use, ASKED_KINDS)


def _never_refuses(use: _Use) -> str:
    why = _no_kind(use, UNKNOWN_KINDS)
    return why and f"nothing teaches to refuse ({why})"


def _no_questions(use: _Use) -> str:
    return "" if use.config.data is None or use.config.data.questions else "data.questions is empty"


def _no_question_written(use: _Use) -> str:
    data = use.config.data
    if data is None or (data.written and data.kinds.get("written")):
        return ""
    return "data.kinds has no written" if data.written else "data.written is 0"


def _nothing_written(use: _Use) -> str:
    return "" if use.config.data is None or use.config.data.written else "data.written is 0"


def _no_new_decoder(use: _Use) -> str:
    name = use.config.model.base_model_name
    return "" if name is None else f"the decoder is model.base_model_name: {name}"


def _always_trained(use: _Use) -> str:
    new = use.config.model.base_model_name is None
    return "a decoder from scratch is trained in any case (model.base_model_name is null)" if new else ""


_memory, _training = partial(_needs, "memory"), partial(_needs, "training")
_no_chapters = _either(_no_bank, _memory(use_chapters=True))
_no_low_rank = _either(_no_bank, _memory(use_low_rank_memory=True))
_not_tanh = _either(_no_adapter, _memory(memory_form="tanh"))


def _windows(use: _Use) -> str:
    strategies = {use.memory.routing_strategy_train, use.memory.routing_strategy_inference}
    return "" if strategies & {"rolling", "hybrid"} else "no routing strategy is rolling or hybrid"


def _narrow(use: _Use) -> str:
    reduced = use.memory.use_low_rank_memory and use.memory.low_rank_mode == "reduced_dim"
    return "the width of the tokens is memory.memory_rank (memory.low_rank_mode is reduced_dim)" if reduced else ""


def _loss(switch: str, coefficient: str) -> dict[str, _Rule]:
    """The rules of a router's loss, which has a switch and a coefficient."""

    def is_zero(use: _Use) -> str:
        return "" if getattr(use.memory, coefficient) else f"memory.{coefficient} is 0"

    return {
        f"memory.{switch}": _either(_no_chapters, is_zero),
        f"memory.{coefficient}": _either(_no_chapters, _memory(**{switch: True})),
    }


RULES: dict[str, _Rule] = {
    **{f"model.{name}": _no_new_decoder for name in ModelConfig.model_fields if name not in OF_ANY_BASE},
    "model.freeze_base_model": _always_trained,
    "model.rope_theta": _either(_no_new_decoder, _needs("model", use_rope=True)),
    "memory.use_memory_adapter": _no_memory_or_lora,
    "memory.memory_form": _no_adapter,
    "memory.learn_sharpness": _either(_no_memory_read, _memory(memory_form="joint")),
    "memory.refuse_above": _never_refuses,
    "memory.memory_block_variant": _not_tanh,
    "memory.memory_init": _no_copies,
    "memory.wo_init_zero": _not_tanh,
    "memory.memory_init_std": _nothing_random,
    "memory.memory_dropout": _nothing_read,
    "memory.memory_gradient_checkpointing": _nothing_read,
    "memory.use_low_rank_projections": _no_projections,
    "memory.projection_rank": _either(_no_projections, _memory(use_low_rank_projections=True)),
    "memory.gca_start_layer": _no_adapter,
    "memory.memory_layer_placement": _no_adapter,
    "memory.memory_layer_k": _either(_no_adapter, _memory(memory_layer_placement=("first_k", "last_k"))),
    "memory.memory_layer_n": _either(_no_adapter, _memory(memory_layer_placement="every_n")),
    "memory.memory_layer_indices": _no_adapter,
    "memory.encoder": _no_memory_read,
    "memory.encoder_model": _no_memory_read,
    "memory.num_header_tokens": _no_memory_read,
    "memory.num_trailer_tokens": _no_memory_read,
    "memory.latent_sharing": _no_memory_read,
    "memory.latent_sharing_k": _either(_no_memory_read, _memory(latent_sharing="every_k_layers")),
    "memory.num_memory_tokens": _no_adapter,
    "memory.memory_dim": _either(_no_bank, _narrow),
    "memory.memory_sharing": _no_bank,
    "memory.memory_sharing_k": _either(_no_bank, _memory(memory_sharing="every_k_layers")),
    "memory.use_low_rank_memory": _no_bank,
    "memory.memory_rank": _no_low_rank,
    "memory.low_rank_mode": _no_low_rank,
    "memory.quantize_memory": _no_bank,
    "memory.memory_quant_bits": _either(_no_bank, _memory(quantize_memory=True)),
    "memory.use_chapters": _no_bank,
    "memory.num_chapters": _no_chapters,
    "memory.top_k_chapters": _no_chapters,
    "memory.routing_strategy_train": _no_chapters,
    "memory.routing_strategy_inference": _no_chapters,
    "memory.routing_window_size": _either(_no_chapters, _windows),
    **_loss("use_load_balance_loss", "load_balance_coefficient"),
    **_loss("use_auxiliary_loss", "auxiliary_loss_coefficient"),
    **_loss("use_z_loss", "z_loss_coefficient"),
    "memory.use_lora": _no_lora,
    "memory.use_both_memory_and_lora": _no_lora,
    "memory.lora_rank": _no_lora,
    "memory.lora_alpha": _no_lora,
    "memory.lora_dropout": _no_lora,
    "memory.lora_targets": _no_lora,
    "data.validation": lambda use: "" if use.validates else _no_validation_data(use),
    "data.latent_cache": _latents_change,
    "data.latents_on_disk": _latents_change,
    "data.questions": _no_asked_kind,
    "data.written": _no_prepared_kind,
    "data.written_by": _no_question_written,
    **{f"data.kinds.{kind}": _nothing_written for kind in PREPARED_KINDS},
    **{f"data.kinds.{kind}": _no_questions for kind in ASKED_KINDS},
    "losses.kl_top_k": _no_teacher,
    "losses.kl_temperature": _no_teacher,
    "losses.teacher_model": _no_teacher,
    "losses.citation_coefficient": _no_memory_read,
    "losses.sparsity_coefficient": _no_memory_read,
    "training.memory_lr": _only_gates,
    "training.gate_lr": _nothing_read,
    "training.lora_lr": _no_lora,
    "training.base_model_lr": lambda use: (
        "" if use.trains_base else "the base model is frozen (model.freeze_base_model)"
    ),
    "training.training_mode": _no_data_set,
    "training.dataset_subset": _no_data_set,
    "training.dataset_split": _no_data_set,
    "training.eval_split": _either(_no_data_set, _no_validation),
    "training.text_field": _either(_no_data_set, _training(training_mode="pretraining")),
    "training.max_length": _no_data_set,
    "training.distributed_strategy": _one_process,
    "training.fsdp_sharding_strategy": _either(_one_process, _training(distributed_strategy="fsdp")),
    "training.weight_decay": _nothing_decays,
    "training.scheduler": _no_scheduler,
    "training.min_lr_ratio": _either(_no_scheduler, _training(scheduler=("cosine", "linear"))),
    "training.save_best_model": _no_validation,
    "training.eval_steps": _no_validation,
    "training.eval_samples": _no_validation_data,
    "training.early_stopping": _no_validation,
    "training.early_stopping_patience": _either(_no_validation, _training(early_stopping=True)),
    "training.early_stopping_threshold": _either(_no_validation, _training(early_stopping=True)),
    "training.wandb_run_name": _training(log_to_wandb=True),
}
"""Setting -> the reason why it has no effect; "" where it has one."""

ALWAYS_USED = frozenset(
    {
        *("task", "start_from", "output_dir", "quiet_unused"),
        *("model.base_model_name", "model.use_flash_attention", "memory.vanilla_mode"),
        *(f"data.{name}" for name in ("sources", "test", "licences", "chunk_tokens")),
        *(f"data.{name}" for name in ("chunks_per_source", "near_duplicates", "kinds", "chunks", "reads")),
        *("losses.answer_coefficient", "losses.kl_coefficient"),
        *(f"training.{name}" for name in ("dataset_name", "num_gpus", "batch_size", "gradient_accumulation_steps")),
        *(f"training.{name}" for name in ("max_steps", "warmup_steps", "optimizer", "max_grad_norm")),
        *(f"training.{name}" for name in ("mixed_precision", "save_precision", "gradient_checkpointing")),
        *(f"training.{name}" for name in ("save_steps", "save_total_limit", "logging_steps", "log_to_wandb")),
        *(f"training.{name}" for name in ("log_to_tensorboard", "resume_from_checkpoint", "seed")),
    }
)
"""The settings that have an effect in every configuration that is accepted."""

ZERO_ASKS = frozenset(
    {
        *(f"model.{name}" for name in ModelConfig.model_fields if name not in OF_ANY_BASE),
        *("memory.wo_init_zero", "memory.gca_start_layer", "training.min_lr_ratio"),
    }
)
"""The settings that ask for something by 0 or false."""
