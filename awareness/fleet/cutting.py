"""One repository of a run: fetched if it has an address, read, and cut into chunks. What a worker does first.

The files are read and cut as `awareness index` does it, into an index that lives as long as the task: the same files
are left out, for the same reasons.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from awareness.engine.models import pull_known
from awareness.errors import AwarenessError, UsageError, storage_errors
from awareness.fleet.clones import cloned, newest
from awareness.fleet.sources import Source
from awareness.index import build
from awareness.index.chunks.chunking import TokenStarts
from awareness.index.files.repository import Repository, SourceFile
from awareness.index.search.bm25 import POSTING_BYTES
from awareness.index.store.chunk_table import to_line
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model.token_offsets import token_starts
from awareness.types import digest


@dataclass(frozen=True)
class Rules:
    """How a run reads repositories. model: a preset, or a name that every worker knows. scope, include: patterns.
    timeout_s: for git. most_bytes: of the text of a repository."""

    model: str
    scope: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    timeout_s: float = 600.0
    most_bytes: int = 1 << 30


@dataclass(frozen=True)
class Known:
    """What the catalogue says of a repository."""

    state: str
    chunking: str


@dataclass(frozen=True)
class Cut:
    """A repository that was read. tokens: chunk digest -> tokens, each once. total_tokens: of all chunks. skipped:
    reason -> files left out. words: term -> the chunks that hold it. is_unchanged: it is as the catalogue knows it, and
    was not cut. failed: why it could not be read, with what helps."""

    source: Source
    rev: str | None = None
    state: str = ""
    chunking: str = ""
    files: int = 0
    chunks: int = 0
    total_tokens: int = 0
    tokens: dict[str, int] = field(default_factory=dict, repr=False)
    skipped: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict, repr=False)
    is_unchanged: bool = False
    failed: tuple[str, str] | None = None
    seconds: float = 0.0


Lines = list[bytes]
Texts = dict[str, str]


def cut(source: Source, rules: Rules, known: Known | None = None) -> tuple[Cut, Lines, Texts]:
    """(what was read, the lines of its chunks, chunk digest -> the text that is encoded). An error of one repository is
    in `Cut.failed`. Raises ModelNotAvailable, and StorageFailed for a disk that is full."""
    started = time.perf_counter()
    try:
        chunking = build.chunking_rules(pull_known(rules.model).fingerprint)
        before = known.state if known is not None and known.chunking == chunking else None
        with _opened(source, rules, before) as (repository, rev, state):
            if repository is None or state == before:
                seconds = time.perf_counter() - started
                return Cut(source, rev, state, chunking, is_unchanged=True, seconds=seconds), [], {}
            return _cut(source, repository, rev, state, chunking, rules, started)
    except AwarenessError as error:
        if not isinstance(error, UsageError):
            raise
        failed = (error.message, error.hint or "")
        return Cut(source, failed=failed, seconds=time.perf_counter() - started), [], {}


@contextlib.contextmanager
def _opened(source: Source, rules: Rules, before: str | None) -> Iterator[tuple[Repository | None, str | None, str]]:
    """(the repository, the commit that is read or None for files as they are, its state). The first is None for an
    address whose newest commit is that of `before`."""
    if source.is_folder:
        repository = Repository.open(Path(source.place))
        rev = repository.head() if repository.is_bare else None
        if repository.is_bare and rev is None:
            raise UsageError(f"{source.place} has no commit", hint="git log")
        yield repository, rev, _state(rules, rev or _files_digest(repository, rules))
        return
    rev = newest(source.place, rules.timeout_s)
    if _state(rules, rev) == before:
        yield None, rev, before
        return
    with cloned(source.place, rules.timeout_s) as folder:
        repository = Repository.open(folder)
        rev = repository.resolve("HEAD")  # which may be newer by now
        yield repository, rev, _state(rules, rev)


def _state(rules: Rules, content: str) -> str:
    """Identifies what is read: the commit or the files, and the patterns."""
    return digest(content, *rules.scope, "", *rules.include)


def _files_digest(repository: Repository, rules: Rules) -> str:
    """Identifies the files that are indexed of a work tree or a folder."""
    parts: list[str] = []
    for entry in repository.scan(scope=rules.scope, include=rules.include):
        if isinstance(entry, SourceFile):
            parts += (entry.path, entry.digest)
    return digest(*parts)


def _cut(
    source: Source, repository: Repository, rev: str | None, state: str, chunking: str, rules: Rules, started: float
) -> tuple[Cut, Lines, Texts]:
    folder = pull_known(rules.model)
    with (
        storage_errors(Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="awareness-cut-", ignore_cleanup_errors=True) as temporary,
    ):
        layout = IndexLayout(Path(temporary) / "index")
        with writing(layout), Store.create(layout) as store:
            refreshed = build.refresh(
                store,
                repository,
                model=rules.model,
                fingerprint=folder.fingerprint,
                token_starts=lambda: _token_starts(folder.path),
                rev=rev,
                scope=rules.scope,
                include=rules.include,
            )
            files = {path: file_digest for _, path, file_digest in store.files(refreshed.snapshot)}
            lines: Lines = []
            texts: Texts = {}
            tokens: dict[str, int] = {}
            total = size = 0
            for stored in store.chunks(refreshed.snapshot):
                lines.append(to_line(stored, files[stored.chunk.path]))
                texts[stored.digest] = stored.chunk.encoded_text
                tokens[stored.digest] = stored.tokens
                total += stored.tokens
                size += len(lines[-1])
                if size > rules.most_bytes:
                    message = f"{source.name} has more than {rules.most_bytes >> 20:,} MiB of text"
                    raise UsageError(message, hint="a --scope without its data, or a larger --most-text")
            words = _words(store)
    if not lines:
        reasons = Counter(file.reason for file in refreshed.skipped)
        left_out = "; left out: " + ", ".join(f"{n} {why}" for why, n in reasons.most_common(3)) if reasons else ""
        raise UsageError(f"{source.name} has no file to index{left_out}", hint=f"look into {source.place}")
    skipped = Counter(file.reason for file in refreshed.skipped)
    done = Cut(
        source,
        rev,
        state,
        chunking,
        len(files),
        len(lines),
        total,
        tokens,
        dict(skipped),
        words,
        seconds=time.perf_counter() - started,
    )
    return done, lines, texts


def _words(store: Store) -> dict[str, int]:
    rows = store.rows(f"SELECT term, sum(length(data)) / {POSTING_BYTES} FROM posting GROUP BY term")
    return dict(rows)


@functools.lru_cache(maxsize=1)
def _token_starts(folder: Path) -> TokenStarts:
    return token_starts(folder)
