"""Runs as processes: whatever is killed in the middle, the next run goes on from what the store has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from awareness.fleet import catalogue as catalogues
from awareness.fleet.checking import check
from awareness.fleet.latent_ledger import read_shard_places
from awareness.fleet.object_store import ObjectStore, open_store
from tests.conftest import write_tree
from tests.fleet.fixtures import use_s3

REPOSITORIES, CHUNKS = 4, 30
BUCKET = "s3://code/fleet"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Folders with enough chunks for some batches."""
    for number in range(REPOSITORIES):
        text = "\n\n".join(
            f"def function_{number}_{i}(value):\n    " + f"value = value + {i}\n    " * 12 + "return value\n"
            for i in range(CHUNKS)
        )
        write_tree(tmp_path / "many" / f"r{number}", {f"module{number}.py": text})
    (tmp_path / "list").write_text("".join(f"many/r{number}\n" for number in range(REPOSITORIES)))
    return tmp_path / "list"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the S3 server in a process of its own, always at the same address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    use_s3(monkeypatch, f"http://127.0.0.1:{port}")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        for _ in range(600):
            try:
                httpx.put(f"http://127.0.0.1:{port}/code")
                return process
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the S3 server does not start")

    yield start
    for process in started:
        process.kill()
        process.wait()


def begin(place: str, repositories: Path, model: Path, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "awareness.cli.app", "fleet", "index", str(repositories), "--out", place]
    command += ["--model", str(model), "--encoders", "1", "--batch-tokens", "1024", "--format", "json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **more}
    )


def shards(store: ObjectStore) -> int:
    return sum(1 for _ in store.list("shards"))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if what():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("it does not begin")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.name().startswith("ray::_Encoder") or "ray::_Encoder" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return dict(json.loads(printed))


def is_whole(place: str) -> bool:
    known, _ = catalogues.read(open_store(place))
    return len(known.repositories) == REPOSITORIES and not check(open_store(place), sample=None).problems


def check_latents(place: str) -> dict[str, int]:
    """shard -> its latents."""
    store = open_store(place)
    names = [one.key.removeprefix("shards/") for one in store.list("shards")]
    return {name: len(read_shard_places(store, name, None)) for name in names}


def test_a_worker_and_then_the_driver_are_killed(tmp_path, many, model_folder):
    place = str(tmp_path / "store")
    process = begin(place, many, model_folder)
    wait_for(lambda: shards(open_store(place)) >= 1, process)
    killed = workers_of(process)[:1]
    for worker in killed:
        worker.send_signal(signal.SIGKILL)
    assert killed
    now = shards(open_store(place))
    wait_for(lambda: shards(open_store(place)) > now, process)  # it went on
    process.kill()
    process.wait()
    time.sleep(1.0)  # what Ray started ends by itself
    before = sum(check_latents(place).values())
    report = finished(begin(place, many, model_folder))
    assert is_whole(place)
    assert report["encoded_chunks"] == report["chunks"] - before  # nothing that was in the store is encoded again


def test_two_runs_at_once_on_a_bucket_that_is_away_for_a_while(tmp_path, many, model_folder, server):
    """A stopped server answers nothing, as one behind a broken network; a killed one of moto's forgets all it has."""
    running = server()
    for number, names in enumerate((["r0", "r1"], ["r2", "r3"])):
        (tmp_path / f"list{number}").write_text("".join(f"many/{name}\n" for name in names))
    runs = [begin(BUCKET, tmp_path / f"list{number}", model_folder) for number in (0, 1)]
    wait_for(lambda: shards(open_store(BUCKET)) >= 1, runs[0])
    running.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    running.send_signal(signal.SIGCONT)
    assert [len(finished(run)["indexed"]) for run in runs] == [2, 2]
    assert is_whole(BUCKET)
    assert catalogues.read(open_store(BUCKET))[0].generation == 2


def test_a_run_is_interrupted(tmp_path, many, model_folder):
    place = str(tmp_path / "store")
    process = begin(place, many, model_folder)
    wait_for(lambda: shards(open_store(place)) >= 1, process)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in said
    assert json.loads(printed)["is_interrupted"]
    assert sum(check_latents(place).values()) > 0
