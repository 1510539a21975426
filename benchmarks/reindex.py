"""Measure a refresh when nothing has changed, and how fast the light commands start.

    python benchmarks/reindex.py --repo PATH

Listing and hashing the files alternates in one process with `refresh` over an index that is up to date. Then it
measures the wall time of `awareness index`, `awareness search` and `awareness --help` as new processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import seconds, table

from awareness.engine.workspace import Workspace
from awareness.index import build
from awareness.index.files.repository import Repository
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model import model_files, presets, token_offsets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=Path("."))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        import os

        os.environ["AWARENESS_INDEX_DIR"] = scratch
        awareness("index", str(options.repo), "--lazy")
        workspace = Workspace.open(options.repo)
        folder = model_files.pull(presets.DEFAULT_MODEL)
        listed, refreshed = [], []
        with writing(workspace.layout), Store.open(workspace.layout) as store:
            for _ in range(options.rounds):
                started = time.perf_counter()
                files = sum(1 for _ in Repository.open(options.repo).scan())
                listed.append(time.perf_counter() - started)
                started = time.perf_counter()
                found = build.refresh(
                    store,
                    Repository.open(options.repo),
                    model=folder.name,
                    fingerprint=folder.fingerprint,
                    token_starts=lambda: token_offsets.token_starts(folder.path),
                )
                refreshed.append(time.perf_counter() - started)
                assert (found.added, found.removed) == (0, 0)
        a, b = statistics.median(listed), statistics.median(refreshed)
        table(("files", "list and hash, ms", "refresh, ms", "ratio"), [(files, a * 1e3, b * 1e3, b / a)])
        print()
        commands = {
            "awareness --help": ("--help",),
            "awareness search": ("search", "where is the session opened", "--repo", str(options.repo)),
            "awareness index --lazy, nothing changed": ("index", str(options.repo), "--lazy"),
            "python -c pass": (),
        }
        rows = [(name, seconds(lambda line=line: awareness(*line), repeat=9)) for name, line in commands.items()]
        table(("command", "wall time, s"), rows)


def awareness(*arguments: str) -> None:
    line = ["-m", "awareness.cli.app", *arguments] if arguments else ["-c", "pass"]
    subprocess.run([sys.executable, *line], check=True, capture_output=True)


if __name__ == "__main__":
    main()
