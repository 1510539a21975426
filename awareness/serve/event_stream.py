"""A job's events as a response that streams, and a job's result as one that does not; either way, a client that leaves
cancels its job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from awareness.errors import AwarenessError
from awareness.serve.error_json import Refused, error_fields, internal_fields, json_bytes
from awareness.serve.guards import Receive, Scope, Send
from awareness.serve.question_queue import Job

ALIVE_S = 5.0
"""Seconds of silence after which a comment is sent, so that neither side takes the other for dead."""
ALIVE = b": alive\n\n"
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
_log = logging.getLogger(__name__)


def server_sent_event(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode("ascii"), json_bytes(data))


async def events_of(job: Job) -> AsyncIterator[bytes]:
    """Each event by its name; an error of the work is the last one, `error {message, hint, type}`."""
    async for event in job.events(ALIVE_S):
        yield ALIVE if event is None else server_sent_event(*event)
    if fields := failure_of(job):
        yield server_sent_event("error", fields)


def failure_of(job: Job) -> dict[str, Any] | None:
    """The JSON of the error that ended the work, if one did; of a job that was cancelled, for a listener that is still
    there because the server ends."""
    error = job.error()
    if error is None:
        return error_fields(Refused(503, "the server ended before the answer")) if job.is_cancelled() else None
    if isinstance(error, AwarenessError):
        return error_fields(error)
    _log.error("an answer failed", exc_info=error)
    return internal_fields(error)


EVENTS: dict[str, Any] = {"response_model": None, "responses": {200: {"content": {"text/event-stream": {}}}}}
"""Of a route that returns an EventStream, for the description of the API."""


class EventStream(Response):
    """Server-Sent Events of a job, as `encode` writes them."""

    def __init__(self, job: Job, encode: Callable[[Job], AsyncIterator[bytes]] = events_of) -> None:
        super().__init__()
        self._job, self._encode = job, encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(_cancel_when_gone(self._job, receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            async for frame in self._encode(self._job):
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._job.cancel()
            watcher.cancel()


async def result_of(job: Job, request: Request) -> Any:
    """What the work returned, or raises what it raised; None if the client has left or the server ends."""
    watcher = asyncio.create_task(_cancel_when_gone(job, request.receive))
    try:
        async for _ in job.events(ALIVE_S):
            pass
        if error := job.error():
            raise error
        return None if job.is_cancelled() or job.future.cancelled() else job.future.result()
    finally:
        job.cancel()
        watcher.cancel()


async def _cancel_when_gone(job: Job, receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        job.cancel()
