"""The lines that a user types: in a terminal with history and completion, else one by one as they come."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from awareness.cli import render
from awareness.errors import StorageFailed, storage_errors

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

MOST_SHOWN = 50
"""Completions of a word."""
LEAST_TYPED = 2
"""Characters before a word is completed by what it stands in."""


class Typed(Protocol):
    """read: the next line. Raises EOFError where there is none, and KeyboardInterrupt for Ctrl-C."""

    def read(self, prompt: str) -> str: ...


class PlainLines:
    """Lines of stdin: of a pipe, each of which is shown again, so that the output reads as a talk, or of a terminal
    that can only print. Bytes that are not UTF-8 become `�`."""

    def __init__(self) -> None:
        if reconfigure := getattr(sys.stdin, "reconfigure", None):
            reconfigure(encoding="utf-8", errors="replace")

    def read(self, prompt: str) -> str:
        if sys.stdin.isatty():
            render.prompt(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        if line.strip() and not sys.stdin.isatty():
            render.text(f"{prompt}{line}")
        return line


class TerminalLines:
    """Lines typed in a terminal. complete: (the line up to the cursor) -> the word that is typed, and what it may
    become."""

    def __init__(self, history: Path | None, complete: Callable[[str], tuple[str, Sequence[str]]]) -> None:
        self._session = _session(history, complete)

    def read(self, prompt: str) -> str:
        return str(self._session.prompt(prompt))


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def edits_lines() -> bool:
    """Whether there is a terminal that can move its cursor. That of `M-x shell` in Emacs cannot."""
    return is_terminal() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


@contextlib.contextmanager
def without_echo() -> Iterator[None]:
    """Inside the block a terminal shows nothing of what is typed, not even `^C`, which would move the answer that is
    drawn there. What was typed is read afterwards."""
    if not is_terminal():
        yield
        return
    import termios

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    try:
        termios.tcsetattr(number, termios.TCSADRAIN, silent)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def matches(word: str, names: Sequence[str]) -> list[str]:
    """The names that begin with a word, then those that have it inside, without regard to case."""
    low = word.lower()
    begin = [name for name in names if name.lower().startswith(low)]
    if len(word) < LEAST_TYPED:
        return begin[:MOST_SHOWN]
    known = set(begin)
    return [*begin, *(name for name in names if low in name.lower() and name not in known)][:MOST_SHOWN]


def private_file(path: Path) -> Path:
    """The file, made if it is missing, which only its owner may read. Raises StorageFailed."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            os.fchmod(number, 0o600)
        finally:
            os.close(number)
    return path


def _session(
    history: Path | None, complete: Callable[[str], tuple[str, Sequence[str]]]
) -> PromptSession[str]:  # imported only in a terminal: it takes time to load
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import InMemoryHistory

    class Names(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            word, names = complete(document.text_before_cursor)
            for name in names:
                yield Completion(name, start_position=-len(word))

    kept: History = InMemoryHistory()
    if history is not None:
        try:
            kept = _history(private_file(history))
        except StorageFailed as error:
            render.note(f"{error.message}; the history is not kept")
    return PromptSession(history=kept, completer=Names(), complete_while_typing=False, enable_history_search=True)


def _history(path: Path) -> History:
    from prompt_toolkit.history import FileHistory

    class Masked(FileHistory):
        """Without keys and tokens, which may be pasted into a question."""

        def store_string(self, string: str) -> None:
            super().store_string(render.safe(string))

    return Masked(str(path))
