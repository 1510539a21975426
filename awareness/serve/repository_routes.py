"""What needs no language model: the state of the server, its repositories, search, and the lines of indexed files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from awareness import __version__
from awareness.engine.corpus import CorpusHit
from awareness.engine.indexed_text import NotIndexed
from awareness.engine.places import open_workspaces
from awareness.engine.question_options import DEFAULT_TOP_K
from awareness.errors import UsageError
from awareness.index.files.repository import Repository
from awareness.index.search.evidence import WEAK_SCORE
from awareness.serve import server_metrics
from awareness.serve.error_json import Json, Refused
from awareness.serve.guards import IS_LOCAL
from awareness.serve.repositories import NotServed, Repositories, Served
from awareness.serve.scope_patterns import anchored
from awareness.serve.services import Services, services
from awareness.types import printable

router = APIRouter()
Shared = Annotated[Services, Depends(services)]

MOST_LINES = 5_000
Text = Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"\S")]
Globs = Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(max_length=256)]
TopK = Annotated[int, Field(ge=1, le=256)]


class SearchRequest(BaseModel):
    """scope: globs of paths from the top folder; kinds: of files, such as `source`, `test`, `docs`; in both, a leading
    `!` excludes."""

    model_config = ConfigDict(extra="forbid")
    query: Text
    repository: str | None = None
    scope: Globs | None = None
    top_k: TopK = DEFAULT_TOP_K
    kinds: Globs | None = None


@router.get("/health")
def health(request: Request, shared: Shared) -> Json:
    """Whether the server runs. Needs no token."""
    state: dict[str, Any] = {
        "status": "ok",
        "version": __version__,
        "model": shared.repositories.model_name,
        "repositories": len(shared.repositories.all),
    }
    if request.scope[IS_LOCAL]:  # it has paths
        state["answers_with"] = shared.settings.answers_with
    return Json(state)


@router.get("/metrics")
def metrics(shared: Shared) -> Response:
    """Counters in the text format of Prometheus."""
    return Response(shared.metrics.text(), headers={"content-type": server_metrics.TYPE})


@router.get("/repositories")
def repositories(shared: Shared) -> Json:
    """What can be asked about."""
    return Json({"repositories": [describe(served, shared.repositories) for served in shared.repositories.all]})


def describe(served: Served, all_served: Repositories) -> dict[str, Any]:
    """files, chunks: as the index has them; 0 where there is none yet."""
    counts = all_served.counts(served.name)
    return {
        "name": served.name,
        "root": str(served.root),
        "is_pack": served.is_pack,
        "is_indexed": counts is not None,
        "files": 0 if counts is None else counts[0],
        "chunks": 0 if counts is None else counts[1],
        "is_open": served.engine is not None,
    }


@router.get("/place")
def place(path: str, shared: Shared, is_named: bool = False) -> Json:
    """Which repository a command line in this folder means, or one with `--repo PATH` (is_named)."""
    folder = Path(path)
    if "\0" in path or not folder.is_absolute():
        raise UsageError(f"{printable(path[:200])} is not an absolute path")
    workspaces = open_workspaces([folder if is_named else Repository.open(folder).root], [])
    if len(workspaces) == 1:
        top = workspaces[0].top
        for served in shared.repositories.all:
            if served.root == top and not served.is_pack:
                return Json({"name": served.name, "root": str(workspaces[0].repository.root)})
    raise NotServed(f"{printable(path[:200])} is not served")


@router.post("/search")
def search(asked: SearchRequest, shared: Shared) -> Json:
    """The code that a query is about, without a language model."""
    started = time.perf_counter()
    with shared.repositories.engine(asked.repository) as engine:
        hits = engine.search(asked.query, scope=anchored(asked.scope), top_k=asked.top_k, kinds=asked.kinds)
        listed = [hit_json(hit) for hit in hits]
    is_weak = not hits or hits[0].score < WEAK_SCORE
    results = {"hits": [], "nearest": listed} if is_weak else {"hits": listed}
    return Json({"query": asked.query, **results, "seconds": round(time.perf_counter() - started, 4)})


def hit_json(hit: CorpusHit) -> dict[str, Any]:
    """stale: the lines have changed since they were indexed."""
    return hit.to_json() | {"stale": not hit.is_current}


@router.get("/file")
def file(
    request: Request,
    shared: Shared,
    path: Annotated[str, Query(max_length=4096)],
    repository: str | None = None,
    origin: str | None = None,
    start: Annotated[int, Query(ge=1)] = 1,
    end: Annotated[int | None, Query(ge=1)] = None,
) -> Json:
    """The lines of an indexed file as it is now; at most 5,000. Bytes of a path that are not UTF-8 are `%FF` as they
    are. origin: of a hit, where a repository holds others."""
    raw = parse_qs(request.scope["query_string"].decode("ascii", "surrogateescape"), True, errors="surrogateescape")
    path = raw["path"][-1]
    served = shared.repositories.find(repository)
    with shared.repositories.engine(served.name) as engine:
        try:
            found = engine.read(path, origin=origin, is_exact=True)
        except NotIndexed as error:
            raise Refused(404, error.message, hint=error.hint) from error
    total = found.total
    last = min(total, start + MOST_LINES - 1, total if end is None else end)
    if start > last:
        raise UsageError(f"lines {start} to {end or 'the end'} are not in the file, which has {total}")
    return Json(
        {
            "path": found.path,
            "language": found.language,
            "lines": found.lines(start, last),
            "start": start,
            "end": last,
            "total": total,
        }
    )
