"""Measure `awareness serve`: what it adds to an answer, what it does under load, and what is left when it is killed.

    python benchmarks/serve.py REPO [--rounds 5] [--clients 50 --seconds 60] [--cycles 200] [--model NAME]

1. Answers. The same question in turns: `Engine.ask` in this process (bare), `POST /ask` over the socket (server),
   `awareness ask` in a terminal through the server (command), and with --no-server (cold). First token: from the call,
   or the start of the process, to the first text. All caches are warm.
2. Load. Clients that ask or search without a pause: every status, and the server's memory before and after.
3. Cycles. The server is started, asked, and ended by SIGTERM, SIGINT or SIGKILL in turns. Counted: processes that are
   left, sockets that the next start did not replace, and damage that `awareness check` finds.
0 for --rounds, --seconds or --cycles leaves a part out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from common import processor, table

from awareness import Engine
from awareness.serve import local_socket, server_client

PROGRAM = [sys.executable, "-m", "awareness.cli.app"]
QUESTION = "where is the timeout of a connection checked?"
_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|.)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--model", default=os.environ.get("AWARENESS_MODEL") or None)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cycles", type=int, default=200)
    options = parser.parse_args()
    if options.model:
        os.environ["AWARENESS_MODEL"] = options.model
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="aw-")
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    if options.rounds:
        answers(options.repo, options.model, options.question, options.rounds)
    if options.seconds:
        load(options.repo, options.question, options.clients, options.seconds)
    if options.cycles:
        cycles(options.repo, options.cycles)


@contextlib.contextmanager
def serving(repo: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process of a server, its address and its token."""
    command = [*PROGRAM, "serve", str(repo), "--port", "0", "--no-open", "--quiet", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url, _, token = process.stdout.readline().strip().partition("/#token=")
        yield process, url, token
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


# --- answers ----------------------------------------------------------------------------------------------------------


def answers(repo: Path, model: str | None, question: str, rounds: int) -> None:
    times: dict[str, list[tuple[float, float, float]]] = {}
    with serving(repo) as (_, _, _), Engine.open(repo, model=model) as engine:
        engine.refresh()
        arms: dict[str, Callable[[], tuple[float, float, float]]] = {
            "bare": lambda: bare(engine, question),
            "server": lambda: over_socket(question),
            "command": lambda: in_terminal(repo, question),
            "cold": lambda: in_terminal(repo, question, "--no-server"),
        }
        for number in range(rounds + 1):
            order = list(arms)
            random.Random(number).shuffle(order)
            for arm in order:
                if arm == "cold" and number == 0:
                    continue
                measured = arms[arm]()
                if number:  # the first round warms up
                    times.setdefault(arm, []).append(measured)
    base = [statistics.median(column) for column in zip(*times["bare"], strict=True)]
    rows = []
    for arm, measured in times.items():
        first, whole, speed = (statistics.median(column) for column in zip(*measured, strict=True))
        rows.append((arm, first, first / base[0], whole, whole / base[1], speed, len(measured)))
    table(("arm", "first token, s", "of bare", "whole, s", "of bare", "decoding, tokens/s", "n"), rows)
    print()


def bare(engine: Engine, question: str) -> tuple[float, float, float]:
    begun: list[float] = []
    started = time.perf_counter()
    engine.refresh()
    answer = engine.ask(question, on_begun=lambda _: begun.append(time.perf_counter()))
    return begun[0] - started, time.perf_counter() - started, answer.tokens_per_s


def over_socket(question: str) -> tuple[float, float, float]:
    folder = local_socket.runtime_folder()
    assert folder is not None
    (place,) = local_socket.sockets(folder)
    connected = local_socket.connect(place)
    assert connected is not None
    server = server_client.Server(server_client._Connection(connected), "", Path())
    server._name = None  # type: ignore[assignment]  # the only one
    begun: list[float] = []
    started = time.perf_counter()
    with contextlib.closing(server):
        server.send({"question": question})
        for event, data in server.events():
            if event == "begun":
                begun.append(time.perf_counter())
            if event == "answer":
                return begun[0] - started, time.perf_counter() - started, data["tokens_per_s"]
    raise SystemExit("the question has no answer; choose another one")


def in_terminal(repo: Path, question: str, *more: str) -> tuple[float, float, float]:
    """The speed is not printed by the command."""
    controlling, terminal = pty.openpty()
    started, first, seen = time.perf_counter(), 0.0, b""
    process = subprocess.Popen(
        [*PROGRAM, "ask", question, "--quiet", *more],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        cwd=repo,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := os.read(controlling, 65536):
            seen += data
            if not first and re.search(rb"\w", _ESCAPES.sub(b"", seen)):
                first = time.perf_counter() - started
    os.close(controlling)
    assert process.wait() == 0, seen.decode(errors="replace")
    return first, time.perf_counter() - started, float("nan")


# --- load -------------------------------------------------------------------------------------------------------------


def load(repo: Path, question: str, clients: int, seconds: float) -> None:
    import httpx

    statuses: Counter[str] = Counter()
    with serving(repo) as (process, url, token):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=600) as client:
            client.post("/ask", json={"question": question})
        server = psutil.Process(process.pid)
        before = server.memory_info().rss
        due = time.monotonic() + seconds

        def ask(number: int) -> None:
            random_question = random.Random(number)
            with httpx.Client(base_url=url, headers=headers, timeout=600) as client:
                while time.monotonic() < due:
                    if random_question.random() < 0.5:
                        status = client.post("/search", json={"query": question}).status_code
                        statuses[f"search {status}"] += 1
                        continue
                    with client.stream("POST", "/ask", json={"question": question}) as response:
                        text = response.read()
                    kind = (
                        ""
                        if response.status_code != 200
                        else " with answer"
                        if b"event: answer" in text
                        else " without"
                    )
                    statuses[f"ask {response.status_code}{kind}"] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = server.memory_info().rss
        files = server.num_fds()
    mib = 1 << 20
    print(f"{clients} clients for {seconds:.0f} s: {json.dumps(dict(sorted(statuses.items())))}")
    print(f"memory before {before / mib:.0f} MiB, after {after / mib:.0f} MiB; open files after: {files}\n")


# --- cycles -----------------------------------------------------------------------------------------------------------


def cycles(repo: Path, number: int) -> None:
    import httpx

    ended, left, stale, wrong = Counter[str](), 0, 0, 0
    folder = local_socket.runtime_folder()
    assert folder is not None
    rng = random.Random(0)
    for cycle in range(number):
        how = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[cycle % 3]
        with serving(repo, "--lazy") as (process, url, token):
            stale += len(local_socket.sockets(folder)) != 1
            headers = {"Authorization": f"Bearer {token}"}

            def search(url: str = url, headers: dict[str, str] = headers) -> None:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.post(f"{url}/search", headers=headers, json={"query": "timeout"}, timeout=600)

            asking = threading.Thread(target=search)
            asking.start()
            time.sleep(rng.uniform(0, 1.5))
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(how)
            code = process.wait(60)
            asking.join()
            wrong += code != {signal.SIGTERM: 0, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[how]
            left += sum(child.is_running() for child in children)
            ended[how.name] += 1
    check = subprocess.run([*PROGRAM, "check", "--read-data", "--repo", str(repo)], capture_output=True, text=True)
    print(
        f"{number} cycles ({dict(ended)}): {left} processes left, {stale} stale sockets not replaced,"
        f" {wrong} unexpected exit codes; `awareness check --read-data`: exit code {check.returncode}"
    )


if __name__ == "__main__":
    main()
