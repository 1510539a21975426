"""How long encoding takes: said before it begins, kept to, and measured for the next time."""

from __future__ import annotations

import time

from awareness.cli import render
from awareness.index.build import Missing
from awareness.types import Progress

SURE_S = 2.0  # of encoding, after which the first batches have shown the speed
SURE_TOKENS = 1_000  # of a run whose speed is worth remembering


class Pace:
    """Of one run of encoding, which may take `seconds`.

    speed: tokens/s of an earlier run, or None; then it is measured on the first batches, and the estimate is printed
    after them. `begin`, `follow` and `is_over` are what `encode_pending` takes as `announce`, `progress` and
    `is_interrupted`.
    """

    def __init__(self, seconds: float, speed: float | None, *, silent: bool = False) -> None:
        self.seconds, self.speed = seconds, speed
        self._is_told = silent
        self._began, self._missing, self._done = 0.0, Missing([], 0), 0

    def begin(self, missing: Missing) -> None:
        """The time runs from now on."""
        self._began, self._missing = time.monotonic(), missing
        if self.speed is not None:
            self._tell(self.speed)

    def follow(self, progress: Progress) -> Progress:
        """`progress`, by which the speed is measured as well."""

        def moved(what: str, done: int, total: int | None) -> None:
            progress(what, done, total)
            self._done = done
            if done != total and self._elapsed >= SURE_S:
                self._tell(done / self._elapsed)

        return moved

    def is_over(self) -> bool:
        """True from the moment on when the time is used up."""
        return self._elapsed >= self.seconds

    def measured(self) -> float | None:
        """Tokens/s of this run up to now, or None if it encoded too little to tell."""
        return self._done / self._elapsed if self._done >= SURE_TOKENS else None

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, speed: float) -> None:
        if not self._is_told and speed > 0:
            self._is_told = True
            render.note(estimate(len(self._missing.wanted), self._missing.tokens, speed, self.seconds))


def estimate(chunks: int, tokens: int, speed: float, seconds: float) -> str:
    """What is said beforehand. speed: tokens/s; seconds: how long it may take."""
    needed = tokens / speed
    said = (
        f"{render.counted(chunks, 'chunk')}, {tokens:,} tokens to encode: about {render.duration(needed)}"
        f" at {speed:,.0f} tokens/s"
    )
    if needed <= seconds:
        return said
    return (
        f"{said}; encoding for {render.duration(seconds)}, the rest when a question needs it or next time"
        " (all of it now: --all)"
    )
