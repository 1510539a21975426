"""`awareness index`: builds the index of one or several repositories or brings it up to date."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from awareness.cli import options, render
from awareness.engine.corpus_names import Named, unique_names
from awareness.engine.embedders import resolve_router
from awareness.engine.indexing import Indexer, Outcome
from awareness.engine.indexing_all import Failure, index_each
from awareness.engine.models import LoadedModel, pull_model
from awareness.engine.places import expand_for_index, remember_nested
from awareness.engine.units import counted, human_bytes, named_list, parse_bytes
from awareness.engine.watching import watching
from awareness.engine.workspace import Workspace
from awareness.errors import IndexLocked, UsageError
from awareness.index import build
from awareness.index.files.nested import Nested, nested_repositories
from awareness.index.files.own.foreign import BY_NAME, DEPENDENCIES, MADE
from awareness.index.files.patterns import IGNORE_FILE
from awareness.index.files.repository import SkippedFile
from awareness.types import printable

SHOWN_REASONS = 3
"""Reasons for leaving files out that are named, the most frequent first."""
SHOWN_FOLDERS = 5
"""Folders that are named, the outermost first."""
SLICE_S = 30.0
"""Seconds that --watch encodes at a time while nothing changes; between two slices other processes may write."""


def index(
    context: typer.Context,
    repos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Repositories, or folders of clones. Default: the repository around this folder.",
            show_default=False,
        ),
    ] = None,
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    include: options.IncludeOption = None,
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
    nested: Annotated[
        bool | None,
        typer.Option(
            "--nested/--no-nested",
            help="Also index the repositories inside, such as submodules, each in an index of its own. From then on"
            " they are searched together. Default: as the last time.",
            show_default=False,
        ),
    ] = None,
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
    if watch and nested is None:
        nested = False
    workspaces = expand_for_index(repos or [], rev=rev, local=local, nested=nested, reporter=render.REPORTER)
    if watch and (len(workspaces) > 1 or workspaces[0].found_in is not None):
        raise UsageError("--watch follows one repository, which has to be named", hint="awareness index REPO --watch")
    if watch and (workspaces[0].rev or workspaces[0].repository.is_bare):
        raise UsageError("a commit does not change, so there is nothing to --watch", hint="--watch without --rev")
    for path in repos or ():
        _note_part(Workspace.open(path))
    resolved = resolve_router(router, render.REPORTER)
    models: dict[str, LoadedModel] = {}

    def indexer_of(workspace: Workspace) -> Indexer:
        folder = pull_model(workspace.model_name(model), render.REPORTER)
        stored_as = quant.value if quant else None
        globs, wanted = workspace.scope(scope or ()), tuple(include or ())
        return Indexer(workspace, folder, globs, stored_as, resolved, limit, render.REPORTER, models, wanted)

    if len(workspaces) > 1 or workspaces[0].found_in is not None:
        _index_all(workspaces, indexer_of, seconds, format, rebuild=rebuild)
    elif watch:
        _watch(indexer_of(workspaces[0]), seconds, format, rebuild=rebuild)
    else:
        indexer = indexer_of(workspaces[0])
        _report(indexer, indexer.run(seconds, rebuild=rebuild), format)
        remember_nested(workspaces[0], ())


def _watch(indexer: Indexer, seconds: float, format: options.Format, *, rebuild: bool) -> None:
    """Indexes now, and then every change until Ctrl-C."""
    workspace = indexer.workspace
    names: frozenset[str] = frozenset() if indexer.include else BY_NAME
    with watching(workspace.repository.root, workspace.layout.root, names) as changes:
        outcome = indexer.run(seconds, rebuild=rebuild, is_interrupted=changes.pending)
        changes.ignore(outcome.refreshed.skipped)
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
            changes.ignore(outcome.refreshed.skipped)
            unreported = outcome.encoded.after(unreported)
            if outcome.has_changed or (unreported.latents and not unreported.pending):
                _report(indexer, replace(outcome, encoded=unreported), format)
                unreported = build.Encoded()


def _index_all(
    workspaces: Sequence[Workspace],
    indexer_of: Callable[[Workspace], Indexer],
    seconds: float,
    format: options.Format,
    *,
    rebuild: bool,
) -> None:
    """Indexes several repositories and prints a line for each. Raises the last error, once the others are indexed."""
    named = [Named.of_folder(workspace.repository.root) for workspace in workspaces]
    names = dict(
        zip((workspace.repository.root for workspace in workspaces), map(printable, unique_names(named)), strict=True)
    )
    done: list[tuple[Indexer, Outcome]] = []
    failures: list[Failure] = []
    for result in index_each(workspaces, indexer_of, seconds, rebuild=rebuild):
        if isinstance(result, Failure):
            failures.append(result)
            render.note(f"{names[result.workspace.repository.root]} is not indexed: {result.error.message}")
            continue
        done.append(result)
        indexer, outcome = result
        if format is options.Format.text:
            render.text(f"{names[indexer.workspace.repository.root]}: {_summary(outcome)}")
            _note_nested(indexer.workspace, among=workspaces)
    outcomes = [outcome for _, outcome in done]
    if format is options.Format.json:
        each = [_to_json(indexer, outcome) for indexer, outcome in done]
        failed = [{"repository": str(f.workspace.repository.root), "error": f.error.message} for f in failures]
        folders = {str(workspace.found_in or workspace.repository.root) for workspace in workspaces}
        whole = _sum(each) | {"repository": folders.pop() if len(folders) == 1 else None}
        render.data({**whole, "repositories": each, "failed": failed})
    else:
        render.text(
            f"{_repositories(len(done))}: {sum(outcome.refreshed.files for outcome in outcomes)} files,"
            f" {sum(outcome.refreshed.chunks for outcome in outcomes)} chunks,"
            f" {sum(outcome.totals.latents for outcome in outcomes)} latents,"
            f" in {sum(outcome.seconds for outcome in outcomes):.1f} s"
        )
        if pending := sum(outcome.encoded.pending for outcome in outcomes):
            render.text(f"{counted(pending, 'chunk')} without a latent yet: made when a question needs them")
        if skipped := [file for outcome in outcomes for file in outcome.refreshed.skipped]:
            _note_skipped(skipped)
    for indexer, _ in done:
        remember_nested(indexer.workspace, workspaces)
    if failures:
        raise failures[-1].error


def _sum(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fields of one report for several: numbers and lists together, and others where all agree, else None."""
    total: dict[str, Any] = {}
    for name in reports[0] if reports else ():
        values = [report[name] for report in reports]
        if isinstance(values[0], list):
            total[name] = [{"repository": r["repository"], **entry} for r in reports for entry in r[name]]
        elif isinstance(values[0], int | float):
            total[name] = round(sum(values), 3)
        else:
            total[name] = values[0] if len(set(values)) == 1 else None
    return total


