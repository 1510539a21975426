"""One call of a tool: what it reports while it runs, and whether it was cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from awareness.engine.reporter import Reporter
from awareness.engine.units import quantity
from awareness.types import Progress


class Call:
    """Set in the thread that works, read by the front end. message: what is being done now, None before."""

    def __init__(self) -> None:
        self.message: str | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def tell(self, message: str) -> None:
        """message: on one line."""
        self.message = " ".join(message.split()) or self.message

    def progress(self, what: str, done: int, total: int | None) -> None:
        """A `Progress`."""
        activity = what.partition(" · ")[0]
        amount = quantity(done, activity) + (f" of {quantity(total, activity)}" if total else "")
        self.tell(f"{what}: {amount}")


_current: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def calling(call: Call) -> Iterator[None]:
    """In this block, and in the threads that copy its context, what the library reports is of this call."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


class CallReporter(Reporter):
    """Reports to the call that the library works for. Notes go on to the log."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        call = _current.get()
        with super().progress() as silent:
            yield silent if call is None else call.progress

    def note(self, message: str) -> None:
        if (call := _current.get()) is not None:
            call.tell(message)
        self._log(message)
