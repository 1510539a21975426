"""The repository memory of a training: recorded in its checkpoints, and made again from its sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from awareness.config.setting_changes import few
from awareness.config.training import TrainConfig
from awareness.errors import ModelNotAvailable, UsageError
from awareness.index.chunks.chunking import TokenStarts
from awareness.index.files.repository import Repository
from awareness.model.memory_record import MemoryRecord, RecordedSource
from awareness.model.model_files import ModelFolder
from awareness.train.data.data_sources import Source, fetch_wheel, find_sources, read_source
from awareness.train.data.fleet_sources import FleetPlace, is_store, repositories_of
from awareness.train.data.prepared_sources import PreparedSources, content_digest
from awareness.train.data.repostack import RepoStack, SourceRepository, read_stack
from awareness.types import MemorySpec, Progress, digest, silent

PYPI = "pypi:"


def record_of(
    config: TrainConfig, base: ModelFolder, stack: RepoStack | None, spec: MemorySpec | None, *, learned: bool
) -> MemoryRecord:
    """stack: None for a training on texts. spec: of the latents, None if no latents are read. learned: the training
    changes the encoder."""
    if spec is not None and learned:  # each checkpoint has an encoder of its own
        spec = replace(spec, model=base.fingerprint, encoder=spec.encoder.partition(":")[0])
    data = config.data
    sources: tuple[RecordedSource, ...] = ()
    if data is not None and stack is not None:
        found = find_sources(data.sources)
        sources = _recorded(stack, {source.name: source for source in found})
        data = data.model_copy(update={"sources": [_place(source) for source in found]})
    return MemoryRecord(
        base=base.name,
        fingerprint=base.fingerprint,
        encoder=None if spec is None else MemoryRecord.spec_fields(spec),
        learned=learned,
        data=data,
        seed=config.training.seed,
        sources=sources,
    )


def _recorded(stack: RepoStack, found: dict[str, Source]) -> tuple[RecordedSource, ...]:
    reports = {report.name: report for report in stack.report.sources}
    both = (("train", stack.train), ("validation", stack.validation))
    return tuple(
        RecordedSource(
            name=own.name,
            place=_place(found[own.name]),
            commit=_commit(found[own.name]),
            licence=own.licence,
            split=split,
            files=reports[own.name].files,
            chunks=reports[own.name].chunks,
            kept=len(own.chunks),
            content=own.content,
            memory=digest(*(part for chunk in own.chunks for part in (str(chunk.start_line), chunk.digest))),
        )
        for split, repositories in both
        for own in repositories
    )


def _place(source: Source) -> str:
    if isinstance(source.place, FleetPlace):
        return source.place.url
    return f"{PYPI}{source.place}" if isinstance(source.place, str) else str(source.place)


def _commit(source: Source) -> str | None:
    """Of a repository's work tree, whose files may differ from the commit, or of a fleet's repository."""
    if isinstance(source.place, FleetPlace):
        return source.place.entry.rev
    if isinstance(source.place, str) or not source.place.is_dir():
        return None
    repository = Repository.open(source.place)
    return repository.head() if repository.root == source.place else None


@dataclass(frozen=True)
class Remade:
    """A memory that was made again. problems: what is not as it was, a line each. repositories: (split, source with its
    chunks); none if a source is not what it was."""

    problems: tuple[str, ...]
    repositories: tuple[tuple[str, SourceRepository], ...] = ()


def remake(
    record: MemoryRecord,
    *,
    token_starts: TokenStarts,
    fetch: Callable[[str], Path] = fetch_wheel,
    prepared: PreparedSources | None = None,
    progress: Progress = silent,
) -> Remade:
    """Read the sources of a record again and compare. fetch, prepared: as for `read_stack`. Raises UsageError if it has
    none."""
    data = record.data
    if data is None or not record.sources:
        raise UsageError("it was trained on texts, so there is no memory to make again")
    if problems := _changed_sources(record, fetch, progress):
        return Remade(tuple(problems))
    stack = read_stack(
        data, seed=record.seed, token_starts=token_starts, fetch=fetch, prepared=prepared, progress=progress
    )
    sources = _recorded(stack, {source.name: source for source in find_sources(data.sources)})
    now = record.model_copy(update={"sources": sources})
    pairs = [("train", own) for own in stack.train] + [("validation", own) for own in stack.validation]
    return Remade(tuple(record.differences(now)), tuple(pairs))


def _changed_sources(record: MemoryRecord, fetch: Callable[[str], Path], progress: Progress) -> list[str]:
    """A line for each source that is missing or whose files have changed."""
    problems = []
    for number, source in enumerate(record.sources):
        progress("comparing sources", number, len(record.sources))
        pinned = source.place.startswith(PYPI)
        place: Path | str | FleetPlace | None = source.place.removeprefix(PYPI) if pinned else Path(source.place)
        if not pinned and is_store(source.place):
            place = next((each for each in repositories_of(source.place) if each.name == source.name), None)
        if place is None or (isinstance(place, Path) and not place.exists()):
            problems.append(f"{source.label} is missing")
            continue
        again = Source(source.name, place)
        try:
            content = place.entry.object if isinstance(place, FleetPlace) else content_digest(read_source(again, fetch))
        except ModelNotAvailable as error:
            problems.append(f"{source.label} is missing: {error.message}")
            continue
        now = source.model_copy(update={"content": content, "commit": _commit(again)})
        problems += record.model_copy(update={"sources": (source,)}).differences(
            record.model_copy(update={"sources": (now,)})
        )
    progress("comparing sources", len(record.sources), len(record.sources))
    return problems


def changed_memory(start_from: Path, record: MemoryRecord) -> str | None:
    """One line on what the memory of a training has otherwise than that of the checkpoint it begins with; None if it is
    the same."""
    before = MemoryRecord.read(start_from)
    if before is None:
        return f"start_from {start_from}: it is unknown which memory it was trained with"
    lines = before.differences(record)
    return f"start_from {start_from} was trained with another memory: {few(lines, 3)}" if lines else None
