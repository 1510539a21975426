"""The files of a snapshot by their paths, names and kinds, as the questions of one process need them again and again.

A large repository has hundreds of thousands of files, and most questions need none of this: each part is made when it
is first needed, and kept until the index changes (`Store.paths`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from awareness.index.search.hit_kinds import HitKinds

_SCRIPTS = frozenset("js mjs cjs jsx ts mts cts tsx".split())


class SnapshotPaths:
    """read: returns path -> id of the files of the snapshot; called once, if at all."""

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read
        self.kinds = HitKinds(lambda: self.ids)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Path -> id, by path."""
        return self._read()

    def named(self, name: str) -> Sequence[tuple[int, str]]:
        """(id, path) of the files of this name, by path. A compiled file has the name of its source: `types.js` is
        `types.ts` too."""
        return self._by_name.get(_source_name(name), ())

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[int, str]]]:
        by_name: dict[str, list[tuple[int, str]]] = {}
        for path, file_id in self.ids.items():
            by_name.setdefault(_source_name(path.rpartition("/")[2]), []).append((file_id, path))
        return by_name


def _source_name(name: str) -> str:
    """What a compiled file shares with its source: `types` of `types.js` and `types.ts`; the whole name of others."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.js" if ending in _SCRIPTS else name
