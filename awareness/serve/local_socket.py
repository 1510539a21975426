"""Where a running server is found by programs of the same user: a folder that nobody else can open.

For each server it holds `serve-PORT.sock`, on which no token is needed, and `serve-PORT.token`. A server that was
killed leaves both behind; nobody answers there, and the next server removes them. Imports nothing that is slow.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from awareness.config.environment import cache_dir
from awareness.errors import UsageError

SOCKET_NAME = re.compile(r"serve-(\d{1,5})\.sock\Z")
MAX_SOCKET_BYTES = 103
"""Of the path of a socket: macOS has room for 103, Linux for 107."""
CONNECT_S = 1.0
_NAME_AND_VALUE = struct.Struct("3i")  # pid, uid, gid: struct ucred of Linux


def runtime_folder(*, make: bool = True) -> Path | None:
    """The folder, made if it is missing and `make` is true; None if there is no safe one: it belongs to this user,
    nobody else may enter it, and no link leads to it."""
    return next((folder for folder in _candidates() if _is_safe(folder, make=make)), None)


def _candidates() -> Iterator[Path]:
    import platformdirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
        with contextlib.suppress(OSError, RuntimeError):
            yield Path(platformdirs.user_runtime_dir("awareness", appauthor=False))
    with contextlib.suppress(UsageError):
        yield cache_dir() / "run"


def _is_safe(folder: Path, *, make: bool) -> bool:
    if not folder.is_absolute() or len(os.fsencode(folder / "serve-65535.sock")) > MAX_SOCKET_BYTES:
        return False
    try:
        if make:
            os.makedirs(folder.parent, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        return is_private(os.lstat(folder), stat.S_ISDIR)
    except OSError:
        return False


def is_private(status: os.stat_result, is_kind: Callable[[int], bool] = stat.S_ISSOCK) -> bool:
    """Whether it is of this kind, belongs to this user, and nobody else has any access."""
    return is_kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def write_private(path: Path, text: str) -> None:
    """Makes a file that this user alone can read. Raises OSError, FileExistsError where there is one or a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def sockets(folder: Path) -> list[Path]:
    """The sockets of servers, running or not, that are this user's."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if SOCKET_NAME.match(entry.name) and is_private(entry.stat(follow_symlinks=False)):
                found.append(Path(entry.path))
    return found


def connect(path: Path, timeout: float = CONNECT_S) -> socket.socket | None:
    """A connection to the server of the same user behind a socket; None if nobody answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
        if is_same_user(connection):
            return connection
    except OSError:
        pass
    connection.close()
    return None


def is_same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this user. Where the system does not tell, the folder's mode and the
    socket's have to be enough."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _NAME_AND_VALUE.size)
    return bool(_NAME_AND_VALUE.unpack(data)[1] == os.geteuid())


class LocalEntry:
    """The socket and the token file of one server, for as long as it runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.socket_path = folder / f"serve-{port}.sock"
        self.token_path = folder / f"serve-{port}.token"
        self._made: list[tuple[Path, tuple[int, int]]] = []

    def open(self, token: str) -> socket.socket:
        """Writes the token and listens on the socket. Raises OSError."""
        remove_stale(self.socket_path.parent)
        for path in (self.socket_path, self.token_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        write_private(self.token_path, token + "\n")
        self._made.append((self.token_path, _identity(self.token_path)))
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # between bind and chmod nobody else could connect either: the folder is private
        try:
            listening.bind(str(self.socket_path))
        finally:
            os.umask(before)
        self._made.append((self.socket_path, _identity(self.socket_path)))
        listening.listen(64)
        return listening

    def close(self) -> None:
        """Removes what `open` made, unless another server has replaced it."""
        for path, identity in self._made:
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)
        self._made.clear()


def _identity(path: Path) -> tuple[int, int]:
    """Tells a file from another one of the same name; a number alone is given again at once."""
    status = os.lstat(path)
    return status.st_ino, status.st_mtime_ns


def remove_stale(folder: Path) -> list[Path]:
    """Removes what servers left behind that were killed. Returns their sockets."""
    removed = []
    for path in sockets(folder):
        if (connection := connect(path)) is not None:
            connection.close()
            continue
        for left in (path, path.with_suffix(".token")):
            with contextlib.suppress(OSError):
                os.unlink(left)
        removed.append(path)
    return removed


CAN_LISTEN = hasattr(socket, "AF_UNIX") and sys.platform != "win32"
