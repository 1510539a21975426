"""A real `awareness serve` in a process of its own, on a tiny model, with a repository that has something to hide."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import torch

from tests.conftest import SAMPLE, commit_all, tiny_model, tiny_tokenizer, write_tree

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "awareness.cli.app"]
QUESTION = "HTTPConnectionPool acquire"


@dataclass
class Running:
    """A server. environment: of its process, and of programs that shall find it."""

    process: subprocess.Popen[str]
    repo: Path
    environment: dict[str, str]
    runtime: Path
    url: str = ""
    token: str = ""
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def socket_path(self) -> Path:
        return self.runtime / f"serve-{self.port}.sock"

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def client(self, **options: object) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        self.clients.append(httpx.Client(base_url=self.url, timeout=60, **{"headers": headers, **options}))  # type: ignore[arg-type]
        return self.clients[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def hostile_repository(folder: Path) -> Path:
    """Indexed: the sample and a file of an odd name. Not indexed: a link, a key file, a binary, an ignored file."""
    write_tree(folder, {**SAMPLE, ".gitignore": "ignored.py\n", "ignored.py": "IGNORED = 1\n"})
    write_tree(folder, {".env": "API_KEY=sk-1234567890\n", "odd\nna\x1bme.py": "def odd_name():\n    return 'odd'\n"})
    (folder / "id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
    (folder / "picture.bin").write_bytes(bytes(range(256)) * 20)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9.py")).write_text("def latin_name():\n    return 'latin'\n")
    (folder / "link.py").symlink_to("/etc/passwd")
    (folder / "out").symlink_to("/etc")
    return commit_all(folder)


Start = Callable[..., Running]


@contextlib.contextmanager
def starting(model_folder: Path, scratch: Path) -> Iterator[Start]:
    """Yields a function that starts servers, which end with the block. They share a runtime folder, whose path has to
    be short: that of a socket is limited."""
    runtime = Path(tempfile.mkdtemp(prefix="aw-"))
    started: list[Running] = []

    def start(*options: str, repo: Path, port: int = 0) -> Running:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AWARENESS_INDEX_DIR": str(scratch / "indexes"),
            "XDG_RUNTIME_DIR": str(runtime),
            "AWARENESS_MODEL": str(model_folder),
        }
        process = subprocess.Popen(
            [*PROGRAM, "serve", str(repo), "--port", str(port), "--no-open", *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=open(scratch / "stderr", "a"),  # noqa: SIM115
            text=True,
            cwd=scratch,
        )
        running = Running(process, repo, environment, runtime / "awareness")
        started.append(running)
        assert process.stdout is not None
        address = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#token=(\S+)\n", process.stdout.readline())
        assert address, (scratch / "stderr").read_text()
        running.url, running.token = address[1], address[2]
        return running

    try:
        yield start
    finally:
        for running in started:
            for client in running.clients:
                client.close()
            running.process.kill()
            running.process.wait()
            assert running.process.stdout is not None
            running.process.stdout.close()
        shutil.rmtree(runtime)


@pytest.fixture
def start(model_folder: Path, tmp_path: Path) -> Iterator[Start]:
    with starting(model_folder, tmp_path) as begin:
        yield begin


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends an answer by itself."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    model = tiny_model("qwen3")
    model.config.max_position_embeddings = 4096
    with torch.no_grad():
        model.lm_head.weight[256:] = 0  # the special tokens, which are then never the likeliest
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(endless_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that leave it as it is. One question may wait."""
    scratch = tmp_path_factory.mktemp("serving")
    with starting(endless_model, scratch) as begin:
        yield begin("--queue", "1", repo=hostile_repository(scratch / "sample"))


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def events(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """(event, data) of a stream."""
    event = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("data: "):
            yield event, line[6:]


def eventually(is_true: Callable[[], bool], seconds: float = 60) -> bool:
    """Waits until something is true; False if it does not become so."""
    due = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > due:
            return False
        time.sleep(0.05)
    return True
