"""Whether a file has changed since it was last read, without reading it: by its size, times and inode, as git does."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import NamedTuple

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again with the same times: FAT counts 2 s."""


class FileStat(NamedTuple):
    """What changes whenever a file is written, replaced or renamed. Times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class KnownFile:
    """A file as it was last read. digest: of its bytes, or empty if it is left out. reason: why, or empty."""

    stat: FileStat
    digest: str
    reason: str = ""


def stat_of(path: str) -> FileStat | None:
    """The stat of a path, which is not followed if it is a symlink; None if it is missing."""
    try:
        return stat_from(os.lstat(path))
    except (OSError, ValueError):
        return None


def stat_from(status: os.stat_result) -> FileStat:
    return FileStat(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def is_settled(stat: FileStat, now_ns: int | None = None) -> bool:
    """True if a later change of the file cannot have the same times. now_ns: before the file was read."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    return max(stat.mtime_ns, stat.ctime_ns) < now_ns - SETTLED_NS
