"""What a model wrote before training, kept on disk: a file of JSON lines for each kind of sample and each model.

A line is appended and synced as soon as its sample is made, so a run that is killed loses at most one batch. A line
that was cut off or changed does not have the digest that stands in it; it is not read, and its sample is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from awareness.errors import storage_errors
from awareness.model.model_files import ModelFolder
from awareness.types import digest


class SampleCache:
    """folder: created if missing. kind: of the samples. model: what writes them. Raises StorageFailed."""

    def __init__(self, folder: Path, kind: str, model: ModelFolder) -> None:
        name = re.sub(r"[^\w.-]+", "-", Path(model.name).name)
        self.path = folder / f"{kind}-{name}-{digest(model.fingerprint)[:16]}.jsonl"
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> tuple[dict[str, dict[str, Any]], int]:
        """Key -> entry, and the number of damaged lines. Of two entries with one key the first counts."""
        entries: dict[str, dict[str, Any]] = {}
        damaged = 0
        with storage_errors(self.path):
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for line in filter(None, lines):
            entry = _entry(line)
            if entry is None:
                damaged += 1
            else:
                entries.setdefault(entry["key"], entry)
        return entries, damaged

    def add(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Append entries, by key. They are on the disk when this returns."""
        lines = [_line({"key": key, **entry}) for key, entry in entries.items()]
        with storage_errors(self.path), self.path.open("ab+") as out:
            if out.tell():
                out.seek(-1, os.SEEK_END)
                if out.read(1) != b"\n":  # of a process that was killed in between
                    lines.insert(0, "")
            out.write(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
            out.flush()
            os.fsync(out.fileno())

    @contextlib.contextmanager
    def locked(self, waits: Callable[[], None]) -> Iterator[None]:
        """One process at a time writes. waits: called once if another one does. A process that is killed leaves no
        lock behind."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path.with_suffix(".lock"))
        with storage_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waits()
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps({"sum": _sum(entry), **entry})


def _sum(entry: Mapping[str, Any]) -> str:
    return digest(json.dumps(entry, sort_keys=True))[:16]


def _entry(line: bytes) -> dict[str, Any] | None:
    """None for a damaged line."""
    try:
        entry = json.loads(line)
        return entry if isinstance(entry, dict) and entry.pop("sum") == _sum(entry) and "key" in entry else None
    except (ValueError, KeyError):
        return None
