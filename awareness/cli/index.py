"""`awareness index`: builds the index of a repository or brings it up to date."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.routers import choose_router, find_router, renew
from awareness.cli.watch import watching
from awareness.cli.workspace import LoadedModel, Workspace, load_model, parse_bytes, pull_model, quant_of
from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, UsageError
from awareness.index import build
from awareness.index.layout import IndexLayout
from awareness.index.lock import writing
from awareness.index.manifest import delete as delete_manifest
from awareness.index.store import Store, Totals
from awareness.model.sources import ModelFolder
from awareness.types import default_layers, printable


def index(
    repo: Annotated[Path, typer.Argument(help="The repository, or any folder inside it.")] = Path("."),
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    quant: options.QuantOption = None,
    router: options.RouterOption = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
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
    workspace = Workspace.open(repo, rev=rev, local=local)
    if watch and (workspace.rev or workspace.repository.is_bare):
        raise UsageError("a commit does not change, so there is nothing to --watch", hint="--watch without --rev")
    folder = pull_model(workspace.model_name(model))
    indexer = _Indexer(workspace, folder, tuple(scope or ()), quant, find_router(router), limit, lazy)
    if not watch:
        _report(indexer, indexer.run(rebuild=rebuild), format)
        return
    with watching(workspace.repository.root, workspace.layout.root) as changes:
        outcome = indexer.run(rebuild=rebuild, is_interrupted=changes.pending)
        _report(indexer, outcome, format)
        render.note(f"watching {workspace.repository.root}; Ctrl-C ends it")
        while True:
            if not outcome.is_interrupted:
                changes.wait()
            changes.clear()
            try:
                outcome = indexer.run(is_interrupted=changes.pending)
            except IndexLocked as error:
                render.detail(error.message)
                changes.wait(timeout=1.0)
                outcome = replace(outcome, is_interrupted=True)  # the change is still to be read
                continue
            if outcome.has_changed:
                _report(indexer, outcome, format)


@dataclass(frozen=True)
class _Outcome:
    """What one run did. is_interrupted: latents are still to be made."""

    refreshed: build.Refreshed
    encoded: build.Encoded
    totals: Totals
    quant: str
    router: str
    seconds: float
    is_interrupted: bool

    @property
    def has_changed(self) -> bool:
        return bool(self.refreshed.added or self.refreshed.removed or self.encoded.latents)


@dataclass
class _Indexer:
    """Brings one index up to date, as often as it is asked; the model is loaded when something is to be encoded."""

    workspace: Workspace
    folder: ModelFolder
    scope: tuple[str, ...]
    quant: options.Quant | None
    router: str | None
    budget: int
    lazy: bool

    def run(self, *, rebuild: bool = False, is_interrupted: Callable[[], bool] = lambda: False) -> _Outcome:
        """Raises IndexLocked. is_interrupted: asked while encoding; the routing index is always finished."""
        started = time.perf_counter()
        with writing(self.workspace.layout):
            if rebuild:
                _throw_away(self.workspace.layout)
            with Store.create(self.workspace.layout) as store:
                store.latents.sweep()
                stored_as = quant_of(store, self.quant)
                choose_router(store, self.router)
                refreshed = self.workspace.refresh(store, self.folder, scope=self.scope)
                renew(store)
                layers = default_layers(self.folder.num_layers)
                spec = store.latents.spec_made_by(self.folder.fingerprint, layers, stored_as)
                encoded = build.Encoded()
                pending = not self.lazy
                if pending and spec and build.is_encoded(store, refreshed.snapshot, spec, self.budget):
                    pending = False
                if pending and not is_interrupted():
                    encoder = self._model.encoder.storing_as(stored_as)
                    spec = encoder.spec
                    with render.progress() as progress:
                        encoded = build.encode_pending(
                            store,
                            refreshed.snapshot,
                            encoder,
                            budget=self.budget,
                            progress=progress,
                            is_interrupted=is_interrupted,
                        )
                    pending = not build.is_encoded(store, refreshed.snapshot, spec, self.budget)
                totals = store.totals(refreshed.snapshot, spec)
                used = store.routing.router
        return _Outcome(refreshed, encoded, totals, stored_as, used, time.perf_counter() - started, pending)

    @cached_property
    def _model(self) -> LoadedModel:
        return load_model(self.folder)


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
