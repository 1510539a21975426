"""What the library reports, passed on to whoever asked: each thread tells its own listener."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from awareness.engine.reporter import SILENT, Reporter
from awareness.serve.question_queue import Ended, Job
from awareness.types import Progress


class ForwardingReporter(Reporter):
    """Sends `note {message}` and `progress {what, done, total}` to the job of the thread, else to `fallback`."""

    def __init__(self, fallback: Reporter = SILENT) -> None:
        self._fallback = fallback
        self._of_thread = threading.local()

    @contextlib.contextmanager
    def telling(self, job: Job) -> Iterator[None]:
        """Inside the block, this thread reports to the job; if it is cancelled, the next progress raises Ended."""
        self._of_thread.job = job
        try:
            yield
        finally:
            del self._of_thread.job

    @contextlib.contextmanager
    def ending_with(self, job: Job) -> Iterator[None]:
        """Inside the block, this thread reports to `fallback`, and ends with the job."""
        self._of_thread.ends = job
        try:
            yield
        finally:
            del self._of_thread.ends

    @property
    def _job(self) -> Job | None:
        return getattr(self._of_thread, "job", None)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        job = self._job
        if job is None:
            ends: Job | None = getattr(self._of_thread, "ends", None)
            with self._fallback.progress() as move:
                yield move if ends is None else _ending(move, ends)
            return

        def move_on(what: str, done: int, total: int | None) -> None:
            if job.is_cancelled():
                raise Ended
            job.send("progress", {"what": what, "done": done, "total": total})

        yield move_on

    def note(self, message: str) -> None:
        if self._job is None:
            self._fallback.note(message)
        else:
            self._job.send("note", {"message": message})

    def detail(self, message: str) -> None:
        self._fallback.detail(message)


def _ending(move: Progress, job: Job) -> Progress:
    def move_on(what: str, done: int, total: int | None) -> None:
        if job.is_cancelled():
            raise Ended
        move(what, done, total)

    return move_on
