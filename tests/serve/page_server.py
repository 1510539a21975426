"""A server in a thread of the test, with everything that stands before the routes: for tests of the page."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from awareness.serve.forwarding_reporter import ForwardingReporter
from awareness.serve.guards import Guards
from awareness.serve.http_app import create_app
from awareness.serve.http_settings import HttpSettings
from awareness.serve.question_queue import QuestionQueue
from awareness.serve.repositories import Repositories
from awareness.serve.server_metrics import ServerMetrics
from awareness.serve.services import Services
from awareness.serve.tcp_socket import listen

TOKEN = "a-token-for-tests"


@dataclass(frozen=True)
class Running:
    port: int
    shared: Services

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}


@contextlib.contextmanager
def serving(*sources: Path, model: Path | str, runs: Path | None = None) -> Iterator[Running]:
    settings = HttpSettings(token=TOKEN, port=0, runs=runs)
    listening = listen(settings.host, settings.port, "--port")
    port = listening.getsockname()[1]
    reporter, queue = ForwardingReporter(), QuestionQueue(4)
    repositories = Repositories(sources, model=str(model), reporter=reporter)
    shared = Services(repositories, queue, settings, ServerMetrics(queue, repositories), reporter)
    guarded = Guards(create_app(shared), token=TOKEN, port=port)
    server = uvicorn.Server(uvicorn.Config(guarded, lifespan="off", log_config=None, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Running(port, shared)
    finally:
        queue.close()
        server.should_exit = True
        thread.join()
        queue.join()
        repositories.close()
