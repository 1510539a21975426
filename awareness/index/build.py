"""Files -> chunks -> store, incrementally: first the routing index, then the latents.

`refresh` updates the routing index; after it, searches work. `encode_pending` encodes the missing latents, the most
useful first, up to the budget; what it has committed stays if it is interrupted. `load_latents` returns the latents for
one question and encodes those that are missing. No step repeats work for text that it has seen before.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import IndexLocked, StorageFailed
from awareness.index.chunks import CHUNKER_VERSION
from awareness.index.files.credentials import find_secrets
from awareness.index.files.file_kinds import kind_of
from awareness.index.files.repository import Repository, SkippedFile, SourceFile
from awareness.index.listing import Listing
from awareness.index.renew_history import renew_history
from awareness.index.search.terms import TERMS_VERSION
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.shards import SHARD_BYTES
from awareness.index.store.store import IndexedFile, Snapshot, Store, StoredChunk
from awareness.types import SINK, Chunk, Embedder, KVEncoder, Latent, MemorySpec, Progress, silent

if TYPE_CHECKING:
    from awareness.index.chunks.chunking import TokenStarts

MAX_CHUNK_TOKENS = 256
EAGER_SHARE = 0.9  # of the budget; the rest is for latents that questions need
_PRIVATE = 0x10F000 - 0xDC00
EMBEDDING_BATCH = 512  # chunks in one commit


@dataclass(frozen=True)
class Refreshed:
    """The result of `refresh`. added, reused, removed: chunks of the snapshot; reused by a new snapshot: those that
    others had. skipped: files that are not indexed."""

    snapshot: int
    files: int
    chunks: int
    added: int
    reused: int
    removed: int
    skipped: list[SkippedFile] = field(repr=False)


@dataclass(frozen=True)
class Encoded:
    """The result of `encode_pending`.

    latents, tokens: encoded. bytes: written. pending: chunks within the budget without a latent. postponed: chunks
    beyond the budget.
    """

    latents: int = 0
    tokens: int = 0
    bytes: int = 0
    pending: int = 0
    postponed: int = 0

    def after(self, earlier: Encoded) -> Encoded:
        """Both runs as one: the sum of the work, and what this one left."""
        return replace(
            self,
            latents=earlier.latents + self.latents,
            tokens=earlier.tokens + self.tokens,
            bytes=earlier.bytes + self.bytes,
        )


@dataclass(frozen=True)
class Missing:
    """Chunks of a snapshot without a latent. wanted: within the budget, the most useful first. postponed: the number
    beyond it."""

    wanted: list[StoredChunk] = field(repr=False)
    postponed: int

    @property
    def tokens(self) -> int:
        """Of `wanted`."""
        return sum(chunk.tokens for chunk in self.wanted)


def snapshot_name(repository: Repository, rev: str | None) -> str:
    """The name of the snapshot of a commit (rev: its full hash) or of the work tree."""
    return f"rev:{rev}" if rev else tree_name(repository.root)


def tree_name(folder: Path) -> str:
    """The name of the snapshot of a work tree. A byte of the path that is not UTF-8 becomes a private-use character:
    SQLite has no place for a lone surrogate."""
    return "tree:" + "".join(chr(ord(c) + _PRIVATE) if "\udc80" <= c <= "\udcff" else c for c in os.fspath(folder))


def folder_of(name: str) -> Path:
    """The folder of a work tree, by the name of its snapshot (`tree_name`)."""
    first, last = 0xDC80 + _PRIVATE, 0xDCFF + _PRIVATE
    return Path("".join(chr(ord(c) - _PRIVATE) if first <= ord(c) <= last else c for c in name.removeprefix("tree:")))


def refresh(
    store: Store,
    repository: Repository,
    *,
    model: str,
    fingerprint: str,
    token_starts: Callable[[], TokenStarts],
    rev: str | None = None,
    scope: Sequence[str] = (),
    include: Sequence[str] = (),
    max_tokens: int = MAX_CHUNK_TOKENS,
    progress: Progress = silent,
) -> Refreshed:
    """Updates the snapshot to the files as they are now. Call inside `writing(layout)`.

    scope, include: patterns, as in `Repository.scan`. model, fingerprint: of the model whose tokens limit the chunks.
    token_starts: loads its tokenizer; called at most once, for the first new file. max_tokens: of a chunk.
    """
    renew_vectors(store)
    name = snapshot_name(repository, rev)
    chunking = chunking_rules(fingerprint, max_tokens)
    before = store.snapshot_files(name, chunking)
    listing = Listing(store, repository, name, rev=rev, scope=scope, include=include)
    starts = functools.cache(token_starts)
    current: dict[str, str] = {}
    fresh: dict[str, IndexedFile] = {}
    for entry in listing:
        if before.get(entry.path) != entry.digest and not store.has_file(entry.path, entry.digest, chunking):
            source = entry if isinstance(entry, SourceFile) else repository.source(entry.path, rev=rev)
            if source is None:  # it went while the others were read
                continue
            current[source.path] = source.digest
            fresh[source.path] = _cut(source, starts(), max_tokens)
            progress("reading", len(current), None)
        else:
            current[entry.path] = entry.digest
    known = store.snapshot(name)
    choice = (model, tuple(scope), tuple(include))
    if known and current == before and (known.model, known.scope, known.include) == choice:
        listing.remember()
        renew_history(store, repository, known.id, rev)
        chunks = store.count_chunks(known.id)
        return Refreshed(known.id, len(current), chunks, added=0, reused=chunks, removed=0, skipped=listing.skipped)
    old = set(store.chunk_digests(known.id)) if known else set()
    others = () if known else store.snapshots()  # a new work tree or commit shares its chunks with them
    stored = old.union(*(store.chunk_digests(other.id) for other in others))
    files = (fresh.get(path) or IndexedFile(path, digest, None) for path, digest in current.items())
    snapshot = store.write_snapshot(name, files, chunking=chunking, model=model, rev=rev, scope=scope, include=include)
    listing.remember()
    renew_history(store, repository, snapshot, rev)
    new = store.chunk_digests(snapshot)
    reused = sum(digest in stored for digest in new)
    return Refreshed(
        snapshot, len(current), len(new), len(new) - reused, reused, len(old.difference(new)), skipped=listing.skipped
    )


def unchanged(store: Store, repository: Repository, snapshot: Snapshot) -> Refreshed | None:
    """What `refresh` returns where nothing has changed, found without the lock and without the model; else None."""
    chunking = store.chunking_of(snapshot.id) or ""
    if not chunking.startswith(chunking_rules("")) or _has_old_vectors(store):
        return None
    before = store.snapshot_files(snapshot.name, chunking)
    listing = Listing(store, repository, snapshot.name, rev=snapshot.rev, scope=snapshot.scope)
    current = {entry.path: entry.digest for entry in listing}
    if current != before or listing.is_worth_remembering:
        return None
    chunks = store.count_chunks(snapshot.id)
    return Refreshed(snapshot.id, len(current), chunks, added=0, reused=chunks, removed=0, skipped=listing.skipped)


def chunking_rules(fingerprint: str, max_tokens: int = MAX_CHUNK_TOKENS) -> str:
    """Identifies the rules that files are cut by. fingerprint: of the model whose tokens limit the chunks."""
    return f"{CHUNKER_VERSION}.{TERMS_VERSION}:{max_tokens}:{fingerprint}"


def renew_vectors(store: Store) -> None:
    """Makes all term vectors again if the router has changed. Call inside `writing(layout)`."""
    routing = store.routing
    if routing.terms and _has_old_vectors(store):
        with store.changing():
            routing.embed_terms(((stored.id, stored.chunk) for stored in store.all_chunks()), routing.terms)


def _has_old_vectors(store: Store) -> bool:
    """True if the term vectors are of another router than the index is searched with."""
    terms = store.routing.terms
    return terms is not None and store.routing.made_by != terms.fingerprint


def embed_pending(store: Store, embedder: Embedder, *, progress: Progress = silent) -> int:
    """Makes the missing vectors with an embedding model and returns their number. Call inside `writing(layout)`."""
    routing = store.routing
    is_new = routing.made_by != embedder.fingerprint  # the first batch deletes the vectors of another router
    missing = routing.vectors.missing(also_present=is_new)
    for done in range(0, len(missing), EMBEDDING_BATCH):
        progress("embedding", done, len(missing))
        batch = store.chunks_by_id(missing[done : done + EMBEDDING_BATCH])
        with store.changing():
            routing.embed(((i, stored.chunk) for i, stored in batch.items()), embedder)
    return len(missing)


@dataclass(frozen=True)
class Drift:
    """Paths of files that differ from the index. secrets: files that are never indexed."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    secrets: list[str]


