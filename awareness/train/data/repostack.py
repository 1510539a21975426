"""Repositories and archives -> chunks to train on, chunks to validate on, and a report of what was left out.

    data.sources -> files (data_sources.py) -> licence (licences.py) -> chunks -> split by repository
                 -> drop near duplicates (near_duplicates.py), validation first -> chunks_per_source of each

The same sources, settings and seed give the same stack on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from awareness.config.training import DataConfig
from awareness.errors import UsageError
from awareness.index.chunks.chunking import TokenStarts, sized_chunks
from awareness.train.data.data_sources import Source, fetch_wheel, find_sources, project, read_source, source_text
from awareness.train.data.licences import is_permitted, licence_of
from awareness.train.data.near_duplicates import NearDuplicates
from awareness.types import Chunk, Progress, silent

EXAMPLES = 3  # near duplicates of each source in the report


@dataclass(frozen=True)
class SourceRepository:
    """name: `flask-3.1.0`. licence: an SPDX expression of family names, or `unknown`. chunks: in the order of path and
    line."""

    name: str
    licence: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class SourceReport:
    """files: of source code. chunks: in those files. near_duplicates: chunks that were dropped. kept: chunks that were
    drawn. split: `train`, `validation`, or `refused` for its licence."""

    name: str
    licence: str
    files: int
    chunks: int
    near_duplicates: int
    kept: int
    split: str


@dataclass(frozen=True)
class StackReport:
    """examples: some near duplicates, (dropped chunk, the chunk it duplicates), each as `name path:first-last`."""

    sources: tuple[SourceReport, ...]
    examples: tuple[tuple[str, str], ...]

    @property
    def refused(self) -> dict[str, str]:
        """Name -> licence of the sources that were left out."""
        return {source.name: source.licence for source in self.sources if source.split == "refused"}

    @property
    def summary(self) -> str:
        """The report in one line."""
        kept = {split: [s for s in self.sources if s.split == split and s.kept] for split in ("train", "validation")}
        parts = [f"{sum(s.kept for s in own)} chunks of {len(own)} sources for {split}" for split, own in kept.items()]
        parts.append(f"{sum(source.near_duplicates for source in self.sources)} near duplicates left out")
        if self.refused:
            parts.append("licence: " + ", ".join(f"{name} ({licence})" for name, licence in self.refused.items()))
        return " · ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RepoStack:
    train: tuple[SourceRepository, ...]
    validation: tuple[SourceRepository, ...]
    report: StackReport


def read_stack(
    data: DataConfig,
    *,
    seed: int,
    token_starts: TokenStarts,
    fetch: Callable[[str], Path] = fetch_wheel,
    progress: Progress = silent,
) -> RepoStack:
    """Read all sources. fetch: NAME==VERSION -> the wheel.

    Raises UsageError, and ModelNotAvailable if a wheel cannot be fetched.
    """
    sources = find_sources(data.sources)
    _refuse_tests(sources, data.test)
    read: dict[Source, SourceRepository] = {}
    reports: dict[Source, SourceReport] = {}
    for number, source in enumerate(sources):
        progress("reading sources", number, len(sources))
        read[source], reports[source] = _read(source, data, token_starts, fetch)
    progress("reading sources", len(sources), len(sources))
    permitted = [source for source in sources if reports[source].split != "refused"]
    if not permitted:
        licences = ", ".join(f"{report.name} ({report.licence})" for report in reports.values())
        message = f"data.licences permits none of the sources: {licences}"
        raise UsageError(message, hint="--set 'data.licences=[]' permits all")
    measured = _validation(data.validation, [source for source in permitted if read[source].chunks], seed)
    duplicates = NearDuplicates(data.near_duplicates)
    examples: list[tuple[str, str]] = []
    for source in sorted(permitted, key=lambda source: source not in measured):  # stable: otherwise in their order
        unique, dropped = _unique(read[source], duplicates)
        drawn = _drawn(unique, data.chunks_per_source, f"{seed}/{source.name}")
        read[source] = replace(read[source], chunks=tuple(drawn))
        reports[source] = replace(
            reports[source],
            near_duplicates=len(dropped),
            kept=len(drawn),
            split="validation" if source in measured else "train",
        )
        examples += dropped[:EXAMPLES]
    train, validation = (
        tuple(read[source] for source in permitted if (source in measured) is side and read[source].chunks)
        for side in (False, True)
    )
    if not train:
        raise UsageError(
            f"data.sources: no chunk is left to train on: of {len(sources)} sources {len(permitted)} are permitted, "
            f"{len(measured)} of them for validation",
            hint="name more sources, or fewer in data.validation",
        )
    return RepoStack(train, validation, StackReport(tuple(reports.values()), tuple(examples)))


def _refuse_tests(sources: Sequence[Source], tests: Sequence[str]) -> None:
    forbidden = {project(name): name for name in tests}
    for source in sources:
        if name := forbidden.get(source.project):
            raise UsageError(
                f"data.sources: {source.name} is '{name}' of data.test, which nothing may learn from",
                hint="take it out of data.sources",
            )


def _read(
    source: Source, data: DataConfig, token_starts: TokenStarts, fetch: Callable[[str], Path]
) -> tuple[SourceRepository, SourceReport]:
    """All chunks of a source, none if its licence is not permitted."""
    files = read_source(source, fetch)
    licence = licence_of(files)
    texts = {path: text for path, content in files.items() if (text := source_text(path, content)) is not None}
    is_refused = not is_permitted(licence, data.licences)
    chunks: list[Chunk] = []
    for path, text in sorted(texts.items()) if not is_refused else ():
        sized = sized_chunks(path, text, token_starts, max_tokens=data.chunk_tokens)
        chunks += [chunk for chunk, tokens in sized if 4 * tokens >= data.chunk_tokens]
    report = SourceReport(
        source.name, licence, len(texts), len(chunks), 0, 0, split="refused" if is_refused else "train"
    )
    return SourceRepository(source.name, licence, tuple(chunks)), report


def _validation(wanted: float | list[str], sources: Sequence[Source], seed: int) -> set[Source]:
    """The sources of the validation split: those named, or a share of all, with at least one on each side.

    All versions of a project are on the same side.
    """
    projects = sorted({source.project for source in sources})
    if isinstance(wanted, list):
        chosen: set[str] = set()
        for name in wanted:
            named = {source.project for source in sources if source.is_called(name)}
            if not named:
                raise UsageError(
                    f"data.validation: '{name}' is none of the sources with chunks that may be learned from: "
                    + ", ".join(source.name for source in sources),
                    hint="name one of them, with or without its version",
                )
            chosen |= named
    else:
        count = min(max(1, round(wanted * len(projects))), len(projects) - 1) if wanted and projects else 0
        chosen = set(random.Random(f"{seed}/validation").sample(projects, count))
    return {source for source in sources if source.project in chosen}


def _unique(repository: SourceRepository, duplicates: NearDuplicates) -> tuple[list[Chunk], list[tuple[str, str]]]:
    """(chunks without near duplicates, [(dropped chunk, the chunk it duplicates)])."""
    unique, dropped = [], []
    for chunk in repository.chunks:
        place = f"{repository.name} {chunk.place}"
        if original := duplicates.add(place, chunk.text):
            dropped.append((place, original))
        else:
            unique.append(chunk)
    return unique, dropped


def _drawn(chunks: list[Chunk], most: int, seed: str) -> list[Chunk]:
    """At most `most` chunks, drawn at random, in their order."""
    if len(chunks) <= most:
        return chunks
    return [chunks[place] for place in sorted(random.Random(seed).sample(range(len(chunks)), most))]
