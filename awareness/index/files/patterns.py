"""Patterns of gitignore: a scope, the patterns of `--include`, and the files `.awarenessignore`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from awareness.errors import UsageError
from awareness.index.unicode_forms import plain
from awareness.types import printable

IGNORE_FILE = ".awarenessignore"
_MAGIC = re.compile(r"[*?\[\\]")


def build_scope(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function path -> is it in scope? patterns: of gitignore; the last match decides, `!` excludes.

    Without patterns, or with only `!` patterns, every other path is in scope. Raises UsageError.
    """
    compiled = _checked(patterns, "scope", "--scope 'src/**'")
    default = not any(pattern.include for pattern in compiled)
    return lambda path: default if (match := _last_match(compiled, path)) is None else match


class Choices:
    """What the user chooses beyond what git lists: the patterns of `--include` and the files `.awarenessignore`.

    ignore_files: folder (empty for the top) -> the lines of its file. The file of an inner folder is stronger. Raises
    UsageError.
    """

    def __init__(self, include: Sequence[str], ignore_files: Mapping[str, Sequence[str]]) -> None:
        self._include = _checked(include, "include", "--include 'vendor/**'")
        self._ignore = {
            folder: _spec(lines, IGNORE_FILE if not folder else f"{folder}/{IGNORE_FILE}")
            for folder, lines in ignore_files.items()
        }
        self._given = [pattern for pattern in include if not pattern.startswith("!")]
        for folder, lines in ignore_files.items():
            back = [line[1:] for line in lines if line.startswith("!")]
            if folder:
                back = [f"/{folder}/{line.lstrip('/') if _is_anchored(line) else '**/' + line}" for line in back]
            self._given += back

    @property
    def brings_back(self) -> bool:
        """True if a pattern may bring back what would be left out."""
        return bool(self._given)

    @property
    def places(self) -> list[str] | None:
        """Where the files are that a pattern brings back; None for anywhere."""
        places = [_place(pattern) for pattern in self._given]
        return [place for place in places if place] if all(places) else None

    def is_ignored(self, path: str) -> bool:
        """Does a file `.awarenessignore` leave it out?"""
        return self._of_files(path) is True

    def is_included(self, path: str) -> bool:
        """Is it brought back, by `--include` or by a line with `!`?"""
        verdict = self._of_files(path)
        return verdict is False or (verdict is None and _last_match(self._include, path) is True)

    def _of_files(self, path: str) -> bool | None:
        """True for ignored, False for brought back; None if no line matches."""
        if not self._ignore:
            return None
        folder = path.rstrip("/").rpartition("/")[0]
        while True:
            if folder in self._ignore:
                inner = path[len(folder) + 1 :] if folder else path
                verdict: bool | None = self._ignore[folder].check_file(plain(inner)).include
                if verdict is not None:
                    return verdict
            if not folder:
                return None
            folder = folder.rpartition("/")[0]


def _last_match(compiled: Sequence[Any], path: str) -> bool | None:
    """What the last pattern that matches says, as git decides; None if none does."""
    if not compiled:
        return None
    formed = plain(path)
    return next((p.include for p in reversed(compiled) if p.match_file(formed) is not None), None)


def _checked(patterns: Sequence[str], name: str, hint: str) -> list[Any]:
    compiled = list(_compile(patterns, name))
    if any(pattern.include is None for pattern in compiled) or len(compiled) < len(patterns):
        raise UsageError(f"a {name} is empty or a comment: {list(patterns)}", hint=hint)
    return compiled


def _compile(patterns: Iterable[str], where: str) -> Iterator[Any]:
    for pattern in patterns:
        from pathspec import GitIgnoreSpec

        try:
            yield from GitIgnoreSpec.from_lines([plain(pattern)]).patterns
        except (ValueError, re.error):
            raise UsageError(f"not a pattern in {where}: {printable(pattern)}", hint="git help gitignore") from None


def _spec(lines: Iterable[str], where: str) -> Any:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec(list(_compile(lines, where)))


def _is_anchored(pattern: str) -> bool:
    return "/" in pattern.rstrip().rstrip("/")


def _place(pattern: str) -> str | None:
    """The folder or file that an anchored pattern starts with; None for a pattern that matches anywhere."""
    if not _is_anchored(pattern):
        return None
    place: list[str] = []
    for part in pattern.rstrip().strip("/").split("/"):
        if _MAGIC.search(part):
            break
        place.append(part)
    return "/".join(place) or None
