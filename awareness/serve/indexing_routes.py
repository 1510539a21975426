"""`POST /index`: brings the index of a served repository up to date, with progress as Server-Sent Events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from awareness.config.environment import environment
from awareness.engine.embedders import resolve_router
from awareness.engine.engine import Engine
from awareness.engine.indexing import Indexer
from awareness.engine.models import LoadedModel
from awareness.engine.places import open_workspaces
from awareness.engine.workspace import Workspace
from awareness.errors import UsageError
from awareness.serve.event_stream import EVENTS, EventStream
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


@router.post("/index", **EVENTS)
async def index(shared: Shared, asked: IndexRequest, repository: str | None = None) -> EventStream:
    """Brings the index up to date. Events: `queued`, `progress {what, done, total}`, `note {message}`, and at the end
    `indexed {files, chunks, added, reused, removed, encoded, pending, seconds}`. A client that leaves ends it; what
    was indexed stays."""
    served = shared.repositories.find(repository)
    if served.store:
        raise UsageError(f"{served.name} is not indexed here", hint=f"awareness fleet refresh {served.store}")
    if served.is_pack:
        raise UsageError(f"{served.name} is a pack, which does not change", hint="awareness pack makes a new one")

    def work(job: Job) -> None:
        with shared.reporter.telling(job):
            for workspace in open_workspaces([served.root], []):
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
