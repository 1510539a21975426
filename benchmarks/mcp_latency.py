"""Measure how long a search takes over MCP, warm: the official client and `awareness mcp` as a process of its own.

    python benchmarks/mcp_latency.py REPOSITORY [--number 200] [--pause 0]

Beside it `Engine.search` in this process with the same queries, in turns, so that other work on the machine slows both.
The queries are names of the repository's own definitions as words, so each one finds something. `--pause` waits between
two searches: after 2 seconds the next one looks for changed files first.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from pathlib import Path

import anyio
from common import processor, table
from mcp import Client, StdioServerParameters

from awareness import Engine

TOP_K = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--number", type=int, default=200, help="of searches")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two searches")
    anyio.run(measure, parser.parse_args())


async def measure(options: argparse.Namespace) -> None:
    arguments = ["-m", "awareness.cli.app", "mcp", str(options.repository)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    with Engine.open(options.repository) as engine:
        engine.refresh()
        queries = queries_of(engine, options.number)
        async with Client(server) as client:
            over_mcp, places_only, in_process = [], [], []
            for place, query in enumerate(["warm up", *queries]):
                await anyio.sleep(options.pause)
                times = [
                    await call(client, {"query": query, "top_k": TOP_K}),
                    await call(client, {"query": query, "top_k": TOP_K, "max_snippet_lines": 0}),
                    search(engine, query),
                ]
                if place:
                    for times_of, seconds in zip((over_mcp, places_only, in_process), times, strict=True):
                        times_of.append(seconds)
    print(f"{len(queries)} searches of {options.repository.name}, {options.pause} s apart, {processor()}\n")
    names = ("search over MCP", "the same, places only", "Engine.search in process")
    rows = [[name, *percentiles(times)] for name, times in zip(names, (over_mcp, places_only, in_process), strict=True)]
    table(["", "p50 ms", "p95 ms", "max ms"], rows)


def queries_of(engine: Engine, number: int) -> list[str]:
    (corpus,) = engine.corpora
    symbols = sorted({stored.chunk.symbol for stored in corpus.store.chunks(corpus.snapshot) if stored.chunk.symbol})
    step = max(1, len(symbols) // number)
    return [" ".join(re.findall(r"[A-Za-z]+", symbol)) for symbol in symbols[::step]][:number]


async def call(client: Client, arguments: dict[str, object]) -> float:
    started = time.perf_counter()
    result = await client.call_tool("search", arguments)
    seconds = time.perf_counter() - started
    assert not result.is_error, result
    return seconds


def search(engine: Engine, query: str) -> float:
    started = time.perf_counter()
    engine.search(query, top_k=TOP_K)
    return time.perf_counter() - started


def percentiles(times: list[float]) -> list[float]:
    cuts = statistics.quantiles(times, n=20)
    return [1000 * statistics.median(times), 1000 * cuts[-1], 1000 * max(times)]


if __name__ == "__main__":
    main()
