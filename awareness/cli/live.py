"""An answer that grows in a terminal, as Markdown. Imported when there is a terminal to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown


@dataclass
class _Growing:
    """What is complete, and behind it what is being said: taken back where it does not become a sentence."""

    live: Live
    safe: Callable[[str], str]
    complete: str = ""

    def begun(self, text: str) -> None:
        self._draw(self.complete + text)

    def sentence(self, marked: str) -> None:
        self.complete += marked
        self._draw(self.complete)

    def _draw(self, text: str) -> None:
        self.live.update(Markdown(self.safe(text), hyperlinks=False))


@contextmanager
def growing(console: Console, safe: Callable[[str], str]) -> Iterator[_Growing]:
    """Inside the block the answer is drawn again and again in its place; at the end only whole sentences stay.

    safe: leaves no control character and no secret in a text.
    """
    with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        shown = _Growing(live, safe)
        yield shown
        shown._draw(shown.complete)
