"""A disk that fails on purpose: every write, fsync, rename, unlink and read of an index run is counted, and one fails.

The Python side is reached through the names in the modules' `os`, SQLite through a VFS on top of the checksum VFS.
Which of them fails, and what must be true afterwards, is the affair of the tests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

from awareness.index.store import manifest, shards, tensorfile

DEAD = 9  # exit status of a process that `die` ended
READS = ("pread", "preadv", "xRead")
_real_vfs = manifest.checksum_vfs


@dataclass
class Faults:
    """What is to go wrong. at: number of the event, from 1; 0 for none. room: bytes that can be written, None for all.

    how: `EIO` (this one fails), `ENOSPC` (so does every write after it), `before`, `torn` or `after` (the process dies
    then; torn: in the middle of a write). on_reads: reads are counted instead of changes.
    """

    at: int = 0
    how: str = "EIO"
    room: int | None = None
    on_reads: bool = False
    events: int = 0
    written: int = 0
    kinds: list[str] = field(default_factory=list)
    is_full: bool = False

    def do(self, kind: str, call: Callable[[Any], Any], failure: Callable[[int], Exception], data: Any = None) -> Any:
        """One event: `call(data)`, unless it is to fail."""
        if (kind in READS) != self.on_reads:
            return call(data)
        self.events += 1
        self.kinds.append(kind)
        is_write = kind in ("write", "xWrite", "write_text")
        size = len(data) if is_write else 0
        if self.room is not None and self.written + size > self.room:
            self.is_full = True
        is_hit = self.events == self.at
        if is_hit and self.how in ("before", "torn", "after"):
            if is_write and self.how == "torn":
                call(data[: size // 2])
            if self.how == "after":
                call(data)
            os._exit(DEAD)
        if is_hit and self.how == "ENOSPC":
            self.is_full = True
        if is_hit and self.how == "EIO":
            raise failure(errno.EIO)
        if self.is_full and is_write:
            raise failure(errno.ENOSPC)
        self.written += size
        return call(data)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _sqlite_error(code: int) -> Callable[[int], Exception]:
    def failure(number: int) -> Exception:
        error = apsw.exception_for(apsw.SQLITE_FULL if number == errno.ENOSPC else code)
        error.args = (os.strerror(number),)
        return error

    return failure


def _os_module(faults: Faults) -> types.SimpleNamespace:
    """`os`, of which what changes or reads a file is counted."""

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        if name == "write":
            return lambda descriptor, data: faults.do(name, lambda part: call(descriptor, part), _os_error, data)
        return lambda *values, **named: faults.do(name, lambda _: call(*values, **named), _os_error)

    names = ("write", "fsync", "rename", "lseek", "unlink", "pread", "preadv")
    return types.SimpleNamespace(**(vars(os) | {name: wrapped(name, getattr(os, name)) for name in names}))


def _vfs(faults: Faults, base: str) -> apsw.VFS:
    class File(apsw.VFSFile):
        def xRead(self, amount: int, offset: int) -> bytes:
            read = super().xRead
            return faults.do("xRead", lambda _: read(amount, offset), _sqlite_error(apsw.SQLITE_IOERR_READ))

        def xWrite(self, data: Any, offset: int) -> None:
            write = super().xWrite
            faults.do("xWrite", lambda part: write(part, offset), _sqlite_error(apsw.SQLITE_IOERR_WRITE), data)

        def xSync(self, flags: int) -> None:
            sync = super().xSync
            faults.do("xSync", lambda _: sync(flags), _sqlite_error(apsw.SQLITE_IOERR_FSYNC))

        def xTruncate(self, size: int) -> None:
            truncate = super().xTruncate
            faults.do("xTruncate", lambda _: truncate(size), _sqlite_error(apsw.SQLITE_IOERR_TRUNCATE))

    class Faulty(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(f"faulty {id(self)}", base)
            self.vfs_name = f"faulty {id(self)}"

        def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
            return File(base, name, flags)

        def xDelete(self, name: str, sync: bool) -> None:
            delete = super().xDelete
            faults.do("xDelete", lambda _: delete(name, sync), _sqlite_error(apsw.SQLITE_IOERR_DELETE))

    return Faulty()


@contextlib.contextmanager
def injected(root: Path, **fault: Any) -> Iterator[Faults]:
    """In the block everything that happens below `root` can fail."""
    faults = Faults(**fault)
    vfs = _vfs(faults, _real_vfs())
    replaced = _os_module(faults)
    unlink, write_text = Path.unlink, Path.write_text

    def unlink_counted(self: Path, missing_ok: bool = False) -> None:
        if not self.is_relative_to(root):
            return unlink(self, missing_ok)
        return faults.do("unlink", lambda _: unlink(self, missing_ok), _os_error)

    def write_counted(self: Path, data: str, *rest: Any, **named: Any) -> Any:
        if not self.is_relative_to(root):
            return write_text(self, data, *rest, **named)
        return faults.do("write_text", lambda part: write_text(self, part, *rest, **named), _os_error, data)

    with contextlib.ExitStack() as stack:
        for module in (tensorfile, shards, manifest):
            stack.enter_context(mock.patch.object(module, "os", replaced))
        stack.enter_context(mock.patch.object(manifest, "checksum_vfs", lambda: vfs.vfs_name))
        stack.enter_context(mock.patch.object(Path, "unlink", unlink_counted))
        stack.enter_context(mock.patch.object(Path, "write_text", write_counted))
        yield faults
