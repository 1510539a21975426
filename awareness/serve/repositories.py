"""The repositories that a server answers about: named, opened when first asked for, closed when nobody asks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awareness.engine.corpus import open_corpora
from awareness.engine.corpus_names import Named, unique_names
from awareness.engine.engine import DEFAULT_BUDGET, PACK_SUFFIX, Engine
from awareness.engine.model_pool import ModelPool
from awareness.engine.places import open_workspaces
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.units import named_list
from awareness.errors import AwarenessError, UsageError
from awareness.index.files.repository import is_below
from awareness.index.store.pack import is_pack

IDLE_S = 600.0
"""Seconds after which a repository that nobody asks about is closed."""
FRESH_S = 2.0
"""Seconds for which a repository is not looked at again for changes."""


class NotServed(UsageError):
    """A repository that the server does not answer about."""


@dataclass
class Served:
    """A repository (or a part of one, or a pack, or a fleet) by its name. root: its folder, or the pack's file; only
    files below it may be read. is_pack: its files are not here. store: of a fleet. users: how many use the engine now.
    used_at, refreshed_at: of the clock."""

    name: str
    root: Path
    is_pack: bool = False
    store: str | None = None
    engine: Engine | None = None
    users: int = 0
    used_at: float = 0.0
    refreshed_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Repositories:
    """What may be asked about, and nothing else. All methods may be called from several threads."""

    def __init__(
        self,
        sources: Sequence[str | Path] = (),
        *,
        models: ModelPool | None = None,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
        stores: Sequence[str] = (),
        reporter: Reporter = SILENT,
        **options: Any,
    ) -> None:
        """sources: repositories, parts of them, folders of clones, which stand for each clone, and packs; without any
        and without stores, the current folder's repository. idle_s: seconds until an unused one is closed. stores: of
        fleets. options: of `Engine`, such as `model` and `adapter`. Raises UsageError."""
        paths = [Path(source) for source in sources]
        packs = [path for path in paths if path.is_file() and (path.suffix == PACK_SUFFIX or is_pack(path))]
        workspaces = []
        if paths or not stores:
            workspaces = open_workspaces([path for path in paths if path not in packs], packs, None, reporter)
        roots = [workspace.top for workspace in workspaces]
        named = [Named.of_folder(w.repository.root, w.below) for w in workspaces] + [Named.of_file(p) for p in packs]
        self.models, self._owns_models = models or ModelPool(), models is None
        self._served = {
            name: Served(name, root, is_pack=place >= len(roots))
            for place, (name, root) in enumerate(zip(unique_names(named), [*roots, *packs], strict=True))
        }
        self._served |= {name: Served(name, Path(name), is_pack=True, store=name) for name in stores}
        self._idle_s, self._clock, self._reporter, self._options = idle_s, clock, reporter, options
        self._lock = threading.Lock()

    @property
    def all(self) -> list[Served]:
        return list(self._served.values())

    @property
    def names(self) -> list[str]:
        return list(self._served)

    @property
    def budget(self) -> int:
        """Bytes of latents that an index may hold on disk."""
        return int(self._options.get("budget", DEFAULT_BUDGET))

    @property
    def model_name(self) -> str | None:
        """The model in memory, or the one that was chosen; None while neither is known."""
        return next(reversed(self.models.names), None) or self._options.get("model")

    def counts(self, name: str) -> tuple[int, int] | None:
        """Files and chunks that are indexed, without opening anything for longer; None if nothing is. (0, 0) for a
        pack that is closed."""
        served = self.find(name)
        if served.is_pack:
            with served.lock:
                corpora = [] if served.engine is None else served.engine.corpora
                return sum(len(c.store.files(c.snapshot)) for c in corpora), sum(c.count_chunks() for c in corpora)
        try:
            with open_corpora(open_workspaces([served.root], []), []) as corpora:
                files = [path for c in corpora for _, path, _ in c.store.files(c.snapshot) if is_below(path, c.below)]
                return len(files), sum(corpus.count_chunks() for corpus in corpora)
        except AwarenessError:  # of one of many: who asks it gets the reason
            return None

    def find(self, name: str | None = None) -> Served:
        """By its name, or by the path of its folder or of something below it; without a name, the only one. Raises
        UsageError if there are several, NotServed for everything that is not served."""
        if not name:
            if len(self._served) == 1:
                return next(iter(self._served.values()))
            raise UsageError("which repository is not said", hint=f"one of: {self._listed()}")
        if name in self._served:
            return self._served[name]
        path = Path(name).expanduser()
        if path.is_absolute():
            with contextlib.suppress(OSError, ValueError):
                path = path.resolve()
            inside = [one for one in self.all if path.is_relative_to(one.root)]
            if inside:
                return max(inside, key=lambda one: len(one.root.parts))
        raise NotServed(f"{name[:200]!r} is not served", hint=f"one of: {self._listed()}")

    @contextlib.contextmanager
    def engine(self, name: str | None = None, *, refresh: bool = True) -> Iterator[Engine]:
        """The engine of a repository, opened if necessary, for the time of the block. refresh: brings its index up to
        date, at most every FRESH_S seconds. Raises UsageError, and what `Engine.refresh` raises."""
        served = self.find(name)
        with self._lock:
            served.users += 1
        try:
            with served.lock:
                if served.engine is None:
                    served.engine = self._open(served)
                is_fixed = served.is_pack and served.store is None
                if refresh and not is_fixed and self._clock() - served.refreshed_at > FRESH_S:
                    served.engine.refresh()
                    served.refreshed_at = self._clock()
                engine = served.engine
            yield engine
        finally:
            with self._lock:
                served.users -= 1
                served.used_at = self._clock()
            self.close_idle()

    def _open(self, served: Served) -> Engine:
        options = {"models": self.models, "reporter": self._reporter, **self._options}
        if served.store is None:
            return Engine.open(served.root, **options)
        from awareness.fleet.fleet_memory import FleetMemory  # imported late: it needs numpy

        return Engine(memories=[FleetMemory(served.store, budget=self.budget, reporter=self._reporter)], **options)

    def close_idle(self) -> list[str]:
        """Closes what nobody uses and nobody has used for `idle_s` seconds. Returns its names."""
        now, closed = self._clock(), []
        for served in self.all:
            if not served.lock.acquire(blocking=False):  # it is being opened or indexed, which may take minutes
                continue
            try:
                with self._lock:
                    if served.engine is not None and not served.users and now - served.used_at >= self._idle_s:
                        served.engine.close()
                        served.engine, served.refreshed_at = None, float("-inf")
                        closed.append(served.name)
            finally:
                served.lock.release()
        return closed

    def close(self) -> None:
        """Closes all, and the models unless they are shared."""
        for served in self.all:
            with served.lock:
                if served.engine is not None:
                    served.engine.close()
                served.engine = None
        if self._owns_models:
            self.models.close()

    def _listed(self) -> str:
        return named_list(self.names) if self._served else "none is served"
