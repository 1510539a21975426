"""How long encoding takes: estimated beforehand, limited, and measured for the next run."""

from __future__ import annotations

import time

from awareness.engine.reporter import Reporter
from awareness.engine.units import counted, duration
from awareness.index.build import Missing
from awareness.types import Progress

SETTLED_S = 2.0
"""Seconds of encoding after which the first batches have shown the speed."""
SETTLED_TOKENS = 1_000
"""Tokens of a run whose speed is worth remembering."""


class Pace:
    """One run of encoding that may take `seconds`.

    speed: tokens/s of an earlier run, or None; then the first batches are measured, and the estimate is reported after
    them. reporter: gets the estimate, None for no estimate. `begin`, `follow` and `is_over` are what `encode_pending`
    takes as `announce`, `progress` and `is_interrupted`.
    """

    def __init__(self, seconds: float, speed: float | None, reporter: Reporter | None) -> None:
        self.seconds, self.speed = seconds, speed
        self._reporter = reporter
        self._began, self._missing, self._done = 0.0, Missing([], 0), 0

    def begin(self, missing: Missing) -> None:
        """Starts the clock."""
        self._began, self._missing = time.monotonic(), missing
        if self.speed is not None:
            self._report(self.speed)

    def follow(self, progress: Progress) -> Progress:
        """`progress`, which now also measures the speed."""

        def moved(what: str, done: int, total: int | None) -> None:
            progress(what, done, total)
            self._done = done
            if done != total and self._elapsed >= SETTLED_S:
                self._report(done / self._elapsed)

        return moved

    def is_over(self) -> bool:
        """True once the time is used up."""
        return self._elapsed >= self.seconds

    def measured(self) -> float | None:
        """Tokens/s of this run so far, or None if it encoded too little to tell."""
        return self._done / self._elapsed if self._done >= SETTLED_TOKENS else None

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _report(self, speed: float) -> None:
        if self._reporter is not None and speed > 0:
            self._reporter.note(estimate(len(self._missing.wanted), self._missing.tokens, speed, self.seconds))
            self._reporter = None


def estimate(chunks: int, tokens: int, speed: float, seconds: float) -> str:
    """The line that is reported beforehand. speed: tokens/s; seconds: how long encoding may take."""
    needed = tokens / speed
    line = f"{counted(chunks, 'chunk')}, {tokens:,} tokens to encode: about {duration(needed)} at {speed:,.0f} tokens/s"
    if needed <= seconds:
        return line
    limit = f"encoding for {duration(seconds)}, the rest when a question needs it or next time (all of it now: --all)"
    return f"{line}; {limit}"
