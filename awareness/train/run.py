"""Train by a `task: memory` file: put data, module, teacher and trainer together, and write a checkpoint."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import Subset
from transformers import PreTrainedTokenizerFast, TrainerState

from awareness.config.environment import cache_dir
from awareness.config.training import TrainConfig, TrainingConfig
from awareness.config.unused import UnusedSetting
from awareness.errors import UsageError
from awareness.model.checkpoint import begin_with, save_checkpoint
from awareness.model.fusion import fuse
from awareness.model.load import Decoder, load
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.memory_record import MemoryRecord
from awareness.model.model_files import ModelFolder
from awareness.model.presets import NEUTRAL
from awareness.model.token_offsets import token_starts
from awareness.train.batch_memory import MemoryMaker
from awareness.train.data.dataset_rows import TextRow, TextStream
from awareness.train.data.prepared_sources import prepared_sources
from awareness.train.data.repostack import RepoStack, SourceRepository, read_stack
from awareness.train.going_on import GoingOn, bring_best, bring_log, has_best, last_loss
from awareness.train.interruption import Interruption
from awareness.train.log import SETTINGS, RunLog, draw_run
from awareness.train.processes import changed_split, process_index, with_processes
from awareness.train.repository_memory import changed_memory, record_of
from awareness.train.resume import STATE, SavedStep
from awareness.train.run_lock import alone_in
from awareness.train.run_start import FINAL, RESULT, RunStart, find_start
from awareness.train.run_summary import run_summary
from awareness.train.samples.authors import authors
from awareness.train.samples.mixture import KINDS, SampleStream
from awareness.train.samples.pool import Pool
from awareness.train.samples.teacher_samples import Models, closing, prepare_samples
from awareness.train.setting_checks import check_settings
from awareness.train.step import Rows, TrainingStep, padded_rows
from awareness.train.teacher import Teacher
from awareness.train.tell_unused import tell_unused
from awareness.train.trainer import MemoryTrainer
from awareness.types import Progress, Sample, digest, silent

_OF_SAMPLES = {"kinds", "chunks", "reads", "written", "written_by"}
_OF_READING = {"validation", "licences", "chunk_tokens", "chunks_per_source", "near_duplicates"}
_OF_TEXTS = {"training_mode", "dataset_subset", "dataset_split", "eval_split", "text_field", "max_length"}
_OF_RATES = {
    *("memory_lr", "gate_lr", "lora_lr", "base_model_lr", "warmup_steps", "scheduler", "min_lr_ratio"),
    *("optimizer", "weight_decay", "max_grad_norm"),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


@dataclass(frozen=True)
class TrainedMemory:
    """output: the final checkpoint. parameters: number of trained ones. loss: mean over the last `logging_steps` steps;
    None if neither the log nor the checkpoint has it. validation: loss of the kept tensors, those of step `best_step`;
    None without a validation split. unused: settings of the configuration that had no effect."""

    output: Path
    parameters: int
    steps: int
    loss: float | None
    validation: float | None
    best_step: int | None
    seconds: float
    unused: tuple[UnusedSetting, ...] = ()


@dataclass(frozen=True)
class _Data:
    """Training and validation data. rows: the collate function. report: what was read. sources: name, split, size and
    digest of each source. memory: makes a memory of the chunks of samples; None if they are not read as memory."""

    train: Any
    validation: Any
    rows: Callable[[Any], dict[str, Any]]
    report: Mapping[str, Any]
    sources: Sequence[Mapping[str, Any]]
    memory: MemoryMaker | None = None
    teacher: Teacher | None = None
    stack: RepoStack | None = None


@dataclass(frozen=True)
class Prepared:
    """The parts of a run before its first step."""

    module: MemoryDecoder
    base: Decoder
    trainer: MemoryTrainer
    report: Mapping[str, Any]
    record: MemoryRecord
    unused: tuple[UnusedSetting, ...]


def train_memory(
    config: TrainConfig,
    *,
    pull: Callable[[str], ModelFolder],
    resume: str | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> TrainedMemory:
    """Go on with the run in `output_dir` if it was interrupted, or begin one. resume: `latest` or the folder of a
    checkpoint (run_start.py). Ctrl-C and SIGTERM end the program after a step that is saved.

    Raises UsageError for settings that contradict each other, the machine or an earlier run; IndexLocked if another
    process trains in `output_dir`.
    """
    began = time.perf_counter()
    resume = resume or config.training.resume_from_checkpoint
    config = with_processes(config)
    with alone_in(config.output_dir) if process_index() == 0 else contextlib.nullcontext():
        find_start(config, resume, _of_settings(config), lambda _: None, checks_files=False)
        run = prepare(config, pull=pull, progress=progress, say=say)
        trainer = run.trainer
        start = find_start(config, resume, trainer.about, say)
        for line in start.lines:
            say(line)
        if start.saved is not None and (changed := changed_split(start.saved.path, trainer.about["batch"])):
            say(changed)
        trainer.accelerator.wait_for_everyone()  # all have chosen before anything is written
        if trainer.args.should_save:
            _begin_output(config, run.report, start.saved)
        trainer.accelerator.wait_for_everyone()
        _train(config, run, start, say)
        done = _finish(config, run, time.perf_counter() - began, say)
    return done


def _begin_output(config: TrainConfig, report: Mapping[str, Any], saved: SavedStep | None) -> None:
    """Write what the output folder has before the first step."""
    folder = config.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    (folder / "data.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (folder / SETTINGS).write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
    if saved is not None:
        bring_log(saved, folder)
        if config.training.save_best_model:
            bring_best(saved, folder)


def _train(config: TrainConfig, run: Prepared, start: RunStart, say: Callable[[str], None]) -> None:
    """Do the steps that are left. Ends the program if a signal asks for it."""
    trainer, saved = run.trainer, start.saved
    keeps_best = saved is None or not config.training.save_best_model or has_best(saved, config.output_dir)
    if not keeps_best:
        say(f"{trainer.best} is not the best model that {start.step} steps had: the best one from here on is kept")
    if start.is_finished and saved is not None:
        begin_with(saved.path, run.module, run.base.folder)
        trainer.state = TrainerState.load_from_json(str(saved.path / STATE))
        if not keeps_best:
            trainer.state.best_metric = None
        return
    if saved is not None:
        trainer.add_callback(GoingOn(config.training, trainer, saved, keeps_best=keeps_best))
    resumed = None if saved is None else saved.path
    say(run_summary(config, trainer, base=run.base.folder.name, report=run.report, resumed=resumed))
    interruption = Interruption(say)
    trainer.add_callback(interruption)
    with interruption.waiting():
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    done = trainer.state.global_step
    if interruption.number and done < config.training.max_steps:
        say(f"step {done} of {config.training.max_steps} is saved; the same command goes on from there")
        trainer.accelerator.wait_for_everyone()  # a launcher ends all processes when one has ended
        interruption.end()


def _finish(config: TrainConfig, run: Prepared, seconds: float, say: Callable[[str], None]) -> TrainedMemory:
    """Write `final/`, the picture and the result."""
    trainer, module, state = run.trainer, run.module, run.trainer.state
    validation, best_step = None, None
    if state.best_metric is not None and config.training.save_best_model:
        trainer.load_best()
        validation, best_step = float(state.best_metric), state.best_global_step
    done = TrainedMemory(
        config.output_dir / FINAL,
        sum(p.numel() for p in module.trainable().values()),
        state.global_step,
        last_loss(config.output_dir, state, config.training.logging_steps),
        validation,
        best_step,
        seconds,
        run.unused,
    )
    tensors, dtype = trainer.trained_tensors(), DTYPES[config.training.save_precision]
    if trainer.args.should_save:
        how: dict[str, Any] = {"reads": _reads(config), "dtype": dtype, "tensors": tensors, "record": run.record}
        save_checkpoint(done.output, module, run.base.folder, config.model, **how)
        if picture := draw_run(config.output_dir, say):
            say(f"losses: {picture}")
        partial = config.output_dir / f".{RESULT}"
        partial.write_text(json.dumps({**asdict(done), "output": str(done.output)}, indent=1) + "\n", "utf-8")
        partial.rename(config.output_dir / RESULT)
    return done


def held_out_samples(
    config: TrainConfig,
    *,
    pull: Callable[[str], ModelFolder],
    count: int,
    seed: int,
    progress: Progress = silent,
) -> list[Sample]:
    """Samples of the validation repositories, of the kinds of the training and with as many chunks as its last stage.
    The training did not use these samples. Raises UsageError if it has no validation repository."""
    data = config.data
    assert data is not None
    model = pull(config.model.base_model_name or config.model.tokenizer_name).path
    tokens, prepared = token_starts(model), prepared_sources(model)
    stack = read_stack(data, seed=config.training.seed, token_starts=tokens, prepared=prepared, progress=progress)
    if not stack.validation:
        names = ", ".join(repository.name for repository in stack.train)
        raise UsageError(
            f"data.validation: no repository is left for validation beside {names}",
            hint="--set data.validation=0.1, and at least two repositories in data.sources",
        )
    kinds = {kind: weight for kind, weight in data.kinds.items() if kind in KINDS}
    pools, largest = _pools(stack.validation), data.chunks[-1:]
    return list(SampleStream(pools, kinds, curriculum=largest, length=count, group=1, seed=f"held out {seed}"))


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
    writing = _fetched(config, pull)
    torch.manual_seed(training.seed)  # for the initial tensors
    precision = training.mixed_precision if config.model.freeze_base_model else "no"
    module, base = build_memory_decoder(config.model, config.memory, pull=pull, dtype=DTYPES[precision])
    if config.start_from is not None:
        begin_with(config.start_from, module, base.folder)
    if training.gradient_checkpointing:
        module.decoder.gradient_checkpointing_enable({"use_reentrant": False})
    log = RunLog(config.output_dir, every=training.logging_steps, progress=progress, say=say)
    if config.data is not None:
        data = _of_repositories(config, module, base, pull, progress, say, writing)
        if data.validation is None:
            unused = tell_unused(config, say, told=unused, validates=False)
    else:
        data = _of_texts(config, base, progress)
    spec = None if data.memory is None else data.memory.encoder.spec
    record = record_of(config, base.folder, data.stack, spec, learned=module.learns_to_encode)
    if config.start_from is not None and (line := changed_memory(config.start_from, record)):
        say(line)
    step = TrainingStep(module, config.losses, data.memory, data.teacher)

    def save(folder: Path, tensors: Mapping[str, Tensor] | None) -> None:
        save_checkpoint(folder, module, base.folder, config.model, reads=_reads(config), tensors=tensors, record=record)

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
    return Prepared(module, base, trainer, data.report, record, unused)


def _of_repositories(
    config: TrainConfig,
    module: MemoryDecoder,
    base: Decoder,
    pull: Callable[[str], ModelFolder],
    progress: Progress,
    say: Callable[[str], None],
    writing: Mapping[str, ModelFolder],
) -> _Data:
    """writing: kind of sample -> the model that writes its samples."""
    data, training = config.data, config.training
    assert data is not None
    tokens, kept = token_starts(base.folder.path), prepared_sources(base.folder.path)
    stack = read_stack(data, seed=training.seed, token_starts=tokens, prepared=kept, progress=progress, say=say)
    say(stack.report.summary)
    group = _samples_per_step(training)

    # The model in use can write on a GPU, where memory is scarce; start_from may have changed it.
    own = base if base.model.device.type != "cpu" and config.start_from is None else None
    written: dict[str, list[dict[str, Any]]] = {}
    sides = (("train", stack.train), ("validation", stack.validation))
    sources = [_source(each.name, split, _texts(each)) for split, side in sides for each in side]

    def stream(
        repositories: Sequence[SourceRepository], split: str, length: int, seed: int, chunks: Sequence[int], most: int
    ) -> SampleStream:
        pools = _pools(repositories)
        options: dict[str, Any] = {"cache": _cache("prepared"), "models": models, "progress": progress, "say": say}
        made = prepare_samples(pools, writing, count=most, seed=seed, **options)
        written[split] = [kind.report for kind in made]
        sources.extend(_written(kind.report, split) for kind in made)
        prepared = {kind.kind: kind.samples for kind in made}
        return SampleStream(
            pools, data.kinds, curriculum=chunks, length=length, group=group, seed=seed, prepared=prepared
        )

    with closing(Models(own)) as models:
        steps = training.max_steps * group
        train = stream(stack.train, "train", steps, training.seed, data.chunks, data.written)
        validation = None
        if stack.validation and (length := training.eval_samples):
            most = min(data.written, length)  # more would not be drawn
            validation = stream(stack.validation, "validation", length, training.seed + 1, data.chunks[-1:], most)
    report = {**asdict(stack.report), **({"written": written} if writing else {})}
    memory = MemoryMaker(module, base, data.latent_cache) if data.reads == "memory" else None
    with_system = memory is None or NEUTRAL.trained(config.memory.memory_form).system_with_memory
    rows = Rows(base.tokenizer, data.reads, with_system)
    return _Data(train, validation, rows, report, sources, memory, _teacher(config, pull), stack)


def _source(name: str, split: str, texts: Sequence[str]) -> dict[str, Any]:
    """As differences.py compares it."""
    return {"name": name, "split": split, "size": len(texts), "digest": digest(*texts)}


def _written(report: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Samples that a model wrote, as a source."""
    name = f"{split} samples of {report['kind']}"
    return {"name": name, "split": split, "size": report["samples"], "digest": report["digest"]}


