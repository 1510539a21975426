"""The standard streams: opened where they are closed, able to show every character, and what their failures mean.

render.py writes to them; app.py turns the exceptions of this file into exit codes.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from awareness.errors import StorageFailed

REPLACING = "awareness.replacing"
"""The name of the codec error handler that `show_everything` uses."""
_PLAIN = {
    **dict.fromkeys("·•●", "*"),
    **dict.fromkeys("‐‑‒–—―−─━═╌", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("‘’‚", "'"),
    **dict.fromkeys("“”„", '"'),
    "…": "...",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
}


class ReaderGone(Exception):
    """The reader of stdout or stderr, such as `head`, has closed the pipe. No OSError, so that nothing that looks for
    failures of a disk takes it for one."""


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What an encoding cannot show, in ASCII: look-alikes for punctuation and lines, escapes for everything else."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # lines of boxes
        return _PLAIN.get(character, "+")
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(REPLACING, _replaced)


def prepare() -> None:
    """Makes all three streams usable; before anything is opened, which would get the number of a closed one.

    A closed stdout fails when it is written, as for other programs; what goes to a closed stderr is lost.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest free number: this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
        show_everything(getattr(sys, name))


def show_everything(stream: TextIO) -> None:
    """From now on, characters that the encoding of the stream does not have are replaced."""
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors=REPLACING)


@contextlib.contextmanager
def writing_data() -> Iterator[None]:
    """Around writing to stdout. Raises ReaderGone, or StorageFailed if the disk behind it is full or fails."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        discard(sys.stdout)
        raise StorageFailed(
            f"standard output cannot be written: {error.strerror or error}", hint="write to a place that has room"
        ) from error


@contextlib.contextmanager
def writing_notes() -> Iterator[None]:
    """Around writing to stderr. Raises ReaderGone. Any other failure is dropped: there is no place left to report it,
    and it must not end the work."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError:
        discard(sys.stderr)


def flush() -> None:
    """Writes what is buffered. Raises ReaderGone or StorageFailed."""
    with writing_notes():
        sys.stderr.flush()
    with writing_data():
        sys.stdout.flush()


def failed() -> StorageFailed | None:
    """Why stdout cannot take what is buffered, as the help that Typer writes itself; None if it can. Raises
    ReaderGone."""
    try:
        flush()
    except StorageFailed as error:
        return error
    return None


def discard_all() -> None:
    """What is still buffered goes nowhere, so that the interpreter does not fail to write it when it ends."""
    discard(sys.stdout)
    discard(sys.stderr)


def discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
        stream.flush()
