"""The one writer of an index. Readers need no lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from awareness.errors import IndexLocked
from awareness.index.layout import IndexLayout


@contextlib.contextmanager
def writing(layout: IndexLayout) -> Iterator[None]:
    """Holds the index's one writer lock (kernel flock: free at once if the holder dies). Raises IndexLocked."""
    from filelock import FileLock, Timeout

    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(layout.lock, timeout=0.2)
    try:
        lock.acquire()
    except Timeout:
        holder = layout.lock_holder.read_text().strip() if layout.lock_holder.exists() else "unknown"
        raise IndexLocked(
            f"another awareness process (pid {holder}) is writing to {layout.root}", hint="try again when it is done"
        ) from None
    try:
        layout.lock_holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
