"""Brings the index of one repository up to date: the routing index first, then latents for as long as it may take."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from awareness.engine.embedders import choose_router, renew_vectors
from awareness.engine.models import LoadedModel, load_model
from awareness.engine.pace import Pace
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import IndexCorrupt, NoIndex
from awareness.index import build
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.manifest import delete as delete_manifest
from awareness.index.store.store import Store, Totals
from awareness.model.model_files import ModelFolder
from awareness.model.pca.tables import digest_for
from awareness.types import KVEncoder, MemorySpec, default_layers


@dataclass(frozen=True)
class Outcome:
    """What one run did. seconds: how long it took."""

    refreshed: build.Refreshed
    encoded: build.Encoded
    totals: Totals
    quant: str
    router: str
    seconds: float

    @property
    def has_changed(self) -> bool:
        """True if files were added, changed or removed."""
        return bool(self.refreshed.added or self.refreshed.removed)


@dataclass
class Indexer:
    """Indexes one workspace, as often as `run` is called; the model is loaded when something has to be encoded.

    scope: globs of the paths that are indexed. quant: how latents are stored, None for as before. router: what
    `resolve_router` returned. budget: bytes of latents on disk. models: those that are loaded, by fingerprint; indexers
    that share it load a model once. include: globs of paths that would be left out.
    """

    workspace: Workspace
    folder: ModelFolder
    scope: tuple[str, ...]
    quant: str | None
    router: str | None
    budget: int
    reporter: Reporter = SILENT
    models: dict[str, LoadedModel] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    _encoders: dict[str, KVEncoder] = field(default_factory=dict, init=False)

    def run(
        self,
        seconds: float,
        *,
        rebuild: bool = False,
        with_estimate: bool = True,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """seconds: how long latents are made; the routing index is always completed. rebuild: empties the index first.
        with_estimate: reports how long encoding will take. is_interrupted: asked while encoding. Raises IndexLocked."""
        started = time.perf_counter()
        with writing(self.workspace.layout):
            if rebuild:
                _empty(self.workspace.layout)
            with Store.create(self.workspace.layout) as store:
                store.latents.sweep()
                codec = digest_for(self.folder.fingerprint, self.quant or quant_of(store))  # before it is remembered
                quant = quant_of(store, self.quant)
                choose_router(store, self.router)
                refreshed = self.workspace.refresh(
                    store, self.folder, scope=self.scope, include=self.include, reporter=self.reporter
                )
                renew_vectors(store, self.reporter)
                layers = default_layers(self.folder.num_layers)
                spec = store.latents.spec_made_by(self.folder.fingerprint, layers, quant, codec)
                if spec and build.is_encoded(store, refreshed.snapshot, spec, self.budget):
                    encoded = build.Encoded()
                elif seconds > 0 and not is_interrupted():
                    encoder = self._encoder(quant)
                    spec = encoder.spec
                    pace = Pace(seconds, self._known_speed(store), self.reporter if with_estimate else None)
                    encoded = self._encode(store, refreshed.snapshot, encoder, pace, is_interrupted)
                else:
                    encoded = _nothing_encoded(store, refreshed.snapshot, spec, self.budget)
                totals = store.totals(refreshed.snapshot, spec)
                router = store.routing.router
        return Outcome(refreshed, encoded, totals, quant, router, time.perf_counter() - started)

    def _encode(
        self, store: Store, snapshot: int, encoder: KVEncoder, pace: Pace, is_interrupted: Callable[[], bool]
    ) -> build.Encoded:
        """Makes latents until all exist, the time is over, or it is interrupted; remembers the speed."""
        with self.reporter.progress() as progress:
            encoded = build.encode_pending(
                store,
                snapshot,
                encoder,
                budget=self.budget,
                announce=pace.begin,
                progress=pace.follow(progress),
                is_interrupted=lambda: is_interrupted() or pace.is_over(),
            )
        if speed := pace.measured():
            store.remember(self._speed_setting, f"{speed:.1f}")
        return encoded

    @property
    def _speed_setting(self) -> str:
        return f"speed.{self.folder.fingerprint}"

    def _known_speed(self, store: Store) -> float | None:
        known = store.setting(self._speed_setting)
        return float(known) if known else None

    def _encoder(self, quant: str) -> KVEncoder:
        if quant not in self._encoders:
            self._encoders[quant] = self._model().encoder.storing_as(quant).for_many()
        return self._encoders[quant]

    def _model(self) -> LoadedModel:
        name = self.folder.fingerprint
        if name not in self.models:
            self.models[name] = load_model(self.folder, weights=None, reporter=self.reporter)
        return self.models[name]


def _nothing_encoded(store: Store, snapshot: int, spec: MemorySpec | None, budget: int) -> build.Encoded:
    """What is left if no latent is made now. spec: of the latents, None if this model has made none yet: their size is
    unknown then, and all count as pending."""
    if spec is None:
        return build.Encoded(pending=len(set(store.chunk_digests(snapshot))))
    missing = build.find_missing(store, snapshot, spec, budget)
    return build.Encoded(pending=len(missing.wanted), postponed=missing.postponed)


def _empty(layout: IndexLayout) -> None:
    """Empties the index; deletes one that cannot be opened."""
    try:
        with Store.open(layout) as store:
            store.clear()
    except NoIndex:
        pass
    except IndexCorrupt:
        delete_manifest(layout)
        shutil.rmtree(layout.shards, ignore_errors=True)
