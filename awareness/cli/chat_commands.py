"""What can be typed in a chat besides questions: the commands that begin with a slash."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from awareness.cli.typed_lines import matches
from awareness.engine.indexed_names import IndexedNames
from awareness.errors import UsageError

COMMANDS = {
    "open": ("N", "open source or hit N in $VISUAL or $EDITOR at its line"),
    "sources": ("", "list the sources of the last answer"),
    "search": ("WORDS", "find code without the model"),
    "scope": ("GLOB…", "ask only about these paths; `/scope all` for everything"),
    "model": ("NAME", "show or change the model"),
    "long": ("QUESTION", "explain at length; alone: all answers from now on"),
    "save": ("FILE", "write the talk as Markdown"),
    "clear": ("", "forget what was said"),
    "help": ("", "show this list"),
    "quit": ("", "leave, as Ctrl-D does"),
}
"""name -> its argument, and what it does."""
_COMMAND = re.compile(r"/([a-z]+|\?)(?:\s+(.*))?", re.DOTALL)
_WORD = re.compile(r"[\w./$:@+-]*\Z")
_OTHER_NAMES = {"exit": "quit", "q": "quit", "?": "help", "h": "help"}


def parsed(line: str) -> tuple[str, str] | None:
    """The name and the argument of a command; None for a question. A question may begin with a path (`/api/users`), or
    with a space before a slash. Raises UsageError for a command that does not exist."""
    match = _COMMAND.fullmatch(line.rstrip())
    if match is None:
        return None
    name = _OTHER_NAMES.get(match[1], match[1])
    if name not in COMMANDS:
        raise UsageError(f"there is no command /{name}", hint="/help, or a space before the slash if it is a question")
    return name, (match[2] or "").strip()


def words(argument: str) -> list[str]:
    """The words of an argument, of which quotes keep one together. Raises UsageError."""
    try:
        return shlex.split(argument)
    except ValueError as error:
        raise UsageError(f"{argument[:80]!r} cannot be read: {error}", hint="a second quotation mark") from error


def completions(line: str, names: IndexedNames, models: Sequence[str]) -> tuple[str, list[str]]:
    """The word at the end of a line, and what it may become: a command, a path or a symbol."""
    if line.startswith("/") and " " not in line:
        return line, [name for name in (f"/{command}" for command in COMMANDS) if name.startswith(line)]
    found = _WORD.search(line)
    word = "" if found is None else found[0]
    if line.startswith("/model "):
        return word, matches(word, models)
    if not word:
        return word, []
    if line.startswith("/scope "):
        return word, matches(word, [*_folders(names.paths), *names.paths])
    if line.startswith("/save "):
        return word, []
    return word, matches(word, [*names.symbols, *names.paths])


def _folders(paths: Sequence[str]) -> list[str]:
    return sorted({f"{parent.as_posix()}/" for path in paths for parent in Path(path).parents if parent.name})
