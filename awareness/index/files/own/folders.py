"""Find the folders of a tree that hold other people's code or what a tool made, as foreign.py judges them.

The tree is known from its paths, as git lists them, and below untracked folders, which git names without looking into
them, from the disk. The walk stops at the first such folder, so what lies in it is never listed, however much it is.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from awareness.index.files.git.git_dirs import find_git_dir
from awareness.index.files.own.foreign import MADE, OWN, PLACEHOLDERS, is_own, judge
from awareness.index.files.safe_read import MAX_PATH_CHARS, Skip, is_safe

MAX_ENTRIES = 1 << 21  # names that are read from the disk by one tree
MANY_FOLDERS = 64  # unlisted ones in one level of the walk: then it is worth the time to ask what git ignores
_Names = tuple[set[str], set[str]]


class Tree:
    """The folders of a work tree or a commit.

    tracked: paths. others: untracked ones, with a `/` at the end of folders that have to be read from the disk. load:
    path -> bytes, raises Skip and FileNotFoundError. root: of the work tree; None for a commit. listed: the folders
    that hold a tracked file. unread: the folders among `others`.
    """

    def __init__(
        self, tracked: Iterable[str], others: Iterable[str], load: Callable[[str], bytes], root: str | None
    ) -> None:
        self.load, self._root, self._tracked = load, root, tracked
        self.listed: dict[str, _Names] = {"": (set(), set())}
        self.unread: set[str] = set()
        self._on_disk: dict[str, _Names] = {}
        self._entries = 0
        for path in tracked:
            folder, _, name = path.rpartition("/")
            (self.listed.get(folder) or self._add(folder))[0].add(name)
        for path in others:
            folder, _, name = path.rstrip("/").rpartition("/")
            names, folders = self.listed.get(folder) or self._add(folder)
            names.add(name)
            if path.endswith("/"):
                folders.add(name)
                self.unread.add(path.rstrip("/"))

    def _add(self, folder: str) -> _Names:
        added = self.listed[folder] = (set(), set())
        while folder:
            outer, _, name = folder.rpartition("/")
            is_known = outer in self.listed
            names, folders = self.listed.setdefault(outer, (set(), set()))
            names.add(name)
            folders.add(name)
            if is_known:
                break
            folder = outer
        return added

    def names_in(self, path: str) -> _Names:
        """The names of all that lies in a folder, and of the folders among them."""
        known = self.listed.get(path) or self._on_disk.get(path)
        if known is None:
            known = self._on_disk[path] = self._scan(path)
        return known

    def _scan(self, path: str) -> _Names:
        names: set[str] = set()
        folders: set[str] = set()
        if self._root is None or not is_safe(path) or self._entries > MAX_ENTRIES:
            return names, folders
        try:
            with os.scandir(f"{self._root}/{path}") as entries:
                for entry in entries:
                    names.add(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        folders.add(entry.name)
        except OSError:
            return names, folders
        self._entries += len(names)
        return names, folders

    def is_kept(self, path: str) -> bool:
        """Do people keep files in this folder: is one tracked that is not just there to keep it?"""
        paths = self._sorted
        at = bisect.bisect_left(paths, f"{path}/")
        for tracked in itertools.islice(paths, at, None):
            if not tracked.startswith(f"{path}/"):
                break
            if tracked.rpartition("/")[2] not in PLACEHOLDERS:
                return True
        return False

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._tracked)

    def is_repository(self, path: str) -> bool:
        """Is an unlisted folder the work tree of another repository, into which git does not look?"""
        return (
            self._root is not None and ".git" in self.names_in(path)[0] and bool(find_git_dir(Path(self._root, path)))
        )


class TreeFolder:
    """A folder of a tree, as foreign.py sees it."""

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree, self.path = tree, path
        self.name = path.rpartition("/")[2]

    @cached_property
    def names(self) -> set[str]:
        return self._tree.names_in(self.path)[0]

    @cached_property
    def folders(self) -> set[str]:
        return self._tree.names_in(self.path)[1]

    def inner(self, name: str) -> TreeFolder:
        return TreeFolder(self._tree, f"{self.path}/{name}" if self.path else name)

    def read(self, name: str) -> bytes:
        try:
            return self._tree.load(f"{self.path}/{name}" if self.path else name)
        except (Skip, FileNotFoundError):
            return b""


def find_foreign(tree: Tree, ignored: Callable[[list[str]], set[str]] = lambda paths: set()) -> dict[str, str]:
    """path -> DEPENDENCIES, MADE or OWN, for the outermost such folders. A MADE folder that people keep files in is
    none. ignored: those of these unlisted folders that git ignores."""
    found: dict[str, str] = {}
    level = [TreeFolder(tree, "")]
    while level:
        following: list[TreeFolder] = []
        for outer in level:
            for name in outer.folders:
                if name in ("", ".", "..") or name.lower() == ".git":
                    continue
                folder = outer.inner(name)
                if len(folder.path) > MAX_PATH_CHARS:
                    continue
                kind = judge(folder, outer)
                is_listed = folder.path in tree.listed
                if kind is not None and not (kind == MADE and is_listed and tree.is_kept(folder.path)):
                    found[folder.path] = kind
                elif is_listed or not tree.is_repository(folder.path):
                    following.append(folder)
        unlisted = [folder.path for folder in following if folder.path not in tree.listed]
        if len(unlisted) > MANY_FOLDERS:
            gone = ignored(unlisted)
            following = [folder for folder in following if folder.path not in gone]
        level = following
    unlisted = [path for path in found if path not in tree.listed and path not in tree.unread]
    gone = ignored(unlisted) if unlisted else set()
    return {path: kind for path, kind in found.items() if path not in gone}


def find_own(tree: Tree, paths: Iterable[str]) -> dict[str, str]:
    """path -> OWN, for the folders around these paths that this program made."""
    own: dict[str, str] = {}
    seen: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in seen:
            seen.add(folder)
            if is_own(TreeFolder(tree, folder)):
                own[folder] = OWN
            folder = folder.rpartition("/")[0]
    return own


def innermost(path: str, found: Mapping[str, str], memory: dict[str, str | None]) -> str | None:
    """The innermost folder of `found` that the folder `path` lies in, or is. memory: of earlier calls."""
    steps: list[str] = []
    while path and path not in memory:
        if path in found:
            memory[path] = path
            break
        steps.append(path)
        path = path.rpartition("/")[0]
    result = memory.get(path)
    for step in steps:
        memory[step] = result
    return result
