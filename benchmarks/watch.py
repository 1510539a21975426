"""Measure `index --watch`: how soon a saved file can be found, and how many rebuilds a burst of saves causes.

    python benchmarks/watch.py --repo PATH [--saves 20] [--storm 1000]

Works on a copy of the repository. The time is from the end of the write to the first search that finds the new name,
with the watcher in its own process (`--lazy`: latents follow). It also measures the time of one `refresh` in this
process. Aims: under 1 s; one rebuild.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import once, table

from awareness.engine.workspace import Workspace
from awareness.index.search.ranking import HybridRouter
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model import model_files, presets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=Path("."))
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--storm", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["AWARENESS_INDEX_DIR"] = f"{scratch}/index"
        root = Path(scratch, "repo")
        shutil.copytree(options.repo, root, symlinks=True)
        line = [sys.executable, "-m", "awareness.cli.app", "index", str(root), "--watch", "--lazy", "--format", "json"]
        watcher = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        rebuilds: queue.Queue[dict[str, object]] = queue.Queue()
        threading.Thread(target=read, args=(watcher, rebuilds), daemon=True).start()
        try:
            first = rebuilds.get(timeout=120)
            workspace = Workspace.open(root)
            times = [save_and_find(root, workspace, rebuilds, number) for number in range(options.saves)]
            for number in range(options.storm):
                (root / f"storm_{number % 50}.py").write_text(f"def storm_{number}():\n    return {number}\n")
            storm = [rebuilds.get(timeout=60)]
            while True:
                try:
                    storm.append(rebuilds.get(timeout=3))
                except queue.Empty:
                    break
        finally:
            watcher.terminate()
            watcher.wait()
        with writing(workspace.layout), Store.open(workspace.layout) as store:
            folder = model_files.pull(presets.DEFAULT_MODEL)
            refresh = statistics.median(once(lambda: workspace.refresh(store, folder)) for _ in range(5))
    times.sort()
    header = (
        "files",
        "saved to found, median s",
        "slowest, s",
        "one refresh, s",
        f"rebuilds for {options.storm} saves",
    )
    table(header, [(first["files"], statistics.median(times), times[-1], refresh, len(storm))])


def read(watcher: subprocess.Popen[str], rebuilds: queue.Queue[dict[str, object]]) -> None:
    assert watcher.stdout
    for line in watcher.stdout:
        rebuilds.put(json.loads(line))


def save_and_find(root: Path, workspace: Workspace, rebuilds: queue.Queue[dict[str, object]], number: int) -> float:
    """Seconds from the end of the write until a search finds what was written."""
    name = f"freshly_saved_{number}"
    (root / "fresh.py").write_text(f"def {name}():\n    return {number}\n")
    saved = time.perf_counter()
    while True:
        with Store.open(workspace.layout) as store:
            snapshot = store.snapshot(workspace.snapshot_name)
            assert snapshot
            hits = HybridRouter(store, snapshot.id).search(name, top_k=1)
        if hits and hits[0].chunk.symbol == name:
            break
        time.sleep(0.005)
    seconds = time.perf_counter() - saved
    rebuilds.get(timeout=60)
    return seconds


if __name__ == "__main__":
    main()
