"""Find the repositories in a folder: clones side by side, and those inside another repository.

The walk is bounded, follows no symlink, and does not look into repositories, environments, and folders of tools.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awareness.index.files.git.git_dirs import find_common_dir, find_git_dir
from awareness.index.files.repository import Repository
from awareness.index.files.safe_read import Skip, is_safe, read_beneath

TOOL_FOLDERS = (
    *(".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox", ".eggs", ".cache", ".gradle", ".terraform"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints", ".idea", ".hg", ".svn"),
)
"""Names of folders that are not looked into: the walk is a bounded look around, and tools keep many folders."""
MAX_FOLDERS = 5_000
MAX_DEPTH = 5  # as in src/github.com/owner/name of a Go workspace
_BARE = {"HEAD", "objects", "refs"}


@dataclass(frozen=True)
class Inside:
    """What a folder holds. repositories: their top folders, sorted. has_files: are there files in no repository?
    is_complete: False if the walk ended at its limit of folders."""

    repositories: list[Path]
    has_files: bool
    is_complete: bool


@dataclass(frozen=True)
class Nested:
    """A repository inside another one. path: relative, with `/`. is_there: False for the empty folder of a submodule
    that is not initialised."""

    path: str
    is_there: bool


def look_inside(top: Path) -> Inside:
    """The repositories below `top`, which itself may be one."""
    repositories: list[Path] = []
    has_files = False
    waiting, looked_at = deque([(top, 0)]), 0
    while waiting and looked_at < MAX_FOLDERS:
        folder, depth = waiting.popleft()
        looked_at += 1
        folders, files = _entries(folder)
        if folder != top and _is_repository(folder, folders | files):
            repositories.append(folder)
            continue
        if "pyvenv.cfg" in files:
            continue
        has_files = has_files or any(not name.startswith(".") for name in files)
        # A clone may have a hidden name, such as .github, but other hidden folders are not searched.
        if depth < MAX_DEPTH and not (folder != top and folder.name.startswith(".")):
            waiting.extend((folder / name, depth + 1) for name in sorted(folders.difference(TOOL_FOLDERS, {".git"})))
    return Inside(sorted(repositories), has_files, is_complete=not waiting)


def nested_repositories(repository: Repository) -> list[Nested]:
    """The repositories inside a work tree: submodules, initialised or not, and clones, ignored or not; by path.
    Other work trees of the same repository are none."""
    if repository.is_bare:
        return []
    root = repository.root
    known = submodules(root)
    there = {folder.relative_to(root).as_posix() for folder in look_inside(root).repositories}
    there |= {nested.path for nested in known if nested.is_there}
    there = {path for path in there if Repository.open(root / path).key != repository.key}
    empty = {nested.path for nested in known if not nested.is_there}
    return [Nested(path, path in there) for path in sorted(there | empty)]


def submodules(root: Path) -> list[Nested]:
    """Those in `.gitmodules` whose folder is a repository or empty."""
    found = []
    for path in filter(is_safe, _submodules(root)):
        folder = root / path
        if folder.is_dir() and os.path.realpath(folder) == str(folder):  # no symlink leads out
            is_there = find_git_dir(folder) is not None
            if is_there or not any(_entries(folder)):
                found.append(Nested(path, is_there))
    return found


def all_nested(repository: Repository) -> list[str]:
    """The paths of the repositories inside, and of those inside them, relative to the outermost; by path."""
    found: set[str] = set()
    waiting = [repository]
    while waiting:
        outer = waiting.pop()
        for nested in nested_repositories(outer):
            inner = outer.root / nested.path
            path = inner.relative_to(repository.root).as_posix()
            if nested.is_there and path not in found:
                found.add(path)
                waiting.append(Repository.open(inner))
    return sorted(found)


def _entries(folder: Path) -> tuple[set[str], set[str]]:
    """The names of the folders and of the other entries in a folder; none if it cannot be read."""
    folders: set[str] = set()
    files: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).add(entry.name)
    except OSError:
        return set(), set()
    return folders, files


def _is_repository(folder: Path, names: set[str]) -> bool:
    """names: of its entries. As `Repository.open` decides."""
    if ".git" in names:
        return find_git_dir(folder) is not None
    return names >= _BARE and find_common_dir(folder) == folder


def _submodules(root: Path) -> Iterator[str]:
    """The paths in `.gitmodules`. They are text of the repository: nothing is known about them yet."""
    try:
        lines = read_beneath(str(root), ".gitmodules").splitlines()
    except (Skip, FileNotFoundError):
        return
    for line in lines:
        key, _, value = line.partition(b"=")
        if key.strip() == b"path":
            yield os.fsdecode(value.strip().strip(b'"'))