def _note_part(workspace: Workspace) -> None:
    """An index is always that of a whole repository; says so where only a part of one was named."""
    if workspace.below:
        render.note(
            f"{workspace.below} is a part of {workspace.repository.root}, whose whole index is brought up to date; to"
            f" search this part alone: awareness search WORDS --repo {workspace.top}"
        )


def _note_nested(workspace: Workspace, *, among: Sequence[Workspace] = ()) -> None:
    """Names the repositories inside this one, which are not part of its index. among: those that are indexed too."""
    root = workspace.repository.root
    known = {other.repository.root for other in among}
    inside = [nested for nested in _nested(workspace) if root / nested.path not in known]
    if there := [nested.path for nested in inside if nested.is_there]:
        render.note(
            f"{_repositories(len(there))} inside, not part of this index: {named_list(there)};"
            f" to index and search {'it' if len(there) == 1 else 'them'} too: awareness index {root} --nested"
        )
    if empty := [nested.path for nested in inside if not nested.is_there]:
        render.note(
            f"{counted(len(empty), 'submodule')} not initialised: {named_list(empty)};"
            f" to fetch: git -C {root} submodule update --init"
        )


def _nested(workspace: Workspace) -> list[Nested]:
    """Of the work tree of a git repository."""
    is_work_tree = workspace.repository.common_git_dir is not None and workspace.rev is None
    return nested_repositories(workspace.repository) if is_work_tree else []


def _repositories(number: int) -> str:
    return "1 repository" if number == 1 else f"{number} repositories"


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


def _to_json(indexer: Indexer, outcome: Outcome) -> dict[str, Any]:
    refreshed, encoded, totals = outcome.refreshed, outcome.encoded, outcome.totals
    return {
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
        "skipped": [
            {"path": file.path, "reason": file.reason, **({"files": file.files} if file.files else {})}
            for file in refreshed.skipped
        ],
        "nested": [{"path": n.path, "initialised": n.is_there} for n in _nested(indexer.workspace)],
    }


def _summary(outcome: Outcome) -> str:
    refreshed = outcome.refreshed
    return (
        f"{refreshed.files} files, {refreshed.chunks} chunks"
        f" ({refreshed.added} added, {refreshed.reused} reused, {refreshed.removed} removed)"
    )


def _report(indexer: Indexer, outcome: Outcome, format: options.Format) -> None:
    refreshed, encoded, totals = outcome.refreshed, outcome.encoded, outcome.totals
    for file in refreshed.skipped:
        render.detail(f"left out: {printable(file.path)}: {file.reason}")
    if format is options.Format.json:
        render.data(_to_json(indexer, outcome))
        return
    render.text(_summary(outcome))
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
        _note_skipped(refreshed.skipped)
    _note_nested(indexer.workspace)


def _note_skipped(skipped: Sequence[SkippedFile]) -> None:
    """The most frequent reasons for leaving files out, and the folders that are left out as a whole."""
    files = [file for file in skipped if not file.path.endswith("/")]
    if files:
        reasons = Counter(file.reason for file in files)
        biggest = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(SHOWN_REASONS))
        more = ", …" if len(reasons) > SHOWN_REASONS else ""
        render.note(f"{counted(len(files), 'file')} left out: {biggest}{more}; awareness status --files")
    for reason, what in (DEPENDENCIES, "of dependencies"), (MADE, "of builds and caches"):
        _note_folders([file.path for file in skipped if file.path.endswith("/") and file.reason == reason], what)


def _note_folders(paths: list[str], what: str) -> None:
    """One line for the folders that are left out, and how to have the first of them."""
    if not paths:
        return
    names = [printable(path.rstrip("/")) for path in sorted(paths, key=lambda path: (path.count("/"), path))]
    shown = ", ".join(names[:SHOWN_FOLDERS]) + (", …" if len(names) > SHOWN_FOLDERS else "")
    render.note(
        f"left out {counted(len(names), 'folder')} {what}: {shown}"
        f" (--include '{names[0]}/**' or a line !{names[0]}/ in {IGNORE_FILE} has them)"
    )
