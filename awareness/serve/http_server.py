"""Runs the application: on a TCP socket with a token, and on a UNIX socket for the same user without one.

It ends gracefully on SIGTERM and SIGINT: no new questions, the running answer is cancelled, connections get their last
bytes, then sockets and token file are removed. A second SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from awareness.errors import AwarenessError, StorageFailed
from awareness.serve.forwarding_reporter import ForwardingReporter
from awareness.serve.guards import LOOPBACK, Application, Guards
from awareness.serve.http_app import create_app
from awareness.serve.http_settings import HttpSettings
from awareness.serve.local_socket import CAN_LISTEN, LocalEntry, is_same_user, runtime_folder
from awareness.serve.question_queue import Job, QuestionQueue
from awareness.serve.repositories import Repositories
from awareness.serve.server_metrics import ServerMetrics
from awareness.serve.services import Services
from awareness.serve.tcp_socket import listen

GRACE_S = 10
"""Seconds that connections have for their last bytes."""
_log = logging.getLogger(__name__)


def new_token() -> str:
    return secrets.token_urlsafe(32)


class HttpServer:
    """A server that listens from `with` on, and answers while `run` runs."""

    def __init__(self, repositories: Repositories, settings: HttpSettings, reporter: ForwardingReporter) -> None:
        """Raises UsageError."""
        self._tcp = listen(settings.host, settings.port, "awareness serve --port")
        self.settings = replace(settings, port=self._tcp.getsockname()[1])
        self._queue = QuestionQueue(settings.queue)
        metrics = ServerMetrics(self._queue, repositories)
        self._shared = Services(repositories, self._queue, self.settings, metrics, reporter)
        self._entry: LocalEntry | None = None
        self._unix: socket.socket | None = None
        self.app = create_app(self._shared)

    @property
    def url(self) -> str:
        """With the token in its fragment, which browsers do not send."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.settings.port}/#token={self.settings.token}"

    @property
    def token_path(self) -> Path | None:
        return None if self._entry is None else self._entry.token_path

    def __enter__(self) -> HttpServer:
        folder = runtime_folder() if CAN_LISTEN else None
        if folder is None:
            self._shared.reporter.note("no private folder for a socket: the command line will not use this server")
            return self
        self._entry = LocalEntry(folder, self.settings.port)
        try:
            self._unix = self._entry.open(self.settings.token)
        except OSError as error:
            self._close_sockets()
            raise StorageFailed(f"{folder}: {error.strerror or error}", hint="export XDG_RUNTIME_DIR=FOLDER") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._close_sockets()
        self._queue.close()

    def _close_sockets(self) -> None:
        for listening in (self._tcp, self._unix):
            if listening is not None:
                listening.close()
        if self._entry is not None:
            self._entry.close()

    def run(self, *, is_warmed: bool = True, on_ready: Callable[[], None] = lambda: None) -> int:
        """Answers until a signal comes, and returns its number. is_warmed: loads the model before the first question.
        on_ready: called once signals end the server gracefully."""
        return asyncio.run(self._run(is_warmed, on_ready))

    async def _run(self, is_warmed: bool, on_ready: Callable[[], None]) -> int:
        hosts = (*LOOPBACK, self.settings.host, f"[{self.settings.host}]")
        counting = self._shared.metrics.counting
        over_tcp = Guards(self.app, token=self.settings.token, hosts=hosts, port=self.settings.port)
        servers = [(_server(counting(over_tcp), H11Protocol), self._tcp)]
        if self._unix is not None:
            servers.append((_server(counting(Guards(self.app, token=None)), SameUserProtocol), self._unix))
        ending = asyncio.Event()
        received: list[int] = []

        def end(number: int) -> None:
            if received:  # the second one
                os._exit(128 + number)
            received.append(number)
            ending.set()

        with _signals(end):
            on_ready()
            idle = asyncio.create_task(self._close_idle())
            if is_warmed:
                self._queue.submit(self._warm)
            running = [asyncio.create_task(server._serve([listening])) for server, listening in servers]
            stopped = asyncio.create_task(ending.wait())
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            self._queue.close()
            for server, _ in servers:
                server.should_exit = True
            await asyncio.gather(*running)
            for task in (idle, stopped):
                task.cancel()
            self._close_sockets()
            await asyncio.to_thread(self._queue.join)
        self._shared.repositories.close()
        return received[0] if received else signal.SIGTERM

    async def _close_idle(self) -> None:
        every = max(0.05, min(30.0, self.settings.idle_s / 2))
        while True:
            await asyncio.sleep(every)
            await asyncio.to_thread(self._shared.repositories.close_idle)

    def _warm(self, job: Job) -> None:
        """Loads the model of the first repository. What prevents that is told, and the first question gets it again."""
        repositories, reporter = self._shared.repositories, self._shared.reporter
        try:
            with reporter.ending_with(job), repositories.engine(repositories.names[0]) as engine:
                engine.load()
        except AwarenessError as error:
            reporter.note(f"the model is not loaded yet: {error.message}" + (f"; {error.hint}" if error.hint else ""))


class SameUserProtocol(H11Protocol):
    """Closes a connection of another user's process at once."""

    def connection_made(self, transport: Any) -> None:
        if not is_same_user(transport.get_extra_info("socket")):
            transport.abort()
            return
        super().connection_made(transport)


def _server(app: Application, protocol: type[H11Protocol]) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def _signals(end: Callable[[int], None]) -> Iterator[None]:
    """Inside the block, SIGTERM and SIGINT call `end` in the event loop."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, end, int(number))
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
