"""Which files of a repository are indexed: of a work tree, of a commit, or of a folder without git.

All files are hostile until proven otherwise. Nothing in a repository can run a program, lead a read out of it, block a
read or fill the memory: work_tree.py lists files without showing git the repository's config, safe_read.py opens one of
them, git_objects.py reads commits without git. unwanted.py decides which are not worth indexing, decoding.py turns
bytes into text, in the encoding that git_attributes.py may declare. This file finds the repository and lists its files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError
from awareness.index.files.encodings.decoding import decode, decode_as, encoding_of
from awareness.index.files.encodings.git_attributes import DeclaredEncodings
from awareness.index.files.file_stat import FileStat, KnownFile
from awareness.index.files.git.git_dirs import find_common_dir, find_git_dir
from awareness.index.files.own.own_code import Listed, listed_in
from awareness.index.files.own.own_files import is_own_file
from awareness.index.files.patterns import IGNORE_FILE, Choices, build_scope
from awareness.index.files.safe_read import TOO_LARGE, Skip, is_safe
from awareness.index.files.unwanted.secret_files import is_secret_content
from awareness.index.files.unwanted.unwanted import check_content, check_name
from awareness.index.files.work_tree import WorkTreeFiles
from awareness.types import printable

if TYPE_CHECKING:
    from awareness.index.files.git.git_objects import CommitFiles, GitObjects

LOCAL_FOLDER = ".awareness"
"""Where `--local` keeps an index; never read, even if it comes with a cloned repository."""
BROUGHT_BACK = frozenset({"generated", "minified"})
"""Reasons for leaving a file out that an included path is free of."""
ANY_NAME = "\N{REPLACEMENT CHARACTER}"
"""Stands for any file in a folder, when patterns are tried."""


@dataclass(frozen=True)
class SourceFile:
    """A file to index.

    path: relative, with `/`. digest: blake2b-256 of the raw bytes, in hex; of a file whose encoding `.gitattributes`
    declares, another one. data: the raw bytes. encoding: theirs, as the name of a codec. stat: before it was read; None
    for a file that is read again at every refresh.
    """

    path: str
    digest: str
    data: bytes = field(repr=False)
    encoding: str = "utf-8"
    stat: FileStat | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The decoded file, with `\n` at the end of its lines."""
        return decode_as(self.data, self.encoding)


