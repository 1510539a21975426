"""Who may speak to the server: one ASGI middleware around the whole application.

Three strangers have to stay out: another user of this machine (the token), a page of another site in the user's browser
(Host, for DNS rebinding; Origin), and whoever sends too much. Every response says what a browser may do with it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from awareness.serve.error_json import Refused, error_response

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 1 << 20
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
OPEN_PATHS = frozenset({"/", "/health", "/docs", "/docs/style.css", "/openapi.json"})
OPEN_FOLDERS = ("/static/",)
IS_LOCAL = "awareness.is_local"
"""Key of the scope: True for a request that came over the UNIX socket."""
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
NOT_KEPT = (b"cache-control", b"no-store")


class Guards:
    """Refuses what must not reach `app`, and adds the headers of every response.

    token: that every path but `OPEN_PATHS` and `OPEN_FOLDERS` needs; None on the UNIX socket, whose folder and peer
    were checked. hosts: names that the server has, without a port; port: the one it listens on.
    """

    def __init__(self, app: Application, *, token: str | None, hosts: tuple[str, ...] = LOOPBACK, port: int = 0):
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts, self._port = {host.lower() for host in hosts}, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # there is none
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(NOT_KEPT)
                message = {**message, "headers": headers + HEADERS}
            await send(message)

        scope[IS_LOCAL] = self._token is None
        try:
            self._check(scope)
            body = await _body(scope, receive)
        except Refused as error:
            await error_response(error)(scope, receive, send_guarded)
            return
        if body is None:  # the client is gone
            return
        await self._app(scope, _replayed(body, receive), send_guarded)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
        if self._token is None:
            if origins:
                raise Refused(403, "a browser has no business on this socket")
            return
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if not self._is_ours(host, scope):
            raise Refused(403, "this name is not the server's", hint=f"http://127.0.0.1:{self._port}")
        if origins and [origin.decode("latin-1").lower() for origin in origins] != [f"http://{host}"]:
            raise Refused(403, "a page of another origin may not use this server")
        path = scope["path"]
        if path in OPEN_PATHS or (path.startswith(OPEN_FOLDERS) and ".." not in path):
            return
        given = headers.get(b"authorization", [])
        kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refused(
                401,
                "the token is missing or wrong",
                hint="Authorization: Bearer TOKEN; `awareness serve` printed it",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """A name of the server, or the very address that the connection came in on: DNS can't forge either."""
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not colon:
            name, port = host, "80"
        address = (scope.get("server") or ("", 0))[0]
        return port == str(self._port) and (name in self._hosts or (bool(address) and name.strip("[]") == address))


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None if the client is gone. Raises Refused for more than MAX_BODY_BYTES."""
    limit = f"{MAX_BODY_BYTES:,} bytes"
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.strip().isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            raise Refused(413, f"the body has {int(value[:20]):,} bytes; at most {limit}")
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise Refused(413, f"the body has more than {limit}")
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first, then what comes after it."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
