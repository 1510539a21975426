"""Repositories and archives -> chunks to train on, chunks to validate on, and a report of what was left out.

    data.sources -> files (data_sources.py) -> licence (licences.py) -> chunks -> split by repository
                 -> drop near duplicates (near_duplicates.py), validation first -> chunks_per_source of each

The repositories of a fleet (fleet_sources.py) are cut already.
The same sources, settings and seed give the same stack on every machine, whether chunks and near duplicates are made
now or were kept by an earlier run (prepared_sources.py).
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from awareness.config.training import DataConfig
from awareness.errors import UsageError
from awareness.index.chunks.chunking import TokenStarts, sized_chunks
from awareness.index.chunks.languages import language_of
from awareness.train.data.data_sources import (
    Source,
    fetch_wheel,
    find_sources,
    may_be_source,
    project,
    read_source,
    source_text,
)
from awareness.train.data.fleet_sources import FleetPlace, read_chunks
from awareness.train.data.licences import is_permitted, licence_of, names_licence
from awareness.train.data.near_duplicates import NearDuplicates
from awareness.train.data.prepared_sources import Dropped, PreparedSources, content_digest
from awareness.types import Chunk, Progress, numbered, silent

EXAMPLES = 3  # near duplicates of each source in the report


@dataclass(frozen=True)
class SourceRepository:
    """name: `flask-3.1.0`. licence: an SPDX expression of family names, or `unknown`. chunks: in the order of path and
    line. content: `content_digest` of its files. fleet: where its latents are, for a repository of a fleet."""

    name: str
    licence: str
    chunks: tuple[Chunk, ...]
    content: str = ""
    fleet: FleetPlace | None = None


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
    prepared: PreparedSources | None = None,
    wanted: Callable[[Source, Chunk], bool] = lambda source, chunk: False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> RepoStack:
    """Read all sources. fetch: NAME==VERSION -> the wheel. prepared: keeps what was made of sources, of the same
    tokenizer as `token_starts`. wanted: chunks that are kept beside those that are drawn. say: gets a line for each
    source.

    Raises UsageError, and ModelNotAvailable if a wheel cannot be fetched.
    """
    sources = find_sources(data.sources)
    _refuse_tests(sources, data.test)
    if isinstance(data.validation, list):  # before minutes of reading
        _named(data.validation, sources, "the sources")
    read: dict[Source, SourceRepository] = {}
    reports: dict[Source, SourceReport] = {}
    with _fetching(sources, fetch) as fetched:
        for number, source in enumerate(sources):
            progress("reading sources", number, len(sources))
            read[source], reports[source] = _read(source, data, token_starts, fetched, prepared, say)
    progress("reading sources", len(sources), len(sources))
    permitted = [source for source in sources if reports[source].split != "refused"]
    if not permitted:
        licences = ", ".join(f"{report.name} ({report.licence})" for report in reports.values())
        message = f"data.licences permits none of the sources: {licences}"
        raise UsageError(message, hint="--set 'data.licences=[]' permits all")
    measured = _validation(data.validation, [source for source in permitted if read[source].chunks], seed)
    examples: list[tuple[str, str]] = []
    ordered = sorted(permitted, key=lambda source: source not in measured)  # stable: otherwise in their order
    duplicates = _near_duplicates([read[source] for source in ordered], data.near_duplicates, prepared, progress)
    for source, dropped in zip(ordered, duplicates, strict=True):
        chunks, places = read[source].chunks, {place for place, _ in dropped}
        unique = [chunk for place, chunk in enumerate(chunks) if place not in places]
        drawn = _drawn(unique, data.chunks_per_source, f"{seed}/{source.name}", functools.partial(wanted, source))
        read[source] = replace(read[source], chunks=tuple(drawn))
        reports[source] = replace(
            reports[source],
            near_duplicates=len(dropped),
            kept=len(drawn),
            split="validation" if source in measured else "train",
        )
        examples += [(_place(source.name, chunks[place]), first) for place, first in dropped[:EXAMPLES]]
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


@contextmanager
def _fetching(sources: Sequence[Source], fetch: Callable[[str], Path]) -> Iterator[Callable[[str], Path]]:
    """Inside the block a thread fetches wheels in the order of the sources, while those before them are cut. Yields a
    function that waits for one."""
    with ThreadPoolExecutor(1, "awareness-fetch") as thread:
        places = dict.fromkeys(source.place for source in sources if isinstance(source.place, str))
        fetched = {place: thread.submit(fetch, place) for place in places}
        try:
            yield lambda place: fetched[place].result()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)


def _read(
    source: Source,
    data: DataConfig,
    token_starts: TokenStarts,
    fetch: Callable[[str], Path],
    prepared: PreparedSources | None,
    say: Callable[[str], None],
) -> tuple[SourceRepository, SourceReport]:
    """All chunks of a source, none if its licence is not permitted."""
    if isinstance(source.place, FleetPlace):
        return _read_fleet(source.name, source.place, data, say)
    began = time.perf_counter()
    files = read_source(source, fetch)
    licence = licence_of(files)
    is_refused = not is_permitted(licence, data.licences)
    content = content_digest(files)
    key = prepared.chunks_key(content, data.chunk_tokens) if prepared and not is_refused else ""
    if prepared and key and (kept := prepared.chunks(key)) is not None:
        number, chunks = kept
        how = ", from the cache"
    else:
        texts = {path: text for path, content in files.items() if (text := source_text(path, content)) is not None}
        number, how = len(texts), ""
        chunks = () if is_refused else tuple(_cut(texts, token_starts, data.chunk_tokens))
        if prepared and key:
            prepared.keep_chunks(key, number, chunks)
    cut = "left out, as data.licences does not permit it" if is_refused else numbered(len(chunks), "chunk")
    seconds = time.perf_counter() - began
    say(f"{source.name}: {licence}, {numbered(number, 'file')}, {cut}, {seconds:.1f} s{how}")
    split = "refused" if is_refused else "train"
    report = SourceReport(source.name, licence, number, len(chunks), 0, 0, split=split)
    return SourceRepository(source.name, licence, chunks, content), report


def _read_fleet(
    name: str, place: FleetPlace, data: DataConfig, say: Callable[[str], None]
) -> tuple[SourceRepository, SourceReport]:
    """The same of a repository of a fleet, which is cut already."""
    sized = read_chunks(place)
    named: dict[str, str] = {}
    for chunk, _ in sized:
        if names_licence(chunk.path):
            named[chunk.path] = f"{named.get(chunk.path, '')}{chunk.text}\n"
    licence = licence_of({path: text.encode() for path, text in named.items()})
    is_refused = not is_permitted(licence, data.licences)
    kept = [(chunk, tokens) for chunk, tokens in sized if may_be_source(chunk.path) and language_of(chunk.path)]
    chunks = () if is_refused else tuple(chunk for chunk, tokens in kept if 4 * tokens >= data.chunk_tokens)
    files = len({chunk.path for chunk, _ in kept})
    cut = "left out, as data.licences does not permit it" if is_refused else numbered(len(chunks), "chunk")
    say(f"{name}: {licence}, {numbered(files, 'file')}, {cut}, from {place.url}")
    report = SourceReport(name, licence, files, len(chunks), 0, 0, split="refused" if is_refused else "train")
    return SourceRepository(name, licence, chunks, place.entry.object, place), report


def _cut(texts: Mapping[str, str], token_starts: TokenStarts, chunk_tokens: int) -> Iterator[Chunk]:
    """The chunks of files that have at least a quarter of the tokens. texts: path -> text."""
    for path, text in sorted(texts.items()):
        for chunk, tokens in sized_chunks(path, text, token_starts, max_tokens=chunk_tokens):
            if 4 * tokens >= chunk_tokens:
                yield chunk


def _validation(wanted: float | list[str], sources: Sequence[Source], seed: int) -> set[Source]:
    """The sources of the validation split: those named, or a share of all, with at least one on each side.

    All versions of a project are on the same side.
    """
    projects = sorted({source.project for source in sources})
    if isinstance(wanted, list):
        chosen = _named(wanted, sources, "the sources with chunks that may be learned from")
    else:
        count = min(max(1, round(wanted * len(projects))), len(projects) - 1) if wanted and projects else 0
        chosen = set(random.Random(f"{seed}/validation").sample(projects, count))
    return {source for source in sources if source.project in chosen}


def _named(names: Sequence[str], sources: Sequence[Source], what: str) -> set[str]:
    """The projects with these names. Raises UsageError for a name that is of none of `sources`."""
    projects: set[str] = set()
    for name in names:
        named = {source.project for source in sources if source.is_called(name)}
        if not named:
            raise UsageError(
                f"data.validation: '{name}' is none of {what}: " + ", ".join(source.name for source in sources),
                hint="--set data.validation=0.1 chooses a tenth of them, or name one, with or without its version",
            )
        projects |= named
    return projects


def _near_duplicates(
    repositories: Sequence[SourceRepository], threshold: float, prepared: PreparedSources | None, progress: Progress
) -> list[Dropped]:
    """The near duplicates of each source among its own chunks and those of the sources before it."""
    key = ""
    if prepared:
        key = prepared.duplicates_key([(repository.name, repository.chunks) for repository in repositories], threshold)
        kept = prepared.duplicates(key)
        if kept is not None:
            return kept
    total, done = sum(len(repository.chunks) for repository in repositories), 0
    seen, found = NearDuplicates(threshold), []
    for repository in repositories:
        dropped: Dropped = []
        progress("comparing chunks", done, total)
        done += len(repository.chunks)
        for place, chunk in enumerate(repository.chunks):
            if original := seen.add(_place(repository.name, chunk), chunk.text):
                dropped.append((place, original))
        found.append(dropped)
    progress("comparing chunks", total, total)
    if prepared:
        prepared.keep_duplicates(key, found)
    return found


def _place(source: str, chunk: Chunk) -> str:
    return f"{source} {chunk.place}"


def _drawn(chunks: list[Chunk], most: int, seed: str, wanted: Callable[[Chunk], bool]) -> list[Chunk]:
    """At most `most` chunks, drawn at random, and those that are wanted, in their order."""
    if len(chunks) <= most:
        return chunks
    drawn = set(random.Random(seed).sample(range(len(chunks)), most))
    return [chunk for place, chunk in enumerate(chunks) if place in drawn or wanted(chunk)]
