"""Whether a path of a repository is indexed, as what, and if not, why not: the first question when nothing is found."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from awareness.engine.workspace import Workspace
from awareness.errors import UsageError
from awareness.index.chunks.documents import document_of
from awareness.index.chunks.languages import language_of
from awareness.index.files.file_kinds import kind_of
from awareness.index.files.own.foreign import DEPENDENCIES, MADE
from awareness.index.files.patterns import build_scope
from awareness.index.files.repository import BROUGHT_BACK
from awareness.index.listing import Listing
from awareness.index.store.store import Snapshot, Store
from awareness.types import printable

IGNORED_BY_GIT = "ignored by git"


@dataclass(frozen=True)
class FileStatus:
    """path: relative to the repository; a folder that is left out as a whole ends with `/`. kind: of the file, as
    `FileKind.word` says it. language: that it is cut by, None for plain text. chunks: in the index. reason: why it is
    not indexed, or None. change: `changed`, `new` or `gone` since the index was made, or None. encoding: of a file that
    was asked for, as the name of a codec. omitted: its lines of which nothing or only a part is indexed, and why."""

    path: str
    indexed: bool
    kind: str | None = None
    language: str | None = None
    chunks: int = 0
    reason: str | None = None
    change: str | None = None
    encoding: str | None = None
    omitted: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What is true of the file, without its path."""
        if self.reason is not None:
            return f"left out: {self.reason}"
        what = f"{self.kind}, {self.language or 'text'}, {self.chunks} chunk{'' if self.chunks == 1 else 's'}"
        if self.change == "new":
            return "not indexed yet: new since the last index"
        what += f", {self.encoding}" if self.encoding not in (None, "utf-8") else ""
        return f"indexed: {what}" + (f"; {self.change} since" if self.change else "")

    @property
    def can_be_included(self) -> bool:
        """True if `awareness index --include` brings it back."""
        return self.reason is not None and self.reason.startswith((*BROUGHT_BACK, DEPENDENCIES, MADE, IGNORED_BY_GIT))

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class FileReport:
    """The files of a work tree compared with its snapshot. Reads them once."""

    def __init__(self, workspace: Workspace, store: Store, snapshot: Snapshot) -> None:
        self._workspace, self._snapshot = workspace, snapshot
        chunks = store.chunk_counts(snapshot.id)
        digests = {path: digest for _, path, digest in store.files(snapshot.id)}
        listing = Listing(store, workspace.repository, snapshot.name, rev=snapshot.rev, scope=snapshot.scope)
        now = {entry.path: entry.digest for entry in listing}
        self._skipped = {file.path: file for file in listing.skipped}
        self._indexed = {}
        for path in now.keys() | digests.keys():
            change = None if now.get(path) == digests.get(path) else "changed"
            if path not in digests or path not in now:
                change = "gone" if path in digests else "new"
            self._indexed[path] = FileStatus(
                path, change != "new", kind_of(path).word, language_of(path), chunks.get(path, 0), None, change
            )

    def all(self) -> list[FileStatus]:
        """Every path that was looked at, sorted. What git ignores and what is out of scope is not among them."""
        files = {**self._indexed, **{path: _left_out(path, file.reason) for path, file in self._skipped.items()}}
        return [files[path] for path in sorted(files)]

    def why(self, path: Path) -> list[FileStatus]:
        """One path, or all below a folder. path: absolute, or relative to the working folder, to the part of the
        repository that was named, or to the repository.

        Raises UsageError for a path outside the repository, and for one that does not exist and is not indexed."""
        name = self._name(path)
        if name in self._indexed:
            return [self._read(self._indexed[name])]
        for folder in _and_parents(name):
            if file := self._skipped.get(folder) or self._skipped.get(f"{folder}/"):
                inside = "" if folder == name or file.path == name else f", as all of {printable(file.path)}"
                return [_left_out(name, f"{file.reason}{inside}")]
        below = [file for file in self.all() if not name or file.path.startswith(f"{name}/")]
        if below:
            return below
        return [_left_out(name, self._unlisted(name))]

    def _read(self, file: FileStatus) -> FileStatus:
        """The file with its encoding, and with what of it is not indexed."""
        source = self._workspace.repository.source(file.path, rev=self._snapshot.rev)
        if source is None:
            return file
        document = document_of(file.path, source.text)
        omitted = tuple(_lines(gap.first_line, gap.last_line, gap.reason) for gap in document.omissions)
        return replace(file, encoding=source.encoding, omitted=omitted)

    def _name(self, path: Path) -> str:
        """The path relative to the repository, with `/`."""
        root = self._workspace.repository.root
        below = None
        for start in (Path.cwd(), self._workspace.top, root):
            whole = Path(os.path.abspath(start / path))
            if not whole.is_relative_to(root):  # as through a symlink to the repository
                whole = Path(os.path.realpath(whole.parent), whole.name)
            if whole.is_relative_to(root):
                below = whole.relative_to(root).as_posix()
                below = "" if below == "." else below
                if below in self._indexed or os.path.lexists(whole):
                    return below
        if below is None:
            raise UsageError(f"{printable(str(path))} is outside {root}", hint="--repo with the repository it is in")
        return below

    def _unlisted(self, name: str) -> str:
        """Why a path is not listed at all. Raises UsageError if it does not exist."""
        repository, scope = self._workspace.repository, self._snapshot.scope
        if not os.path.lexists(repository.root / name):
            raise UsageError(f"{printable(name)} does not exist in {repository.root}", hint="awareness status --files")
        if ".git" in name.split("/"):
            return "git's own folder"
        if scope and not build_scope(scope)(name):
            return f"outside the scope that the index was made with: {' '.join(scope)}"
        for folder in _and_parents(name):
            if os.path.islink(repository.root / folder):
                return f"behind the symlink {printable(folder)}"
        if ignored := repository.ignored_by(name):
            return f"{IGNORED_BY_GIT}, {printable(ignored)}"
        return "a folder without files" if os.path.isdir(repository.root / name) else "not listed by git"


def _lines(first: int, last: int, reason: str) -> str:
    return f"line {first}: {reason}" if first == last else f"lines {first}-{last}: {reason}"


def _left_out(path: str, reason: str) -> FileStatus:
    return FileStatus(path, False, reason=reason)


def _and_parents(name: str) -> list[str]:
    """The path, then the folders above it."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
