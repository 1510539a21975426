"""`awareness index`: builds the index of a repository or brings it up to date."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.embedders import resolve_router
from awareness.engine.indexing import Indexer, Outcome
from awareness.engine.models import pull_model
from awareness.engine.units import counted, human_bytes, parse_bytes
from awareness.engine.watching import watching
from awareness.engine.workspace import Workspace
from awareness.errors import IndexLocked, UsageError
from awareness.index import build
from awareness.types import printable

SHOWN_REASONS = 3
"""Reasons for leaving files out that are named, the most frequent first."""
SLICE_S = 30.0
"""Seconds that --watch encodes at a time while nothing changes; between two slices other processes may write."""


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
        bool, typer.Option("--lazy", help="Build the routing index only; latents are made when a question needs them.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Delete the index and start again.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep running and index every change until Ctrl-C.")] = False,
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
    indexer = Indexer(
        workspace,
        folder,
        tuple(scope or ()),
        quant.value if quant else None,
        resolve_router(router, render.REPORTER),
        limit,
        render.REPORTER,
    )
    if not watch:
        _report(indexer, indexer.run(seconds, rebuild=rebuild), format)
        return
    with watching(workspace.repository.root, workspace.layout.root) as changes:
        outcome = indexer.run(seconds, rebuild=rebuild, is_interrupted=changes.pending)
        _report(indexer, outcome, format)
        render.note(f"watching {workspace.repository.root}; Ctrl-C ends it")
        unreported, at_once = build.Encoded(), False
        while True:
            goes_on = at_once or (seconds > 0 and outcome.encoded.pending > 0)
            changes.wait(timeout=0.0 if goes_on else None)
            changes.clear()
            try:
                outcome = indexer.run(min(SLICE_S, seconds), with_estimate=False, is_interrupted=changes.pending)
            except IndexLocked as error:
                render.detail(error.message)
                changes.wait(timeout=1.0)
                at_once = True  # the change was not read yet
                continue
            at_once = False
            unreported = outcome.encoded.after(unreported)
            if outcome.has_changed or (unreported.latents and not unreported.pending):
                _report(indexer, replace(outcome, encoded=unreported), format)
                unreported = build.Encoded()


def _seconds(context: typer.Context, minutes: float | None, *, everything: bool, lazy: bool) -> float:
    """How long latents are made, in seconds. Raises UsageError for options that contradict each other."""
    if minutes is not None and not minutes >= 0:
        raise UsageError(f"--minutes {minutes:g} is not a length of time", hint="--minutes 3, or --all")
    source = context.get_parameter_source("minutes")
    is_typed = source is not None and source.name == "COMMANDLINE"
    typed = [name for name, given in (("--minutes", is_typed), ("--all", everything), ("--lazy", lazy)) if given]
    if len(typed) > 1:
        raise UsageError(f"{' and '.join(typed)} contradict each other", hint=f"{typed[0]} or {typed[1]}, not both")
    if everything or lazy:
        return math.inf if everything else 0.0
    return 60 * (options.DEFAULT_MINUTES if minutes is None else minutes)


def _report(indexer: Indexer, outcome: Outcome, format: options.Format) -> None:
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
                "skipped": [{"path": file.path, "reason": file.reason} for file in refreshed.skipped],
            }
        )
        return
    render.text(
        f"{refreshed.files} files, {refreshed.chunks} chunks"
        f" ({refreshed.added} added, {refreshed.reused} reused, {refreshed.removed} removed)"
    )
    if encoded.latents:
        render.text(
            f"{encoded.latents} chunks encoded: {encoded.tokens:,} tokens, {human_bytes(encoded.bytes)} written"
        )
    render.text(f"{totals.latents} latents, {human_bytes(totals.latent_bytes)}, in {outcome.seconds:.1f} s")
    if encoded.pending:
        render.text(
            f"{counted(encoded.pending, 'chunk')} without a latent yet: made when a question needs them, or now"
            f" with: awareness index {indexer.workspace.repository.root} --all"
        )
    if encoded.postponed:
        render.note(
            f"{encoded.postponed} chunks are beyond the budget of {human_bytes(indexer.budget)} and are encoded"
            " when a question needs them; more with --budget"
        )
    if refreshed.skipped:
        reasons = Counter(file.reason for file in refreshed.skipped)
        biggest = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(SHOWN_REASONS))
        more = ", …" if len(reasons) > SHOWN_REASONS else ""
        render.note(f"{counted(len(refreshed.skipped), 'file')} left out: {biggest}{more}; awareness status --files")
