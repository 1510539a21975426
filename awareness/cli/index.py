"""`awareness index`: builds the index of a repository or brings it up to date."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.workspace import Workspace, load_model, parse_bytes, pull_model, quant_of
from awareness.errors import IndexCorrupt, NoIndex
from awareness.index import build
from awareness.index.layout import IndexLayout
from awareness.index.lock import writing
from awareness.index.manifest import delete as delete_manifest
from awareness.index.store import Store
from awareness.types import ENCODING_VERSION


def index(
    repo: Annotated[Path, typer.Argument(help="The repository, or any folder inside it.")] = Path("."),
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    quant: options.QuantOption = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Only the routing index; latents are made when asked for.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Throw the index away and start again.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Keep the index in .awareness/ of the work tree.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Build or refresh the index: only what changed is encoded again."""
    started = time.perf_counter()
    limit = parse_bytes(budget)
    workspace = Workspace.open(repo, rev=rev, local=local)
    with writing(workspace.layout):
        folder = pull_model(workspace.model_name(model))
        if rebuild:
            _throw_away(workspace.layout)
        with Store.create(workspace.layout) as store:
            store.latents.sweep()
            stored_as = quant_of(store, quant)
            refreshed = workspace.refresh(store, folder, scope=scope or ())
            for file in refreshed.skipped:
                render.detail(f"left out: {file.path}: {file.reason}")
            spec = store.latents.spec_made_by(folder.fingerprint, ENCODING_VERSION, stored_as)
            encoded = build.Encoded()
            if not lazy and not (spec and build.is_encoded(store, refreshed.snapshot, spec, limit)):
                encoder = load_model(folder, stored_as).encoder
                spec = encoder.spec
                with render.progress() as progress:
                    encoded = build.encode_pending(store, refreshed.snapshot, encoder, budget=limit, progress=progress)
            totals = store.totals(refreshed.snapshot, spec)
    seconds = time.perf_counter() - started
    if format is options.Format.json:
        render.data(
            {
                "repository": str(workspace.repository.root),
                "rev": workspace.rev,
                "model": folder.name,
                "quant": stored_as,
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
                "seconds": round(seconds, 3),
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
    render.text(f"{totals.latents} latents, {render.human_bytes(totals.latent_bytes)}, in {seconds:.1f} s")
    if encoded.postponed:
        render.note(
            f"{encoded.postponed} chunks are beyond the budget of {budget} and are encoded when a question needs them;"
            " more with --budget"
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
