"""Read parts of a regular file by their position. No memory map: a file that shrinks meanwhile must not kill us."""

from __future__ import annotations

import os
import stat

from awareness.index.files.safe_read import FILE_FLAGS


class NotRegular(OSError):
    """A FIFO, a device, a socket or a folder in place of a file."""


class RandomAccessFile:
    """A regular file, or a symlink to one; it is open as long as the object lives. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._fd = -1
        self._fd = os.open(path, FILE_FLAGS & ~os.O_NOFOLLOW)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(path)
        self.size = status.st_size

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def up_to(self, count: int, position: int) -> bytes:
        """At most `count` bytes: fewer at the end of the file."""
        return os.pread(self._fd, count, position)

    def exactly(self, count: int, position: int) -> bytes:
        """`count` bytes. Raises EOFError if the file ends before."""
        data = self.up_to(count, position)
        if len(data) != count:
            raise EOFError("the file ends early")
        return data
