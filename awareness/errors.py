"""The errors that a user can meet, with their exit codes.

    AwarenessError               1
    ├── NothingFound             1    no chunk answers the question
    ├── UsageError               2    a wrong argument, setting or folder
    ├── ModelNotAvailable        3    the model is not cached and cannot be fetched
    ├── NoIndex                 10    there is no index yet
    ├── IndexLocked             11    another process is writing to the index
    ├── IndexCorrupt            12    the index on disk is damaged
    └── StorageFailed           13    the disk is full, fails or is read-only

A message names the wrong value; `hint` is the next command to type. The library raises these errors and cli/app.py
prints them. Any other exception that reaches the user is a bug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

FREE_SPACE = "free some space, then run the same command again; what was committed is kept"


class AwarenessError(Exception):
    """Base class. message: one line for the user. hint: the next command to type. exit_code: of the process."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
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


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an OSError (the disk is full, fails, or is read-only) into StorageFailed, which names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or error}", hint=FREE_SPACE) from error