def _texts(repository: SourceRepository) -> list[str]:
    """The chunks that are in use."""
    return [f"{chunk.start_line} {chunk.encoded_text}" for chunk in repository.chunks]


def _fetched(config: TrainConfig, pull: Callable[[str], ModelFolder]) -> dict[str, ModelFolder]:
    """Kind of sample -> the model that writes its samples. All models are fetched: what is missing ends the run before
    hours of work. Raises UsageError and ModelNotAvailable."""
    if config.data is None:
        return {}
    if config.losses.kl_coefficient and config.losses.teacher_model:
        pull(config.losses.teacher_model)
    return authors(config.data, config.model.base_model_name, pull=pull)


def _pools(repositories: Sequence[SourceRepository]) -> list[Pool]:
    return [Pool(repository.chunks, repository.name) for repository in repositories]


def _reads(config: TrainConfig) -> Literal["memory", "text", "none"]:
    return config.data.reads if config.data else "none"


def _samples_per_step(training: TrainingConfig) -> int:
    """Samples of all processes together."""
    return training.batch_size * training.gradient_accumulation_steps * training.num_gpus


def _of_texts(config: TrainConfig, base: Decoder, progress: Progress) -> _Data:
    training = config.training
    tokenizer, length = cast(PreTrainedTokenizerFast, base.tokenizer), training.max_steps * _samples_per_step(training)
    train = TextStream(training, tokenizer, length=length, split=training.dataset_split, progress=progress)
    validation: Any = None
    if training.eval_split and training.eval_samples:
        whole = TextStream(training, tokenizer, length=1 << 30, split=training.eval_split, progress=progress)
        validation = Subset(cast(Any, whole), range(min(training.eval_samples, whole.rows)))
    source = {"name": training.dataset_name, "split": "train", "size": train.rows, "digest": train.digest()}
    return _Data(train, validation, _text_rows, {"dataset": training.dataset_name, "rows": train.rows}, [source])


