"""The tools for agents over HTTP: for the programs of this user on this machine only.

Another user's process, and a web page in this user's browser, can reach every port of 127.0.0.1. So each request needs
the token; and a Host or an Origin that is not this server's is refused, whatever it brings (DNS rebinding).
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from awareness.errors import StorageFailed, UsageError, storage_errors
from awareness.serve.mcp_server import AgentServer

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
PATH = "/mcp"
MAX_BODY_BYTES = 1 << 20
TOKEN_BYTES = 32


class Guard:
    """An ASGI application that lets only requests with the token, to this host and of no other origin, through."""

    def __init__(self, app: Any, port: int, token: str) -> None:
        self._app, self._token = app, f"Bearer {token}".encode()
        self._hosts = {f"{host}:{port}".encode() for host in LOCAL_HOSTS}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if scope["type"] not in ("http", "lifespan"):
            return  # no web sockets
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, message, hint = refusal
        body = json.dumps({"error": {"message": message, "hint": hint, "type": "usage_error", "code": status}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Any) -> tuple[int, str, str] | None:
        """The status, message and hint for a request that is refused."""
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.lower(), []).append(value)
        hosts, origins = given.get(b"host", []), given.get(b"origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "this host name is not served", "http://127.0.0.1 with the port"
        if any(origin.lower() not in self._origins for origin in origins):
            return 403, "requests of other web pages are refused", "a client outside the browser"
        tokens = given.get(b"authorization", [])
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self._token):
            return 401, "the token is missing or wrong", "Authorization: Bearer TOKEN, as printed at the start"
        return None


def application(agents: AgentServer, port: int, token: str) -> Guard:
    """The ASGI application."""
    app = agents.server.streamable_http_app(
        streamable_http_path=PATH, max_request_body_size=MAX_BODY_BYTES, host="127.0.0.1"
    )
    return Guard(app, port, token)


async def run_http(agents: AgentServer, port: int, token: str, tell: Callable[[str], None]) -> None:
    """Serves on 127.0.0.1 until the program is told to end. Raises UsageError for a port that is taken."""
    config = uvicorn.Config(
        application(agents, port, token),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    import socket

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise UsageError(f"port {port} cannot be used: {error.strerror}", hint=f"--http {port + 1}") from error
    with listening:
        tell(f"serving MCP at http://127.0.0.1:{port}{PATH}")
        await uvicorn.Server(config).serve(sockets=[listening])


def token_file() -> Path:
    """Where the token is kept: in the user's runtime folder. Raises StorageFailed."""
    import platformdirs

    return Path(platformdirs.user_runtime_dir("awareness", appauthor=False)) / "mcp.token"


def kept_token(path: Path) -> str:
    """The token of the last start, so that clients stay configured; the first start makes one, in a file that only the
    user can read. A file that others could have written is refused. Raises StorageFailed and UsageError."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return _read_token(path)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with os.fdopen(fd, "w") as file:
            file.write(token)
        return token


def _read_token(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}", hint=f"rm {path}") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        data = file.read(256) if stat.S_ISREG(status.st_mode) else b""
    token = data.decode("ascii", "replace").strip()
    is_ours = status.st_uid == os.getuid() and not status.st_mode & 0o077
    if not is_ours or len(token) < TOKEN_BYTES or not token.isascii() or not token.isprintable():
        raise UsageError(f"{path} is not a token that only you can read", hint=f"rm {path}")
    return token
