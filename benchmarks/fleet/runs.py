"""Measure `awareness fleet` on pinned packages: throughput, what is saved, and what is left when something is killed.

    python benchmarks/fleet/runs.py WORK [--model NAME] [--packages 200] [--plain 40] [--kills 30] [--rounds 5]

Fetches the packages of packages.txt from the npm registry into WORK, each as a git repository of one commit, once.

1. plain     `awareness index --all` of the first PLAIN packages, one after the other in one process with one thread
2. fleet     `awareness fleet index` of all packages, with one process of one thread for each core
3. again     the same command with nothing changed
4. kills     runs of a few packages, of which a worker, the driver or the S3 server's answers are killed at a random
             moment; then the same command until it ends. Counted: what is missing, and latents that are there twice
5. ask       first tokens from an S3 server, cold and warm, against the index of the same repository, in turns
0 leaves a part out. Throughput counts tokens that a model encoded, by the clock, with the start of the programs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import processor

from awareness import Engine
from awareness.fleet import catalogue as catalogues
from awareness.fleet.checking import check
from awareness.fleet.fleet_memory import FleetMemory
from awareness.fleet.latent_ledger import read_shard_places
from awareness.fleet.object_store import open_store

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-m", "awareness.cli.app"]
QUESTION = "how are the arguments of the command line parsed?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--packages", type=int, default=200)
    parser.add_argument("--plain", type=int, default=40)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    work = options.work.resolve()
    folders = fetch(work / "packages", options.packages)
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.model}\n", flush=True)
    plain = plain_speed(work, folders[: options.plain], options.model) if options.plain else None
    fleet_speed(work, folders, options.model, plain)
    if options.kills:
        kill(work, folders[:6], options.model, options.kills, random.Random(options.seed))
    if options.rounds:
        ask(work, options.model, options.rounds)


def fetch(folder: Path, count: int) -> list[Path]:
    """The first packages, as git repositories."""
    lines = (HERE / "packages.txt").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")][:count]

    def one(named: str) -> Path:
        target = folder / named.replace("/", "__")
        if target.exists():
            return target
        name, _, version = named.rpartition("@")
        address = f"https://registry.npmjs.org/{name}/-/{name.split('/')[-1]}-{version}.tgz"
        partly = target.with_name(f".{target.name}")
        shutil.rmtree(partly, ignore_errors=True)
        with urllib.request.urlopen(address, timeout=120) as answer:
            packed = io.BytesIO(answer.read())
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(partly, filter="data")
        run = {"cwd": partly, "check": True, "capture_output": True}
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org"]
        subprocess.run(["git", "init", "-q"], **run)
        subprocess.run(["git", "add", "-A"], **run)
        subprocess.run(["git", *identity, "commit", "-qm", named], **run)
        partly.rename(target)
        return target

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, names))


def command(arguments: list[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [*PROGRAM, *arguments, "--format", "json", "--quiet"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr}")
    return dict(json.loads(done.stdout))


def plain_speed(work: Path, folders: list[Path], model: str) -> float:
    """Tokens a second of one process with one thread."""
    shutil.rmtree(work / "plain", ignore_errors=True)
    one = {"AWARENESS_INDEX_DIR": str(work / "plain"), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    report = command(["index", *map(str, folders), "--all", "--model", model], **one)
    seconds = time.perf_counter() - started
    tokens = sum(each["tokens"] for each in report.get("repositories", [report]))
    print(f"plain: {len(folders)} repositories, {tokens:,} tokens, {seconds:.1f} s: {tokens / seconds:.0f} tokens/s")
    return tokens / seconds


def fleet_speed(work: Path, folders: list[Path], model: str, plain: float | None) -> None:
    store, listed = work / "store", work / "list"
    shutil.rmtree(store, ignore_errors=True)
    listed.write_text("".join(f"{folder}\n" for folder in folders))
    arguments = ["fleet", "index", str(listed), "--out", str(store), "--model", model]
    report = command(arguments)
    cores = os.cpu_count() or 1
    speed = report["encoded_tokens"] / report["wall_s"]
    print(
        f"fleet: {len(report['indexed'])} repositories, {len(report['failed'])} failed, {report['chunks']:,} chunks,"
        f" {report['tokens']:,} tokens, {report['encoded_tokens']:,} encoded, {report['wall_s']:.1f} s:"
        f" {speed:.0f} tokens/s; {report['saved_tokens'] / report['tokens']:.1%} saved;"
        f" written {report['bytes_written']}"
    )
    if plain:
        print(
            f"fleet / plain: {speed / plain:.2f} on {cores} cores, {speed / plain / cores:.2f} of a core's worth each"
        )
    for failure in report["failed"]:
        print(f"  failed: {failure['name']}: {failure['message']}")
    again = command(arguments)
    print(
        f"again: {len(again['unchanged'])} unchanged, {len(again['indexed'])} indexed, {again['wall_s']:.1f} s,"
        f" written {again['bytes_written']}\n",
        flush=True,
    )


class Server:
    """moto's S3 server in a process of its own. It keeps everything in memory, so it is stopped, not killed."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], **quiet)
        os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
        os.environ["AWS_ENDPOINT_URL"] = self.address
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.address}/code", method="PUT"), timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the S3 server does not start")