@dataclass(frozen=True)
class UnchangedFile:
    """A file to index that was not read again. digest: of its bytes as they were last read, and are still."""

    path: str
    digest: str


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not indexed, or a folder (with a `/` at its end). reason: one of a few constant phrases. stat: if
    the reason is its content. files: how many are in the folder, if it is known. is_partial: true for a folder of which
    a pattern may bring files back."""

    path: str
    reason: str
    stat: FileStat | None = field(default=None, compare=False, repr=False)
    files: int | None = field(default=None, compare=False)
    is_partial: bool = field(default=False, compare=False)

    @property
    def is_whole_folder(self) -> bool:
        """True for a folder of which nothing is indexed, whatever changes in it."""
        return self.path.endswith("/") and not self.is_partial


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
        if self.git_dir is None or self.common_git_dir is None:
            return None
        from awareness.index.files.git.git_objects import GitObjects  # imported late: a work tree needs no commit

        return GitObjects(self.git_dir, self.common_git_dir)

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
        self,
        *,
        rev: str | None = None,
        scope: Sequence[str] = (),
        include: Sequence[str] = (),
        known: Mapping[str, KnownFile] | None = None,
    ) -> Iterator[SourceFile | UnchangedFile | SkippedFile]:
        """Every file in scope, sorted by the bytes of its path, one file in memory at a time.

        Reads the work tree (tracked or not, but not ignored), or with `rev` and in a bare repository a commit. Of other
        people's code and of what a tool made only the folder is listed, of an index of ours nothing. include: patterns
        of gitignore that bring back what is left out for such a folder, ignored by git, generated or minified. known:
        files as they were last read; those that have not changed since are not read again.
        """
        in_scope = build_scope(scope)
        files = self._files(rev)
        listed = _listed(files)
        choices = Choices(include, _ignore_files(files, listed.paths))
        paths = listed.paths
        if choices.brings_back:
            paths = paths | {path for path in listed.inside if choices.is_included(path)}
            if isinstance(files, WorkTreeFiles):
                paths |= files.untracked(choices.places, choices.is_included)
        declared = _declared_encodings(files)
        left_out = {path: why for path, why in listed.left_out.items() if not choices.is_included(f"{path}{ANY_NAME}")}
        entries = sorted(path for path in (*paths, *left_out) if in_scope(path) and not _is_local(path))
        if not all(map(str.isascii, entries)):
            entries.sort(key=os.fsencode)
        return filter(
            None,
            (
                SkippedFile(path, why.reason, files=why.files, is_partial=choices.brings_back)
                if (why := left_out.get(path))
                else _examine(files, path, choices, declared, known or {})
                for path in entries
            ),
        )

    def source(self, path: str, *, rev: str | None = None) -> SourceFile | None:
        """A file that `scan` lists, read now; None if it is gone or is left out now."""
        files = self._files(rev)
        entry = _examine(files, path, Choices(("*",), {}), _declared_encodings(files), {})
        return entry if isinstance(entry, SourceFile) else None

    def paths(self, *, rev: str | None = None) -> Iterator[str]:
        """The paths that `scan` looks at, sorted; no file is opened."""
        return iter(sorted(_listed(self._files(rev)).paths, key=os.fsencode))

    def read(self, path: str, *, rev: str | None = None) -> bytes | None:
        """The bytes of one file, even if `scan` would skip it; None if it is missing, too large or not safe."""
        try:
            return self._files(rev).load(path)
        except (Skip, FileNotFoundError):
            return None

    def ignored_by(self, path: str) -> str | None:
        """The line of a `.gitignore` (or the like) that excludes an untracked path of the work tree, or None."""
        return WorkTreeFiles(self.root, self.git_dir, self.common_git_dir).ignored_by(path)

    def read_text(self, path: str, *, rev: str | None = None) -> str | None:
        """The text of one file, as `SourceFile.text`; None where `read` has none and if it is not text."""
        files = self._files(rev)
        try:
            return decode(files.load(path), _declared_encodings(files)(path))
        except (Skip, FileNotFoundError):
            return None

    def _files(self, rev: str | None) -> WorkTreeFiles | CommitFiles:
        if rev is None and not self.is_bare:
            return WorkTreeFiles(self.root, self.git_dir, self.common_git_dir)
        commit = self.head() if rev is None else self.resolve(rev)
        from awareness.index.files.git.git_objects import CommitFiles

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


def _listed(files: WorkTreeFiles | CommitFiles) -> Listed:
    """Its own paths, and those that are left out with a folder."""
    return files.listed() if isinstance(files, WorkTreeFiles) else listed_in(files)


def _declared_encodings(files: WorkTreeFiles | CommitFiles) -> Callable[[str], str | None]:
    """A function path -> the encoding that `.gitattributes` declares. In commits, git keeps such files in UTF-8."""
    return DeclaredEncodings(files.load) if isinstance(files, WorkTreeFiles) else lambda path: None


def _is_local(path: str) -> bool:
    """Is it the folder of an index that `--local` keeps, or in it?"""
    return path.startswith(LOCAL_FOLDER) and path.partition("/")[0] == LOCAL_FOLDER


def _ignore_files(files: WorkTreeFiles | CommitFiles, paths: Iterable[str]) -> dict[str, list[str]]:
    """folder -> the lines of its `.awarenessignore`; the top folder's also if git does not list it."""
    found = {}
    for path in (IGNORE_FILE, *(path for path in paths if path.endswith(f"/{IGNORE_FILE}"))):
        try:
            found[path.rpartition("/")[0]] = decode(files.load(path)).split("\n")
        except (Skip, FileNotFoundError):
            continue
    return found


def _examine(
    files: WorkTreeFiles | CommitFiles,
    path: str,
    choices: Choices,
    declared_encoding: Callable[[str], str | None],
    known: Mapping[str, KnownFile],
) -> SourceFile | UnchangedFile | SkippedFile | None:
    stat = files.stat(path)  # before it is read, so that a change meanwhile is seen the next time
    judged = None  # the stat of a file that is left out for its content
    is_brought_back = False
    try:
        if choices.is_ignored(path):
            raise Skip(f"ignored by {IGNORE_FILE}")
        check_name(path)  # for a secret name, which nothing brings back
        declared = declared_encoding(path)
        if declared:
            stat = None  # the encoding may be declared otherwise without a change of the file
        last = known.get(path)
        if last is not None and last.stat == stat and not (last.reason in BROUGHT_BACK and choices.is_included(path)):
            return SkippedFile(path, last.reason, stat) if last.reason else UnchangedFile(path, last.digest)
        data = files.load(path)
        judged = stat
        if is_own_file(data):
            return None
        if is_secret_content(path, data):
            raise Skip("secret")
        encoding = encoding_of(data, declared)
        text = data if encoding == "utf-8" else decode_as(data, encoding).encode("utf-8", "replace")
        try:
            check_content(path, text)
        except Skip as skip:
            if skip.reason not in BROUGHT_BACK or not choices.is_included(path):
                raise
            is_brought_back = True
    except FileNotFoundError:
        return None
    except Skip as skip:
        if skip.reason in TOO_LARGE.values() and isinstance(files, WorkTreeFiles) and is_own_file(files.start(path)):
            return None
        return SkippedFile(path, skip.reason, judged) if files.has(path) else None
    told = f"encoding {declared}\n".encode() if declared else b""
    name = hashlib.blake2b(told + data, digest_size=32).hexdigest()
    # A file that is only here because it is included is not remembered: without the pattern it is left out again.
    return SourceFile(path, name, data, encoding, None if is_brought_back else stat)
