"""A repository (its work tree, or one of its commits) together with its index."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.index import build
from awareness.index.chunks.documents import Document, document_of
from awareness.index.files.patterns import build_scope
from awareness.index.files.repository import Repository, is_below
from awareness.index.files.scopes import no_match, rooted
from awareness.index.store.layout import IndexLayout, layout_for
from awareness.index.store.store import Snapshot, Store
from awareness.model import model_files, presets, token_offsets
from awareness.types import Chunk

DEFAULT_QUANT = "int4"
_token_starts = functools.lru_cache(maxsize=1)(token_offsets.token_starts)  # the next repository needs it again


@dataclass
class Workspace:
    """rev: the commit that is indexed, or None for the work tree. below: the folder or file, relative to the root, that
    is searched; empty for the whole repository. found_in: the folder that was searched for repositories and holds this
    one; None for a repository that was named."""

    repository: Repository
    layout: IndexLayout
    rev: str | None
    below: str = ""
    found_in: Path | None = None

    @classmethod
    def open(cls, path: Path | None = None, *, rev: str | None = None, local: bool = False) -> Workspace:
        """path: of the repository, or of the part of it that is meant; None for the whole repository around the working
        folder. The index is always that of the whole repository. Raises UsageError."""
        repository = Repository.open(path or Path())
        commit = repository.resolve(rev) if rev else None
        below = repository.below(path) if path else ""
        return cls(repository, layout_for(repository.key, repository.root, local=local), commit, below)

    @property
    def top(self) -> Path:
        """The folder or file that is searched."""
        return self.repository.root / self.below

    def build_scope(self, patterns: Sequence[str] | None) -> Callable[[str], bool] | None:
        """A function path -> is it searched? None for all paths. patterns: of a scope, relative to the root."""
        in_scope = build_scope(rooted(patterns, self.repository.root)) if patterns else None
        below = self.below
        if not below:
            return in_scope
        return lambda path: is_below(path, below) and (in_scope is None or in_scope(path))

    @property
    def snapshot_name(self) -> str:
        return build.snapshot_name(self.repository, self.rev)

    @property
    def is_indexed(self) -> bool:
        """True if the index has a snapshot of the work tree, or of the commit. Raises IndexCorrupt."""
        if not self.layout.exists:
            return False
        with Store.open(self.layout) as store:
            return store.snapshot(self.snapshot_name) is not None

    def no_index(self) -> NoIndex:
        """The error for a workspace that is not indexed."""
        if self.rev and self.layout.exists:
            return NoIndex(
                f"commit {self.rev} is not in the index yet",
                hint=f"awareness index {self.repository.root} --rev {self.rev[:12]}",
            )
        return NoIndex(f"{self.repository.root} is not indexed yet", hint=f"awareness index {self.repository.root}")

    def existing_layout(self) -> IndexLayout:
        """Where the index is. Raises NoIndex."""
        if not self.layout.exists:
            raise self.no_index()
        return self.layout

    def open_snapshot(self) -> tuple[Store, Snapshot]:
        """The index and this workspace's snapshot in it. Raises NoIndex."""
        store = Store.open(self.existing_layout())
        snapshot = store.snapshot(self.snapshot_name)
        if snapshot is None:
            store.close()
            raise self.no_index()
        return store, snapshot

    def model_name(self, requested: str | None) -> str:
        """The model requested, else the one that the snapshot was indexed for, else the default."""
        if requested:
            return requested
        if self.layout.exists:
            with contextlib.suppress(IndexCorrupt), Store.open(self.layout) as store:
                if known := store.snapshot(self.snapshot_name):
                    return known.model
        return presets.DEFAULT_MODEL

    def shows(self, chunk: Chunk) -> bool:
        """True if the chunk's lines, read again now, are still those that were encoded."""
        text = self.repository.read_text(chunk.path, rev=self.rev)
        if text is None:
            return False
        place = chunk.start_line, chunk.end_line, chunk.text
        if Document(text).shows(*place):  # as most files are read; to find that out takes longer than all the rest
            return True
        return document_of(chunk.path, text).shows(*place)

    def read(self, path: str) -> Document | None:
        """An indexed file as it is now; None if it is gone, or would be left out now."""
        source = self.repository.source(path, rev=self.rev)
        return None if source is None else document_of(path, source.text)

    def scope(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """The patterns, as a user types them, from the repository's top folder. Raises UsageError if they match none of
        its files."""
        if not patterns:
            return ()
        scope = rooted(patterns, self.repository.root)
        in_scope, paths = build_scope(scope), []
        for path in self.repository.paths(rev=self.rev):
            if in_scope(path):
                return scope
            paths.append(path)
        if paths:
            raise UsageError(no_match(patterns, paths, "files"), hint="another --scope, or none")
        return scope

    def refresh(
        self,
        store: Store,
        folder: model_files.ModelFolder,
        *,
        scope: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
        reporter: Reporter = SILENT,
    ) -> build.Refreshed:
        """Brings the routing index up to date. scope: globs of the paths that are indexed, as `scope` makes them.
        include: globs of what would be left out. None for those of the last time. Call inside `writing(layout)`."""
        known = store.snapshot(self.snapshot_name)
        if scope is None:
            scope = known.scope if known else ()
        if include is None:
            include = known.include if known else ()
        with reporter.progress() as progress:
            return build.refresh(
                store,
                self.repository,
                model=folder.name,
                fingerprint=folder.fingerprint,
                token_starts=lambda: _token_starts(folder.path),
                rev=self.rev,
                scope=scope,
                include=include,
                progress=progress,
            )


def quant_of(store: Store, requested: str | None = None) -> str:
    """How this index stores latents: as requested (which is remembered), else as before, else `DEFAULT_QUANT`."""
    if requested is None:
        return store.setting("quant") or DEFAULT_QUANT
    if store.setting("quant") != requested:
        store.remember("quant", requested)
    return requested
