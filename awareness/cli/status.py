"""`awareness status`: what is indexed, how it differs from the files now, and its size on disk."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from awareness.cli import options, render
from awareness.engine.file_status import FileReport
from awareness.engine.places import only_workspace, open_workspaces, workspace_around
from awareness.engine.units import counted, human_bytes, named_list, parse_bytes
from awareness.engine.workspace import Workspace, quant_of
from awareness.index import build
from awareness.index.files.file_kinds import kind_of
from awareness.index.store.layout import FORMAT_VERSION
from awareness.index.store.store import Snapshot, Store
from awareness.types import MemorySpec, printable

SHOWN = 8  # paths of a list that are printed; JSON has all of them


def status(
    repo: options.RepoOption = None,
    files: Annotated[
        bool, typer.Option("--files", help="List every file: as what it is indexed, or why it is left out.")
    ] = False,
    why: Annotated[
        Path | None,
        typer.Option(
            "--why",
            help="Say of one file or folder whether it is indexed; if not, why, and how to have it.",
            metavar="PATH",
        ),
    ] = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Show what is indexed, what has changed since, its size on disk, and secrets in the text."""
    limit = parse_bytes(budget)
    if files or why is not None:
        command = "awareness status --files"
        workspace = only_workspace(repo, command) if repo or why is None else workspace_around(why, command)
        _show_files(workspace, why, format)
        return
    workspaces = open_workspaces([repo] if repo else [], [], reporter=render.REPORTER)
    indexed = [workspace for workspace in workspaces if workspace.layout.exists]
    first = workspaces[0]
    if first.found_in is None or not indexed:
        first.existing_layout()
    reports = [_report(workspace, limit) for workspace in indexed]
    missing = [str(workspace.repository.root) for workspace in workspaces if not workspace.layout.exists]
    if format is options.Format.json:
        if first.found_in is not None:
            sizes = {name: sum(report["bytes"][name] for report in reports) for name in ("manifest", "shards")}
            together = {"repository": str(first.found_in), "bytes": sizes, "budget": limit}
            render.data({**together, "repositories": reports, "not_indexed": missing})
        elif len(workspaces) > 1:
            render.data({**reports[0], "repositories": reports[1:], "not_indexed": missing})
        else:
            render.data(reports[0])
        return
    for place, report in enumerate(reports):
        if place:
            render.text()
        _print(report)
    if missing:
        render.text(
            f"\nnot indexed yet: {named_list(missing)}; awareness index {first.found_in or first.repository.root}"
        )


def _report(workspace: Workspace, limit: int) -> dict[str, Any]:
    """limit: of latents, in bytes. Of files, only those that the workspace shows."""
    is_shown = workspace.build_scope(None) or (lambda path: True)
    with Store.open(workspace.existing_layout()) as store, store.reading():
        here = store.snapshot(workspace.snapshot_name)
        report: dict[str, Any] = {
            "repository": str(workspace.repository.root),
            "index": str(workspace.layout.root),
            "format_version": FORMAT_VERSION,
            "quant": quant_of(store),
            "router": {"name": store.routing.router, "vectors": store.routing.vectors.count()},
            "snapshots": [_snapshot(store, snapshot, here) for snapshot in store.snapshots()],
            "latents": _latents(store),
            "bytes": _bytes(workspace, store),
            "budget": limit,
            "drift": None,
            "secret_files": [],
            "secrets": [],
            "below": None,
        }
        if here and workspace.below:
            files = [file_id for file_id, path, _ in store.files(here.id) if is_shown(path)]
            report["below"] = {
                "path": workspace.below,
                "files": len(files),
                "chunks": len(store.chunk_ids(files)),
            }
        if here:
            drift = build.drift(store, workspace.repository, here)
            changes = {"added": drift.added, "changed": drift.changed, "removed": drift.removed}
            report["drift"] = {word: [*filter(is_shown, paths)] for word, paths in changes.items()}
            report["secret_files"] = [*filter(is_shown, drift.secrets)]
            report["secrets"] = [
                {"path": path, "line": secret.line, "rule": secret.rule}
                for path, secrets in store.secrets(here.id).items()
                if is_shown(path)
                for secret in secrets
            ]
    return report


