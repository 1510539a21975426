"""The errors that a user can cause or meet, and the exit code of each.

    AwarenessError               1
    ├── NothingFound             1    no chunk answers the question
    ├── UsageError               2    a wrong argument, setting or folder
    ├── ModelNotAvailable        3    the model is neither cached nor can it be fetched
    ├── NoIndex                 10    nothing was indexed yet
    ├── IndexLocked             11    another process is writing
    ├── IndexCorrupt            12    what is on disk is not what was written
    └── StorageFailed           13    the disk is full, fails, or may not be written

A message names the value that was wrong; `hint` is the next command to type. The library raises these, the
command line prints them once (cli/app.py). Anything else that escapes is a bug.
"""

from __future__ import annotations


class AwarenessError(Exception):
    """Base class: one line for the user, a `hint` with the next command, an exit code."""

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
