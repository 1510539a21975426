"""Files -> chunks -> store, incrementally, in two steps that commit apart.

`refresh` brings the routing index up to date: after it a search works. `encode_pending` makes the latents that are
missing, in order of worth, up to the budget; what it committed stays if it is interrupted. `load_latents` brings the
latents for one question and encodes what is not there yet. No step does work for text that it has seen before.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from awareness.errors import IndexLocked
from awareness.index.chunking import CHUNKER_VERSION, TokenStarts, chunk_file
from awareness.index.kinds import kind_of
from awareness.index.lock import writing
from awareness.index.repo import Repository, SkippedFile, SourceFile, decode
from awareness.index.store import IndexedFile, Store, StoredChunk
from awareness.types import SINK, Chunk, KVEncoder, Latent, MemorySpec, Progress, silent

MAX_CHUNK_TOKENS = 256
SHARD_BYTES = 64 << 20
EAGER_SHARE = 0.9  # of the budget; the rest is for latents made on demand


@dataclass(frozen=True)
class Refreshed:
    """What `refresh` found. added, reused and removed count chunks of the snapshot; skipped are files left out."""

    snapshot: int
    files: int
    chunks: int
    added: int
    reused: int
    removed: int
    skipped: list[SkippedFile] = field(repr=False)


@dataclass(frozen=True)
class Encoded:
    """What `encode_pending` did: latents and tokens encoded, bytes written, and chunks left for later by the budget."""

    latents: int = 0
    tokens: int = 0
    bytes: int = 0
    postponed: int = 0


def snapshot_name(repository: Repository, rev: str | None) -> str:
    """A snapshot is a work tree or a commit; `rev` is a full sha."""
    return f"rev:{rev}" if rev else f"tree:{repository.root}"


def refresh(
    store: Store,
    repository: Repository,
    *,
    model: str,
    fingerprint: str,
    token_starts: Callable[[], TokenStarts],
    rev: str | None = None,
    scope: Sequence[str] = (),
    max_tokens: int = MAX_CHUNK_TOKENS,
    progress: Progress = silent,
) -> Refreshed:
    """Makes the snapshot show the files as they are now. Call inside `writing(layout)`.

    model, fingerprint: whose tokens bound the chunks. token_starts: called once, and only if a file is new.
    """
    name = snapshot_name(repository, rev)
    chunking = f"{CHUNKER_VERSION}:{max_tokens}:{fingerprint}"
    scope_key = "\n".join(scope)
    before = store.snapshot_files(name, chunking)
    skipped: list[SkippedFile] = []
    current: dict[str, str] = {}
    fresh: dict[str, IndexedFile] = {}
    starts = functools.cache(token_starts)
    for entry in repository.scan(rev=rev, scope=scope):
        if isinstance(entry, SkippedFile):
            skipped.append(entry)
            continue
        current[entry.path] = entry.digest
        if before.get(entry.path) != entry.digest and not store.has_file(entry.path, entry.digest, chunking):
            fresh[entry.path] = _cut(entry, starts(), max_tokens)
            progress("reading", len(current), None)
    snapshot = store.snapshot_id(name)
    if snapshot is not None and current == before and store.snapshot_key(name) == (model, scope_key):
        chunks = store.totals(snapshot).chunks
        return Refreshed(snapshot, len(current), chunks, added=0, reused=chunks, removed=0, skipped=skipped)
    old = set(store.chunk_digests(snapshot)) if snapshot is not None else set()
    files = (fresh.get(path) or IndexedFile(path, digest, None) for path, digest in current.items())
    snapshot = store.write_snapshot(name, files, chunking=chunking, model=model, rev=rev, scope=scope_key)
    new = store.chunk_digests(snapshot)
    reused = sum(digest in old for digest in new)
    return Refreshed(
        snapshot, len(current), len(new), len(new) - reused, reused, len(old.difference(new)), skipped=skipped
    )


def _cut(source: SourceFile, token_starts: TokenStarts, max_tokens: int) -> IndexedFile:
    chunks = chunk_file(source.path, decode(source.data), token_starts, max_tokens=max_tokens)
    sized = [(chunk, len(token_starts(chunk.encoded_text))) for chunk in chunks]
    return IndexedFile(source.path, source.digest, sized)


def is_encoded(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> bool:
    """True if `encode_pending` would find nothing to do; needs no model."""
    return store.encoded_for(snapshot) == _mark(spec, budget)


def _mark(spec: MemorySpec, budget: int) -> str:
    return f"{spec.key}:{budget}"


def encode_pending(
    store: Store, snapshot: int, encoder: KVEncoder, *, budget: int, progress: Progress = silent
) -> Encoded:
    """Encodes what is missing of the snapshot, the most useful first, up to the budget. Call inside `writing(layout)`.

    budget: bytes of latents on disk. Encoding and writing overlap; each shard is committed as it is finished.
    """
    spec = encoder.spec
    keep_sink(store, encoder)
    wanted, postponed = _worth_encoding(store, snapshot, spec, int(budget * EAGER_SHARE))
    if not wanted:
        store.mark_encoded(snapshot, _mark(spec, budget))
        return Encoded(postponed=postponed)
    total = sum(chunk.tokens for chunk in wanted)
    store.make_room(total * spec.bytes_per_token, budget)
    done = latents = 0
    progress("encoding", 0, total)
    with _ShardWriter(store, spec) as writer:
        for group in _by_shard(wanted, spec):
            group.sort(key=lambda chunk: -chunk.tokens)
            encoded: dict[str, Latent] = {}
            for chunk, latent in zip(group, encoder.encode([c.chunk.encoded_text for c in group]), strict=True):
                encoded[chunk.chunk.digest] = latent
                done += latent.tokens
                progress("encoding", done, total)
            writer.put(encoded)
            latents += len(encoded)
    store.mark_encoded(snapshot, _mark(spec, budget))
    return Encoded(latents, done, writer.written, postponed)


def keep_sink(store: Store, encoder: KVEncoder) -> None:
    """The sink's latent is stored once per spec."""
    if store.missing(encoder.spec, [SINK]):
        store.write_latents(encoder.spec, {SINK: encoder.sink}, eager=True)


