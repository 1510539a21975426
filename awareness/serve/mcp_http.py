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
from awareness.serve.local_socket import is_private, runtime_folder, write_private
from awareness.serve.mcp_server import AgentServer
from awareness.serve.tcp_socket import listen

HOST, PATH = "127.0.0.1", "/mcp"
TOKEN_BYTES = 32


def application(agents: AgentServer, port: int, token: str) -> Guards:
    """The ASGI application, behind the same guards as `awareness serve`."""
    app = agents.server.streamable_http_app(streamable_http_path=PATH, max_request_body_size=MAX_BODY_BYTES, host=HOST)
    return Guards(app, token=token, port=port)


async def run_http(agents: AgentServer, port: int, token: str, tell: Callable[[str], None]) -> None:
    """Serves on 127.0.0.1 until the program is told to end. Raises UsageError for a port that is taken."""
    config = uvicorn.Config(
        application(agents, port, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    with listen(HOST, port, "--http") as listening:
        tell(f"serving MCP at http://{HOST}:{port}{PATH}")
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
        token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            write_private(path, token)
        except FileExistsError:
            return _read_token(path)
        return token


def _read_token(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}", hint=f"rm {path}") from error
    with os.fdopen(fd, "rb") as file:
        data = file.read(256) if is_private(os.fstat(fd), stat.S_ISREG) else b""
    token = data.decode("ascii", "replace").strip()
    if len(token) < TOKEN_BYTES or not token.isascii() or not token.isprintable():
        raise UsageError(f"{path} is not a token that only you can read", hint=f"rm {path}")
    return token
