"""The files of a snapshot as they are now. Those that have not changed since the last refresh are not read again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from awareness.index.files.file_stat import KnownFile, is_settled
from awareness.index.files.repository import Repository, SkippedFile, SourceFile, UnchangedFile
from awareness.index.files.unwanted.unwanted import RULES_VERSION
from awareness.index.store.known_files import read_known, write_known
from awareness.index.store.store import Store

FEW = 16
"""Files that are read again at every refresh rather than remembered, which takes the lock."""


class Listing:
    """Iterate over it once for the files to index; then `skipped` has the others."""

    def __init__(
        self,
        store: Store,
        repository: Repository,
        name: str,
        *,
        rev: str | None,
        scope: Sequence[str],
        include: Sequence[str] | None = None,
    ):
        """name: of the snapshot, whose files of the last refresh are in the store. include: None for its patterns."""
        if include is None:
            snapshot = store.snapshot(name)
            include = snapshot.include if snapshot else ()
        self._store, self._name, self._rules = store, name, str(RULES_VERSION)
        self._known = read_known(store, name, self._rules)
        self._started = time.time_ns()
        self._entries = repository.scan(rev=rev, scope=scope, include=include, known=self._known)
        self._present: set[str] = set()
        self._news: dict[str, KnownFile] = {}
        self.skipped: list[SkippedFile] = []

    def __iter__(self) -> Iterator[SourceFile | UnchangedFile]:
        for entry in self._entries:
            self._present.add(entry.path)
            if isinstance(entry, SkippedFile):
                self.skipped.append(entry)
                self._note(entry, "", entry.reason)
                continue
            if isinstance(entry, SourceFile):
                self._note(entry, entry.digest, "")
            yield entry

    def _note(self, entry: SourceFile | SkippedFile, digest: str, reason: str) -> None:
        if entry.stat is not None and is_settled(entry.stat, self._started):
            known = KnownFile(entry.stat, digest, reason)
            if self._known.get(entry.path) != known:
                self._news[entry.path] = known

    @property
    def is_worth_remembering(self) -> bool:
        """True if so much was read that the next refresh is much faster for knowing it."""
        return len(self._news) > FEW

    def remember(self) -> None:
        """Keeps what was read for the next refresh. Call after the iteration, inside `writing(layout)`."""
        gone = self._known.keys() - self._present
        if self._news or gone:
            write_known(self._store, self._name, self._rules, self._news, gone)
