"""The progress bar. Imported only when one is shown: loading Rich's bars takes longer than a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from awareness.engine.units import quantity
from awareness.types import Progress as ProgressCallback


@contextmanager
def shown(console: Console) -> Iterator[ProgressCallback]:
    """A bar with rate and time left; yields the callback that updates it."""
    columns = (
        SpinnerColumn("line" if console.options.ascii_only else "dots"),
        TextColumn("{task.description}"),
        BarColumn(24),
        _Count(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        current: dict[str, Any] = {"what": None, "task": None}

        def move(what: str, done: int, total: int | None) -> None:
            if (activity := what.partition(" · ")[0]) != current["what"]:
                if current["task"] is not None:
                    bar.remove_task(current["task"])
                current.update(what=activity, task=bar.add_task(what, total=total))
            bar.update(current["task"], completed=done, total=total, description=what)

        yield move


class _Rate(ProgressColumn):
    """Units per second, once known; nothing where one takes seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{quantity(speed, task.description)}/s" if speed and speed >= 0.5 else "", style="dim")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(quantity(task.completed, task.description) if task.completed else "")
        return Text(f"{quantity(task.completed, task.description)} of {quantity(task.total, task.description)}")
