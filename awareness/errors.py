"""The errors that a user can meet, with their exit codes.

    AwarenessError              70    base class; an error of ours if it is raised itself
    ├── NothingFound             1    no chunk answers the question
    ├── UsageError               2    a wrong argument, setting or folder
    ├── ModelNotAvailable        3    the model is not cached and cannot be fetched
    ├── NoIndex                 10    there is no index yet
    ├── IndexLocked             11    another process is writing to the index
    ├── IndexCorrupt            12    the index on disk is damaged
    └── StorageFailed           13    a place is full, fails or may not be written; memory or file handles ran out

Exit code 1 means that nothing was found (or that `check` found damage), and nothing else. A message names the wrong
value; `hint` is the next command to type. The library raises these errors and cli/app.py prints them. Any other
exception that reaches the user is an error of ours, with exit code 70.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

FREE_SPACE = "free some space, then run the same command again; what was committed is kept"
_NOT_WRITABLE = "make it writable, or use other folders: AWARENESS_INDEX_DIR (indexes), AWARENESS_MODELS_DIR (models)"
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FREE_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NOT_WRITABLE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG), _NOT_WRITABLE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "ulimit -n 4096, then the same command again"),
    errno.EIO: "the disk fails: look at it (dmesg), or use another one",
}
SURROUNDINGS = frozenset(_HINTS) - {errno.ENOENT, errno.EEXIST}
"""Numbers of system errors that a place is to blame for, wherever they occur."""


class AwarenessError(Exception):
    """Base class. message: one line for the user. details: more lines, one for each of several errors. hint: the next
    command to type. exit_code: of the process."""

    exit_code = 70

    def __init__(self, message: str, *, details: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__("\n".join([message, *details]))
        self.message = message
        self.details = tuple(details)
        self.hint = hint


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class NothingFound(AwarenessError):
    exit_code = 1


class UsageError(AwarenessError):
    exit_code = 2


class ModelNotAvailable(AwarenessError):
    exit_code = 3


class NoIndex(AwarenessError):
    exit_code = 10


class IndexLocked(AwarenessError):
    exit_code = 11


class IndexCorrupt(AwarenessError):
    exit_code = 12


class StorageFailed(AwarenessError):
    exit_code = 13


def storage_failed(place: object, error: OSError) -> StorageFailed:
    """The StorageFailed that says why `place` (a path) cannot be used, and what helps."""
    return StorageFailed(f"{place}: {error.strerror or error}", hint=_HINTS.get(error.errno or 0, FREE_SPACE))


def make_writable(folder: Path) -> None:
    """Makes the folder if it is missing. Raises StorageFailed if files cannot be made in it: before hours of work."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError (the disk is full, fails, or is read-only) into StorageFailed, which names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_failed(path, error) from error
