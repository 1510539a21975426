"""Divide the paths of a repository into its own code and what is left out with the folder that it lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from awareness.index.files.own.folders import Tree, find_foreign, innermost
from awareness.index.files.own.foreign import DEPENDENCIES, MADE, OWN


@dataclass(frozen=True)
class LeftOut:
    """A path that is left out for the folder it lies in. reason: DEPENDENCIES or MADE. files: in the folder, as far as
    git has listed them; None if nobody has counted them."""

    reason: str
    files: int | None = None


@dataclass(frozen=True)
class Listed:
    """paths: of the own code. left_out: of other people's code and of what a tool made; a folder ends with a `/`.
    inside: the tracked paths in these folders. own: folders that this program made."""

    paths: set[str]
    left_out: dict[str, LeftOut]
    inside: set[str]
    own: set[str]


def divide(tree: Tree, tracked: Iterable[str], others: Iterable[str], foreign: Mapping[str, str]) -> Listed:
    """tracked: paths. others: untracked ones; a folder that git did not look into has a `/` at its end. foreign: what
    `find_foreign` found in the tree."""
    if not foreign:
        return Listed({*tracked, *(path.rstrip("/") for path in others)}, {}, set(), set())
    memory: dict[str, str | None] = {}
    paths: set[str] = set()
    inside: dict[str, str] = {}
    made = {path for path, kind in foreign.items() if kind == MADE and path not in tree.listed}
    for path in tracked:
        folder = innermost(path.rpartition("/")[0], foreign, memory)
        if folder is None or foreign[folder] == MADE:
            paths.add(path)
        elif foreign[folder] == DEPENDENCIES:
            inside[path] = folder
    for path in others:
        folder = innermost(path.rstrip("/") if path.endswith("/") else path.rpartition("/")[0], foreign, memory)
        if folder is None:
            paths.add(path.rstrip("/"))
        elif foreign[folder] == MADE:
            made.add(folder)
    counts = Counter(inside.values())
    left_out = {
        f"{path}/": LeftOut(kind, counts.get(path))
        for path, kind in foreign.items()
        if kind == DEPENDENCIES or path in made
    }
    return Listed(paths, left_out, set(inside), {path for path, kind in foreign.items() if kind == OWN})


class Committed(Protocol):
    """The files of a commit: git_objects.py."""

    def paths(self) -> Iterator[str]: ...

    def load(self, path: str) -> bytes: ...


def listed_in(files: Committed) -> Listed:
    """The paths of a commit, all of which are tracked."""
    paths = list(files.paths())
    tree = Tree(paths, (), files.load, root=None)
    return divide(tree, paths, (), find_foreign(tree))
