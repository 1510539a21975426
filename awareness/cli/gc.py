"""`awareness gc`: frees what nothing needs any more."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.units import counted, human_bytes
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import UsageError
from awareness.index.store.garbage import collect_garbage
from awareness.index.store.lock import writing
from awareness.index.store.store import Store


def gc(
    repo: options.RepoOption = Path("."),
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", help="Forget this commit or work tree, as `status` names it; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be freed.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Delete latents that no snapshot shows, and close the gaps; what is still shown anywhere stays."""
    workspace = Workspace.open(repo)
    with writing(workspace.existing_layout()), Store.open(workspace.layout) as store:
        names = [_snapshot_name(workspace, store, text) for text in drop or ()]
        with render.progress() as progress:
            done = collect_garbage(store, quant=quant_of(store), drop=names, dry_run=dry_run, progress=progress)
    if format is options.Format.json:
        render.data({"dry_run": dry_run, "dropped": names, **asdict(done)})
        return
    render.text(
        f"{'would free about' if dry_run else 'freed'} {human_bytes(done.bytes)}:"
        f" {counted(done.latents, 'latent')}, {counted(done.orphans, 'stray file')};"
        f" {counted(done.shards_rewritten, 'shard')} {'to rewrite' if dry_run else 'rewritten'}"
    )


def _snapshot_name(workspace: Workspace, store: Store, text: str) -> str:
    """A snapshot by its folder, a branch or tag, or the beginning of its commit. Raises UsageError."""
    snapshots = store.snapshots()
    wanted = {text, f"tree:{text}", f"tree:{Path(text).resolve()}"}
    with contextlib.suppress(UsageError):
        wanted.add(f"rev:{workspace.repository.resolve(text)}")
    found = [s.name for s in snapshots if s.name in wanted or (s.rev and len(text) >= 4 and s.rev.startswith(text))]
    if len(found) != 1:
        listed = ", ".join(s.rev[:12] if s.rev else s.name.removeprefix("tree:") for s in snapshots) or "none"
        how_many = "more than one" if found else "none"
        raise UsageError(f"'{text}' is {how_many} of what is indexed: {listed}", hint="awareness status")
    return found[0]
