"""`awareness serve`: answers over HTTP, with one model in memory."""

from __future__ import annotations

import logging
import os
import signal
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import extras, memories, options, render
from awareness.config.environment import environment
from awareness.engine.units import named_list, parse_bytes
from awareness.errors import UsageError
from awareness.serve.ask_settings import ask_settings
from awareness.serve.http_settings import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_QUEUE

if TYPE_CHECKING:
    from awareness.serve.http_server import HttpServer


def serve(
    repos: options.ReposArgument = None,
    memory: options.MemoryOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Others than 127.0.0.1 let other machines in.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="Port to listen on; 0 for a free one.")
    ] = DEFAULT_PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
    model: options.ModelOption = None,
    adapter: options.AdapterOption = None,
    weights: options.WeightsOption = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    queue: Annotated[
        int, typer.Option("--queue", min=0, max=1000, help="Questions that may wait; more are refused (429).")
    ] = DEFAULT_QUEUE,
    idle: Annotated[
        float,
        typer.Option("--idle", min=0.1, help="Seconds after which an unused repository is closed."),
    ] = 600.0,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder of training runs, whose curves the page shows.")
    ] = None,
    lazy: Annotated[bool, typer.Option("--lazy", help="Load the model with the first question, not now.")] = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Serve a page and an API (OpenAI's too) that answer questions, with the model kept in memory."""
    extras.require("serve", "fastapi", "uvicorn", "prometheus_client")
    if runs is not None and not runs.is_dir():
        raise UsageError(f"--runs {runs} is not a folder", hint="the folder that holds the folders of runs")
    from awareness.serve.forwarding_reporter import ForwardingReporter
    from awareness.serve.http_server import HttpServer, new_token
    from awareness.serve.http_settings import HttpSettings
    from awareness.serve.repositories import Repositories

    _log_to_stderr()
    reporter = ForwardingReporter(render.REPORTER)
    chosen = None if weights is None else weights.value
    packs, stores = memories.named(memory)
    repositories = Repositories(
        [_existing(path) for path in (*(repos or ()), *packs)],
        idle_s=idle,
        stores=stores,
        reporter=reporter,
        model=model,
        adapter=adapter,
        weights=chosen,
        router=environment().router,
        budget=parse_bytes(budget),
    )
    settings = HttpSettings(
        token=new_token(),
        host=host,
        port=port,
        queue=queue,
        idle_s=idle,
        runs=None if runs is None else runs.absolute(),
        answers_with=ask_settings(model=model, adapter=adapter, weights=chosen, budget=budget),
    )
    with HttpServer(repositories, settings, reporter) as server:
        ended_by = server.run(
            is_warmed=not lazy, on_ready=lambda: _announce(server, repositories.names, is_open=not no_open)
        )
    if ended_by == signal.SIGINT:
        render.note("stopped")
        sys.exit(128 + signal.SIGINT)


def _announce(server: HttpServer, names: Sequence[str], *, is_open: bool) -> None:
    render.text(server.url)
    render.note(f"serving {named_list(names)}; Ctrl-C ends it")
    if server.token_path is not None:
        render.detail(f"the token alone is in {server.token_path}")
    host = server.settings.host
    if host not in (DEFAULT_HOST, "localhost", "::1"):
        render.note(f"{host} lets other machines in: who has the token can read the code, and nothing is encrypted")
    if is_open and _has_browser() and any(getattr(route, "path", "") == "/" for route in server.app.routes):
        webbrowser.open(server.url)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint="awareness serve FOLDER")
    return path.absolute()


def _has_browser() -> bool:
    """Whether a browser can open in a window of its own: one in the terminal would take the terminal."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class _Log(logging.Handler):
    """What the libraries of the server log: warnings as notes, tracebacks with --verbose."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            kind = record.exc_info[0] if record.exc_info else None
            render.note(record.getMessage().splitlines()[0] + (f": {kind.__name__}" if kind else ""))
        if record.exc_info:
            render.detail(logging.Formatter().formatException(record.exc_info))


def _log_to_stderr() -> None:
    for name in ("uvicorn", "awareness.serve", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [_Log()], False
