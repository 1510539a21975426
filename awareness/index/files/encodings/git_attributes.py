"""`working-tree-encoding` of `.gitattributes`: the encoding that git writes a file of the work tree in."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from awareness.index.files.safe_read import Skip

ATTRIBUTES_FILE = ".gitattributes"
_ATTRIBUTE = b"working-tree-encoding"
_LINE = re.compile(r'[ \t]*("(?:[^"\\]|\\.)*"|[^ \t]+)(.*)')
_SETTING = re.compile(r"(?<![^ \t])(?:working-tree-encoding=([\w.-]{1,40})|([!-])working-tree-encoding)(?![^ \t])")
_MOST_LINES = 1000  # that name an encoding, of one file


class DeclaredEncodings:
    """Path -> the encoding that the `.gitattributes` of its folder, or of a folder above it, declare.

    load: the bytes of a file of the work tree; raises Skip or FileNotFoundError. The file of the deepest folder
    decides, and its last line that fits, as for git. Each file is read once.
    """

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self._load = load
        self._rules_of = functools.cache(self._read)

    def __call__(self, path: str) -> str | None:
        """The name of the encoding as written, None without one."""
        folder, _, name = path.rpartition("/")
        while True:
            for pattern, encoding in self._rules_of(folder):
                if pattern.match_file(name) is not None:
                    return encoding
            if not folder:
                return None
            folder, _, last = folder.rpartition("/")
            name = f"{last}/{name}"

    def _read(self, folder: str) -> list[tuple[Any, str | None]]:
        """(pattern, encoding or None for unset) of the lines of a folder's file that set one, the last line first."""
        try:
            data = self._load(f"{folder}/{ATTRIBUTES_FILE}" if folder else ATTRIBUTES_FILE)
        except (Skip, FileNotFoundError):
            return []
        if _ATTRIBUTE not in data:
            return []
        lines = data.decode("utf-8", "replace").removeprefix("\ufeff").splitlines()
        rules = [rule for line in lines if _ATTRIBUTE.decode() in line and (rule := _rule(line))]
        return rules[-_MOST_LINES:][::-1]


def _rule(line: str) -> tuple[Any, str | None] | None:
    match = _LINE.match(line)
    if not match or match[1].startswith(("#", "!", "[attr]")):
        return None
    settings = list(_SETTING.finditer(match[2]))
    if not settings:
        return None
    from pathspec import GitIgnoreSpec

    pattern = match[1][1:-1].replace('\\"', '"') if match[1].startswith('"') else match[1]
    try:
        compiled = list(GitIgnoreSpec.from_lines([pattern]).patterns)
    except (ValueError, re.error):
        return None
    return (compiled[0], settings[-1][1]) if compiled and compiled[0].include else None
