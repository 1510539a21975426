"""Read one path safely: no symlink, nothing outside the root, no blocking, no more bytes than a limit."""

from __future__ import annotations

import os
import re
import stat

MAX_FILE_BYTES = 1 << 24
MAX_NOTEBOOK_BYTES = 1 << 26  # mostly of pictures, which are left out
TOO_LARGE = {MAX_FILE_BYTES: "larger than 16 MiB", MAX_NOTEBOOK_BYTES: "larger than 64 MiB"}
"""Limit -> the reason for leaving a larger file out."""
LOOK_FIRST_BYTES = 1 << 20
"""A larger file is read as a whole only if its start may be text."""
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


def limit_of(path: str) -> int:
    """How many bytes a file to index may have."""
    return MAX_NOTEBOOK_BYTES if path.lower().endswith(".ipynb") else MAX_FILE_BYTES


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
        return _read(_open(name, FILE_FLAGS, here), limit_of(path), only_start=only_start)
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
                data = file.read(min(limit, LOOK_FIRST_BYTES) + 1)
                if len(data) > LOOK_FIRST_BYTES:
                    if _is_binary(data):
                        raise Skip("binary")
                    data += file.read(limit + 1 - len(data))
            if len(data) <= limit:  # it may have grown
                return data
        raise Skip(TOO_LARGE.get(limit, "too large"))
    except OSError:
        raise Skip("unreadable") from None
    finally:
        os.close(fd)


def _is_binary(start: bytes) -> bool:
    """Do zeros show that it is no text? Every second byte may be one: in UTF-16."""
    zeros = start.count(0) / len(start)
    return 0 < zeros < 0.2 and not start.startswith((b"\xff\xfe", b"\xfe\xff"))
