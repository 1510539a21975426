"""One training at a time in an output folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from awareness.errors import IndexLocked, storage_errors


@contextlib.contextmanager
def alone_in(output_dir: Path) -> Iterator[None]:
    """Hold the lock of an output folder, a kernel flock that is free as soon as its holder dies. Raises IndexLocked."""
    lock = FileLock(output_dir / ".lock", timeout=0.2)
    with storage_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise IndexLocked(
                f"another awareness process trains in {output_dir}",
                hint="wait until it has finished, or --set output_dir=ANOTHER_FOLDER",
            ) from None
    try:
        yield
    finally:
        lock.release()
