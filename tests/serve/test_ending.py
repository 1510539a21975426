"""How a server ends: by signals, in the middle of an answer, killed; and what it leaves behind."""

from __future__ import annotations

import signal
import subprocess

import httpx
import pytest

from awareness.cli.app import run
from awareness.serve import local_socket
from tests.conftest import SAMPLE, commit_all, write_tree
from tests.serve.conftest import PROGRAM, QUESTION, events, eventually, starting


@pytest.fixture
def start_endless(endless_model, tmp_path):
    with starting(endless_model, tmp_path) as begin:
        yield begin


@pytest.fixture
def repo(tmp_path):
    return commit_all(write_tree(tmp_path / "sample", SAMPLE))


def test_sigterm_ends_it_in_the_middle_of_an_answer(start_endless, repo, tmp_path):
    running = start_endless(repo=repo)
    assert running.socket_path.exists() and (running.runtime / f"serve-{running.port}.token").exists()
    with running.client().stream(
        "POST", "/ask", json={"question": QUESTION, "long": True, "max_new_tokens": 3000}
    ) as response:
        received = events(response)
        assert any(event == "begun" for event, _ in received)
        running.process.send_signal(signal.SIGTERM)
        last = list(received)[-1]
    assert last[0] == "error" and "the server ended" in last[1]
    assert running.process.wait(60) == 0
    told = (tmp_path / "stderr").read_text()
    assert "stopped" not in told and "error" not in told
    assert list(running.runtime.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/health")


def test_what_a_killed_server_leaves_harms_nobody(start, repo, monkeypatch, capfd):
    first = start("--lazy", repo=repo)
    assert first.client().post("/search", json={"query": QUESTION}).status_code == 200
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert first.socket_path.exists()
    for name, value in first.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(repo)
    assert run(["ask", QUESTION, "-n", "2"]) == 0  # nobody answers there: this process does
    assert run(["check"]) == 0
    second = start("--lazy", repo=repo)
    assert local_socket.sockets(second.runtime) == [second.socket_path]
    if second.port != first.port:
        assert not first.socket_path.exists()
    assert second.token != first.token and second.end() == 0


def test_a_taken_port_is_said_and_ctrl_c_ends_plainly(start, repo, tmp_path):
    running = start("--lazy", repo=repo)
    other = subprocess.run(
        [*PROGRAM, "serve", str(repo), "--port", str(running.port), "--no-open"],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert other.returncode == 2 and f"awareness serve --port {running.port + 1}" in other.stderr
    assert httpx.get(f"{running.url}/health").status_code == 200
    assert running.socket_path.exists()
    assert running.end(signal.SIGINT) == 130
    told = (tmp_path / "stderr").read_text()
    assert told.endswith("\nstopped\n") and "error" not in told
    assert list(running.runtime.iterdir()) == []


def test_an_idle_repository_is_closed(start, repo):
    http = start("--lazy", "--idle", "0.2", repo=repo).client()
    http.post("/search", json={"query": QUESTION})
    assert eventually(lambda: not http.get("/repositories").json()["repositories"][0]["is_open"])
    assert http.post("/search", json={"query": QUESTION}).json()["hits"]


@pytest.mark.parametrize(
    "options, said",
    [
        (["nowhere"], "nowhere does not exist"),
        (["--runs", "nowhere", "."], "nowhere is not a folder"),
        (["--host", "no.such.host.invalid", "."], "no.such.host.invalid"),
        (["--host", "192.0.2.1", "."], "192.0.2.1"),
    ],
)
def test_a_bad_start_is_one_line(repo, monkeypatch, capfd, options, said):
    monkeypatch.chdir(repo)
    assert run(["serve", "--no-open", "--port", "0", *options]) == 2
    assert said in capfd.readouterr().err
