"""The data of a run: repositories or a data set -> samples or rows for training and validation, and their teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch.utils.data import Subset
from transformers import PreTrainedTokenizerFast

from awareness.config.environment import cache_dir
from awareness.config.training import TrainConfig, TrainingConfig
from awareness.config.training_files import find_questions
from awareness.errors import UsageError
from awareness.model.fusion import fuse
from awareness.model.load import Decoder, load
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.model_files import ModelFolder
from awareness.model.presets import NEUTRAL
from awareness.model.token_offsets import token_starts
from awareness.train.batch_memory import MemoryMaker
from awareness.train.data.dataset_rows import TextRow, TextStream
from awareness.train.data.fleet_sources import FleetLatents
from awareness.train.data.prepared_sources import prepared_sources
from awareness.train.data.repostack import RepoStack, SourceRepository, read_stack
from awareness.train.latent_disk import LatentDisk
from awareness.train.samples.asked import questions_of
from awareness.train.samples.authors import authors
from awareness.train.samples.mixture import KINDS, SampleStream
from awareness.train.samples.pool import Pool
from awareness.train.samples.teacher_samples import Models, closing, prepare_samples
from awareness.train.step import Rows, padded_rows
from awareness.train.teacher import Teacher
from awareness.types import Progress, Sample, digest, numbered, silent


@dataclass(frozen=True)
class RunData:
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


def repository_data(
    config: TrainConfig,
    module: MemoryDecoder,
    base: Decoder,
    pull: Callable[[str], ModelFolder],
    progress: Progress,
    say: Callable[[str], None],
    writing: Mapping[str, ModelFolder],
) -> RunData:
    """writing: kind of sample -> the model that writes its samples."""
    data, training = config.data, config.training
    assert data is not None
    tokens, kept = token_starts(base.folder.path), prepared_sources(base.folder.path)
    questions = questions_of(data.questions, find_questions)
    reading: dict[str, Any] = {"token_starts": tokens, "prepared": kept, "wanted": questions.are_answered_by}
    stack = read_stack(data, seed=training.seed, progress=progress, say=say, **reading)
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
        asked = {pool.name: questions.about(pool) for pool in pools}
        if data.questions:
            texts = [f"{one.question}\n{one.answer}" for own in asked.values() for one in own]
            sources.append(_source(f"{split} questions of data.questions", split, texts))
            say(f"{numbered(len(texts), 'question')} of data.questions for {split}")
        how: dict[str, Any] = {"prepared": prepared, "asked": asked}
        return SampleStream(pools, data.kinds, curriculum=chunks, length=length, group=group, seed=seed, **how)

    with closing(Models(own)) as models:
        steps = training.max_steps * group
        train = stream(stack.train, "train", steps, training.seed, data.chunks, data.written)
        validation = None
        if stack.validation and (length := training.eval_samples):
            most = min(data.written, length)  # more would not be drawn
            validation = stream(stack.validation, "validation", length, training.seed + 1, data.chunks[-1:], most)
    report = {**asdict(stack.report), **({"written": written} if writing else {})}
    memory = MemoryMaker(module, base, data.latent_cache) if data.reads == "memory" else None
    if memory is not None and memory.cache is not None and data.latents_on_disk:
        texts = {
            chunk.encoded_text for side in (stack.train, stack.validation) for each in side for chunk in each.chunks
        }
        options: dict[str, Any] = {"limit": data.latents_on_disk, "dtype": base.model.dtype}
        memory.disk = LatentDisk(_cache("latents.db"), memory.encoder.spec, texts, **options)
    places = [each.fleet for side in (stack.train, stack.validation) for each in side if each.fleet is not None]
    if memory is not None and memory.cache is not None and places:
        memory.fleet = FleetLatents(places, memory.encoder.spec)
        say(f"{numbered(len(memory.fleet), 'latent')} of the sources' chunks are read from fleets")
    with_system = memory is None or NEUTRAL.trained(config.memory).system_with_memory
    rows = Rows(base.tokenizer, data.reads, with_system)
    return RunData(train, validation, rows, report, sources, memory, _teacher(config, pull), stack)


def text_data(config: TrainConfig, base: Decoder, progress: Progress) -> RunData:
    training = config.training
    tokenizer, length = cast(PreTrainedTokenizerFast, base.tokenizer), training.max_steps * _samples_per_step(training)
    train = TextStream(training, tokenizer, length=length, split=training.dataset_split, progress=progress)
    validation: Any = None
    if training.eval_split and training.eval_samples:
        whole = TextStream(training, tokenizer, length=1 << 30, split=training.eval_split, progress=progress)
        validation = Subset(cast(Any, whole), range(min(training.eval_samples, whole.rows)))
    source = {"name": training.dataset_name, "split": "train", "size": train.rows, "digest": train.digest()}
    return RunData(train, validation, _text_rows, {"dataset": training.dataset_name, "rows": train.rows}, [source])


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


def _text_rows(rows: Sequence[TextRow]) -> dict[str, Any]:
    return padded_rows([(row.ids, row.labels) for row in rows])


def fetch_writers(config: TrainConfig, pull: Callable[[str], ModelFolder]) -> dict[str, ModelFolder]:
    """Kind of sample -> the model that writes its samples. All models are fetched: what is missing ends the run before
    hours of work. Raises UsageError and ModelNotAvailable."""
    if config.data is None:
        return {}
    if config.losses.kl_coefficient and config.losses.teacher_model:
        pull(config.losses.teacher_model)
    return authors(config.data, config.model.base_model_name, pull=pull)


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


def _pools(repositories: Sequence[SourceRepository]) -> list[Pool]:
    return [Pool(repository.chunks, repository.name) for repository in repositories]


def _samples_per_step(training: TrainingConfig) -> int:
    """Samples of all processes together."""
    return training.batch_size * training.gradient_accumulation_steps * training.num_gpus


def _cache(name: str) -> Path:
    """A path in the user's cache folder."""
    return cache_dir() / name