def load_latents(
    store: Store, encoder: KVEncoder, chunks: Sequence[Chunk], *, budget: int
) -> tuple[list[Latent], Latent]:
    """The latents of these chunks, in order, and the sink's.

    What is missing is encoded now, and kept unless another process is writing.
    """
    spec = encoder.spec
    found = store.read_latents(spec, [SINK, *(chunk.digest for chunk in chunks)])
    absent = {chunk.digest: chunk for chunk in chunks if chunk.digest not in found}
    if absent or SINK not in found:
        texts = [chunk.encoded_text for chunk in absent.values()]
        made = dict(zip(absent, encoder.encode(texts), strict=True))
        try:
            with writing(store.layout):
                keep_sink(store, encoder)
                store.make_room(sum(len(latent.data) for latent in made.values()), budget)
                if made:
                    store.write_latents(spec, made, eager=False)
                store.touch(spec, [digest for digest in found if digest != SINK])
        except IndexLocked:
            pass  # the answer does not depend on keeping them
        found = {SINK: encoder.sink, **found, **made}
    return [found[chunk.digest] for chunk in chunks], found[SINK]


def _worth_encoding(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> tuple[list[StoredChunk], int]:
    """Chunks without a latent that fit the budget, source before tests before docs; and how many do not fit."""
    ordered = sorted(store.chunks(snapshot), key=lambda chunk: kind_of(chunk.chunk.path))
    missing = set(store.missing(spec, (chunk.chunk.digest for chunk in ordered)))
    wanted: dict[str, StoredChunk] = {}
    postponed: set[str] = set()
    room = budget
    seen: set[str] = set()
    for chunk in ordered:
        name = chunk.chunk.digest
        if name in seen:
            continue
        seen.add(name)
        room -= chunk.tokens * spec.bytes_per_token
        if name in missing:
            if room >= 0:
                wanted[name] = chunk
            else:
                postponed.add(name)
    return list(wanted.values()), len(postponed)


def _by_shard(chunks: Iterable[StoredChunk], spec: MemorySpec) -> Iterator[list[StoredChunk]]:
    """Groups that fill about one shard each, keeping the order of worth."""
    group: list[StoredChunk] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += chunk.tokens * spec.bytes_per_token
        if size >= SHARD_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


class _ShardWriter:
    """Writes shards in a thread of its own, one behind the encoder, so that memory holds two shards at the most."""

    def __init__(self, store: Store, spec: MemorySpec) -> None:
        self.store, self.spec, self.written = store, spec, 0
        self._queue: queue.Queue[dict[str, Latent] | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="awareness-shard-writer", daemon=True)

    def _run(self) -> None:
        # A connection belongs to the thread that uses it in a transaction.
        with Store.open(self.store.layout) as store:
            while (latents := self._queue.get()) is not None:
                if self._failure is None:
                    try:
                        self.written += store.write_latents(self.spec, latents, eager=True)
                    except BaseException as error:  # noqa: BLE001 - raised again in the encoder's thread
                        self._failure = error

    def put(self, latents: dict[str, Latent]) -> None:
        self._raise()
        self._queue.put(latents)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> _ShardWriter:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
