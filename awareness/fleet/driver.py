"""A run over a fleet: repositories are cut, what no other has is encoded, and each is written when it is complete.

    cut        any worker   fetch, read and cut one repository                                  cutting.py
    look up    driver       which of its chunks have latents, in the store or in this run       latent_ledger.py
    encode     model        a batch of chunks of any repositories -> one shard                  encoding_worker.py
    write      any worker   the repository with the places of its latents                       repository_object.py
    commit     driver       the finished repositories, every few seconds                        catalogue.py

Only so many repositories are open at once as keep the models busy (`_has_room`). Whatever dies, what is in the store
stays: shards are found by the next run, and repositories that the catalogue has are not cut again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from awareness.engine.models import pull_model
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import AwarenessError, IndexLocked, ModelNotAvailable, UsageError, reason
from awareness.fleet import catalogue as catalogues
from awareness.fleet import repository_words
from awareness.fleet.catalogue import Catalogue, Entry, RoutingObject
from awareness.fleet.cluster import BOTH, Cluster, Stale, Workers, Written, opened
from awareness.fleet.cutting import Cut, Known, Rules
from awareness.fleet.encoding_worker import Shard
from awareness.fleet.latent_ledger import MOST_LISTINGS, LatentLedger
from awareness.fleet.object_store import NoSuchObject, ObjectStore
from awareness.fleet.repository_object import SHARDS
from awareness.fleet.repository_words import Words
from awareness.fleet.run_report import Failure, RunReport
from awareness.fleet.sources import Source
from awareness.types import MemorySpec, digest

if TYPE_CHECKING:
    from ray import ObjectRef

BATCH_TOKENS = 4096
COMMIT_S = 20.0
COMMIT_REPOSITORIES = 256
_WINDOW = 8  # batches whose chunks are sorted by length together
_WAIT_S = 1.0
_GC_S = 3600.0  # after which a collection that has not ended was killed


@dataclass
class _Open:
    """A repository that was cut and lacks latents. lines, texts: where Ray keeps them. left: their digests."""

    cut: Cut
    lines: ObjectRef[Any]
    texts: ObjectRef[Any]
    left: set[str]


@dataclass(frozen=True)
class _Finished:
    """A repository whose object is written, and that is not in the catalogue yet. shards: names."""

    cut: Cut
    entry: Entry
    shards: frozenset[str]


class Run:
    """One run. Use `run_fleet`."""

    def __init__(
        self,
        store: ObjectStore,
        cluster: Cluster,
        first: Callable[[MemorySpec], Catalogue],
        rules: Rules,
        batch_tokens: int,
        report: RunReport,
        reporter: Reporter,
    ) -> None:
        """first: the spec of its latents -> what a store without a catalogue begins with."""
        self.store, self.cluster, self.rules = store, cluster, rules
        self.batch_tokens, self.report, self.reporter = batch_tokens, report, reporter
        self._first_of = first
        self._prepared: tuple[LatentLedger, Catalogue] | None = None
        self._stack = contextlib.ExitStack()
        self._waiting: deque[tuple[Source, Known | None]] = deque()
        self._cutting: dict[ObjectRef[Any], tuple[ObjectRef[Any], ObjectRef[Any], Source]] = {}
        self._open: dict[str, _Open] = {}
        self._wanted_by: dict[str, set[str]] = {}  # chunk digest -> repositories that wait for it
        self._pool: dict[str, tuple[int, str]] = {}  # chunk digest -> (tokens, repository that has the text)
        self._pool_tokens = 0
        self._batches: deque[list[tuple[str, str]]] = deque()  # of (chunk digest, repository that has the text)
        self._encoding: dict[ObjectRef[Shard], int] = {}  # -> actor
        self._busy: Counter[int] = Counter()  # actor -> its batches
        self._writing: dict[ObjectRef[Written], tuple[Cut, frozenset[str]]] = {}
        self._finished: list[_Finished] = []
        self._committed_at = time.monotonic()
        self._tokens_known = 0

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self, sources: Sequence[tuple[Source, Known | None]]) -> None:
        """Ends when every repository is in the catalogue, was not changed, or failed."""
        self._waiting.extend(sources)
        with self._stack, self.reporter.progress() as progress:
            try:
                while self._is_busy or self._finished:
                    self._begin()
                    self._collect()
                    done = len(self.report.indexed) + len(self.report.unchanged) + len(self._finished)
                    progress(
                        f"encoding · {done} of {len(sources)} repositories", self.report.encoded_tokens, self._total
                    )
                    if not self._is_busy or self._is_due():
                        self._commit()
            except Exception:
                raise
            except BaseException:  # Ctrl-C, or the end of the terminal: what is written is named before it ends
                self.report.is_interrupted = True
                self._commit()
                raise

    @property
    def _is_busy(self) -> bool:
        return bool(self._waiting or self._cutting or self._open or self._writing)

    @property
    def _total(self) -> int | None:
        """Tokens to encode, None until all repositories were looked at."""
        return None if self._waiting or self._cutting else self._tokens_known

    def _begin(self) -> None:
        """Starts whatever can be started."""
        while self._waiting and self._has_room():
            source, known = self._waiting.popleft()
            summary, lines, texts = self.cluster.cut(source, self.rules, known)
            self._cutting[summary] = (lines, texts, source)
        self._fill_batches()
        for depth in range(1, BOTH + 1):  # each worker gets one before any gets two
            for slot, actor in enumerate(self.cluster.actors if self._batches else ()):
                if self._batches and self._busy[slot] < depth:
                    parts: dict[str, list[str]] = {}
                    for name, repository in self._batches.popleft():
                        parts.setdefault(repository, []).append(name)
                    batch = [(self._open[repository].texts, names) for repository, names in parts.items()]
                    self._encoding[self.cluster.encode(actor, batch)] = slot
                    self._busy[slot] += 1

    def _has_room(self) -> bool:
        """More repositories are begun only while the models have little to do: their texts are in memory."""
        enough = 2 * self.cluster.encoders * _WINDOW * self.batch_tokens
        return len(self._cutting) < self.cluster.cpus and self._pool_tokens < enough

    def _fill_batches(self) -> None:
        """Sorts the chunks that wait into batches of similar length; waits for more of them unless a model is idle."""
        is_idle = sum(self._busy.values()) + len(self._batches) < self.cluster.encoders
        is_last = not (self._cutting or self._waiting)
        is_enough = self._pool_tokens >= (self.batch_tokens if is_idle else _WINDOW * self.batch_tokens)
        is_fed = len(self._batches) >= BOTH * self.cluster.encoders
        if not self._pool or is_fed or not (is_enough or (is_idle and is_last)):
            return
        size = max(1, min(self.batch_tokens, -(-self._pool_tokens // self.cluster.encoders)))  # each gets one
        batch: list[tuple[str, str]] = []
        filled = 0
        for name in sorted(self._pool, key=lambda name: -self._pool[name][0]):
            tokens, repository = self._pool[name]
            batch.append((name, repository))
            filled += tokens
            if filled >= size:
                self._batches.append(batch)
                batch, filled = [], 0
        if batch:
            self._batches.append(batch)
        self._pool.clear()
        self._pool_tokens = 0

    def _collect(self) -> None:
        """Takes what has become ready."""
        refs = [*self._cutting, *self._encoding, *self._writing]
        for ref in self.cluster.wait(refs, _WAIT_S) if refs else ():
            if ref in self._cutting:
                lines, texts, source = self._cutting.pop(ref)
                self._was_cut(self._result_of_cut(ref, source), lines, texts)
            elif ref in self._encoding:
                self._busy[self._encoding.pop(ref)] -= 1
                self._was_encoded(self.cluster.get(ref))
            else:
                cut, shards = self._writing.pop(ref)
                try:
                    self._was_written(cut, self.cluster.get(ref), shards)
                except Stale as error:  # a lost machine took its text along, and it was cut again after a change
                    self.reporter.detail(f"{cut.source.name}: {error.message}; it is indexed again")
                    self._waiting.append((cut.source, None))

    def _result_of_cut(self, ref: ObjectRef[Any], source: Source) -> Cut:
        """What was cut. Every error is of this repository alone, but that there is no model."""
        try:
            return self.cluster.get(ref)
        except ModelNotAvailable:
            raise
        except AwarenessError as error:
            return Cut(source, failed=(error.message, error.hint or ""))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other repositories go on
            return Cut(source, failed=(f"{type(error).__name__}: {reason(error)[:200]}", "report it, with its name"))

    def _prepare(self) -> tuple[LatentLedger, Catalogue]:
        """What the store has, and what a new catalogue begins with: needed once something has changed."""
        if self._prepared is None:
            first = self._first_of(self.cluster.spec())
            current, _ = catalogues.read_if_any(self.store)
            if current is not None:
                _check_same(current, first, self.store.url)
            self.report.workers = self.cluster.encoders
            ledger = self._stack.enter_context(LatentLedger(first.spec))
            if damaged := ledger.load(self.store, current):
                self.reporter.note(f"{len(damaged)} damaged shards are not used: awareness fleet gc {self.store.url}")
            self._prepared = ledger, first
        return self._prepared

    # --- a repository on its way --------------------------------------------------------------------------------

    def _was_cut(self, cut: Cut, lines: ObjectRef[Any], texts: ObjectRef[Any]) -> None:
        name = cut.source.name
        self.report.cut_s += cut.seconds
        if cut.failed:
            self.report.failed.append(Failure(name, cut.source.place, *cut.failed))
            return
        if cut.is_unchanged:
            self.report.unchanged.append(name)
            return
        ledger, _ = self._prepare()
        left = set(ledger.missing(cut.tokens))
        self._open[name] = _Open(cut, lines, texts, left)
        for chunk in left:
            waiting = self._wanted_by.setdefault(chunk, set())
            if not waiting:  # nobody else has it encoded
                self._pool[chunk] = (cut.tokens[chunk], name)
                self._pool_tokens += cut.tokens[chunk]
                self._tokens_known += cut.tokens[chunk]
            waiting.add(name)
        if not left:
            self._write(name)

    def _was_encoded(self, shard: Shard) -> None:
        ledger, _ = self._prepare()
        ledger.add(shard.name, shard.places)
        self.report.encoded_tokens += shard.tokens
        self.report.encoded_chunks += len(shard.places)
        self.report.model_s += shard.seconds
        self.report.wrote("shards", shard.bytes)
        for chunk in shard.places:
            for name in self._wanted_by.pop(chunk, ()):
                left = self._open[name].left
                left.discard(chunk)
                if not left:
                    self._write(name)

    def _write(self, name: str) -> None:
        """Begins to write a repository that has all its latents. It also held the texts of the chunks that others wait
        for, and those are encoded, too: they were in its `left`."""
        opened = self._open.pop(name)
        ledger, first = self._prepare()
        places = ledger.places(list(opened.cut.tokens))
        if len(places) < len(opened.cut.tokens):  # `gc` has deleted some meanwhile
            self._waiting.append((opened.cut.source, None))
            return
        description = (name, opened.cut.rev, opened.cut.chunking, first.model, first.spec.to_json())
        ref = self.cluster.write(description, places, opened.lines)
        self._writing[ref] = (opened.cut, frozenset(place.shard for place in places.values()))

    def _was_written(self, cut: Cut, written: Written, shards: frozenset[str]) -> None:
        self.report.wrote("repositories", written.bytes)
        entry = Entry(
            source=cut.source.place,
            rev=cut.rev,
            state=cut.state,
            chunking=cut.chunking,
            object=written.object,
            files=cut.files,
            chunks=cut.chunks,
            tokens=cut.total_tokens,
            text_bytes=written.text_bytes,
            indexed=time.time(),
        )
        self._finished.append(_Finished(cut, entry, shards))

    # --- the catalogue ------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        return len(self._finished) >= COMMIT_REPOSITORIES or time.monotonic() - self._committed_at > COMMIT_S

    def _commit(self) -> None:
        """Names what is finished in the catalogue."""
        self._committed_at = time.monotonic()
        finished, self._finished = self._finished, []
        if not finished:
            return
        ledger, first = self._prepare()
        current, _ = catalogues.read_if_any(self.store)
        old_listings = () if current is None else current.listings
        joins = len(old_listings) >= MOST_LISTINGS
        words = [
            Words(f.entry.object, f.entry.chunks, repository_words.named(f.cut.source.name, f.cut.words))
            for f in finished
        ]
        data = repository_words.pack(words)
        routing = RoutingObject(digest(data), tuple(one.object for one in words))
        own = {routing.key: data}
        listing = None
        if listed := ledger.listing(of_all=joins):
            listing = digest(listed)
            own[f"listings/{listing}"] = listed
        for key, data in own.items():
            self.store.create(key, data)
            self.report.wrote(key.partition("/")[0], len(data))
        named = set(own).union(*({f.entry.key, *(SHARDS + name for name in f.shards)} for f in finished))
        gone: set[str] = set()

        def is_whole(one: _Finished) -> bool:
            return one.entry.key not in gone and not any(SHARDS + name in gone for name in one.shards)

        def change(before: Catalogue) -> Catalogue:
            _check_same(before, first, self.store.url)
            if not named.isdisjoint(before.collecting):
                raise _Collecting
            gone.clear()
            gone.update(key for key in named & before.collected.keys() if not _exists(self.store, key))
            for key in own.keys() & gone:  # it was there before, and needed by nobody
                self.store.create(key, own[key])
                gone.discard(key)
            kept = {f.cut.source.name: f.entry for f in finished if is_whole(f)}
            listings = [name for name in before.listings if not (joins and name in old_listings)]
            return replace(
                before,
                scope=first.scope,
                include=first.include,
                repositories={**before.repositories, **kept},
                routing=tuple(dict.fromkeys((*before.routing, routing))),
                listings=tuple(dict.fromkeys([*listings, *([listing] if listing else [])])),
                collected={key: at for key, at in before.collected.items() if key in gone or key not in named},
            )

        catalogue = _patiently(lambda: catalogues.commit(self.store, first, change), self.store.url)
        self.report.wrote("catalogue", len(catalogue.to_json()))
        ledger.forget(key.removeprefix(SHARDS) for key in gone if key.startswith(SHARDS))
        for one in finished:
            if is_whole(one):
                self._count(one.cut)
            else:  # `gc` has deleted what it needs: it is made again
                self._waiting.append((one.cut.source, None))
        self._join_routing(catalogue)

    def _count(self, cut: Cut) -> None:
        report = self.report
        report.indexed.append(cut.source.name)
        report.files += cut.files
        report.chunks += cut.chunks
        report.tokens += cut.total_tokens
        for why, files in cut.skipped.items():
            report.skipped[why] = report.skipped.get(why, 0) + files

    def _join_routing(self, catalogue: Catalogue) -> None:
        """Joins small routing objects when there are many."""
        if len(catalogue.routing) <= repository_words.MOST_OBJECTS:
            return
        few = sorted(catalogue.routing, key=lambda shard: len(shard.objects))[: repository_words.JOINED_AT_ONCE]
        live = {entry.object for entry in catalogue.repositories.values()}
        parts = [(shard, self.store.read(shard.key)[0]) for shard in few]
        for shard, data in parts:
            if digest(data) != shard.object:
                self.reporter.note(f"{shard.key} is damaged: awareness fleet refresh {self.store.url} --repair")
                return
        data, objects = repository_words.join([data for _, data in parts], live)
        joined = RoutingObject(digest(data), objects)
        self.store.create(joined.key, data)
        self.report.wrote("routing", len(data))

        def change(before: Catalogue) -> Catalogue:
            if not set(few) <= set(before.routing) or joined.key in before.collecting:
                return before  # another process has joined them
            left = tuple(shard for shard in before.routing if shard not in few)
            collected = {key: at for key, at in before.collected.items() if key != joined.key}
            return replace(before, routing=(*left, joined), collected=collected)

        catalogues.commit(self.store, None, change)


class _Collecting(Exception):
    """`gc` is deleting an object that the run wants to name."""


def _patiently(commit: Callable[[], Catalogue], url: str) -> Catalogue:
    """Tries again while `gc` deletes what is to be committed. Raises IndexLocked if that does not end."""
    began = time.monotonic()
    while True:
        try:
            return commit()
        except _Collecting:
            if time.monotonic() - began > _GC_S:
                hint = f"awareness fleet gc {url}, which ends it"
                raise IndexLocked(f"a collection of {url} was interrupted", hint=hint) from None
            time.sleep(1.0)


def _exists(store: ObjectStore, key: str) -> bool:
    try:
        return store.size(key) >= 0
    except NoSuchObject:
        return False


def _check_same(catalogue: Catalogue, wanted: Catalogue, url: str) -> None:
    """Raises UsageError if the store holds latents of another kind."""
    if catalogue.spec != wanted.spec or catalogue.model != wanted.model:
        held, asked = (f"{one.model} ({one.spec.quant})" for one in (catalogue, wanted))
        hint = "another --out, or without --model and --quant"
        raise UsageError(f"{url} holds latents of {held}, not of {asked}", hint=hint)


def run_fleet(
    store: ObjectStore,
    sources: Sequence[Source],
    *,
    model: str,
    quant: str,
    rules: Rules,
    workers: Workers,
    again: Collection[str] = (),
    batch_tokens: int = BATCH_TOKENS,
    reporter: Reporter = SILENT,
    report: RunReport | None = None,
) -> RunReport:
    """Indexes repositories into a store; those that have not changed are looked at only, but for those named in
    `again`. report: is filled while it runs, also if it is interrupted. Raises StorageFailed if the store fails for
    longer than its patience, UsageError for a store with latents of another kind, ModelNotAvailable, IndexLocked."""
    started = time.perf_counter()
    report = report or RunReport()
    folder = pull_model(model, reporter)
    current, _ = catalogues.read_if_any(store)
    entries = {} if current is None else current.repositories
    known = {name: Known(one.state, one.chunking) for name, one in entries.items() if name not in again}

    def first(spec: MemorySpec) -> Catalogue:
        return Catalogue(folder.name, folder.fingerprint, spec, rules.scope, rules.include)

    try:
        with opened(workers, store, model, quant) as cluster:
            run = Run(store, cluster, first, rules, batch_tokens, report, reporter)
            run.run([(source, known.get(source.name)) for source in sources])
    finally:
        report.wall_s = time.perf_counter() - started
    return report