def _text_rows(rows: Sequence[TextRow]) -> dict[str, Any]:
    return padded_rows([(row.ids, row.labels) for row in rows])


def _teacher(config: TrainConfig, pull: Callable[[str], ModelFolder]) -> Teacher | None:
    """The teacher: a decoder of its own, which neither LoRA nor training changes."""
    losses = config.losses
    if not losses.kl_coefficient:
        return None
    name = losses.teacher_model or config.model.base_model_name
    assert name is not None  # check_settings
    decoder = load(pull(name))
    fuse(decoder.model)
    return Teacher(decoder, _cache("teacher.db"), top_k=losses.kl_top_k, temperature=losses.kl_temperature)


def _cache(name: str) -> Path:
    """A path in the user's cache folder."""
    return cache_dir() / name


def _about(config: TrainConfig, base: Decoder, data: _Data) -> dict[str, Any]:
    """What decides the losses of a run. It must be the same to resume it (differences.py)."""
    return {
        "base": base.folder.fingerprint,
        "memory": "none" if data.memory is None else data.memory.encoder.spec.key,
        "data": digest(json.dumps(_counts(data.report), sort_keys=True, default=str)),
        "sources": data.sources,
        **_of_settings(config),
    }


def _counts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the report what checkpoints of earlier versions have."""
    return {name: value for name, value in report.items() if name != "written"}


def _of_settings(config: TrainConfig) -> dict[str, Any]:
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
