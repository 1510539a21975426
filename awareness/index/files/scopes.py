"""Scopes as people type them -> patterns of gitignore from the top folder of a repository.

A shell completes `./src` and absolute paths, Windows has backslashes, and a command may run in a subfolder: what a path
means depends on the repository and on the working folder. `repository.build_scope` compiles the result.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from awareness.errors import UsageError
from awareness.types import printable

EVERYTHING = "/**"
_GLOB = re.compile(r"[*?\[]")
_WINDOWS = re.compile(r"(?:[^\\/]|(?<!^)\\(?=[\w.*?-]|\Z))+")


def rooted(patterns: Sequence[str], root: Path | None) -> tuple[str, ...]:
    """The patterns, relative to `root` (a real path; None for a pack, which has no folder).

    `./src`, `../src`, `.` and absolute paths name one place. `./src` and `.` count from the working folder if it is
    inside the repository, else from `root`; so does a path that exists there and not below `root`. An existing path is
    meant literally, even with brackets. Any other pattern stays as it is: `src` matches at every depth. Raises
    UsageError for a path that leads out of the repository.
    """
    here = None if root is None else _working_folder(root)
    return tuple(_rooted(pattern, root, here or "") for pattern in patterns)


def _working_folder(root: Path) -> str | None:
    """The working folder relative to `root`, with `/` and empty for `root` itself; None if it is elsewhere."""
    with contextlib.suppress(OSError):
        return _below(root, os.path.realpath(os.getcwd()))
    return None


def _rooted(pattern: str, root: Path | None, here: str) -> str:
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if not body.strip():
        return pattern
    if "\\" in body and _WINDOWS.fullmatch(body):
        body = body.replace("\\", "/")
    body = re.sub(r"/{2,}", "/", body)
    end = "/" if body.endswith("/") and body != "/" else ""
    inside = None if root is None or not os.path.isabs(body) else _inside(root, body)
    if inside is None:
        if body in (".", "..") or body.startswith(("./", "../")):
            inside = _joined(pattern, here, body)
        elif not os.path.isabs(body) and here and root is not None:
            named = _named(body)
            if named and not os.path.lexists(root / named) and os.path.lexists(root / here / named):
                inside = _joined(pattern, here, body)
    if inside is not None:
        if inside == "":
            return sign + EVERYTHING
        return f"{sign}/{_literal(inside, root)}{end}"
    if re.search(r"/\.{1,2}(/|$)", body):
        body = ("/" if body.startswith("/") else "") + _joined(pattern, "", body.lstrip("/"))
        return sign + (body + end if body.strip("/") else EVERYTHING)
    return sign + (_literal(body.rstrip("/"), root) + end if end else _literal(body, root))


def _joined(pattern: str, folder: str, path: str) -> str:
    """`path` seen from `folder`, without `.` and `..`; empty for the top folder. Raises UsageError above it."""
    joined = os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/")
    if joined == ".." or joined.startswith("../"):
        raise UsageError(f"the scope {printable(pattern)} is outside of the repository", hint="--scope 'src/**'")
    return "" if joined == "." else joined


def _inside(root: Path, path: str) -> str | None:
    """An absolute path or pattern relative to `root`; None if it is elsewhere."""
    if (inside := _below(root, os.path.normpath(path))) is not None:
        return inside
    named = _named(path)
    above = _below(root, os.path.realpath(named)) if named else None
    if above is None:
        return None
    return f"{above}/{path[len(named) :].strip('/')}".strip("/")


def _below(root: Path, path: str) -> str | None:
    if path == str(root):
        return ""
    return path[len(str(root)) :].lstrip("/") if path.startswith(str(root).rstrip("/") + "/") else None


def _named(pattern: str) -> str:
    """The folders and the file that a pattern names before its first wildcard."""
    wild = _GLOB.search(pattern)
    return pattern.rstrip("/") if wild is None else pattern[: wild.start()].rpartition("/")[0]


def _literal(path: str, root: Path | None) -> str:
    """The path with its wildcards escaped, if it exists as it is written."""
    if root is not None and _is_special(path) and os.path.lexists(root / path.lstrip("/")):
        return re.sub(r"([*?\[\]\\]|^[#!])", r"\\\1", path)
    return path


def _is_special(path: str) -> bool:
    return bool(_GLOB.search(path)) or path.startswith(("#", "!"))


def no_match(patterns: Sequence[str], paths: Iterable[str], what: str) -> str:
    """The message for a scope that none of the `paths` is in. what: the paths' name, like `indexed files`."""
    known = list(paths)
    scope = " ".join(f"'{printable(pattern)}'" for pattern in patterns)
    message = f"--scope {scope} matches none of the {len(known):,} {what}"
    near = [found for pattern in patterns if (found := _nearest(pattern, known))]
    return f"{message}; the nearest: {', '.join(map(printable, dict.fromkeys(near)))}" if near else message


def _nearest(pattern: str, paths: Sequence[str]) -> str | None:
    """The file or folder whose path or name is most like the pattern without its wildcards."""
    wanted = _GLOB.sub("", pattern.lstrip("!./")).strip("/").lower()
    if not wanted:
        return None
    names: dict[str, str] = {}
    for path in paths:
        names.setdefault(path.lower(), path)
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            names.setdefault(folder.lower(), f"{folder}/")
    for place in [*names.values()]:
        names.setdefault(place.rstrip("/").rpartition("/")[2].lower(), place)
    import difflib  # only for the message of an error

    close = difflib.get_close_matches(wanted, names, n=1)
    return names[close[0]] if close else None
