"""Output: the only module that prints, and with bar.py and live.py the only one that uses Rich.

Data goes to stdout, everything else to stderr. Text from a repository or a model passes through `safe`, which removes
control characters (no escape sequence reaches the terminal) and masks known keys and tokens.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from awareness.cli.lines import lines
from awareness.cli.streams import writing_data, writing_notes
from awareness.config.secrets import Secrets
from awareness.engine.reporter import Reporter
from awareness.types import Progress as ProgressCallback
from awareness.types import printable, silent


@dataclass
class _Volume:
    quiet: bool = False
    verbose: bool = False


LINE_S = 5.0
"""Seconds between two progress lines where no bar can be drawn."""
UNFOLDED = 240
"""Width of a table outside a terminal, so that names are not folded."""

_volume = _Volume()
_hidden = Secrets()


class _Console(Console):
    """Leaves a closed pipe to streams.py; Rich would end the program with exit code 1."""

    def on_broken_pipe(self) -> None:
        del self._buffer[:]
        raise  # the error that is being handled


_out = _Console(highlight=False, soft_wrap=True)
_err = _Console(stderr=True, highlight=False)


def set_volume(*, quiet: bool | None = None, verbose: bool | None = None) -> None:
    """Changes what is not None."""
    _volume.quiet = _volume.quiet if quiet is None else quiet
    _volume.verbose = _volume.verbose if verbose is None else verbose


def hide(secrets: Secrets) -> None:
    """Also masks these from now on; secrets in environment variables are always masked."""
    global _hidden
    _hidden = _hidden | secrets


def _draws(console: Console) -> bool:
    """True for a terminal that can redraw lines. Rich also calls a pipe a terminal where FORCE_COLOR is set."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


def _secrets() -> Secrets:
    return _hidden | Secrets.of(os.environ)


def _masked(value: Any, secrets: Secrets) -> Any:
    """A JSON value with the secrets in its strings masked; before it is encoded, since JSON escapes characters."""
    if isinstance(value, str):
        return secrets.mask(value)
    if isinstance(value, dict):
        return {_masked(key, secrets): _masked(inner, secrets) for key, inner in value.items()}
    return [_masked(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value


def safe(text: str) -> str:
    """`text` with control, bidi and surrogate characters (but tabs and newlines) escaped, and secrets masked."""
    lines = _secrets().mask(text).split("\n")
    return "\n".join("\t".join(printable(cell) for cell in line.split("\t")) for line in lines)


def data(value: dict[str, Any]) -> None:
    """One JSON object on stdout, on one line."""
    with writing_data():
        sys.stdout.write(json.dumps(_masked(value, _secrets())) + "\n")
        sys.stdout.flush()


def text(line: str = "", style: str | None = None, columns: int | None = None) -> None:
    """A line of the answer on stdout, cut to this many columns."""
    shown = Text(safe(line), style=style or "")
    if columns is not None:
        shown.truncate(columns, overflow="ellipsis")
    with writing_data():
        _out.print(shown)


def prompt(mark: str) -> None:
    """What stands before the line that a user types, on stdout."""
    with writing_data():
        sys.stdout.write(mark)
        sys.stdout.flush()


class Shown(Protocol):
    """Shows an answer while it is generated: the unfinished sentence as it grows, and each complete one."""

    def begun(self, text: str) -> None: ...

    def sentence(self, marked: str) -> None: ...


class _Hidden:
    """Shows nothing: the answer is printed later, as JSON."""

    def begun(self, text: str) -> None: ...

    def sentence(self, marked: str) -> None: ...


class _Plain(_Hidden):
    """Writes complete sentences only: in a pipe nothing can be erased."""

    def sentence(self, marked: str) -> None:
        with writing_data():
            sys.stdout.write(safe(marked))
            sys.stdout.flush()


@contextmanager
def answering(*, is_shown: bool) -> Iterator[Shown]:
    """Inside the block an answer is shown on stdout while it is generated: as growing Markdown in a terminal (live.py),
    as sentences elsewhere."""
    if not is_shown:
        yield _Hidden()
    elif _draws(_out):
        from awareness.cli.live import growing

        with growing(_out, safe) as shown:
            yield shown
    else:
        yield _Plain()
        text()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows on stdout; columns of numbers are right-aligned."""
    drawn = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(safe(f"{cell:.2f}" if isinstance(cell, float) else str(cell))) for cell in row))
    console = _out if _out.is_terminal else _Console(width=UNFOLDED, highlight=False)
    with writing_data():
        console.print(drawn, soft_wrap=False)


def note(message: str) -> None:
    """One line on stderr about what the program is doing; nothing with --quiet."""
    if not _volume.quiet:
        with writing_notes():
            _err.print(Text(safe(message), style="dim"), soft_wrap=True)


def detail(message: str) -> None:
    """As `note`, with --verbose only."""
    if _volume.verbose:
        note(message)


def error(message: str, hint: str | None, details: Sequence[str] = ()) -> None:
    """One line on stderr that says what is wrong, one for each of several details, and the next command to try."""
    line = Text.assemble(("error: ", "bold red"), safe(message).replace("\n", " "))
    for detail in details:
        line.append("\n  " + safe(detail).replace("\n", " "))
    if hint:
        line.append(f"\n  try: {safe(hint)}", style="cyan")
    with writing_notes():
        _err.print(line, soft_wrap=True)
        if _volume.verbose:
            _err.print(safe(traceback.format_exc()), markup=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[ProgressCallback]:
    """A progress bar on stderr (bar.py), or a line every few seconds (lines.py) where stderr is not a terminal; yields
    the callback that updates it. Nothing with --quiet."""
    if _volume.quiet:
        yield silent
        return
    if not _draws(_err):
        with lines(note, lambda: LINE_S) as move:
            yield move
        return
    from awareness.cli.bar import shown

    with shown(_err) as move:
        yield move


class TerminalReporter(Reporter):
    """Shows on stderr what the library reports."""

    @contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        with progress() as move:
            yield move

    def note(self, message: str) -> None:
        note(message)

    def detail(self, message: str) -> None:
        detail(message)


REPORTER = TerminalReporter()
