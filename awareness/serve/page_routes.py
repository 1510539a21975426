"""What the page shows of a repository: its memory as a map, and the state of its index."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from awareness.engine.index_summary import summarised
from awareness.engine.places import open_workspaces
from awareness.serve.error_json import Json
from awareness.serve.repositories import Served
from awareness.serve.repository_routes import Shared
from awareness.serve.services import Services

router = APIRouter()


@router.get("/memory-map")
def memory_map(shared: Shared, repository: str | None = None) -> Json:
    """The indexed files, each with its bytes and the lines of its chunks, [first, last]."""
    with shared.repositories.engine(repository) as engine:
        return Json({"files": [asdict(file) for file in engine.outline()]})


@router.get("/status")
def status(shared: Shared, repository: str | None = None) -> Json:
    """What is indexed, what has changed since, and the bytes on disk. drift: None for a pack, and without an index."""
    served = shared.repositories.find(repository)
    return Json({"repository": str(served.root), **(_of_pack(served, shared) if served.is_pack else _summary(served))})


def _summary(served: Served) -> dict[str, Any]:
    workspaces = open_workspaces([served.root], [])
    parts = [summarised(workspace) for workspace in workspaces if workspace.is_indexed]
    drift: dict[str, list[str]] = {}
    for part in parts:
        for word, paths in (part.drift or {}).items():
            drift.setdefault(word, []).extend(paths)
    return {
        "is_indexed": len(parts) == len(workspaces),
        "files": sum(part.files for part in parts),
        "chunks": sum(part.chunks for part in parts),
        "latents": {
            "count": sum(part.latents for part in parts),
            "bytes": sum(part.latent_bytes for part in parts),
        },
        "bytes": sum(part.bytes for part in parts),
        "quant": parts[0].quant if parts else None,
        "router": parts[0].router if parts else None,
        "drift": drift if parts else None,
    }


def _of_pack(served: Served, shared: Services) -> dict[str, Any]:
    """A pack never changes, and has a latent for each chunk. Of a fleet: the repositories that questions opened."""
    with shared.repositories.engine(served.name) as engine:
        corpora = engine.corpora
        chunks = sum(corpus.count_chunks() for corpus in corpora)
        held = sum(corpus.store.latents.total_bytes() for corpus in corpora)
        return {
            "files": sum(len(corpus.store.files(corpus.snapshot)) for corpus in corpora),
            "chunks": chunks,
            "latents": {"count": chunks, "bytes": held},
            "bytes": held if served.store else served.root.stat().st_size,
            "is_indexed": True,
            "quant": corpora[0].quant if corpora else None,
            "router": corpora[0].store.routing.router if corpora else None,
            "drift": None,
        }
