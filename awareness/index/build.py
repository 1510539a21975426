"""Files -> chunks -> store, incrementally, in two steps that commit apart.

`refresh` brings the routing index up to date: after it a search works. `encode_pending` makes the latents that are
missing, in order of worth, up to the budget; what it committed stays if it is interrupted. `load_latents` brings the
latents for one question and encodes what is not there yet. No step does work for text that it has seen before.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from awareness.errors import IndexLocked, StorageFailed
from awareness.index.files.credentials import find_secrets
from awareness.index.files.file_kinds import kind_of
from awareness.index.files.repository import Repository, SkippedFile, SourceFile, decode
from awareness.index.store.lock import writing
from awareness.index.store.shards import SHARD_BYTES
from awareness.index.store.store import IndexedFile, Snapshot, Store, StoredChunk
from awareness.types import SINK, Chunk, Embedder, KVEncoder, Latent, MemorySpec, Progress, silent

if TYPE_CHECKING:
    from awareness.index.chunks.chunking import TokenStarts

MAX_CHUNK_TOKENS = 256
EAGER_SHARE = 0.9  # of the budget; the rest is for latents made on demand
EMBEDDED_AT_ONCE = 512  # chunks, between two commits


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
    """What `encode_pending` did: latents and tokens encoded, and bytes written. What it left: `pending` chunks fit the
    budget and have no latent yet, `postponed` chunks are beyond the budget."""

    latents: int = 0
    tokens: int = 0
    bytes: int = 0
    pending: int = 0
    postponed: int = 0

    def after(self, earlier: Encoded) -> Encoded:
        """Both runs as one: what both did, and what the later one left."""
        return replace(
            self,
            latents=earlier.latents + self.latents,
            tokens=earlier.tokens + self.tokens,
            bytes=earlier.bytes + self.bytes,
        )


@dataclass(frozen=True)
class Missing:
    """The chunks of a snapshot that have no latent: those that fit the budget, the most useful first, and how many
    are beyond it."""

    wanted: list[StoredChunk] = field(repr=False)
    postponed: int

    @property
    def tokens(self) -> int:
        """Of the chunks that fit the budget."""
        return sum(chunk.tokens for chunk in self.wanted)


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
    from awareness.index.chunks.chunking import CHUNKER_VERSION  # not before it is needed: a search never cuts a file

    renew_vectors(store)
    name = snapshot_name(repository, rev)
    chunking = f"{CHUNKER_VERSION}:{max_tokens}:{fingerprint}"
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
    known = store.snapshot(name)
    if known and current == before and (known.model, known.scope) == (model, tuple(scope)):
        chunks = store.totals(known.id).chunks
        return Refreshed(known.id, len(current), chunks, added=0, reused=chunks, removed=0, skipped=skipped)
    old = set(store.chunk_digests(known.id)) if known else set()
    files = (fresh.get(path) or IndexedFile(path, digest, None) for path, digest in current.items())
    snapshot = store.write_snapshot(name, files, chunking=chunking, model=model, rev=rev, scope=scope)
    new = store.chunk_digests(snapshot)
    reused = sum(digest in old for digest in new)
    return Refreshed(
        snapshot, len(current), len(new), len(new) - reused, reused, len(old.difference(new)), skipped=skipped
    )


def renew_vectors(store: Store) -> None:
    """Makes all term vectors anew if another router has been chosen, or has come with a new version. Call inside
    `writing(layout)`."""
    routing = store.routing
    terms = routing.terms
    if terms and routing.made_by != terms.fingerprint:
        with store.changing():
            routing.embed_terms(((stored.id, stored.chunk) for stored in store.all_chunks()), terms)


def embed_pending(store: Store, embedder: Embedder, *, progress: Progress = silent) -> int:
    """Makes the vectors that are missing, by an embedding model, a batch a commit. Call inside `writing(layout)`.

    Returns how many.
    """
    routing = store.routing
    anew = routing.made_by != embedder.fingerprint  # those of another are forgotten with the first batch
    missing = routing.vectors.missing(also_present=anew)
    for done in range(0, len(missing), EMBEDDED_AT_ONCE):
        progress("embedding", done, len(missing))
        batch = store.chunks_by_id(missing[done : done + EMBEDDED_AT_ONCE])
        with store.changing():
            routing.embed(((i, stored.chunk) for i, stored in batch.items()), embedder)
    return len(missing)


@dataclass(frozen=True)
class Drift:
    """How the files differ from what is indexed, by path; secrets are files that are never indexed."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    secrets: list[str]


