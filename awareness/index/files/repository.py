"""Which files of a repository are indexed: of a work tree, of a commit, or of a folder without git.

All files are hostile until proven otherwise. Nothing in a repository can run a program, lead a read out of it, block a
read or fill the memory: work_tree.py lists files without showing git the repository's config, safe_read.py opens one of
them, git_objects.py reads commits without git. unwanted.py decides which are not worth indexing, decoding.py turns
bytes into text. This file finds the repository and lists its files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.index.files.decoding import decode
from awareness.index.files.file_stat import FileStat, KnownFile
from awareness.index.files.git_dirs import find_common_dir, find_git_dir
from awareness.index.files.git_objects import CommitFiles, GitObjects
from awareness.index.files.safe_read import Skip, is_safe
from awareness.index.files.unwanted import check_content, check_name
from awareness.index.files.work_tree import WorkTreeFiles
from awareness.types import printable

IGNORE_FILE = ".awarenessignore"


@dataclass(frozen=True)
class SourceFile:
    """A file to index. path: relative, with `/`. digest: blake2b-256 of the raw bytes, in hex. stat: before it was
    read; None for a file of a commit."""

    path: str
    digest: str
    data: bytes = field(repr=False)
    stat: FileStat | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class UnchangedFile:
    """A file to index that was not read again. digest: of its bytes as they were last read, and are still."""

    path: str
    digest: str


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not indexed. reason: one of a few constant phrases. stat: if the reason is its content."""

    path: str
    reason: str
    stat: FileStat | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Repository:
    """The work tree of a git repository, a bare repository, or a folder without git.

    root: its top folder. git_dir: of this work tree (HEAD, index). common_git_dir: of all work trees that share the
    objects. All are real paths; both git dirs are None for a folder without git.
    """

    root: Path
    common_git_dir: Path | None
    is_bare: bool
    git_dir: Path | None

    @property
    def key(self) -> Path:
        """Identifies the index: the same for every work tree of a repository."""
        return self.common_git_dir or self.root

    @classmethod
    def open(cls, path: Path) -> Repository:
        """The repository that contains `path`, a folder or a file. Runs no program and ignores `GIT_DIR` and other
        variables. Raises UsageError."""
        start = _existing(path)
        if not start.is_dir():
            start = start.parent
        for folder in (start, *start.parents):
            if git_dir := find_git_dir(folder):
                return cls(folder, find_common_dir(git_dir), is_bare=False, git_dir=git_dir)
            if folder.name != ".git" and find_common_dir(folder) == folder:
                return cls(folder, folder, is_bare=True, git_dir=folder)
        return cls(start, None, is_bare=False, git_dir=None)

    def below(self, path: Path) -> str:
        """The part of the repository that `path` names: relative, with `/`; empty for all of it, for a path inside
        `.git`, and for a bare repository. Raises UsageError."""
        start = _existing(path)
        if self.is_bare or not start.is_relative_to(self.root):
            return ""
        relative = start.relative_to(self.root).as_posix()
        return relative if is_safe(relative) else ""

    @property
    def objects(self) -> GitObjects | None:
        """Its refs, commits, trees and blobs; None for a folder without git."""
        return GitObjects(self.git_dir, self.common_git_dir) if self.git_dir and self.common_git_dir else None

    def head(self) -> str | None:
        """The full hash of the commit that is checked out; None before the first commit and without git."""
        objects = self.objects
        return objects.ref("HEAD") if objects else None

    def resolve(self, rev: str) -> str:
        """The full hash of a commit. rev: a branch, a tag, `HEAD~1`, the start of a hash. Raises UsageError."""
        objects = self.objects
        commit = objects.resolve(rev) if objects else None
        if commit is None:
            raise UsageError(f"{printable(rev)} names no commit of {self.root}", hint="git log --oneline --all")
        return commit

    def scan(
        self, *, rev: str | None = None, scope: Sequence[str] = (), known: Mapping[str, KnownFile] | None = None
    ) -> Iterator[SourceFile | UnchangedFile | SkippedFile]:
        """Every file in scope, sorted by the bytes of its path, one file in memory at a time.

        Reads the work tree (tracked or not, but not ignored), or with `rev` and in a bare repository a commit. known:
        files as they were last read; those that have not changed since are not read again.
        """
        in_scope = build_scope(scope)
        files = self._files(rev)
        is_ignored = _build_ignore(files)
        paths = (path for path in files.paths() if in_scope(path) and path.split("/")[0] != ".awareness")
        return filter(None, (_examine(files, path, is_ignored, known or {}) for path in paths))

    def source(self, path: str, *, rev: str | None = None) -> SourceFile | None:
        """A file that `scan` lists, read now; None if it is gone or is left out now."""
        entry = _examine(self._files(rev), path, lambda path: False, {})
        return entry if isinstance(entry, SourceFile) else None

    def read(self, path: str, *, rev: str | None = None) -> bytes | None:
        """The bytes of one file, even if `scan` would skip it; None if it is missing, too large or not safe."""
        try:
            return self._files(rev).load(path)
        except (Skip, FileNotFoundError):
            return None

    def ignored_by(self, path: str) -> str | None:
        """The line of a `.gitignore` (or the like) that excludes an untracked path of the work tree, or None."""
        return WorkTreeFiles(self.root, self.git_dir, self.common_git_dir).ignored_by(path)

    def _files(self, rev: str | None) -> WorkTreeFiles | CommitFiles:
        if rev is None and not self.is_bare:
            return WorkTreeFiles(self.root, self.git_dir, self.common_git_dir)
        commit = self.head() if rev is None else self.resolve(rev)
        assert self.objects  # a folder without git is not bare, and no revision of it resolves
        return CommitFiles(self.objects, commit)


