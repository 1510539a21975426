"""Asks a running server of the same user, from the command line. Imports nothing of the server: the answer has to start
at once."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from awareness import __version__
from awareness.errors import (
    AwarenessError,
    IndexCorrupt,
    IndexLocked,
    ModelNotAvailable,
    NoIndex,
    StorageFailed,
    UsageError,
)
from awareness.serve.local_socket import CAN_LISTEN, connect, runtime_folder, sockets

SILENCE_S = 30.0
"""Seconds without any byte after which a server is taken for dead; it sends a comment every five."""
HEALTH_S = 5.0
_ERRORS: dict[str, type[AwarenessError]] = {
    "usage_error": UsageError,
    "model_not_available": ModelNotAvailable,
    "no_index": NoIndex,
    "index_locked": IndexLocked,
    "index_corrupt": IndexCorrupt,
    "storage_failed": StorageFailed,
}
_FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)
"""What a server that ends, hangs or is another program looks like."""


class ServerGone(Exception):
    """The server cannot answer: it is busy, ends, hangs or is gone. Another process may."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected
        self.auto_open = 0  # a connection that was lost is not made anew

    def get_json(self, path: str) -> Any:
        """None for every other status than 200."""
        self.request("GET", path)
        response = self.getresponse()
        data = response.read()
        return json.loads(data) if response.status == 200 else None


class Server:
    """A server that serves one repository, over one connection. root: of the repository, which scopes count from."""

    def __init__(self, connection: _Connection, name: str, root: Path) -> None:
        self._connection, self._name, self.root = connection, name, root

    def close(self) -> None:
        self._connection.close()

    def send(self, body: dict[str, Any]) -> None:
        """Sends `POST /ask`; the server begins, and `events` has what comes. Raises ServerGone."""
        try:
            self._connection.request(
                "POST", "/ask", json.dumps({**body, "repository": self._name}), {"Content-Type": "application/json"}
            )
        except _FAILURES as error:
            raise ServerGone from error

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of the answer, until the last one. Raises ServerGone, and the error that ended the answer."""
        try:
            assert self._connection.sock is not None
            self._connection.sock.settimeout(SILENCE_S)
            response = self._connection.getresponse()
            if response.status in (429, 503):
                raise ServerGone
            if response.status != 200:
                raise _error(json.loads(response.read())["error"])
            yield from _events(response)
        except _FAILURES as error:
            raise ServerGone from error


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    event = ""
    while raw := response.readline():
        line = raw.rstrip(b"\n")
        if line.startswith(b"event: "):
            event = line[7:].decode("ascii")
        elif line.startswith(b"data: "):
            data = json.loads(line[6:])
            if event == "error":
                if data.get("code") == "not_available" and data["type"] == "not_available":
                    raise ServerGone
                raise _error(data)
            yield event, data
            if event in ("answer", "refusal"):
                return
    raise ServerGone


def _error(fields: dict[str, Any]) -> AwarenessError:
    kind = _ERRORS.get(fields["type"], AwarenessError)
    return kind(str(fields["message"]), hint=fields.get("hint"))


def find_server(path: Path, answers_with: str, *, is_named: bool) -> Server | None:
    """A running server of this user and version that answers like this process about the repository of a folder, or
    about the path that was named; None if there is none."""
    folder = runtime_folder(make=False) if CAN_LISTEN else None
    for place in [] if folder is None else sockets(folder):
        if (connected := connect(place)) is None:
            continue
        connected.settimeout(HEALTH_S)
        connection = _Connection(connected)
        with contextlib.suppress(*_FAILURES):
            health = connection.get_json("/health")
            if health["version"] == __version__ and health["answers_with"] == answers_with:
                asked = {"path": str(path), "is_named": is_named}
                served = connection.get_json("/place?" + urlencode(asked, errors="surrogateescape"))
                if served is not None:
                    return Server(connection, served["name"], Path(served["root"]))
        connection.close()
    return None
