"""Opens a file at a line in the user's editor, each of which is told the line in its own way."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from awareness.errors import UsageError

_COLON = ("subl", "sublime_text", "hx", "helix", "zed", "zeditor", "micro", "atom")
_GO_TO = ("code", "code-insiders", "codium", "vscodium", "cursor", "windsurf", "positron")
_LINE_OPTION = {
    "kate": "-l",
    "mate": "-l",
    "idea": "--line",
    "pycharm": "--line",
    "goland": "--line",
    "clion": "--line",
}
_HINT = "export EDITOR=vim, or the name of yours, then awareness chat"


def editor_of(variables: Mapping[str, str]) -> list[str]:
    """The editor and its own arguments, from VISUAL or EDITOR. Raises UsageError."""
    for name in ("VISUAL", "EDITOR"):
        value = variables.get(name, "").strip()
        if not value:
            continue
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise UsageError(f"{name} '{value}' cannot be read: {error}", hint=_HINT) from error
        if words:
            return words
    raise UsageError("neither VISUAL nor EDITOR says which editor opens a file", hint=_HINT)


def command(editor: list[str], file: Path, line: int) -> list[str]:
    """The arguments that open a file at a line. An unknown editor gets `+LINE FILE`, as vi, nano and emacs do."""
    program = Path(editor[0]).stem if os.name == "nt" else Path(editor[0]).name
    path = os.path.abspath(file)  # which no editor takes for an option
    if program in _GO_TO:
        return [*editor, "-g", f"{path}:{line}"]
    if program in _COLON:
        return [*editor, f"{path}:{line}"]
    if program in _LINE_OPTION:
        return [*editor, _LINE_OPTION[program], str(line), path]
    return [*editor, f"+{line}", path]


def open_file(file: Path, line: int) -> None:
    """Opens a file, and waits as long as the editor keeps the terminal; never through a shell. Raises UsageError."""
    editor = editor_of(os.environ)
    try:
        code = subprocess.run(command(editor, file, line), check=False).returncode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"the editor '{editor[0]}' cannot be started: {reason}", hint=_HINT) from error
    if code:
        raise UsageError(f"the editor '{editor[0]}' ended with exit code {code}", hint=_HINT)
