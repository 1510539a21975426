"""`POST /needle`: the needle test on a served repository, with the model in memory: is the memory really read?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from awareness.engine.engine import Engine
from awareness.engine.places import open_workspaces
from awareness.errors import UsageError
from awareness.serve.error_json import Json
from awareness.serve.event_stream import EVENTS, EventStream
from awareness.serve.question_queue import Job
from awareness.serve.repositories import Served
from awareness.serve.repository_routes import Shared
from awareness.serve.services import Services

router = APIRouter()
MOST_NEEDLES, MOST_CHUNKS = 200, 256
Number = Annotated[int, Field(ge=1, le=MOST_CHUNKS)]


class NeedleRequest(BaseModel):
    """As the options of `awareness eval needle`. samples: needles for each number of chunks."""

    model_config = ConfigDict(extra="forbid")
    repository: str | None = None
    samples: Annotated[int, Field(ge=1, le=MOST_NEEDLES)] = 5
    chunks: Annotated[list[Number], Field(min_length=1, max_length=8)] = [1, 4, 8]
    chunk_tokens: Annotated[int, Field(ge=16, le=1024)] = 120
    shapes: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=32)] = ["single"]
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


@router.get("/needle")
def shapes() -> Json:
    """The shapes of needles, the groups of them first."""
    from awareness.evals.needle import known_shapes

    return Json({"shapes": known_shapes()})


@router.post("/needle", **EVENTS)
async def needle(asked: NeedleRequest, shared: Shared) -> EventStream:
    """Events: `queued`, `progress {what, done, total}`, and at the end `needle {model, samples, mean, grid}`, where
    grid has `chunks`, `depth`, `accuracy` (null where nothing fits) and `n` for each cell."""
    served = shared.repositories.find(asked.repository)
    if served.is_pack:
        raise UsageError(f"{served.name} is a pack: its files are not here", hint="serve the repository itself")

    def work(job: Job) -> None:
        with (
            shared.reporter.telling(job),
            shared.repositories.engine(served.name) as engine,
            shared.repositories.models.lock,
        ):
            job.send("needle", _measured(asked, served, engine, shared))

    return EventStream(shared.queue.submit(work))


def _measured(asked: NeedleRequest, served: Served, engine: Engine, shared: Services) -> dict[str, Any]:
    from awareness.evals import needle
    from awareness.evals.readers import reader_of
    from awareness.evals.setup import source_chunks

    model = engine.load()
    repositories = [workspace.repository for workspace in open_workspaces([served.root], [])]
    pool = [chunk for own in repositories for chunk in source_chunks(own, model.decoder.folder, asked.chunk_tokens)]
    reader = reader_of(model)
    numbers = list(dict.fromkeys(asked.chunks))
    shapes = needle.shapes_named(asked.shapes)
    options: dict[str, Any] = {"samples": asked.samples, "seed": asked.seed, "shapes": shapes}
    cases = {number: needle.make_cases(pool, chunks=number, **options) for number in numbers}
    with shared.reporter.progress() as progress:
        scores = needle.ask([reader], cases, progress)
    grid = needle.Grid((reader.name,), tuple(numbers), tuple(shapes), asked.samples, tuple(scores))
    mean = grid.accuracy(reader.name)
    return {
        "model": model.decoder.folder.name,
        "reader": reader.name,
        "samples": asked.samples,
        "mean": None if mean is None else round(mean.mean, 4),
        "grid": [
            {
                "chunks": number,
                "depth": depth,
                "accuracy": None if found is None else round(found.mean, 4),
                "n": n,
            }
            for number in numbers
            for depth, n in sorted(grid.cases(number).items())
            for found in [grid.accuracy(reader.name, number, depth=depth)]
        ],
    }
