"""`awareness repair`: encodes again or drops what is damaged, and keeps what is sound."""

from __future__ import annotations

import time
from dataclasses import dataclass

from awareness.cli import options, render
from awareness.engine.embedders import renew_vectors
from awareness.engine.models import load_model, pull_model
from awareness.engine.places import only_workspace
from awareness.engine.units import counted
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import AwarenessError
from awareness.index import build
from awareness.index.store.check import Damage, drop_damage, find_damage, is_sound, remake_manifest
from awareness.index.store.lock import writing
from awareness.index.store.store import Snapshot, Store
from awareness.types import SINK, MemorySpec


def repair(
    repo: options.RepoOption = None,
    model: options.ModelOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Repair a damaged index: only what is damaged is encoded again."""
    started = time.perf_counter()
    workspace = only_workspace(repo, "awareness repair")
    layout = workspace.layout
    if not any(layout.shards.glob("*.safetensors")):  # a manifest can be rebuilt from shards alone
        workspace.existing_layout()
    with writing(layout):
        was_sound = is_sound(layout)
        if not was_sound:
            render.note("the manifest is damaged or of another format; rebuilding it from the files and the shards")
            _remake(workspace, model)
        with Store.open(layout) as store:
            store.latents.sweep()
            with render.progress() as progress:
                damage = find_damage(store, progress=progress)
            drop_damage(store, damage)
            encoded = _encode_again(workspace, store, damage, model)
    seconds = time.perf_counter() - started
    dropped = len(damage.latents) - encoded.latents
    if format is options.Format.json:
        render.data(
            {
                "manifest_remade": not was_sound,
                "shards_damaged": len(damage.shards),
                "latents_damaged": len(damage.latents),
                "encoded": encoded.latents,
                "dropped": dropped,
                "tokens": encoded.tokens,
                "seconds": round(seconds, 3),
            }
        )
        return
    if was_sound and not damage.shards:
        render.text("nothing is damaged")
        return
    render.text(
        f"{counted(len(damage.shards), 'damaged shard')}: {counted(len(damage.latents), 'latent')} lost,"
        f" {encoded.latents} encoded again, {dropped} dropped, in {seconds:.1f} s"
    )


@dataclass(frozen=True)
class _Encoded:
    latents: int = 0
    tokens: int = 0


def _remake(workspace: Workspace, model: str | None) -> None:
    """Rebuilds the manifest: registers the shards and chunks every snapshot that can still be read."""
    folder = pull_model(workspace.model_name(model), render.REPORTER)
    known = remake_manifest(workspace.layout)
    if not any(snapshot.name == workspace.snapshot_name for snapshot in known):
        with Store.open(workspace.layout) as store:
            workspace.refresh(store, folder, reporter=render.REPORTER)
    for snapshot in known:
        try:
            other = _workspace_of(workspace, snapshot)
            with Store.open(workspace.layout) as store:
                other.refresh(
                    store,
                    pull_model(snapshot.model, render.REPORTER),
                    scope=snapshot.scope,
                    include=snapshot.include,
                    reporter=render.REPORTER,
                )
        except AwarenessError as error:
            render.note(f"{snapshot.name} is left out: {error.message}")
    with Store.open(workspace.layout) as store:
        renew_vectors(store, render.REPORTER)


def _workspace_of(workspace: Workspace, snapshot: Snapshot) -> Workspace:
    if snapshot.rev:
        return Workspace(workspace.repository, workspace.layout, snapshot.rev)
    return Workspace.open(build.folder_of(snapshot.name))


def _encode_again(workspace: Workspace, store: Store, damage: Damage, model: str | None) -> _Encoded:
    """Encodes the lost latents that a snapshot still needs and that this model makes."""
    quant = quant_of(store)
    lost = {name.chunk for name in damage.latents if MemorySpec.from_json(name.spec).quant == quant}
    shown = store.chunks_by_digest(lost - {SINK})
    if not shown and not any(name.chunk == SINK for name in damage.latents):
        return _Encoded()
    encoder = load_model(
        pull_model(workspace.model_name(model), render.REPORTER), quant, reporter=render.REPORTER
    ).encoder
    build.keep_sink(store, encoder)
    ours = {name.chunk for name in damage.latents if name.spec == encoder.spec.to_json()}
    wanted = [chunk for name, chunk in shown.items() if name in ours]
    with render.progress() as progress:
        done = build.encode(store, encoder, wanted, progress=progress)
    return _Encoded(done.latents, done.tokens)
