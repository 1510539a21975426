"""The TCP socket that a server listens on."""

from __future__ import annotations

import socket

from awareness.errors import UsageError


def listen(host: str, port: int, option: str) -> socket.socket:
    """port: 0 for a free one. option: what chooses another port, for the hint. Raises UsageError if the port is taken
    or the host is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: {error}", hint="--host 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        hint = f"{option} {port + 1 if port < 65535 else port - 1}"
        raise UsageError(f"{host}:{port} cannot be used: {error.strerror or error}", hint=hint) from error
    return listening
