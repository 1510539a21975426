"""Waits for files of a work tree to change; changes in quick succession count as one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from awareness.index.files.own.foreign import BY_NAME
from awareness.index.files.repository import SkippedFile
from awareness.index.store.layout import LOCAL_FOLDER

QUIET_MS = 100  # milliseconds without a change after which the changes are reported
STORM_MS = 5_000  # milliseconds of uninterrupted changes after which they are reported all the same
_IGNORED = frozenset({".git", LOCAL_FOLDER})


class Changes:
    """Whether a file has changed since the last `clear`."""

    def __init__(self) -> None:
        self._changed, self._ready = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._left_out: frozenset[str] = frozenset()

    def ignore(self, skipped: Iterable[SkippedFile]) -> None:
        """From now on, changes in the folders among these files do not count. Replaces those of the last call."""
        self._left_out = frozenset(file.path.rstrip("/") for file in skipped if file.is_whole_folder)

    def _is_left_out(self, path: str) -> bool:
        """path: relative, with `/`."""
        left_out = self._left_out
        while left_out and path:
            if path in left_out:
                return True
            path = path.rpartition("/")[0]
        return False

    def pending(self) -> bool:
        return self._changed.is_set()

    def clear(self) -> None:
        self._changed.clear()

    def wait(self, timeout: float | None = None) -> None:
        """Returns when something has changed, or after `timeout` seconds. Raises the error that ended the watcher."""
        while not self._changed.wait(0.5 if timeout is None else timeout) and timeout is None:
            if self._failure is not None:
                raise self._failure
        if self._failure is not None:
            raise self._failure

    def _watch(self, root: Path, own: Path, names: frozenset[str], stop: threading.Event) -> None:
        from watchfiles import watch

        def matters(_: object, path: str) -> bool:
            inner = Path(path).relative_to(root)
            if not names.isdisjoint(inner.parts) or Path(path).is_relative_to(own):
                return False
            return not self._is_left_out(inner.as_posix())

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
                self._ready.set()
                if changes:
                    self._changed.set()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            self._failure = error
            self._changed.set()
            self._ready.set()


@contextmanager
def watching(root: Path, own: Path, names: frozenset[str] = BY_NAME) -> Iterator[Changes]:
    """Inside the block a thread watches for changes below `root`, except below `own` (the index) and below folders of
    these names.

    The block is entered once the watcher is ready, so no change after that is missed.
    """
    changes, stop = Changes(), threading.Event()
    thread = threading.Thread(
        target=changes._watch, args=(root, own, _IGNORED | names, stop), name="awareness-watch", daemon=True
    )
    thread.start()
    try:
        changes._ready.wait()
        yield changes
    finally:
        stop.set()
        thread.join()
