"""What settings have to fit before a training begins: that something is trained, and the sizes of the decoder.

A file is also read by `eval compare`, which trains nothing of a control run; and sizes are known only once the decoder
is on this machine. So this is checked here, before weights are loaded and data are read: all at once, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pydantic import ValidationError

from awareness.config.base import Conflict
from awareness.config.problems import Problem, corrections, nearest, problem_of_conflict, refusal, settings_of
from awareness.config.training import LossConfig, TrainConfig, TrainingConfig
from awareness.config.unused import why_unused
from awareness.model.adapter import layers_of_placement, memory_layers
from awareness.model.decoder_shape import DecoderShape
from awareness.model.model_files import ModelFolder
from awareness.train.samples.mixture import KNOWN_KINDS


def check_settings(config: TrainConfig, *, pull: Callable[[str], ModelFolder]) -> None:
    """Raises UsageError that names every setting that does not fit, and what to type instead."""
    base = config.model.base_model_name
    shape = DecoderShape.of_settings(config.model) if base is None else DecoderShape.of_folder(pull(base))
    problems = _problems(config, shape)
    if not problems:
        return

    def check(changed: dict[str, object]) -> list[Problem]:
        try:
            return _problems(TrainConfig.model_validate(changed), shape)
        except ValidationError:
            return problems

    content = config.model_dump(exclude_unset=True)
    raise refusal("", problems, corrections(problems, content, check))


def _problems(config: TrainConfig, shape: DecoderShape | None) -> list[Problem]:
    conflicts = [*what_is_trained(config), *what_is_learned(config)]
    if shape is not None:
        conflicts += [*sizes_of_memory(config, shape), *sizes_of_lora(config, shape), *sizes_of_texts(config, shape)]
    order = [".".join(keys) for keys, _ in settings_of(TrainConfig)]
    problems = [problem_of_conflict(config, conflict) for conflict in conflicts]
    return sorted(problems, key=lambda problem: order.index(".".join(map(str, problem.place[:2]))))


def reads_chunks(config: TrainConfig) -> bool:
    """Whether samples come with chunks that are read as memory."""
    return config.data is not None and config.data.reads == "memory"


def rates_of_what_is_trained(config: TrainConfig) -> dict[str, float]:
    """Name -> learning rate, of the parts that are trained and get a gradient. An adapter without anything to read gets
    none, and LoRA of an adapter is off then."""
    rates = {name: getattr(config.training, name) for name in ("memory_lr", "gate_lr", "lora_lr", "base_model_lr")}
    return {name: rate for name, rate in rates.items() if not why_unused(config, f"training.{name}")}


def what_is_trained(config: TrainConfig) -> Iterator[Conflict]:
    memory, rates = config.memory, rates_of_what_is_trained(config)
    if rates:
        if not any(rates.values()):
            first = next(iter(rates))
            names = ", ".join(f"training.{name}" for name in rates)
            default = TrainingConfig.model_fields[first].default
            reason = f"nothing is trained: {names} {'is' if len(rates) == 1 else 'are'} 0"
            yield Conflict(f"training.{first}", reason, fix={f"training.{first}": default})
    elif not memory.has_memory:
        key = f"memory.{memory.off_switch}"
        reason = "nothing is trained: there is no adapter and no LoRA, and model.freeze_base_model is true"
        yield Conflict(key, reason, fix={key: not getattr(memory, memory.off_switch)})
    else:
        source = "training.dataset_name has no chunks" if config.data is None else f"data.reads: {config.data.reads}"
        tokens = type(memory).model_fields["num_memory_tokens"].default
        yield Conflict(
            "memory.num_memory_tokens",
            f"nothing is trained: there is no bank, and no chunk that is read as memory ({source})",
            fix={"memory.num_memory_tokens": tokens} if config.data is None else {"data.reads": "memory"},
        )


def what_is_learned(config: TrainConfig) -> Iterator[Conflict]:
    data, losses, memory = config.data, config.losses, config.memory
    if data is not None:
        if data.reads == "memory" and not memory.has_memory:
            reason = f"there is no memory to read as: see memory.{memory.off_switch}"
            yield Conflict("data.reads", reason, fix={"data.reads": "text"})
        yield from _unknown_kinds(data.kinds)
        if losses.kl_coefficient and losses.teacher_model is None and config.model.base_model_name is None:
            reason = "a decoder made from scratch has no teacher: set losses.teacher_model"
            yield Conflict("losses.kl_coefficient", reason, fix={"losses.kl_coefficient": 0})
    of_samples = ("kl_coefficient", "citation_coefficient", "sparsity_coefficient")
    for name in of_samples if data is None else ():
        if getattr(losses, name):
            reason = "kl, citation and sparsity need samples from repositories (data:)"
            yield Conflict(f"losses.{name}", reason, fix={f"losses.{name}": 0})
    coefficients = [losses.answer_coefficient]
    if data is not None:
        coefficients += [losses.kl_coefficient]
    if reads_chunks(config) and memory.has_memory:
        coefficients += [losses.citation_coefficient, losses.sparsity_coefficient]
    if config.memory.has_bank and memory.use_chapters:
        coefficients += [
            memory.use_load_balance_loss * memory.load_balance_coefficient,
            memory.use_auxiliary_loss * memory.auxiliary_loss_coefficient,
            memory.use_z_loss * memory.z_loss_coefficient,
        ]
    if not any(coefficients):
        default = LossConfig().answer_coefficient
        reason = "nothing is learned: every coefficient of the loss is 0"
        yield Conflict("losses.answer_coefficient", reason, fix={"losses.answer_coefficient": default})


def _unknown_kinds(kinds: Mapping[str, float]) -> Iterator[Conflict]:
    meant = {kind: kind if kind in KNOWN_KINDS else nearest(kind, KNOWN_KINDS) for kind in kinds}
    right = {kind: kinds[given] for given, kind in meant.items() if kind is not None and kinds[given]}
    for given, kind in meant.items():
        if kind != given:
            what = f"did you mean {kind}?" if kind else f"known kinds: {', '.join(KNOWN_KINDS)}"
            yield Conflict(f"data.kinds.{given}", f"unknown kind; {what}", fix={"data.kinds": right or {"constant": 1}})


def sizes_of_memory(config: TrainConfig, shape: DecoderShape) -> Iterator[Conflict]:
    if not config.memory.has_memory:
        return
    wrong = list(_layers(config, shape))
    yield from wrong
    yield from _ranks(config, shape)
    if wrong:
        return
    memory, readers = config.memory, len(memory_layers(shape.num_layers, config.memory))
    for name, is_used in (("latent", reads_chunks(config)), ("memory", config.memory.has_bank)):
        k = getattr(memory, f"{name}_sharing_k")
        if is_used and getattr(memory, f"{name}_sharing") == "every_k_layers" and k > readers:
            key = f"memory.{name}_sharing_k"
            yield Conflict(key, f"is more than the {readers} layers that read memory", fix={key: readers})


def _layers(config: TrainConfig, shape: DecoderShape) -> Iterator[Conflict]:
    memory, count = config.memory, shape.num_layers
    has = f"{shape.name} has {count} layers"
    limited = {"first_k": "memory_layer_k", "last_k": "memory_layer_k", "every_n": "memory_layer_n"}
    name = limited.get(memory.memory_layer_placement)
    if name is not None and getattr(memory, name) > count:
        yield Conflict(f"memory.{name}", has, fix={f"memory.{name}": count})
    elif memory.memory_layer_placement == "custom" and max(memory.memory_layer_indices) >= count:
        inside = [i for i in memory.memory_layer_indices if i < count]
        fix = {"memory.memory_layer_indices": inside or [count - 1]}
        yield Conflict("memory.memory_layer_indices", f"{has}, 0 to {count - 1}", fix=fix)
    lowest = memory.gca_start_layer
    if lowest is None:
        return
    if lowest >= count:
        yield Conflict("memory.gca_start_layer", f"{has}, 0 to {count - 1}", fix={"memory.gca_start_layer": None})
    elif all(i < lowest for i in layers_of_placement(count, memory)):
        reason = f"no layer reads memory: all of memory_layer_placement {memory.memory_layer_placement} are below it"
        yield Conflict("memory.gca_start_layer", reason, fix={"memory.gca_start_layer": None})


def _ranks(config: TrainConfig, shape: DecoderShape) -> Iterator[Conflict]:
    memory, width = config.memory, config.memory.memory_dim or shape.hidden_size
    if config.memory.has_bank and memory.use_low_rank_memory:
        tokens, is_product = memory.num_memory_tokens, memory.low_rank_mode == "factorized"
        full = min(tokens, width) if is_product else width
        if memory.memory_rank > full:
            what = f"{tokens} tokens of width {width}" if is_product else f"tokens of width {width}"
            reason = f"is above the full rank of {what}, {full}" if is_product else f"is wider than {what}"
            yield Conflict("memory.memory_rank", reason, fix={"memory.memory_rank": full})
    if memory.use_low_rank_projections:
        ranks = []
        if memory.memory_form == "tanh":
            ranks += [shape.full_rank("q_proj", "o_proj")]
        if config.memory.has_bank:
            low = memory.use_low_rank_memory and memory.low_rank_mode == "reduced_dim"
            ranks += [min(memory.memory_rank if low else width, shape.linears["k_proj"][1])]
        if ranks and memory.projection_rank > max(ranks):
            reason = f"is above the full rank of every projection of memory, {max(ranks)}"
            yield Conflict("memory.projection_rank", reason, fix={"memory.projection_rank": max(ranks)})


def sizes_of_lora(config: TrainConfig, shape: DecoderShape) -> Iterator[Conflict]:
    memory = config.memory
    if not memory.has_lora:
        return
    known = [target for target in memory.lora_targets if target in shape.linears]
    if unknown := [target for target in memory.lora_targets if target not in shape.linears]:
        names = ", ".join(unknown)
        yield Conflict(
            "memory.lora_targets",
            f"{shape.name} has no {names}; its projections are {', '.join(shape.linears)}",
            fix={"memory.lora_targets": known or list(type(memory).model_fields["lora_targets"].default)},
        )
    full = {target: min(shape.linears[target]) for target in known}
    if over := [target for target, rank in full.items() if memory.lora_rank > rank]:
        lowest = min(full.values())
        yield Conflict(
            "memory.lora_rank",
            f"is above the full rank of {', '.join(over)}; at most {lowest} for memory.lora_targets",
            fix={"memory.lora_rank": lowest},
        )


def sizes_of_texts(config: TrainConfig, shape: DecoderShape) -> Iterator[Conflict]:
    key = "training.max_length" if config.data is None else "data.chunk_tokens"
    tokens = config.training.max_length if config.data is None else config.data.chunk_tokens
    if tokens > shape.positions:
        reason = f"is more than the {shape.positions} positions of {shape.name}"
        yield Conflict(key, reason, fix={key: shape.positions})
