"""An answer as Markdown that grows in a terminal. Imported only in a terminal, since Rich's parts take time to load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown


@dataclass
class _Growing:
    """The complete sentences, and after them the unfinished one, which may still be removed."""

    live: Live
    safe: Callable[[str], str]
    complete: str = ""
    is_drawn: bool = False

    def begun(self, text: str) -> None:
        self._draw(self.complete + text)

    def sentence(self, marked: str) -> None:
        self.complete += marked
        self._draw(self.complete)

    def _draw(self, text: str) -> None:
        is_first, self.is_drawn = bool(text) and not self.is_drawn, self.is_drawn or bool(text)
        self.live.update(
            Markdown(self.safe(text), hyperlinks=False), refresh=is_first
        )  # later ones wait for their turn


@contextmanager
def growing(console: Console, safe: Callable[[str], str]) -> Iterator[_Growing]:
    """Inside the block the answer is redrawn in place; at the end only complete sentences remain.

    safe: removes control characters and secrets from a text.
    """
    with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        shown = _Growing(live, safe)
        yield shown
        shown._draw(shown.complete)