def drift(store: Store, repository: Repository, known: Snapshot) -> Drift:
    """Compares the files as they are now with a snapshot, by their digests."""
    indexed = {path: file_digest for _, path, file_digest in store.files(known.id)}
    listing = Listing(store, repository, known.name, rev=known.rev, scope=known.scope)
    current = {entry.path: entry.digest for entry in listing}
    secrets = [file.path for file in listing.skipped if file.reason == "secret"]
    return Drift(
        added=sorted(current.keys() - indexed.keys()),
        changed=sorted(path for path in current.keys() & indexed.keys() if current[path] != indexed[path]),
        removed=sorted(indexed.keys() - current.keys()),
        secrets=secrets,
    )


def _cut(source: SourceFile, token_starts: TokenStarts, max_tokens: int) -> IndexedFile:
    from awareness.index.chunks.chunking import sized_chunks

    text = source.text
    chunks = sized_chunks(source.path, text, token_starts, max_tokens=max_tokens)
    return IndexedFile(source.path, source.digest, chunks, find_secrets(text))


def is_encoded(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> bool:
    """Does the snapshot need no `encode_pending`? Needs no model."""
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
    """Encodes the missing latents of a snapshot, the most useful first. Call inside `writing(layout)`.

    budget: bytes of latents on disk. announce: called before the first chunk is encoded, if any is missing.
    is_interrupted: called after every latent; if True, the finished latents are written and the rest is left.
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
    """Encodes chunks in the order given and commits their latents shard by shard. Call inside `writing(layout)`.

    A thread writes one shard while the next is encoded, so at most two are in memory.
    """
    total, done, latents, written = sum(chunk.tokens for chunk in chunks), 0, 0, 0
    progress("encoding", 0, total)
    shard: Future[int] | None = None
    with ThreadPoolExecutor(max_workers=1) as writer:
        for group in _by_shard(chunks, encoder.spec):
            encoded: dict[str, Latent] = {}
            for chunk, latent in encode_chunks(encoder, group):
                encoded[chunk.digest] = latent
                done += latent.tokens
                progress("encoding", done, total)
                if is_interrupted():
                    break
            written += shard.result() if shard else 0
            shard = writer.submit(_write_shard, store.layout, encoder.spec, encoded)
            latents += len(encoded)
            if len(encoded) < len(group):
                break
        written += shard.result() if shard else 0
    return Encoded(latents, done, written)


def encode_chunks(encoder: KVEncoder, chunks: Sequence[StoredChunk]) -> Iterator[tuple[Chunk, Latent]]:
    """(chunk, latent), the longest first: chunks of similar length make good batches."""
    ordered = sorted(chunks, key=lambda chunk: -chunk.tokens)
    latents = encoder.encode([chunk.chunk.encoded_text for chunk in ordered])
    return ((chunk.chunk, latent) for chunk, latent in zip(ordered, latents, strict=True))


def keep_sink(store: Store, encoder: KVEncoder) -> None:
    """Stores the latent of the sink unless it is there."""
    if store.latents.missing(encoder.spec.raw, [SINK]):
        store.latents.write(encoder.spec.raw, {SINK: encoder.sink}, eager=True)


def load_latents(
    store: Store,
    encoder: KVEncoder,
    chunks: Sequence[Chunk],
    *,
    budget: int,
    fetch: Callable[[Sequence[str]], dict[str, Latent]] | None = None,
    progress: Progress = silent,
) -> list[Latent]:
    """The latents of these chunks, in order. Missing ones are fetched (chunk digests -> those that another place has),
    or encoded now.

    They are stored if they fit the budget (bytes), the disk accepts them and no other process is writing.
    """
    spec = encoder.spec
    latents = store.latents.read(spec, [chunk.digest for chunk in chunks])
    missing = {chunk.digest: chunk for chunk in chunks if chunk.digest not in latents}
    if missing:
        encoded = {} if fetch is None else fetch(list(missing))
        left = {name: chunk for name, chunk in missing.items() if name not in encoded}
        for name, latent in zip(left, encoder.encode([c.encoded_text for c in left.values()]), strict=True):
            progress("encoding chunks", len(encoded), len(missing))
            encoded[name] = latent
        with contextlib.suppress(IndexLocked, StorageFailed), writing(store.layout):
            _store_on_demand(store, encoder, encoded, budget)
            store.latents.touch(spec, list(latents))
        latents |= encoded
    return [latents[chunk.digest] for chunk in chunks]


def _store_on_demand(store: Store, encoder: KVEncoder, encoded: dict[str, Latent], budget: int) -> None:
    size = sum(len(latent.data) for latent in encoded.values())
    if size > budget:
        return
    keep_sink(store, encoder)
    store.latents.make_room(size, budget)
    store.latents.write(encoder.spec, encoded, eager=False)


def find_missing(store: Store, snapshot: int, spec: MemorySpec, budget: int) -> Missing:
    """The chunks without a latent by `spec`, source before tests before docs. budget: bytes of latents on disk."""
    chunks: dict[str, StoredChunk] = {}
    for chunk in sorted(store.chunks(snapshot), key=lambda chunk: kind_of(chunk.chunk.path)):
        chunks.setdefault(chunk.chunk.digest, chunk)
    missing = set(store.latents.missing(spec, chunks))
    wanted: list[StoredChunk] = []
    room = int(budget * EAGER_SHARE)
    for name, chunk in chunks.items():
        room -= spec.latent_bytes(chunk.tokens)
        if name in missing and room >= 0:
            wanted.append(chunk)
    return Missing(wanted, len(missing) - len(wanted))


def _by_shard(chunks: Iterable[StoredChunk], spec: MemorySpec) -> Iterator[list[StoredChunk]]:
    """Groups that fill about one shard each, in the order given."""
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


def _write_shard(layout: IndexLayout, spec: MemorySpec, latents: dict[str, Latent]) -> int:
    """Runs in a thread, which needs a connection of its own. Returns the bytes written."""
    with Store.open(layout) as store:
        return store.latents.write(spec, latents, eager=True)
