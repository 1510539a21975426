"""`awareness index`: builds the index of a repository or brings it up to date."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.options import parse_bytes
from awareness.cli.pace import Pace
from awareness.cli.watch import watching
from awareness.engine.embedders import choose_router, renew_vectors, resolve_router
from awareness.engine.models import LoadedModel, load_model, pull_model
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, UsageError
from awareness.index import build
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.manifest import delete as delete_manifest
from awareness.index.store.store import Store, Totals
from awareness.model.sources import ModelFolder
from awareness.types import KVEncoder, MemorySpec, default_layers, printable

SLICE_S = 30.0
"""How long --watch encodes at a time while nothing changes; between two slices other processes may write."""


def index(
    context: typer.Context,
    repo: Annotated[Path, typer.Argument(help="The repository, or any folder inside it.")] = Path("."),
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    quant: options.QuantOption = None,
    router: options.RouterOption = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    minutes: options.MinutesOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Make all latents that the budget allows, however long it takes.")
    ] = False,
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Only the routing index; latents are made when asked for.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Throw the index away and start again.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and index what is saved until Ctrl-C.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Keep the index in .awareness/ of the work tree.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Build or refresh the index: only what changed is encoded again."""
    limit = parse_bytes(budget)
    seconds = _seconds(context, minutes, everything=everything, lazy=lazy)
    workspace = Workspace.open(repo, rev=rev, local=local)
    if watch and (workspace.rev or workspace.repository.is_bare):
        raise UsageError("a commit does not change, so there is nothing to --watch", hint="--watch without --rev")
    folder = pull_model(workspace.model_name(model), render.REPORTER)
    indexer = _Indexer(
        workspace,
        folder,
        tuple(scope or ()),
        quant.value if quant else None,
        resolve_router(router, render.REPORTER),
        limit,
    )
    if not watch:
        _report(indexer, indexer.run(seconds, rebuild=rebuild), format)
        return
    with watching(workspace.repository.root, workspace.layout.root) as changes:
        outcome = indexer.run(seconds, rebuild=rebuild, is_interrupted=changes.pending)
        _report(indexer, outcome, format)
        render.note(f"watching {workspace.repository.root}; Ctrl-C ends it")
        untold, at_once = build.Encoded(), False  # what was encoded since the last report
        while True:
            goes_on = at_once or (seconds > 0 and outcome.encoded.pending > 0)
            changes.wait(timeout=0.0 if goes_on else None)
            changes.clear()
            try:
                outcome = indexer.run(min(SLICE_S, seconds), silent=True, is_interrupted=changes.pending)
            except IndexLocked as error:
                render.detail(error.message)
                changes.wait(timeout=1.0)
                at_once = True  # the change is still to be read
                continue
            at_once = False
            untold = outcome.encoded.after(untold)
            if outcome.has_changed or (untold.latents and not untold.pending):
                _report(indexer, replace(outcome, encoded=untold), format)
                untold = build.Encoded()


def _seconds(context: typer.Context, minutes: float | None, *, everything: bool, lazy: bool) -> float:
    """How long latents are made. Raises UsageError for options that contradict each other."""
    if minutes is not None and not minutes >= 0:
        raise UsageError(f"--minutes {minutes:g} is no length of time", hint="--minutes 3, or --all")
    source = context.get_parameter_source("minutes")
    is_typed = source is not None and source.name == "COMMANDLINE"
    typed = [name for name, given in (("--minutes", is_typed), ("--all", everything), ("--lazy", lazy)) if given]
    if len(typed) > 1:
        raise UsageError(f"{' and '.join(typed)} contradict each other", hint=f"{typed[0]} or {typed[1]}, not both")
    if everything or lazy:
        return math.inf if everything else 0.0
    return 60 * (options.DEFAULT_MINUTES if minutes is None else minutes)


@dataclass(frozen=True)
class _Outcome:
    """What one run did."""

    refreshed: build.Refreshed
    encoded: build.Encoded
    totals: Totals
    quant: str
    router: str
    seconds: float

    @property
    def has_changed(self) -> bool:
        """True if the files are others than before."""
        return bool(self.refreshed.added or self.refreshed.removed)


