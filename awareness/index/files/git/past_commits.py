"""The commits that led to one, newest first, and the files that each of them changed.

Two trees are compared by the hashes of their entries: no file is read. A commit whose parent is missing (in a shallow
clone) or damaged ends its line of the walk. The time may run out anywhere: history is never worth waiting for.
"""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator

from awareness.errors import UsageError
from awareness.index.files.git.git_objects import Commit, GitObjects
from awareness.index.files.safe_read import is_safe

MAX_TREES = 256  # compared for one commit, whose trees may contain each other
CACHED_TREES = 512  # a commit's trees are mostly those of the commit after it
Entries = frozenset[tuple[bytes, bytes, bytes]]  # (mode, name, hash)


class PastCommits:
    """The history of one commit. seconds: after that much time `newest` ends and `changed` knows nothing."""

    def __init__(self, objects: GitObjects, seconds: float) -> None:
        self._objects = objects
        self._deadline = time.monotonic() + seconds
        self._trees: OrderedDict[str, Entries] = OrderedDict()

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
                if parent not in seen:
                    seen.add(parent)
                    self._read(parent, waiting)

    def _read(self, sha: str, waiting: list[tuple[int, str, Commit]]) -> None:
        try:
            commit = self._objects.commit(sha)
        except UsageError:
            return
        heapq.heappush(waiting, (-commit.time, sha, commit))

    def changed(self, commit: Commit, limit: int) -> list[str] | None:
        """The paths that a commit added, changed or removed, sorted. None for a merge, for more than `limit`, and where
        an object is missing or the time is over."""
        if len(commit.parents) > 1 or commit.is_cut_off:
            return None
        try:
            before = self._objects.commit(commit.parents[0]).tree if commit.parents else None
            return self._differing(before, commit.tree, limit)
        except UsageError:
            return None

    def _differing(self, before: str | None, after: str | None, limit: int) -> list[str] | None:
        paths: set[str] = set()
        folders = [("", before, after)]
        compared = 0
        while folders:
            prefix, old, new = folders.pop()
            compared += 1
            if compared > MAX_TREES or self.is_late:
                return None
            old_entries, new_entries = self._entries(old), self._entries(new)
            inner: dict[bytes, list[str | None]] = {}
            for place, entries in enumerate((old_entries - new_entries, new_entries - old_entries)):
                for mode, name, sha in entries:
                    if stat.S_ISDIR(int(mode, 8)):
                        inner.setdefault(name, [None, None])[place] = sha.hex()
                    else:
                        path = prefix + os.fsdecode(name)
                        if is_safe(path):
                            paths.add(path)
            if len(paths) > limit:
                return None
            for name, (old, new) in inner.items():
                folder = prefix + os.fsdecode(name)
                if is_safe(folder):
                    folders.append((f"{folder}/", old, new))
        return sorted(paths)

    def _entries(self, tree: str | None) -> Entries:
        if tree is None:
            return frozenset()
        if tree in self._trees:
            self._trees.move_to_end(tree)
        else:
            self._trees[tree] = frozenset(self._objects.entries(tree))
            if len(self._trees) > CACHED_TREES:
                self._trees.popitem(last=False)
        return self._trees[tree]
