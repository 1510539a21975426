"""Waiting for the files of a work tree to change: many changes together are one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from awareness.index.files.work_tree import TOOL_FOLDERS
from awareness.index.store.layout import LOCAL_FOLDER

QUIET_MS = 100  # without a change, after which what has changed is reported
STORM_MS = 5_000  # of changes without a pause, after which they are reported all the same
_IGNORED = {".git", LOCAL_FOLDER, *TOOL_FOLDERS}


class Changes:
    """Whether a file has changed since `clear`."""

    def __init__(self) -> None:
        self._changed, self._standing = threading.Event(), threading.Event()
        self._failure: BaseException | None = None

    def pending(self) -> bool:
        return self._changed.is_set()

    def clear(self) -> None:
        self._changed.clear()

    def wait(self, timeout: float | None = None) -> None:
        """Returns once something has changed, or after `timeout` seconds. Raises what ended the watching."""
        while not self._changed.wait(0.5 if timeout is None else timeout) and timeout is None:
            if self._failure is not None:
                raise self._failure
        if self._failure is not None:
            raise self._failure

    def _watch(self, root: Path, own: Path, stop: threading.Event) -> None:
        from watchfiles import watch

        def matters(_: object, path: str) -> bool:
            return _IGNORED.isdisjoint(Path(path).relative_to(root).parts) and not Path(path).is_relative_to(own)

        try:
            for changes in watch(
                root,
                watch_filter=matters,
                debounce=STORM_MS,
                step=QUIET_MS,
                stop_event=stop,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._standing.set()
                if changes:
                    self._changed.set()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
            self._changed.set()
            self._standing.set()


@contextmanager
def watching(root: Path, own: Path) -> Iterator[Changes]:
    """Inside the block a thread of its own looks out for changes below `root`, but not below `own`: the index.

    No change is missed from the beginning of the block on: it is entered when the watch stands.
    """
    changes, stop = Changes(), threading.Event()
    thread = threading.Thread(target=changes._watch, args=(root, own, stop), name="awareness-watch", daemon=True)
    thread.start()
    try:
        changes._standing.wait()
        yield changes
    finally:
        stop.set()
        thread.join()
