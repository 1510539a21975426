"""Read one path safely: no symlink, nothing outside the root, no blocking, no more bytes than a limit."""

from __future__ import annotations

import os
import re
import stat

MAX_FILE_BYTES = 1 << 20
START_BYTES = 512
UNSAFE_PART = re.compile(r"(?:^|/)(?:|\.|\.\.|\.git)(?:/|\Z)", re.ASCII | re.IGNORECASE)
MAX_PATH_CHARS = 4096

FOLDER_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW  # O_NONBLOCK: a FIFO must not block


class Skip(Exception):
    """A path that is not read. reason: one of a few constant phrases. A missing file is a FileNotFoundError instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_safe(path: str) -> bool:
    """Is the path relative, without `..`, and not inside `.git` in any spelling?"""
    return len(path) <= MAX_PATH_CHARS and "\0" not in path and not UNSAFE_PART.search(path)


def read_beneath(root: str, path: str, *, only_start: bool = False) -> bytes:
    """The bytes of a regular file below `root`. Raises Skip or FileNotFoundError. only_start: the first 512 bytes of
    a file of any size.

    Each folder is opened from the one above it, so that no symlink, even one made meanwhile, leads out of the root.
    """
    if not is_safe(path):
        raise Skip("outside the repository")
    *folders, name = path.split("/")
    here = _open(root, FOLDER_FLAGS)
    try:
        for folder in folders:
            outer, here = here, _open(folder, FOLDER_FLAGS, here)
            os.close(outer)
        return _read(_open(name, FILE_FLAGS, here), MAX_FILE_BYTES, only_start=only_start)
    finally:
        os.close(here)


def read_small(path: str, limit: int = MAX_PATH_CHARS) -> bytes:
    """One of git's own small files, which may be a symlink; empty if it is not text of at most `limit` bytes."""
    try:
        data = _read(os.open(path, FILE_FLAGS & ~os.O_NOFOLLOW), limit)
    except (OSError, Skip):
        return b""
    return b"" if b"\0" in data else data


def _open(name: str, flags: int, folder: int | None = None) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        raise Skip(_skip_reason(name, folder)) from None


def _skip_reason(name: str, folder: int | None) -> str:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return "unreadable"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "unreadable" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "not a regular file"


def _read(fd: int, limit: int, *, only_start: bool = False) -> bytes:
    """Reads and closes the descriptor. A folder in place of a file is the work tree of a submodule."""
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise Skip("submodule")
        if not stat.S_ISREG(status.st_mode):
            raise Skip("not a regular file")
        if only_start:
            return os.read(fd, START_BYTES)
        if status.st_size <= limit:
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
            if len(data) <= limit:  # it may have grown
                return data
        raise Skip("larger than 1 MiB")
    except OSError:
        raise Skip("unreadable") from None
    finally:
        os.close(fd)