def _show_files(workspace: Workspace, why: Path | None, format: options.Format) -> None:
    """One line for each file, or for those that `why` names."""
    store, snapshot = workspace.open_snapshot()
    with store, store.reading():
        report = FileReport(workspace, store, snapshot)
        is_shown = workspace.build_scope(None) or (lambda path: True)
        statuses = [s for s in report.all() if is_shown(s.path)] if why is None else report.why(why)
    if format is options.Format.json:
        render.data({"repository": str(workspace.repository.root), "files": [status.to_json() for status in statuses]})
        return
    for status in statuses:
        render.text(f"{printable(status.path)}  {status.line}")
        for gap in status.omitted[:SHOWN]:
            render.text(f"  not indexed: {gap}")
        if len(status.omitted) > SHOWN:
            render.text(f"  … and {len(status.omitted) - SHOWN} more (--format json has all)")
        if why is not None and status.can_be_included:
            render.note(f"  to have it: awareness index --include '{printable(status.path)}'")
    if len(statuses) > 1:
        indexed = sum(status.indexed for status in statuses)
        render.note(f"{counted(indexed, 'file')} indexed, {len(statuses) - indexed} not")


def _snapshot(store: Store, snapshot: Snapshot, here: Snapshot | None) -> dict[str, Any]:
    totals = store.totals(snapshot.id)
    folder = None if snapshot.rev else str(build.folder_of(snapshot.name))
    return {
        "folder": folder,
        "rev": snapshot.rev,
        "here": here is not None and snapshot.id == here.id,
        "exists": folder is None or os.path.isdir(folder),
        "model": snapshot.model,
        "scope": list(snapshot.scope),
        "files": totals.files,
        "chunks": totals.chunks,
        "tokens": totals.tokens,
        "updated": datetime.fromtimestamp(snapshot.updated, timezone.utc).isoformat(timespec="seconds"),
    }


def _latents(store: Store) -> list[dict[str, Any]]:
    """For each MemorySpec: how many latents there are, and their bytes by kind of file."""
    kinds: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    counts: dict[str, int] = defaultdict(int)
    for spec, path, size in store.latents.sizes():
        kinds[spec][kind_of(path).word if path is not None else "unshown"] += size
        counts[spec] += 1
    named = [(MemorySpec.from_json(spec), spec) for spec in sorted(counts)]
    return [
        {"quant": spec.quant, "layers": len(spec.layers), "count": counts[key], "bytes_by_kind": dict(kinds[key])}
        for spec, key in named
    ]


def _bytes(workspace: Workspace, store: Store) -> dict[str, int]:
    layout = workspace.layout
    manifest = sum(path.stat().st_size for path in layout.root.glob("manifest.db*"))
    return {"manifest": manifest, "shards": store.latents.total_bytes()}


def _print(report: dict[str, Any]) -> None:
    render.text(printable(report["repository"]), style="bold")
    for snapshot in report["snapshots"]:
        name = f"commit {snapshot['rev'][:12]}" if snapshot["rev"] else printable(snapshot["folder"])
        marks = (
            "  (here)" if snapshot["here"] else "" if snapshot["exists"] else "  (gone; awareness gc --drop removes it)"
        )
        render.text(f"  {name}{marks}")
        scope = f", only {' '.join(snapshot['scope'])}" if snapshot["scope"] else ""
        render.text(
            f"    {snapshot['files']} files, {snapshot['chunks']} chunks, {snapshot['tokens']:,} tokens"
            f" of {snapshot['model']}{scope}, {snapshot['updated']}"
        )
    if part := report["below"]:
        render.text(f"{printable(part['path'])}: {part['files']} files, {part['chunks']} chunks", style="bold")
    drift = report["drift"]
    if drift is None:
        render.text("  this work tree is not indexed yet: awareness index")
    else:
        changes = [f"{len(paths)} {word}" for word, paths in drift.items() if paths]
        render.text(f"since then: {', '.join(changes) or 'no changes'}", style="bold")
        _paths([f"{word} {path}" for word, paths in drift.items() for path in paths])
    size = report["bytes"]
    render.text(
        f"on disk: {human_bytes(size['shards'])} of latents (budget {human_bytes(report['budget'])}),"
        f" {human_bytes(size['manifest'])} of text and routing index, in {report['index']}",
        style="bold",
    )
    router = report["router"]
    render.text(f"  routed by {router['name']}: {router['vectors']} vectors")
    for latents in report["latents"]:
        kinds = ", ".join(f"{kind} {human_bytes(size)}" for kind, size in sorted(latents["bytes_by_kind"].items()))
        render.text(f"  {latents['count']} latents, quant {latents['quant']}, {latents['layers']} layers: {kinds}")
    if report["secret_files"]:
        render.text(f"left out as secret: {len(report['secret_files'])} files", style="bold")
        _paths(report["secret_files"])
    if report["secrets"]:
        render.text(f"looks like a secret, and is indexed: {len(report['secrets'])} places", style="bold")
        _paths([f"{secret['path']}:{secret['line']}  {secret['rule']}" for secret in report["secrets"]])
        render.note("leave a file out with a line in .awarenessignore, then: awareness index && awareness gc")


def _paths(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        render.text(f"  {printable(line)}")
    if len(lines) > SHOWN:
        render.text(f"  … and {len(lines) - SHOWN} more (--format json has all)")
