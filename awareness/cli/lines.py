"""Progress as lines, where no bar can be drawn: the activity, how far it is, and the time left, every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from awareness.cli.streams import ReaderGone
from awareness.engine.units import duration, quantity
from awareness.types import Progress

_RARER = 12
"""The lines of an activity that takes long come up to this many times more rarely."""


@contextmanager
def lines(say: Callable[[str], None], every: Callable[[], float]) -> Iterator[Progress]:
    """Yields the callback that updates the progress. say: prints a line. every: seconds between two lines, at least; of
    an activity that takes long they get rarer. A line also comes when nothing has moved for so long.
    Raises ReaderGone if nobody reads the lines any more."""
    shown = _Lines(say, every)
    try:
        yield shown.move
    finally:
        shown.ended.set()
    shown.check()


class _Lines:
    """Written by `move`, and by a thread while `move` is not called."""

    def __init__(self, say: Callable[[str], None], every: Callable[[], float]) -> None:
        self.ended = threading.Event()
        self._say, self._every = say, every
        self._lock = threading.Lock()
        self._what, self._done, self._total = "", 0, None  # type: str, int, int | None
        self._first, self._began, self._printed = 0, 0.0, time.monotonic()
        self._watcher: threading.Thread | None = None
        self._gone: ReaderGone | None = None

    def move(self, what: str, done: int, total: int | None) -> None:
        self.check()
        with self._lock:
            if what.partition(" · ")[0] != self._what.partition(" · ")[0]:
                self._first, self._began = done, time.monotonic()
            self._what = what
            self._done, self._total = done, total
            if done != total:
                self._print_if_due()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="awareness-progress")
            self._watcher.start()

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._gone is not None:
            raise self._gone

    def _watch(self) -> None:
        while not self.ended.wait(max(0.05, self._printed + self._pause() - time.monotonic())):
            with self._lock:
                if self.ended.is_set():
                    return
                try:
                    self._print_if_due()
                except ReaderGone as error:
                    self._gone = error
                    return

    def _print_if_due(self) -> None:
        now = time.monotonic()
        if now - self._printed >= self._pause():
            self._printed = now
            self._say(f"{self._what}: {self._state(now - self._began)}")

    def _pause(self) -> float:
        """Seconds from one line to the next: a twentieth of the time that the activity has taken, within limits."""
        least = self._every()
        return max(least, min(_RARER * least, (time.monotonic() - self._began) / 20))

    def _state(self, elapsed: float) -> str:
        done, total = quantity(self._done, self._what), self._total
        if total is None:
            return f"{done} so far, {duration(elapsed)}" if self._done else f"{duration(elapsed)} so far"
        if not self._first < self._done < total:
            return f"{done} of {quantity(total, self._what)}, {duration(elapsed)} so far"
        left = elapsed * (total - self._done) / (self._done - self._first)
        return f"{done} of {quantity(total, self._what)}, about {duration(left)} for the rest"
