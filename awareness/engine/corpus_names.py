"""Names that tell the repositories and packs of one search apart: `origin` in JSON.

A name is the last parts of a path, as few as no other path of the search ends with: `api`, or `a/api` beside `b/api`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True)
class Named:
    """parts: of an absolute path. shortest: how many of them a name has at least. typed: the name of that length."""

    parts: tuple[str, ...]
    shortest: int
    typed: str

    @classmethod
    def of_folder(cls, root: Path, below: str = "") -> Named:
        """A repository: its folder's name, and the part of it that is searched."""
        inner = PurePath(below).parts
        return cls((*root.parts, *inner), 1 + len(inner), "/".join((root.name or str(root), *inner)))

    @classmethod
    def of_file(cls, path: Path) -> Named:
        """A pack: its path as it was typed."""
        return cls(Path(os.path.abspath(path)).parts, len(path.parts), str(path))

    def name(self, length: int) -> str:
        """Of this many parts."""
        return self.typed if length <= self.shortest else PurePath(*self.parts[-length:]).as_posix()


def unique_names(named: Sequence[Named]) -> list[str]:
    """A name for each; they depend on the set, not on its order."""
    names = []
    for one in named:
        others = [other.parts for other in named if other is not one]
        length = one.shortest
        while length < len(one.parts) and any(other[-length:] == one.parts[-length:] for other in others):
            length += 1
        names.append(one.name(length))
    return names
