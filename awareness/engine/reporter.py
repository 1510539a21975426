"""How the library tells a front end what it is doing, without knowing how that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from awareness.types import Progress, silent


class Reporter:
    """Reports nothing. A front end overrides what it wants to show."""

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yields the callback that long operations call while they run."""
        yield silent

    def note(self, message: str) -> None:
        """One line about what happens now."""

    def detail(self, message: str) -> None:
        """One line that only a user who asked for details wants to read."""


SILENT = Reporter()