@dataclass
class _Indexer:
    """Brings one index up to date, as often as it is asked; the model is loaded when something is to be encoded."""

    workspace: Workspace
    folder: ModelFolder
    scope: tuple[str, ...]
    quant: str | None
    router: str | None
    budget: int
    _encoders: dict[str, KVEncoder] = field(default_factory=dict, init=False)

    def run(
        self,
        seconds: float,
        *,
        rebuild: bool = False,
        silent: bool = False,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> _Outcome:
        """Raises IndexLocked. seconds: how long latents are made; the routing index is always finished. silent: without
        an estimate. is_interrupted: asked while encoding."""
        started = time.perf_counter()
        with writing(self.workspace.layout):
            if rebuild:
                _throw_away(self.workspace.layout)
            with Store.create(self.workspace.layout) as store:
                store.latents.sweep()
                stored_as = quant_of(store, self.quant)
                choose_router(store, self.router)
                refreshed = self.workspace.refresh(store, self.folder, scope=self.scope, reporter=render.REPORTER)
                renew_vectors(store, render.REPORTER)
                layers = default_layers(self.folder.num_layers)
                spec = store.latents.spec_made_by(self.folder.fingerprint, layers, stored_as)
                if spec and build.is_encoded(store, refreshed.snapshot, spec, self.budget):
                    encoded = build.Encoded()
                elif seconds > 0 and not is_interrupted():
                    encoder = self._encoder(stored_as)
                    spec = encoder.spec
                    encoded = self._encode(store, refreshed.snapshot, encoder, seconds, silent, is_interrupted)
                else:
                    encoded = _nothing_encoded(store, refreshed.snapshot, spec, self.budget)
                totals = store.totals(refreshed.snapshot, spec)
                used = store.routing.router
        return _Outcome(refreshed, encoded, totals, stored_as, used, time.perf_counter() - started)

    def _encode(
        self,
        store: Store,
        snapshot: int,
        encoder: KVEncoder,
        seconds: float,
        silent: bool,
        is_interrupted: Callable[[], bool],
    ) -> build.Encoded:
        """Makes latents until all are there, the time is over or it is interrupted; remembers the speed."""
        setting = f"speed.{self.folder.fingerprint}"
        known = store.setting(setting)
        pace = Pace(seconds, float(known) if known else None, silent=silent)
        with render.progress() as progress:
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
            store.remember(setting, f"{speed:.1f}")
        return encoded

    def _encoder(self, stored_as: str) -> KVEncoder:
        if stored_as not in self._encoders:
            self._encoders[stored_as] = self._model.encoder.storing_as(stored_as).for_many()
        return self._encoders[stored_as]

    @cached_property
    def _model(self) -> LoadedModel:
        return load_model(self.folder, weights=None, reporter=render.REPORTER)


def _nothing_encoded(store: Store, snapshot: int, spec: MemorySpec | None, budget: int) -> build.Encoded:
    """What is left if no latent is made now. spec: of the latents, None if this model has made none yet; then nobody
    knows how large they will be, and all count as pending."""
    if spec is None:
        return build.Encoded(pending=len(set(store.chunk_digests(snapshot))))
    missing = build.find_missing(store, snapshot, spec, budget)
    return build.Encoded(pending=len(missing.wanted), postponed=missing.postponed)


def _report(indexer: _Indexer, outcome: _Outcome, format: options.Format) -> None:
    refreshed, encoded, totals = outcome.refreshed, outcome.encoded, outcome.totals
    for file in refreshed.skipped:
        render.detail(f"left out: {printable(file.path)}: {file.reason}")
    if format is options.Format.json:
        render.data(
            {
                "repository": str(indexer.workspace.repository.root),
                "rev": indexer.workspace.rev,
                "model": indexer.folder.name,
                "quant": outcome.quant,
                "router": outcome.router,
                "files": refreshed.files,
                "chunks": refreshed.chunks,
                "added": refreshed.added,
                "reused": refreshed.reused,
                "removed": refreshed.removed,
                "latents": totals.latents,
                "encoded": encoded.latents,
                "pending": encoded.pending,
                "postponed": encoded.postponed,
                "tokens": encoded.tokens,
                "bytes": totals.latent_bytes,
                "seconds": round(outcome.seconds, 3),
                "skipped": [asdict(file) for file in refreshed.skipped],
            }
        )
        return
    render.text(
        f"{refreshed.files} files, {refreshed.chunks} chunks"
        f" ({refreshed.added} added, {refreshed.reused} reused, {refreshed.removed} removed)"
    )
    if encoded.latents:
        render.text(
            f"{encoded.latents} chunks encoded: {encoded.tokens:,} tokens, {render.human_bytes(encoded.bytes)} written"
        )
    render.text(f"{totals.latents} latents, {render.human_bytes(totals.latent_bytes)}, in {outcome.seconds:.1f} s")
    if encoded.pending:
        render.text(
            f"{render.counted(encoded.pending, 'chunk')} without a latent yet: made when a question needs them, or now"
            f" with: awareness index {indexer.workspace.repository.root} --all"
        )
    if encoded.postponed:
        render.note(
            f"{encoded.postponed} chunks are beyond the budget of {render.human_bytes(indexer.budget)} and are encoded"
            " when a question needs them; more with --budget"
        )
    if refreshed.skipped:
        render.note(f"{len(refreshed.skipped)} files left out; --verbose lists them")


def _throw_away(layout: IndexLayout) -> None:
    """Empties the index; one that can't even be opened is deleted."""
    try:
        with Store.open(layout) as store:
            store.clear()
    except NoIndex:
        pass
    except IndexCorrupt:
        delete_manifest(layout)
        shutil.rmtree(layout.shards, ignore_errors=True)