def is_below(path: str, folder: str) -> bool:
    """Is `path` this folder or file, or inside it? Both are relative to the same root; an empty folder is the root."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def _existing(path: Path) -> Path:
    """The real path, with `~` for the home folder. Raises UsageError if nothing is there."""
    if str(path).startswith("~") and not os.path.lexists(path):
        path = Path(os.path.expanduser(path))
    if not os.path.exists(path):
        raise UsageError(f"{printable(str(path))} does not exist", hint="name the folder of a repository, such as .")
    return Path(os.path.realpath(path))


def build_scope(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function path -> is it in scope? patterns: of gitignore; the last match decides, `!` excludes.

    Without patterns, or with only `!` patterns, every other path is in scope. Raises UsageError.
    """
    compiled = list(_compile(patterns, "scope"))
    if any(pattern.include is None for pattern in compiled) or len(compiled) < len(patterns):
        raise UsageError(f"a scope is empty or a comment: {list(patterns)}", hint="--scope 'src/**'")
    default = not any(pattern.include for pattern in compiled)
    latest_first = compiled[::-1]

    def in_scope(path: str) -> bool:
        return next((p.include for p in latest_first if p.match_file(path) is not None), default)

    return in_scope


def _build_ignore(files: WorkTreeFiles | CommitFiles) -> Callable[[str], bool]:
    """A function path -> does `.awarenessignore`, in the top folder, exclude it?"""
    try:
        lines = decode(files.load(IGNORE_FILE)).splitlines()
    except (Skip, FileNotFoundError):
        return lambda path: False
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec(list(_compile(lines, IGNORE_FILE))).match_file


def _compile(patterns: Iterable[str], where: str) -> Iterator[Any]:
    from pathspec import GitIgnoreSpec

    for pattern in patterns:
        try:
            yield from GitIgnoreSpec.from_lines([pattern]).patterns
        except (ValueError, re.error):
            raise UsageError(f"not a pattern in {where}: {printable(pattern)}", hint="git help gitignore") from None


def _examine(
    files: WorkTreeFiles | CommitFiles,
    path: str,
    is_ignored: Callable[[str], bool],
    known: Mapping[str, KnownFile],
) -> SourceFile | UnchangedFile | SkippedFile | None:
    stat = files.stat(path)  # before it is read, so that a change meanwhile is seen the next time
    judged = None  # the stat of a file that is left out for its content
    try:
        if is_ignored(path):
            raise Skip(f"ignored by {IGNORE_FILE}")
        check_name(path)
        last = known.get(path)
        if last is not None and last.stat == stat:
            return SkippedFile(path, last.reason, stat) if last.reason else UnchangedFile(path, last.digest)
        data = files.load(path)
        judged = stat
        check_content(data)
    except FileNotFoundError:
        return None
    except Skip as skip:
        return SkippedFile(path, skip.reason, judged) if files.has(path) else None
    return SourceFile(path, hashlib.blake2b(data, digest_size=32).hexdigest(), data, stat)
