"""Asking a fleet: a question opens the repositories that it is about, and reads their latents from the store.

    catalogue     read when it has changed                            kept in CACHE/catalogue.json
    routing       the words of all repositories                       kept in CACHE/routing/
    repositories  the text of those that questions were about,        kept in CACHE/repositories/, each an index
                  from which their search index is made here
    latents       of the chunks that questions read, by ranged reads  kept in those indexes

What was read once is not read again, and answers without the store. Nothing that the store holds is trusted: every
object is compared with the digest that names it, every latent with its checksum, and a search index is made from the
text (awareness/index/store/pack.py says why). The cache stays below its budget: repositories that no question has been
about for longest are dropped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from awareness.engine.corpus import Corpus
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, StorageFailed, storage_errors
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import Catalogue, Entry
from awareness.fleet.object_store import NoSuchObject, open_store
from awareness.fleet.repository_object import Place, damaged, unpack
from awareness.fleet.repository_words import WordTable, best_repositories
from awareness.index.store.layout import IndexLayout, create_indexes_dir, indexes_dir
from awareness.index.store.lock import writing
from awareness.index.store.pack import is_imported
from awareness.index.store.store import Store
from awareness.index.store.tensorfile import Malformed, checksum_of
from awareness.types import Latent, digest, printable

MOST_REPOSITORIES = 8
"""That one question looks into."""
PATIENCE_S = 15.0
"""How long a question waits for a store that does not answer."""
SNAPSHOT = "fleet"
_OPEN_AT_ONCE = 64
_READ_BY_OTHERS_S = 60.0  # what was used so lately may be read by another process
_READERS = 16
_WAITS = 150  # of 0.2 s, for another process that makes the same index
_OBJECT = "object"  # the repository object in the folder of its index


class FleetMemory:
    """Implements `engine.memory_source.MemorySource`."""

    def __init__(
        self, place: str, *, budget: int, most_repositories: int = MOST_REPOSITORIES, reporter: Reporter = SILENT
    ) -> None:
        """place: of the store. budget: bytes of the cache."""
        self.name = place
        self._store = open_store(place, patience_s=PATIENCE_S)
        self._root = indexes_dir() / "fleets" / digest(place)[:32]
        self._budget, self._most, self._reporter = budget, most_repositories, reporter
        self._catalogue: Catalogue | None = None
        self._tables: list[WordTable] | None = None
        self._opened: OrderedDict[str, Corpus] = OrderedDict()  # by the repository's object
        self._places: dict[str, dict[str, Place]] = {}
        self._entries: dict[Path, tuple[str, Entry]] = {}  # by the folders of their indexes
        self._is_trimmed = False  # to the budget, by this process

    @property
    def model(self) -> str:
        return self._known().model

    @property
    def repositories(self) -> int:
        return len(self._known().repositories)

    @property
    def opened(self) -> list[Corpus]:
        return list(self._opened.values())

    def close(self) -> None:
        for corpus in self._opened.values():
            corpus.store.close()
        self._opened.clear()
        self._places.clear()
        self._tables = None

    # --- the catalogue ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the catalogue again if it has changed. Where the store does not answer, the one of the last time is
        used, with a note. Raises StorageFailed the first time, NoIndex and IndexCorrupt."""
        kept = self._root / "catalogue.json"
        before = self._catalogue
        try:
            data, _ = self._store.read(catalogues.KEY)
        except NoSuchObject as error:
            raise NoIndex(
                f"{self.name} holds no fleet", hint=f"awareness fleet index REPOSITORY --out {self.name}"
            ) from error
        except StorageFailed as error:
            try:
                data = kept.read_bytes()
            except FileNotFoundError:
                raise error from None
            self._reporter.note(f"{error.message}; asked as it was the last time")
        else:
            if not kept.is_file() or kept.read_bytes() != data:
                self._keep(kept, data)
        self._catalogue = catalogues.parse(data, self.name)
        if before is not None and before.generation != self._catalogue.generation:
            self._tables = None

    def _known(self) -> Catalogue:
        if self._catalogue is None:
            self.refresh()
        assert self._catalogue is not None
        return self._catalogue

    # --- repositories -------------------------------------------------------------------------------------------

    def about(self, question: str) -> list[Corpus]:
        known = self._known()
        entries = {entry.object: (name, entry) for name, entry in known.repositories.items()}
        best = best_repositories(question, self._words(known), entries, self._most)
        if not best and len(entries) <= self._most:
            best = [(name, 0.0) for name in entries]  # so few need no choice
        chosen = [entries[name] for name, _ in best]
        has_grown = self._fetch([entry for _, entry in chosen])
        found = []
        for name, entry in chosen:
            with contextlib.suppress(NoSuchObject, IndexCorrupt):  # it is said in `_fetch`
                found.append(self._open(name, entry))
        if has_grown or not self._is_trimmed:  # every file of the cache is looked at: not for each question
            self._trim()
            self._is_trimmed = True
        return found

    def _words(self, known: Catalogue) -> list[WordTable]:
        """The words of all repositories; those that are not here are fetched."""
        if self._tables is None:
            folder = self._root / "routing"
            paths = [folder / shard.object for shard in known.routing]
            missing = [path for path in paths if not path.is_file()]
            with self._reporter.progress() as progress, ThreadPoolExecutor(_READERS) as pool:
                reads = [pool.submit(self._store.read, f"routing/{path.name}") for path in missing]
                for done, (path, read) in enumerate(zip(missing, reads, strict=True)):
                    progress("reading the words of repositories", done, len(missing))
                    try:
                        data, _ = read.result()
                    except StorageFailed as error:
                        self._reporter.note(f"some repositories are not searched: {error.message}")
                        continue
                    if digest(data) != path.name:
                        repair = f"awareness fleet refresh {self.name} --repair"
                        self._reporter.note(f"some repositories are not searched: {path.name} is damaged; {repair}")
                        continue
                    self._keep(path, data)
            tables = [WordTable(path) for path in paths if path.is_file()]
            if len(tables) < len(paths):
                return tables  # the next question tries again
            self._tables = tables
            self._forget_old(folder, {path.name for path in paths})
        return self._tables

    def _forget_old(self, folder: Path, needed: set[str]) -> None:
        """Deletes the words of earlier catalogues, if no other process may be about to read them."""
        for path in folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.name not in needed and time.time() - path.stat().st_mtime > _READ_BY_OTHERS_S:
                    path.unlink()

    def _layout(self, entry: Entry) -> IndexLayout:
        return IndexLayout(self._root / "repositories" / entry.object[:32])

    def _fetch(self, entries: Sequence[Entry]) -> bool:
        """Makes the indexes of repositories that have none here; False if there are none. One that cannot be read is
        left out, with a note."""
        missing = [entry for entry in entries if not self._is_here(entry)]
        if not missing:
            return False
        with self._reporter.progress() as progress, ThreadPoolExecutor(_READERS) as pool:
            reads = [pool.submit(self._store.read, entry.key) for entry in missing]
            for done, (entry, read) in enumerate(zip(missing, reads, strict=True)):
                progress("reading repositories", done, len(missing))
                try:
                    self._import(entry, read.result()[0])
                except (StorageFailed, IndexCorrupt, IndexLocked) as error:
                    self._reporter.note(f"left out: {printable(entry.source)}: {error.message}")
        return True

    def _is_here(self, entry: Entry) -> bool:
        if entry.object in self._opened:
            return True
        return is_imported(self._layout(entry), SNAPSHOT)

    def _import(self, entry: Entry, data: bytes) -> None:
        """Makes the search index of a repository from its text. The snapshot is written last and marks it as sound."""
        known = self._known()
        repository = unpack(data, entry, self.name)
        layout = self._layout(entry)
        create_indexes_dir()
        with _writing_alone(layout):
            if self._is_here(entry):  # another process was faster
                return
            try:
                with Store.create(layout) as store:
                    store.remember("quant", known.spec.quant)
                    store.remember("fleet", self.name)
                    self._keep(layout.root / _OBJECT, data)
                    store.write_snapshot(
                        SNAPSHOT, repository.files(), chunking=entry.chunking, model=known.model, rev=entry.rev
                    )
            except Malformed as error:
                shutil.rmtree(layout.root, ignore_errors=True)
                raise damaged(entry, self.name, str(error)) from error
            except BaseException:
                shutil.rmtree(layout.root, ignore_errors=True)
                raise
        self._places[entry.object] = repository.places

    def _open(self, name: str, entry: Entry) -> Corpus:
        if entry.object in self._opened:
            self._opened.move_to_end(entry.object)
            return self._opened[entry.object]
        layout = self._layout(entry)
        try:
            store = Store.open(layout)
        except NoIndex as error:
            raise NoSuchObject(f"{self.name}: {name} could not be read") from error
        snapshot = store.snapshot(SNAPSHOT)
        assert snapshot is not None
        with contextlib.suppress(OSError):
            os.utime(layout.root)
        known = self._known()
        corpus = Corpus(
            name=name,
            store=store,
            snapshot=snapshot.id,
            rev=entry.rev,
            model=known.model,
            quant=known.spec.quant,
            spec=known.spec,
            # Every chunk of it was compared with a digest, and so is every page that it is read from.
            verify=lambda chunk: True,
            fetch=lambda digests: self._latents(entry, digests),
        )
        self._opened[entry.object] = corpus
        self._entries[layout.root] = (name, entry)
        if len(self._opened) > max(_OPEN_AT_ONCE, self._most):  # none of those of one question
            name, oldest = self._opened.popitem(last=False)
            self._places.pop(name, None)
            oldest.store.close()
        return corpus

    def reopened(self, corpus: Corpus) -> Corpus | None:
        """A repository that was opened before, opened now; None for one of another memory."""
        name, entry = self._entries.get(corpus.store.layout.root, (None, None))
        return None if name is None or entry is None else self._open(name, entry)

    # --- latents ------------------------------------------------------------------------------------------------

    def _latents(self, entry: Entry, digests: Sequence[str]) -> dict[str, Latent]:
        """The latents of chunks from the store, each compared with its checksum; without those that are damaged or
        where the store does not answer, with a note: they are made here."""
        spec = self._known().spec
        places = self._places_of(entry)
        by_shard: dict[str, list[str]] = defaultdict(list)
        for name in digests:
            if name in places and places[name].length == spec.latent_bytes(places[name].tokens):
                by_shard[places[name].key].append(name)
        found: dict[str, Latent] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            reads = {
                key: pool.submit(self._store.read_ranges, key, [(places[n].offset, places[n].length) for n in names])
                for key, names in by_shard.items()
            }
            for key, read in reads.items():
                try:
                    data = read.result()
                except StorageFailed as error:
                    self._reporter.note(f"{error.message}; latents are made here")
                    continue
                for name, latent in zip(by_shard[key], data, strict=True):
                    if len(latent) == places[name].length and checksum_of(latent) == places[name].checksum:
                        found[name] = Latent(places[name].tokens, bytearray(latent))  # torch shares its memory
                    else:
                        repair = f"awareness fleet refresh {self.name} --repair"
                        self._reporter.note(f"a latent in {key} is damaged, and made here; {repair}")
        return found

    def _places_of(self, entry: Entry) -> dict[str, Place]:
        """Where the latents of a repository are, by the object that was kept."""
        if entry.object not in self._places:
            try:
                data = (self._layout(entry).root / _OBJECT).read_bytes()
                self._places[entry.object] = unpack(data, entry, self.name).places
            except (OSError, IndexCorrupt):  # the kept one is lost or damaged
                self._places[entry.object] = unpack(self._store.read(entry.key)[0], entry, self.name).places
        return self._places[entry.object]

    # --- the cache ----------------------------------------------------------------------------------------------

    def _keep(self, path: Path, data: bytes) -> None:
        """Writes a file of the cache, complete or not at all."""
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            temporary.replace(path)

    def _trim(self) -> None:
        """Drops the repositories that were not opened for longest until the cache is within its budget."""
        folders = [path for path in self._root.glob("repositories/*") if path.is_dir()]
        used = {path: _bytes(path) for path in folders}
        total = sum(used.values())
        open_now = {corpus.store.layout.root for corpus in self._opened.values()}
        for path in sorted(folders, key=_last_used):
            if total <= self._budget:
                return
            if path not in open_now and time.time() - _last_used(path) > _READ_BY_OTHERS_S:
                with contextlib.suppress(IndexLocked), writing(IndexLayout(path)):
                    shutil.rmtree(path, ignore_errors=True)
                total -= used[path]


@contextlib.contextmanager
def _writing_alone(layout: IndexLayout) -> Iterator[None]:
    """As `writing`, but waits for another process that makes the same index. Raises IndexLocked if that takes long."""
    for left in range(_WAITS, -1, -1):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(writing(layout))
            except IndexLocked:
                if not left:
                    raise
                continue
            yield
            return


def _last_used(folder: Path) -> float:
    """Unix time; 0 for one that another process has dropped."""
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # another process drops it
        for path in folder.rglob("*"):
            total += path.stat().st_size
    return total
