"""A bounded queue of work for the model: one piece at a time, first come first served, cancelled when nobody listens.

A `Job` runs in the thread of the queue and sends events, which its listener reads in the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from awareness.serve.error_json import Refused

Event = tuple[str, dict[str, Any]]
"""The name of an event and its data, which is JSON."""
QUEUED = "queued"


class Ended(BaseException):
    """Ends work that nobody waits for any more, from inside of a progress callback; no error, so nothing handles it."""


class Job:
    """One piece of work. All methods but `events` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sent: asyncio.Queue[Event | None] = asyncio.Queue()
        self._cancelled = threading.Event()
        self.future: Future[Any] = Future()

    def send(self, event: str, data: dict[str, Any]) -> None:
        """Passes an event on to the listener; after the loop has ended, to nobody."""
        self._put((event, data))

    def tell_first(self, event: str, data: dict[str, Any]) -> None:
        """As `send`, in the event loop, before the work begins."""
        self._sent.put_nowait((event, data))

    def _put(self, event: Event | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._sent.put_nowait, event)

    def cancel(self) -> None:
        """The work ends after the next token; if it has not begun, it never does."""
        self._cancelled.set()
        self.future.cancel()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    async def events(self, alive_s: float) -> AsyncIterator[Event | None]:
        """The events as they are sent, and None after each `alive_s` seconds without one, until the work ends."""
        while True:
            try:
                event = await asyncio.wait_for(self._sent.get(), alive_s)
            except asyncio.TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event

    def error(self) -> BaseException | None:
        """What ended the work, once it has ended; None for success and if it was cancelled."""
        if self.future.cancelled():
            return None
        error = self.future.exception()
        return None if isinstance(error, Ended | CancelledError) else error


class QuestionQueue:
    """size: how many may wait while one is worked on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._executor = ThreadPoolExecutor(1, "awareness-model")
        self._jobs: deque[Job] = deque()  # the first is worked on
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        with self._lock:
            return max(0, len(self._jobs) - 1)

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Puts work at the end; call it in the event loop. `work` runs in a thread; what it returns or raises is the
        job's future. Raises Refused: 429 if too many wait, 503 if the server ends."""
        job = Job(asyncio.get_running_loop())
        with self._lock:
            if self._is_closed:
                raise Refused(503, "the server is ending", hint="start it again: awareness serve")
            if len(self._jobs) > self._size:
                raise Refused(
                    429,
                    f"{self._size} questions wait already",
                    hint="ask again in some seconds, or awareness serve --queue N",
                    headers={"Retry-After": "5"},
                )
            self._jobs.append(job)
            place = len(self._jobs) - 1
            job.tell_first(QUEUED, {"position": place})
            job.future = self._executor.submit(self._run, job, work)
        job.future.add_done_callback(lambda _: self._done(job))
        return job

    def _run(self, job: Job, work: Callable[[Job], Any]) -> Any:
        if job.is_cancelled():
            raise Ended
        return work(job)

    def _done(self, job: Job) -> None:
        with self._lock:
            place = self._jobs.index(job)
            self._jobs.remove(job)
            moved = list(enumerate(self._jobs))[place:]
        for position, other in moved:
            other.send(QUEUED, {"position": position})
        job._put(None)

    def close(self) -> None:
        """Takes no more work, and cancels all there is. Does not wait."""
        with self._lock:
            self._is_closed, jobs = True, list(self._jobs)
        for job in jobs:
            job.cancel()
        self._executor.shutdown(wait=False)

    def join(self) -> None:
        """Waits until the work has ended."""
        self._executor.shutdown(wait=True)
