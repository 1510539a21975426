"""`awareness mcp`: the tools for agents, over the Model Context Protocol."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import extras, memories, options, render

if TYPE_CHECKING:
    from awareness.serve.allowed import AllowedRepositories


def mcp(
    repos: options.ReposArgument = None,
    memory: options.MemoryOption = None,
    root: options.AllowedRootOption = None,
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=1,
            max=65535,
            help="Serve over HTTP on 127.0.0.1 instead of stdin and stdout. Each request needs the token that is"
            " printed.",
        ),
    ] = None,
    model: options.ModelOption = None,
    adapter: options.AdapterOption = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Serve search and answers to agents: an MCP server on stdin and stdout, or over HTTP."""
    extras.require("mcp", "mcp", "uvicorn")
    import anyio

    from awareness.config.environment import environment
    from awareness.serve.agent_calls import CallReporter
    from awareness.serve.allowed import AllowedRepositories
    from awareness.serve.mcp_server import AgentServer

    packs, stores = memories.named(memory)
    repositories = AllowedRepositories(
        (*(repos or ()), *packs),
        root or (),
        stores=stores,
        reporter=CallReporter(render.note),
        model=model,
        adapter=adapter,
        router=environment().router,
    )
    try:
        if http is None:
            anyio.run(AgentServer(repositories).run_stdio, _leave)
        else:
            _serve_http(repositories, http)
    finally:
        repositories.close()


def _leave(number: int) -> None:
    """Ends the program as a signal does. Everything that is on disk survives that at any moment."""
    os._exit(128 + number)


def _serve_http(repositories: AllowedRepositories, port: int) -> None:
    import anyio

    from awareness.serve import mcp_http
    from awareness.serve.mcp_server import AgentServer

    path = mcp_http.token_file()
    token = mcp_http.kept_token(path)

    def tell(message: str) -> None:
        render.note(message)
        render.note(f"Authorization: Bearer {token}")
        render.note(f"the token is kept in {path}; delete the file for another one")

    anyio.run(mcp_http.run_http, AgentServer(repositories), port, token, tell)
