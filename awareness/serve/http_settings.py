"""What `awareness serve` was started with, and what one question may set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8642
DEFAULT_QUEUE = 8


@dataclass(frozen=True)
class HttpSettings:
    """host, port: of the TCP socket; port 0 for a free one. queue: questions that may wait. idle_s: seconds until an
    unused repository is closed. runs: the folder of training runs that the page shows, or None. token: what every
    request over TCP carries. answers_with: everything besides the question that decides an answer, as
    `ask_settings` writes it."""

    token: str
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    queue: int = DEFAULT_QUEUE
    idle_s: float = 600.0
    runs: Path | None = None
    answers_with: str = ""
