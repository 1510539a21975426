"""The protocol: the official client over both transports, on a real process of the program."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Tool

from awareness.errors import UsageError
from awareness.serve.agent_tools import TOOLS
from awareness.serve.mcp_http import kept_token
from tests.conftest import SAMPLE, commit_all, write_tree

PROGRAM = [sys.executable, "-m", "awareness.cli.app", "mcp"]
LIMIT_S = 120


def environment(model_folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "AWARENESS_MODEL": str(model_folder), "AWARENESS_ADAPTER": "none", **more}


def within_limit(function: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Callable[[], Any]:
    async def limited() -> Any:
        with anyio.fail_after(LIMIT_S):
            return await function(*arguments, **options)

    return limited


def server_of(repo: Path, env: dict[str, str]) -> StdioServerParameters:
    command, *rest = PROGRAM
    return StdioServerParameters(command=command, args=rest, cwd=repo, env=env)


def text_of(result: object) -> str:
    (content,) = result.content
    return content.text


@pytest.fixture(scope="module")
def shared(brief_model, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A repository that all tests leave as it is, and the environment of their servers."""
    scratch = tmp_path_factory.mktemp("mcp")
    (scratch / "runtime").mkdir(mode=0o700)
    folders = {"AWARENESS_INDEX_DIR": str(scratch / "indexes"), "XDG_RUNTIME_DIR": str(scratch / "runtime")}
    return commit_all(write_tree(scratch / "sample", SAMPLE)), environment(brief_model, **folders)


