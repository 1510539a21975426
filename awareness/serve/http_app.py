"""The application that `awareness serve` runs: FastAPI, its routers, and errors as JSON.

A router lives in a file of its own and is included in `create_app`. Its routes get what they share as a dependency:

    router = APIRouter()

    @router.post("/index")
    async def index(repository: str | None = None, shared: Services = Depends(services)) -> EventStream:
        served = shared.repositories.find(repository)          # UsageError, NotServed: 400, 404

        def work(job: Job) -> None:                            # in the thread of the queue, one at a time
            with shared.reporter.telling(job):                 # notes and progress go to the client
                with shared.repositories.engine(served.name) as engine:
                    ...
                    job.send("done", {...})                    # an event; job.is_cancelled() once the client has left

        return EventStream(shared.queue.submit(work))          # Refused: 429

What does not compute with the model needs no queue: a plain `def` route runs in a thread of Starlette's. Every
`AwarenessError` becomes a JSON error (error_json.py). Return `Json(...)` where the text of a repository is in it.
Who may ask is not the business of a route: guards.py stands before all of them; a path that needs no token is named
there.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from awareness import __version__
from awareness.errors import AwarenessError, UsageError
from awareness.serve import (
    api_page,
    ask_routes,
    attention_routes,
    indexing_routes,
    needle_routes,
    openai_routes,
    page_files,
    page_routes,
    repository_routes,
    run_routes,
)
from awareness.serve.attention_routes import RecentAttention
from awareness.serve.error_json import CODES, Json, error_response, internal_fields
from awareness.serve.services import Services
from awareness.types import printable

MOST_PROBLEMS = 5


def create_app(shared: Services) -> FastAPI:
    app = FastAPI(
        title="awareness",
        version=__version__,
        description="Questions about git repositories, answered on this machine with checked citations.",
        docs_url=None,  # they load scripts from a CDN; api_page.py has its own
        redoc_url=None,
    )
    app.state.services = shared
    app.state.attention = RecentAttention()
    app.include_router(repository_routes.router)
    app.include_router(ask_routes.router)
    app.include_router(openai_routes.router)
    app.include_router(api_page.router)
    app.include_router(page_files.router)
    app.include_router(page_routes.router)
    app.include_router(indexing_routes.router)
    app.include_router(attention_routes.router)
    app.include_router(needle_routes.router)
    app.include_router(run_routes.router)
    app.add_exception_handler(AwarenessError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _ours)  # Starlette passes it on after that, and uvicorn logs it
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AwarenessError)
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = []
    for problem in error.errors()[:MOST_PROBLEMS]:
        place = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query"))
        problems.append(printable(f"{place[:100] or 'the body'}: {problem['msg'][:200]}"))
    return error_response(UsageError("; ".join(problems), hint="see /docs"))


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fields = {"hint": "see /docs", "type": "usage_error", "param": None, "code": CODES.get(error.status_code)}
    return Json({"error": {"message": str(error.detail), **fields}}, error.status_code, dict(error.headers or {}))


async def _ours(request: Request, error: Exception) -> Response:
    return Json({"error": internal_fields(error)}, 500)
