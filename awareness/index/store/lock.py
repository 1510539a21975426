"""The one writer of an index. Readers need no lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from awareness.errors import IndexLocked
from awareness.index.store.layout import IndexLayout
from awareness.index.store.tensorfile import refusals


@contextlib.contextmanager
def writing(layout: IndexLayout) -> Iterator[None]:
    """Holds the index's one writer lock (kernel flock: free at once if the holder dies). Raises IndexLocked."""
    from filelock import FileLock, Timeout

    lock = FileLock(layout.lock, timeout=0.2)
    with refusals(layout.root):
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock.acquire()
        except Timeout:
            raise IndexLocked(
                f"another awareness process (pid {_holder(layout)}) is writing to {layout.root}",
                hint="try again when it is done",
            ) from None
    try:
        with refusals(layout.root):
            layout.lock_holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def _holder(layout: IndexLayout) -> str:
    """The holder's pid, once it has written it down."""
    with contextlib.suppress(OSError):
        return layout.lock_holder.read_text().strip() or "unknown"
    return "unknown"