class Stdio:
    """A client whose server runs on stdin and stdout, for tests that are not asynchronous."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self._portal, self._client = portal, client

    def list_tools(self) -> list[Tool]:
        return self._portal.call(within_limit(self._client.list_tools)).tools

    def call(self, name: str, arguments: dict[str, object], **options: object) -> CallToolResult:
        return self._portal.call(within_limit(self._client.call_tool, name, arguments, **options))


@pytest.fixture(scope="module")
def stdio(shared) -> Iterator[Stdio]:
    repo, env = shared
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(server_of(repo / "src", env))) as client,
    ):
        yield Stdio(portal, client)


def test_the_tools_are_listed_and_called_over_stdio(stdio):
    tools = stdio.list_tools()
    assert [tool.name for tool in tools] == list(TOOLS)
    assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
    assert all(tool.annotations.read_only_hint for tool in tools)
    found = stdio.call("search", {"query": "sign the cookie", "top_k": 2})
    assert not found.is_error
    assert found.structured_content["results"][0]["path"] == "src/auth.py"
    assert "src/auth.py:1-7  Session" in text_of(found)
    wrong = stdio.call("search", {"query": "x", "limit": 3})
    assert wrong.is_error
    assert text_of(wrong).startswith("error: search: there is no argument `limit`\ntry: the arguments are query")
    outside = stdio.call("search", {"query": "x", "repo": "/etc"})
    assert outside.is_error and "is not one of the allowed repositories" in text_of(outside)
    with pytest.raises(MCPError, match="no tool 'delete'"):
        stdio.call("delete", {})


def test_a_question_is_answered_and_progress_reported_if_it_is_asked_for(stdio):
    told: list[tuple[float, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    question = {"question": "How is the cookie signed by the session?"}
    answer = stdio.call("ask", question, progress_callback=on_progress)
    assert not answer.is_error
    assert answer.structured_content["citations"][0]["path"] == "src/auth.py"
    assert [number for number, _ in told] == [float(i + 1) for i in range(len(told))]
    assert len(told) >= 2


def test_what_is_no_message_does_not_end_it_and_nothing_but_the_protocol_is_on_stdout(sample, model_folder):
    """Notes, such as of the first index, go to stderr; the end of stdin ends the program."""
    bad = ["", "{", "[]", "null", '{"jsonrpc":"2.0"}', "\x00\ud800", "{" * 5000]
    hello = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        '"clientInfo":{"name":"t","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"search","arguments":{"query":"cookie"}}}\n'
    )
    process = subprocess.Popen(PROGRAM, cwd=sample, env=environment(model_folder), stdin=-1, stdout=-1, stderr=-1)
    with process:
        process.stdin.write(b"\xff\xfe\n" + "\n".join([*bad, hello]).encode("utf-8", "surrogatepass"))
        process.stdin.flush()
        lines = [process.stdout.readline()]
        while b'"id":2' not in lines[-1]:
            assert lines[-1], process.stderr.read()
            lines.append(process.stdout.readline())
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
        assert all(line.startswith(b"{") and b'"jsonrpc":"2.0"' in line for line in lines)
        assert process.stdout.read() == b""
        assert b"indexed 4 files" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number, sample, model_folder):
    process = subprocess.Popen(PROGRAM, cwd=sample, env=environment(model_folder), stdin=-1, stdout=-1, stderr=-1)
    with process:
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 128 + number


def test_a_call_that_is_cancelled_ends_and_others_go_on(sample, model_folder):
    functions = "".join(f"def session_cookie_{i}(a, b):\n    return a.sign(b, {i})\n\n\n" for i in range(40))
    write_tree(sample, {"src/many.py": functions})

    async def talk() -> None:
        async with Client(server_of(sample, environment(model_folder))) as client:
            await client.call_tool("search", {"query": "cookie"})
            with anyio.move_on_after(1.0) as scope:
                await client.call_tool("ask", {"question": "How is the session cookie signed?"})
            assert scope.cancelled_caught
            found = await client.call_tool("search", {"query": "cookie"})
            assert found.structured_content["results"]

    anyio.run(within_limit(talk))


class Http:
    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.url = f"http://127.0.0.1:{port}/mcp"

    def post(self, **headers: str) -> httpx.Response:
        given = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {self.token}", **headers}
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        return httpx.post(self.url, json=body, headers={k: v for k, v in given.items() if v}, timeout=30)


@pytest.fixture(scope="module")
def http(shared) -> Iterator[Http]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    repo, env = shared
    with subprocess.Popen([*PROGRAM, "--http", str(port)], cwd=repo, env=env, stderr=-1, text=True) as process:
        line = ""
        while "Authorization" not in line:
            line = process.stderr.readline()
            assert line, "it ended"
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        yield Http(port, line.split()[-1])
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_tools_are_called_over_http_by_clients_of_every_protocol(http, mode):
    async def talk() -> None:
        headers = {"Authorization": f"Bearer {http.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as web,
            Client(streamable_http_client(http.url, http_client=web), mode=mode) as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
            found = await client.call_tool("search", {"query": "sign the cookie"})
            assert found.structured_content["results"][0]["path"] == "src/auth.py"

    anyio.run(within_limit(talk))


def test_only_requests_with_the_token_to_this_host_are_answered(http):
    assert http.post().status_code not in (401, 403)
    assert http.post(Host=f"localhost:{http.port}").status_code not in (401, 403)
    for token in ("", "Bearer", "Bearer x", f"Basic {http.token}", f"Bearer {http.token}x", "Bearer \xff"):
        assert http.post(Authorization=token.encode("latin-1")).status_code == 401
    for host in ("evil.example", f"evil.example:{http.port}", "127.0.0.1", f"127.0.0.1.evil.example:{http.port}"):
        assert http.post(Host=host).status_code == 403
    for origin in ("http://evil.example", "null", f"http://evil.example:{http.port}", f"https://127.0.0.1:{http.port}"):
        assert http.post(Origin=origin).status_code == 403
    assert http.post(Origin=f"http://127.0.0.1:{http.port}").status_code not in (401, 403)
    assert httpx.options(http.url).status_code == 401
    big = httpx.post(http.url, content=b" " * (1 << 21), headers={"Authorization": f"Bearer {http.token}"})
    assert big.status_code == 413


def test_the_token_is_kept_and_is_the_users_alone(tmp_path):
    path = tmp_path / "runtime" / "mcp.token"
    token = kept_token(path)
    assert kept_token(path) == token and len(token) > 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(UsageError, match="only you can read"):
        kept_token(path)
    path.unlink()
    path.write_text("")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="only you can read"):
        kept_token(path)


def test_a_search_loads_no_model_and_no_torch(sample, model_folder, tmp_path):
    code = (
        "import sys, awareness.serve.mcp_server\n"
        "from pathlib import Path\n"
        "from awareness.serve.agent_tools import TOOLS, run_tool\n"
        "from awareness.serve.agent_calls import Call\n"
        "from awareness.serve.allowed import AllowedRepositories\n"
        f"allowed = AllowedRepositories([Path({str(sample)!r})])\n"
        "tool = TOOLS['search']\n"
        "assert 'auth.py' in run_tool(allowed, tool, tool.parse({'query': 'cookie'}), Call()).text\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(model_folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
