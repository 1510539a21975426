"""The lock of the one writer of an index. Readers need no lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from awareness.errors import IndexLocked, storage_errors
from awareness.index.store.layout import IndexLayout


@contextlib.contextmanager
def writing(layout: IndexLayout) -> Iterator[None]:
    """Holds the writer lock of an index, a kernel flock that is free as soon as its holder dies. Raises IndexLocked."""
    from filelock import FileLock, Timeout

    lock = FileLock(layout.lock, timeout=0.2)
    with storage_errors(layout.root):
        layout.create_root()
        try:
            lock.acquire()
        except Timeout:
            raise IndexLocked(
                f"another awareness process (pid {_holder(layout)}) is writing to {layout.root}",
                hint="try again when it has finished",
            ) from None
    try:
        with storage_errors(layout.root):
            layout.lock_holder.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


def _holder(layout: IndexLayout) -> str:
    """The pid of the process that holds the lock, `unknown` until it has written it."""
    with contextlib.suppress(OSError):
        return layout.lock_holder.read_text().strip() or "unknown"
    return "unknown"
