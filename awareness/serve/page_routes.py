"""What the page shows of a repository: its memory as a map, the state of its index, and indexing with progress."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from awareness.config.environment import environment
from awareness.engine.embedders import resolve_router
from awareness.engine.engine import Engine
from awareness.engine.index_summary import summarised
from awareness.engine.indexing import Indexer
from awareness.engine.models import LoadedModel
from awareness.engine.places import open_workspaces
from awareness.engine.workspace import Workspace
from awareness.errors import UsageError
from awareness.serve.error_json import Json
from awareness.serve.event_stream import EventStream
from awareness.serve.question_queue import Job
from awareness.serve.repositories import Served
from awareness.serve.repository_routes import Shared
from awareness.serve.services import Services

router = APIRouter()
MOST_MINUTES = 600


class IndexRequest(BaseModel):
    """minutes: how long latents are made; the routing index is always completed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    minutes: Annotated[float, Field(ge=0, le=MOST_MINUTES)] = 0.0


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


def _workspaces(served: Served) -> list[Workspace]:
    return open_workspaces([served.root], [])


def _summary(served: Served) -> dict[str, Any]:
    workspaces = _workspaces(served)
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
    """A pack never changes, and has a latent for each chunk."""
    with shared.repositories.engine(served.name) as engine:
        (corpus,) = engine.corpora
        files, chunks = len(corpus.store.files(corpus.snapshot)), corpus.count_chunks()
        size = served.root.stat().st_size
        latents = {"count": chunks, "bytes": corpus.store.latents.total_bytes()}
        common = {"files": files, "chunks": chunks, "latents": latents, "bytes": size}
        return {
            **common,
            "is_indexed": True,
            "quant": corpus.quant,
            "router": corpus.store.routing.router,
            "drift": None,
        }


@router.post("/index", response_class=EventStream)
async def index(shared: Shared, asked: IndexRequest, repository: str | None = None) -> EventStream:
    """Brings the index up to date. Events: `queued`, `progress {what, done, total}`, `note {message}`, and at the end
    `indexed {files, chunks, added, reused, removed, encoded, pending, seconds}`. A client that leaves ends it; what
    was indexed stays."""
    served = shared.repositories.find(repository)
    if served.is_pack:
        raise UsageError(f"{served.name} is a pack, which does not change", hint="awareness pack makes a new one")

    def work(job: Job) -> None:
        with shared.reporter.telling(job):
            for workspace in _workspaces(served):
                job.send("indexed", _indexed(workspace, served, asked, job, shared))

    return EventStream(shared.queue.submit(work))


def _indexed(
    workspace: Workspace, served: Served, asked: IndexRequest, job: Job, shared: Services
) -> dict[str, float | str]:
    resolved = resolve_router(environment().router, shared.reporter)
    seconds, budget = 60 * asked.minutes, shared.repositories.budget
    with (
        shared.repositories.models.lock,
        shared.repositories.engine(served.name, refresh=not workspace.is_indexed) as engine,
    ):
        _, folder = engine.reading()
        models = _in_memory(engine, folder.fingerprint) if seconds else {}
        indexer = Indexer(workspace, folder, (), None, resolved, budget, shared.reporter, models)
        outcome = indexer.run(seconds, is_interrupted=job.is_cancelled)
    refreshed = outcome.refreshed
    return {
        "repository": str(workspace.repository.root),
        "files": refreshed.files,
        "chunks": refreshed.chunks,
        "added": refreshed.added,
        "reused": refreshed.reused,
        "removed": refreshed.removed,
        "encoded": outcome.encoded.latents,
        "pending": outcome.encoded.pending,
        "seconds": round(outcome.seconds, 3),
    }


def _in_memory(engine: Engine, fingerprint: str) -> dict[str, LoadedModel]:
    """The model that answers, so that it is not loaded twice, if it is also the one that makes the latents."""
    model = engine.load().without_adapter
    return {fingerprint: model} if model.decoder.folder.fingerprint == fingerprint else {}