def drift(store: Store, repository: Repository, known: Snapshot) -> Drift:
    """Lists and hashes the files of the snapshot again; reads no more of the store than their digests."""
    indexed = {path: file_digest for _, path, file_digest in store.files(known.id)}
    current: dict[str, str] = {}
    secrets: list[str] = []
    for entry in repository.scan(rev=known.rev, scope=known.scope):
        if isinstance(entry, SourceFile):
            current[entry.path] = entry.digest
        elif entry.reason == "secret":
            secrets.append(entry.path)
    return Drift(
        added=sorted(current.keys() - indexed.keys()),
        changed=sorted(path for path in current.keys() & indexed.keys() if current[path] != indexed[path]),
        removed=sorted(indexed.keys() - current.keys()),
        secrets=secrets,
    )


def _cut(source: SourceFile, token_starts: TokenStarts, max_tokens: int) -> IndexedFile:
    from awareness.index.chunks.chunking import sized_chunks

    text = decode(source.data)
    chunks = sized_chunks(source.path, text, token_starts, max_tokens=max_tokens)
    return IndexedFile(source.path, source.digest, chunks, find_secrets(text))


def is_encoded(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> bool:
    """True if `encode_pending` would find nothing to do; needs no model."""
    return store.encoded_for(snapshot) == _mark(spec, budget)


def _mark(spec: MemorySpec, budget: int) -> str:
    return f"{spec.key}:{budget}"


def encode_pending(
    store: Store,
    snapshot: int,
    encoder: KVEncoder,
    *,
    budget: int,
    announce: Callable[[Missing], None] = lambda _: None,
    progress: Progress = silent,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Encoded:
    """Encodes what is missing of the snapshot, the most useful first, up to the budget. Call inside `writing(layout)`.

    budget: bytes of latents on disk. Encoding and writing overlap; each shard is committed as it is finished.
    announce: called with what is missing before the first chunk is encoded, if there is one to encode.
    is_interrupted: asked after every latent; once it says yes, what is there is written and the rest left for later.
    """
    spec = encoder.spec
    keep_sink(store, encoder)
    missing = find_missing(store, snapshot, spec, budget)
    wanted = missing.wanted
    if not wanted:
        store.mark_encoded(snapshot, _mark(spec, budget))
        return Encoded(postponed=missing.postponed)
    announce(missing)
    store.latents.make_room(sum(spec.latent_bytes(chunk.tokens) for chunk in wanted), budget)
    done = encode(store, encoder, wanted, progress=progress, is_interrupted=is_interrupted)
    if done.latents == len(wanted):
        store.mark_encoded(snapshot, _mark(spec, budget))
    return replace(done, pending=len(wanted) - done.latents, postponed=missing.postponed)


def encode(
    store: Store,
    encoder: KVEncoder,
    chunks: Sequence[StoredChunk],
    *,
    progress: Progress = silent,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Encoded:
    """Encodes chunks and keeps their latents, a shard at a time, in the order given. Call inside `writing(layout)`."""
    total, done, latents = sum(chunk.tokens for chunk in chunks), 0, 0
    progress("encoding", 0, total)
    with _ShardWriter(store, encoder.spec) as writer:
        for group in _by_shard(chunks, encoder.spec):
            encoded: dict[str, Latent] = {}
            for chunk, latent in encode_chunks(encoder, group):
                encoded[chunk.digest] = latent
                done += latent.tokens
                progress("encoding", done, total)
                if is_interrupted():
                    break
            writer.put(encoded)
            latents += len(encoded)
            if len(encoded) < len(group):
                break
    return Encoded(latents, done, writer.written)


def encode_chunks(encoder: KVEncoder, chunks: Sequence[StoredChunk]) -> Iterator[tuple[Chunk, Latent]]:
    """The latents of some chunks, the longest first: neighbours of like length are batched well."""
    ordered = sorted(chunks, key=lambda chunk: -chunk.tokens)
    latents = encoder.encode([chunk.chunk.encoded_text for chunk in ordered])
    return ((chunk.chunk, latent) for chunk, latent in zip(ordered, latents, strict=True))


def keep_sink(store: Store, encoder: KVEncoder) -> None:
    """The sink's latent is stored once per spec."""
    if store.latents.missing(encoder.spec.raw, [SINK]):
        store.latents.write(encoder.spec.raw, {SINK: encoder.sink}, eager=True)


def load_latents(
    store: Store, encoder: KVEncoder, chunks: Sequence[Chunk], *, budget: int, progress: Progress = silent
) -> list[Latent]:
    """The latents of these chunks, in order.

    What is missing is encoded now, and kept if it fits the budget, the disk takes it and no other process is writing:
    an answer does not depend on any of that.
    """
    spec = encoder.spec
    found = store.latents.read(spec, [chunk.digest for chunk in chunks])
    absent = {chunk.digest: chunk for chunk in chunks if chunk.digest not in found}
    if absent:
        made: dict[str, Latent] = {}
        for name, latent in zip(absent, encoder.encode([c.encoded_text for c in absent.values()]), strict=True):
            progress("encoding chunks", len(made), len(absent))
            made[name] = latent
        with contextlib.suppress(IndexLocked, StorageFailed), writing(store.layout):
            _keep(store, encoder, made, budget)
            store.latents.touch(spec, list(found))
        found |= made
    return [found[chunk.digest] for chunk in chunks]


def _keep(store: Store, encoder: KVEncoder, made: dict[str, Latent], budget: int) -> None:
    size = sum(len(latent.data) for latent in made.values())
    if size > budget:
        return
    keep_sink(store, encoder)
    store.latents.make_room(size, budget)
    store.latents.write(encoder.spec, made, eager=False)


def find_missing(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> Missing:
    """The chunks without a latent by `spec`, source before tests before docs. budget: bytes of latents on disk."""
    ordered = sorted(store.chunks(snapshot), key=lambda chunk: kind_of(chunk.chunk.path))
    missing = set(store.latents.missing(spec, (chunk.chunk.digest for chunk in ordered)))
    wanted: dict[str, StoredChunk] = {}
    postponed: set[str] = set()
    room = int(budget * EAGER_SHARE)
    seen: set[str] = set()
    for chunk in ordered:
        name = chunk.chunk.digest
        if name in seen:
            continue
        seen.add(name)
        room -= spec.latent_bytes(chunk.tokens)
        if name in missing:
            if room >= 0:
                wanted[name] = chunk
            else:
                postponed.add(name)
    return Missing(list(wanted.values()), len(postponed))


def _by_shard(chunks: Iterable[StoredChunk], spec: MemorySpec) -> Iterator[list[StoredChunk]]:
    """Groups that fill about one shard each, keeping the order of worth."""
    group: list[StoredChunk] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += spec.latent_bytes(chunk.tokens)
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
        batches = iter(self._queue.get, None)
        try:
            # A connection belongs to the thread that uses it in a transaction.
            with Store.open(self.store.layout) as store:
                for latents in batches:
                    self.written += store.latents.write(self.spec, latents, eager=True)
        except BaseException as error:  # noqa: BLE001 - raised again in the encoder's thread
            self._failure = error
            for _ in batches:  # or the encoder's thread would wait for room in the queue
                pass

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
