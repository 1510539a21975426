"""The kinds of a repository's files, where that depends on what lies beside them: an old version beside a newer one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property

from awareness.index.files.file_kinds import FileKind, kind_of

_VERSION = re.compile(r"^(.*?)([._-]?)v(\d{1,3})$", re.IGNORECASE)


class HitKinds:
    """The kinds of the files of one snapshot. paths: returns those of all its files; called once, and only where a
    folder has the name of a version."""

    def __init__(self, paths: Callable[[], Iterable[str]]) -> None:
        self._paths = paths
        self._known: dict[str, FileKind] = {}

    def of(self, path: str) -> FileKind:
        """As `kind_of`, but code and documents in a folder for an old version are LEGACY: `v1/` beside `v2/`,
        `docs-v3/` beside `docs/`, or a `v1/` whose files stand without it too."""
        if (known := self._known.get(path)) is None:
            known = self._known[path] = self._kind(path)
        return known

    def _kind(self, path: str) -> FileKind:
        kind = kind_of(path)
        if kind in (FileKind.SOURCE, FileKind.DOCS) and "v" in path.lower() and self._is_of_old_version(path):
            return FileKind.LEGACY
        return kind

    def _is_of_old_version(self, path: str) -> bool:
        parts = path.split("/")
        for depth, part in enumerate(parts[:-1]):
            match = _VERSION.match(part)
            if match is None:
                continue
            parent, stem, version = "/".join(parts[:depth]), match[1].lower(), int(match[3])
            if any(other > version for other in self._versions.get((parent, stem), ())):
                return True
            if stem and (parent, stem) in self._plain:
                return True
            if (
                not stem
                and kind_of(path) is FileKind.SOURCE
                and "/".join([*parts[:depth], *parts[depth + 1 :]]) in self._files
            ):
                return True
        return False

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(self._paths())

    @cached_property
    def _folders(self) -> set[tuple[str, str]]:
        """(parent, name) of every folder."""
        folders: set[tuple[str, str]] = set()
        for folder in {path.rpartition("/")[0] for path in self._files}:
            while folder:
                parent, _, name = folder.rpartition("/")
                if (parent, name) in folders:
                    break
                folders.add((parent, name))
                folder = parent
        return folders

    @cached_property
    def _plain(self) -> set[tuple[str, str]]:
        return {(parent, name.lower()) for parent, name in self._folders}

    @cached_property
    def _versions(self) -> dict[tuple[str, str], set[int]]:
        """(parent, name without its version) -> the versions that have a folder."""
        found: dict[tuple[str, str], set[int]] = {}
        for parent, name in self._folders:
            if match := _VERSION.match(name):
                found.setdefault((parent, match[1].lower()), set()).add(int(match[3]))
        return found
