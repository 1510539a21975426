"""The commits that led to one, newest first, and the files that each of them changed.

Two trees are compared by the hashes of their entries: no file is read. A commit whose parent is missing (in a shallow
clone) or damaged ends its line of the walk. The time may run out anywhere: history is never worth waiting for.
"""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from awareness.errors import UsageError
from awareness.index.files.git.git_objects import Commit, GitObjects
from awareness.index.files.safe_read import is_safe

MAX_WAITING = 1 << 12  # commits that were found and not yet followed
MAX_TREES = 1024  # compared for one commit, whose trees may contain each other
MAX_CHANGED = 4096  # files of one commit
MAX_TREE_BYTES = 1 << 22  # of one folder, about 80,000 entries
CACHED_ENTRIES = 1 << 17  # a commit's trees are mostly those of the commit after it
Entries = frozenset[tuple[bytes, bytes, bytes]]  # (mode, name, hash)


@dataclass(frozen=True)
class Changed:
    """paths: added, changed or removed, sorted. renamed: old path -> new path, of files that only moved."""

    paths: tuple[str, ...]
    renamed: Mapping[str, str]


class PastCommits:
    """The history of one commit. seconds: after that much time `newest` ends and `changed` knows nothing."""

    def __init__(self, objects: GitObjects, seconds: float) -> None:
        self._objects = objects
        self._deadline = time.monotonic() + seconds
        self._trees: OrderedDict[str, Entries] = OrderedDict()
        self._cached = 0

    @property
    def is_late(self) -> bool:
        """True if the time is over."""
        return time.monotonic() > self._deadline

    def newest(self, tip: str, count: int) -> Iterator[tuple[str, Commit]]:
        """(hash, commit) of at most `count` commits: `tip`, then always the newest one that is a parent of any before
        it. Merges are among them."""
        seen = {tip}
        waiting: list[tuple[int, str, Commit]] = []
        self._read(tip, waiting)
        while waiting and count > 0 and not self.is_late:
            _, sha, commit = heapq.heappop(waiting)
            yield sha, commit
            count -= 1
            for parent in commit.parents:
                if parent not in seen and len(waiting) < MAX_WAITING:
                    seen.add(parent)
                    self._read(parent, waiting)

    def _read(self, sha: str, waiting: list[tuple[int, str, Commit]]) -> None:
        try:
            commit = self._objects.commit(sha)
        except UsageError:
            return
        heapq.heappush(waiting, (-commit.time, sha, commit))

    def changed(self, commit: Commit) -> Changed | None:
        """What a commit changed. None for a merge, for more than `MAX_CHANGED` files, and where an object is missing or
        the time is over."""
        if len(commit.parents) > 1 or commit.is_cut_off:
            return None
        try:
            before = self._objects.commit(commit.parents[0]).tree if commit.parents else None
            return self._differing(before, commit.tree)
        except UsageError:
            return None

    def _differing(self, before: str | None, after: str | None) -> Changed | None:
        sides: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})  # path -> hash, of what is gone and what is new
        folders = [("", before, after)]
        compared = 0
        while folders:
            prefix, old, new = folders.pop()
            compared += 1
            if compared > MAX_TREES or self.is_late:
                return None
            old_entries, new_entries = self._entries(old), self._entries(new)
            inner: dict[str, list[str | None]] = {}
            for side, entries in enumerate((old_entries - new_entries, new_entries - old_entries)):
                for mode, name, sha in entries:
                    path = prefix + os.fsdecode(name)
                    if not is_safe(path):
                        continue
                    if stat.S_ISDIR(int(mode, 8)):
                        inner.setdefault(path, [None, None])[side] = sha.hex()
                    else:
                        sides[side][path] = sha
            if len(sides[0].keys() | sides[1].keys()) > MAX_CHANGED:
                return None
            folders += [(f"{path}/", old, new) for path, (old, new) in inner.items()]
        gone, come = sides
        return Changed(tuple(sorted(gone.keys() | come.keys())), _renamed(gone, come))

    def _entries(self, tree: str | None) -> Entries:
        if tree is None:
            return frozenset()
        if tree in self._trees:
            self._trees.move_to_end(tree)
            return self._trees[tree]
        entries = self._trees[tree] = frozenset(self._objects.entries(tree, MAX_TREE_BYTES))
        self._cached += len(entries)
        while self._cached > CACHED_ENTRIES and len(self._trees) > 1:
            self._cached -= len(self._trees.popitem(last=False)[1])
        return entries


def _renamed(gone: Mapping[str, bytes], come: Mapping[str, bytes]) -> dict[str, str]:
    """Old path -> new path of the files that moved without a change. Hashes that several files share, such as that of
    an empty one, tell nothing."""
    old, new = ({sha: path for path, sha in _unique(a, b).items()} for a, b in ((gone, come), (come, gone)))
    return {old[sha]: new[sha] for sha in old.keys() & new.keys()}


def _unique(files: Mapping[str, bytes], others: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those that are not among the others, and whose hash no other one has."""
    moved = {path: sha for path, sha in files.items() if path not in others}
    times = Counter(moved.values())
    return {path: sha for path, sha in moved.items() if times[sha] == 1}
