"""The tools for agents over HTTP: for the programs of this user on this machine only.

Each request needs the token; guards.py has that and the other checks.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import uvicorn

from awareness.errors import StorageFailed, UsageError, storage_errors
from awareness.serve.guards import MAX_BODY_BYTES, Guards
from awareness.serve.local_socket import runtime_folder
from awareness.serve.mcp_server import AgentServer

PATH = "/mcp"
TOKEN_BYTES = 32


def application(agents: AgentServer, port: int, token: str) -> Guards:
    """The ASGI application, behind the same guards as `awareness serve`."""
    app = agents.server.streamable_http_app(
        streamable_http_path=PATH, max_request_body_size=MAX_BODY_BYTES, host="127.0.0.1"
    )
    return Guards(app, token=token, port=port)


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
    folder = runtime_folder()
    if folder is None:
        raise StorageFailed("no folder for the token that only you can enter", hint="export XDG_RUNTIME_DIR=FOLDER")
    return folder / "mcp.token"


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
