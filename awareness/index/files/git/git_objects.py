"""Commits, trees and blobs of a git repository, read in pure Python: no process, no config, no fetch.

git_dirs.py finds a repository, git_refs.py reads its refs, object_files.py reads one object. This file follows
revisions such as `main`, `v1.0`, `HEAD~2^2`, `1f3a9c` or `v1.0-3-g1f3a9c`, and lists the files of a commit. Grafts and
replacements (`refs/replace`) are ignored.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from awareness.errors import UsageError
from awareness.index.files.git.git_dirs import count_hash_bytes
from awareness.index.files.git.git_refs import GitRefs
from awareness.index.files.git.object_files import MAX_OBJECT_BYTES, BaseTooLarge, ObjectFiles, TooLarge
from awareness.index.files.git.random_access import NotRegular
from awareness.index.files.safe_read import MAX_PATH_CHARS, TOO_LARGE, Skip, is_safe, limit_of, read_small

MAX_PATHS = 1 << 20  # of one commit: a few small trees that contain each other make billions of paths
MAX_SHALLOW_BYTES = 1 << 24
MAX_COMMIT_BYTES = 1 << 20  # of a commit whose message is read
MAX_MESSAGE_BYTES = 1 << 13  # of it that are kept
MAX_PARENTS = 64  # of a commit whose history is followed
MAX_TAGS = 10  # that tag each other
MAX_SHOWN = 4  # hashes in a message

REF_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")
REVISION = re.compile(r"(.+?)((?:\^\{(?:commit)?\}|[~^]\d{0,6})*)")
STEP = re.compile(r"([~^])(\d*)(?!\{)")
START_OF_HASH = re.compile(r"(?:.*-g)?([0-9a-fA-F]{4,63})")  # `-g`: as `git describe` writes it
COMMITTED = re.compile(rb"^committer .*> (\d{1,15}) [+-]\d+$", re.MULTILINE)
GITLINK = 0o160000
DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, MemoryError),
    *(zlib.error, struct.error),
)


@dataclass(frozen=True)
class Commit:
    """tree, parents: hashes. time: when it was committed, in Unix seconds. message: its first 8 KiB. is_cut_off: its
    parents are not in this shallow clone."""

    tree: str
    parents: tuple[str, ...]
    time: int
    message: str
    is_cut_off: bool = False


class GitObjects:
    """The objects and refs of one work tree or bare repository. A hash (`sha`) is 40 hex digits, or 64 (SHA-256)."""

    def __init__(self, git_dir: Path, common_git_dir: Path) -> None:
        self._git_dir = git_dir
        self._common = common_git_dir
        self._trees: dict[str, dict[str, tuple[int, str]]] = {}

    @cached_property
    def _hash_bytes(self) -> int:
        return count_hash_bytes(self._common)

    @cached_property
    def _refs(self) -> GitRefs:
        return GitRefs(self._git_dir, self._common, self._hash_bytes)

    @cached_property
    def _files(self) -> ObjectFiles:
        return ObjectFiles(self._common / "objects", self._hash_bytes)

    @cached_property
    def _shallow(self) -> set[str]:
        """The commits whose parents a shallow clone does not have."""
        return set(read_small(f"{self._common}/shallow", MAX_SHALLOW_BYTES).decode("ascii", "replace").split())

    def resolve(self, rev: str) -> str | None:
        """The commit that a revision names, or None. Raises UsageError for the start of several hashes."""
        match = REVISION.fullmatch(rev)
        if match is None:
            return None
        name, steps = match.groups()
        commit = self._commit(self._full_hash(name) or self._named(name)) or self._complete(name)
        for kind, digits in STEP.findall(steps):
            count = int(digits or 1)
            for nth in [1] * count if kind == "~" else [count]:
                candidates = [commit, *self._parents(commit)] if commit else []
                commit = self._commit(candidates[nth]) if nth < len(candidates) else None
                if commit is None:
                    return None
        return commit

    def ref(self, name: str) -> str | None:
        """The hash in a ref (full name), through symbolic refs; it may be of a tag. Or None."""
        return self._refs.read(name)

    def tree_of(self, commit: str) -> str:
        """The hash of a commit's top tree."""
        trees = self._header(commit, "tree")
        if not trees:
            raise self._damaged(commit, "a commit without a tree")
        return trees[0]

    def tree(self, sha: str) -> dict[str, tuple[int, str]]:
        """name -> (mode, hash) of the entries of a tree."""
        if sha not in self._trees:
            entries = self.entries(sha)
            self._trees[sha] = {os.fsdecode(name): (int(mode, 8), binary.hex()) for mode, name, binary in entries}
        return self._trees[sha]

    def entries(self, sha: str, limit: int = MAX_OBJECT_BYTES) -> list[tuple[bytes, bytes, bytes]]:
        """(mode in octal digits, name, hash) of the entries of a tree, as bytes; read again every time. Raises
        UsageError for a tree of more than `limit` bytes, too."""
        data = self._read(sha, "tree", limit=limit)
        pattern = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{%d})" % self._hash_bytes, re.DOTALL)
        entries: list[tuple[bytes, bytes, bytes]] = pattern.findall(data)
        if sum(len(mode) + len(name) + len(binary) + 2 for mode, name, binary in entries) != len(data):
            raise self._damaged(sha, "an entry of a tree")
        return entries

    def commit(self, sha: str) -> Commit:
        """A commit by its hash. A message that is not UTF-8 gets replacement characters."""
        head, _, message = self._read(sha, "commit", limit=MAX_COMMIT_BYTES).partition(b"\n\n")
        trees = self._hashes(head, "tree")
        if not trees:
            raise self._damaged(sha, "a commit without a tree")
        committed = COMMITTED.search(head)
        is_cut_off = sha in self._shallow
        parents = () if is_cut_off else tuple(self._hashes(head, "parent")[:MAX_PARENTS])
        text = message[:MAX_MESSAGE_BYTES].decode("utf-8", "replace")
        return Commit(trees[0], parents, int(committed[1]) if committed else 0, text, is_cut_off)

    def blob(self, sha: str, limit: int) -> bytes:
        """Raises Skip for one with more bytes than `limit`."""
        return self._read(sha, "blob", limit=limit)

    def _full_hash(self, name: str) -> str | None:
        return name.lower() if re.fullmatch(rf"[0-9a-fA-F]{{{2 * self._hash_bytes}}}", name) else None

    def _named(self, name: str) -> str | None:
        name = "HEAD" if name == "@" else name
        return next((sha for place in REF_PLACES if (sha := self.ref(place.format(name)))), None)

    def _complete(self, name: str) -> str | None:
        """The only commit, or tag of a commit, whose hash starts with `name`, else None."""
        match = START_OF_HASH.fullmatch(name)
        if match is None or len(match[1]) >= 2 * self._hash_bytes:
            return None
        start = match[1].lower()
        with self._checked(start):
            found = sorted(self._files.starting_with(start))
        commits = {sha: commit for sha in found if (commit := self._commit(sha))}
        if len(commits) > 1:
            shown = ", ".join(list(commits)[:MAX_SHOWN]) + (", ..." if len(commits) > MAX_SHOWN else "")
            message = f"{start} is the start of {len(commits)} commits or tags: {shown}"
            raise UsageError(message, hint="give more digits of the hash")
        return next(iter(commits.values()), None)

    def _commit(self, sha: str | None) -> str | None:
        """`sha` if it is a commit, else the commit that it tags, else None."""
        for _ in range(MAX_TAGS):
            if sha is None:
                return None
            with self._checked(sha):
                kind = self._files.kind(sha)
            if kind != "tag":
                return sha if kind == "commit" else None
            sha = next(iter(self._header(sha, "object")), None)
        return None

    def _parents(self, commit: str) -> list[str]:
        return [] if commit in self._shallow else self._header(commit, "parent")

    def _header(self, sha: str, field: str) -> list[str]:
        """The hashes in the header lines of a commit or tag that start with `field`."""
        return self._hashes(self._read(sha, "commit", "tag").partition(b"\n\n")[0], field)

    def _hashes(self, head: bytes, field: str) -> list[str]:
        line = rb"^%b ([0-9a-f]{%d})$" % (field.encode("ascii"), 2 * self._hash_bytes)
        return [value.decode("ascii") for value in re.findall(line, head, re.MULTILINE)]

    def _read(self, sha: str, *kinds: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        try:
            with self._checked(sha):
                found = self._files.read(sha, limit)
        except TooLarge as error:
            if "blob" in kinds:
                raise Skip("unreadable" if isinstance(error, BaseTooLarge) else TOO_LARGE[limit]) from None
            raise UsageError(f"object {sha} is larger than {limit} bytes: {self._common}", hint="git fsck") from None
        if found is None:
            hint = "git fetch --refetch --no-filter"
            raise UsageError(f"object {sha} is missing, as in a partial clone: {self._common}", hint=hint)
        kind, data = found
        if kind not in kinds:
            raise self._damaged(sha, f"a {kind} in place of a {' or '.join(kinds)}")
        return data

    @contextmanager
    def _checked(self, sha: str) -> Iterator[None]:
        """Turns any exception for a damaged file into a UsageError."""
        try:
            yield
        except NotRegular as error:
            raise UsageError(f"object {sha} is not in a regular file: {error}", hint="git fsck") from None
        except DAMAGE as error:
            raise self._damaged(sha, repr(error)) from error

    def _damaged(self, sha: str, problem: str) -> UsageError:
        return UsageError(f"object {sha} is damaged ({problem}): {self._common}", hint="git fsck")


class CommitFiles:
    """The files of one commit; none for None."""

    def __init__(self, objects: GitObjects, commit: str | None) -> None:
        self._objects = objects
        self._top = objects.tree_of(commit) if commit else None

    def paths(self) -> Iterator[str]:
        """Every path, sorted by its bytes, safe or not: `load` checks it."""
        paths: set[bytes] = set()
        folders = [("", self._top)] if self._top else []
        seen = 0
        while folders:
            prefix, sha = folders.pop()
            for name, (mode, inner) in self._objects.tree(sha).items():
                path = prefix + name
                if stat.S_ISDIR(mode) and len(path) < MAX_PATH_CHARS:
                    folders.append((f"{path}/", inner))
                else:
                    paths.add(os.fsencode(path))
                seen += 1
            if seen > MAX_PATHS:
                raise UsageError(f"the commit has more than {MAX_PATHS} paths", hint="git ls-tree -r --name-only")
        return map(os.fsdecode, sorted(paths))

    def has(self, path: str) -> bool:
        """True: a path that was listed exists."""
        return True

    def stat(self, path: str) -> None:
        """None: a commit does not change."""
        return None

    def load(self, path: str) -> bytes:
        if not is_safe(path):
            raise Skip("outside the repository")
        mode, sha = stat.S_IFDIR, self._top or ""
        for part in path.split("/"):
            inner = self._objects.tree(sha).get(part) if sha and stat.S_ISDIR(mode) else None
            if inner is None:
                raise FileNotFoundError(path)
            mode, sha = inner
        if not stat.S_ISREG(mode):
            raise Skip({stat.S_IFLNK: "symlink", GITLINK: "submodule"}.get(stat.S_IFMT(mode), "not a regular file"))
        return self._objects.blob(sha, limit_of(path))