def kill(work: Path, folders: list[Path], model: str, times: int, chance: random.Random) -> None:
    server = Server()
    listed = work / "list-kills"
    listed.write_text("".join(f"{folder}\n" for folder in folders))
    started = time.perf_counter()
    whole = command(["fleet", "index", str(listed), "--out", "s3://code/whole", "--model", model])
    usual = time.perf_counter() - started
    lost = twice = unfinished = 0
    kinds: Counter[str] = Counter()
    for number in range(times):
        place = f"s3://code/kill{number}"
        kind = ("worker", "driver", "store")[number % 3]
        arguments = ["fleet", "index", str(listed), "--out", place, "--model", model, "--batch-tokens", "1024"]
        process = subprocess.Popen([*PROGRAM, *arguments, "--quiet"], stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(chance.uniform(0.2, 0.95) * usual)
        kinds[kind] += process.poll() is None
        if kind == "driver":
            process.kill()
        elif kind == "worker":
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                if "ray::" in " ".join(child.cmdline()) and "Agent" not in " ".join(child.cmdline()):
                    child.send_signal(signal.SIGKILL)
                    break
        else:
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(2)
            server.process.send_signal(signal.SIGCONT)
        process.wait()
        for _ in range(3):
            report = command(arguments)
            if not report["failed"]:
                break
        unfinished += bool(report["failed"])
        store = open_store(place)
        known, _ = catalogues.read(store)
        lost += len(folders) - len(known.repositories) + len(check(store, sample=None).problems)
        latents = [read_shard_places(store, one.key.removeprefix("shards/"), None) for one in store.list("shards")]
        twice += sum(map(len, latents)) - len(set().union(*latents))
        print(f"  {number + 1} {kind}: {sum(map(len, latents))} latents of {whole['encoded_chunks']}", flush=True)
    print(
        f"kills: {times} ({dict(kinds)} while it ran): {lost} repositories or objects lost, {unfinished} unfinished,"
        f" {twice} latents there twice (in {times} batches in flight)\n",
        flush=True,
    )
    server.process.kill()


def ask(work: Path, model: str, rounds: int) -> None:
    server = Server()
    bucket = open_store("s3://code/fleet")
    for path in (work / "store").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            bucket.create(path.relative_to(work / "store").as_posix(), path.read_bytes())
    known, _ = catalogues.read(bucket)
    name = FleetMemory("s3://code/fleet", budget=1 << 30).about(QUESTION)[0].name or ""
    times: dict[str, list[float]] = {"cold": [], "warm": [], "local": []}
    searches: dict[str, list[float]] = {"cold": [], "warm": [], "local": []}
    os.environ["AWARENESS_INDEX_DIR"] = tempfile.mkdtemp(prefix="aw-local-")
    with Engine([known.repositories[name].source], model=model) as local:
        local.refresh()
        local.attach(local.search(QUESTION))
        local.ask(QUESTION, max_new_tokens=4)
        for _ in range(rounds):
            os.environ["AWARENESS_INDEX_DIR"] = tempfile.mkdtemp(prefix="aw-cold-")
            with Engine(memories=[FleetMemory("s3://code/fleet", budget=1 << 30)], model=model) as fleet:
                fleet.load()
                for kind, engine in (("cold", fleet), ("warm", fleet), ("local", local)):
                    started = time.perf_counter()
                    hits = engine.search(QUESTION)
                    searches[kind].append(time.perf_counter() - started)
                    engine.attach(hits)
                    times[kind].append(time.perf_counter() - started)
    print(
        f"ask: {len(known.repositories)} repositories on S3, against {name} alone, n = {rounds}; search, with latents"
    )
    for kind, seconds in times.items():
        search = statistics.median(searches[kind])
        between = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"  {kind}: {search:.3f} s, {statistics.median(seconds):.3f} s ({between})")
    server.process.kill()


if __name__ == "__main__":
    main()
