"""`awareness gc`: deletes what nothing needs any more and reclaims the disk space."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.places import only_workspace
from awareness.engine.units import counted, human_bytes
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import UsageError
from awareness.index import build
from awareness.index.store.garbage import collect_garbage
from awareness.index.store.lock import writing
from awareness.index.store.store import Store


def gc(
    repo: options.RepoOption = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", help="Also drop this commit or work tree, named as in `status`; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be freed.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Delete latents that no indexed commit or work tree needs, and reclaim the disk space."""
    workspace = only_workspace(repo, "awareness gc")
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
    """The name of a snapshot, given its folder, a branch or tag, or a prefix of its commit. Raises UsageError."""
    snapshots = store.snapshots()
    wanted = {text, build.tree_name(Path(text)), build.tree_name(Path(text).resolve())}
    with contextlib.suppress(UsageError):
        wanted.add(f"rev:{workspace.repository.resolve(text)}")
    matches = [s.name for s in snapshots if s.name in wanted or (s.rev and len(text) >= 4 and s.rev.startswith(text))]
    if len(matches) != 1:
        listed = ", ".join(s.rev[:12] if s.rev else str(build.folder_of(s.name)) for s in snapshots) or "none"
        how_many = "more than one" if matches else "none"
        raise UsageError(f"'{text}' is {how_many} of what is indexed: {listed}", hint="awareness status")
    return matches[0]
