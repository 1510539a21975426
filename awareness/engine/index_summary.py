"""The state of a repository's index in a few numbers: for a status line or a page. `awareness status` has the rest."""

from __future__ import annotations

from dataclasses import dataclass

from awareness.engine.workspace import Workspace, quant_of
from awareness.index import build
from awareness.index.store.store import Store


@dataclass(frozen=True)
class IndexSummary:
    """files, chunks: that are indexed. latents, latent_bytes: of all kinds that are kept. bytes: of the index on disk.
    quant: how latents are stored. drift: what has changed since then, by `added`, `changed`, `removed`; None for a
    workspace that is not in the index."""

    files: int
    chunks: int
    latents: int
    latent_bytes: int
    bytes: int
    quant: str
    router: str
    drift: dict[str, list[str]] | None


def summarised(workspace: Workspace) -> IndexSummary:
    """Looks at every file's time and size. Raises NoIndex."""
    is_shown = workspace.build_scope(None) or (lambda path: True)
    with Store.open(workspace.existing_layout()) as store, store.reading():
        snapshot = store.snapshot(workspace.snapshot_name)
        files = chunks = 0
        drift = None
        if snapshot is not None:
            ids = [file_id for file_id, path, _ in store.files(snapshot.id) if is_shown(path)]
            files = len(ids)
            chunks = len(store.chunk_ids(ids)) if workspace.below else store.count_chunks(snapshot.id)
            found = build.drift(store, workspace.repository, snapshot)
            changes = {"added": found.added, "changed": found.changed, "removed": found.removed}
            drift = {word: [*filter(is_shown, paths)] for word, paths in changes.items()}
        manifest = sum(path.stat().st_size for path in workspace.layout.root.glob("manifest.db*"))
        latent_bytes = store.latents.total_bytes()
        return IndexSummary(
            files=files,
            chunks=chunks,
            latents=sum(1 for _ in store.latents.sizes()),
            latent_bytes=latent_bytes,
            bytes=manifest + latent_bytes,
            quant=quant_of(store),
            router=store.routing.router,
            drift=drift,
        )
