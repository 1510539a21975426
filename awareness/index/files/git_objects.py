"""Refs, commits, trees and blobs of a git repository, read in pure Python: no process, no config, no fetch.

Objects are read by gitdb, the object database of GitPython. `git.Repo` itself is not used: it reads the config of the
repository, obeys `GIT_*` variables and runs `git version` when it is imported. Supported are SHA-1 repositories with
refs in files, and revisions such as `main`, `v1.0`, `HEAD~2^2`, `1f3a9c`.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.index.files.safe_read import MAX_FILE_BYTES, MAX_PATH_CHARS, Skip, is_safe, read_small

MAX_OBJECT_BYTES = 1 << 26  # of a commit or a tree, and of packed-refs
MAX_PATHS = 1 << 20  # of one commit: a few small trees that contain each other make billions of paths

REF_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")
REVISION = re.compile(r"(.+?)((?:\^\{(?:commit)?\}|[~^]\d{0,6})*)")
STEP = re.compile(r"([~^])(\d*)(?!\{)")
HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
TREE_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{20})", re.DOTALL)
GITLINK = 0o160000
DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AssertionError, ArithmeticError, MemoryError, RecursionError),
    *(zlib.error, struct.error),
)


def find_git_dir(folder: Path) -> Path | None:
    """The real path of a work tree's git dir: `.git`, or the target of the file `.git` (worktree, submodule)."""
    dot_git = folder / ".git"
    if not os.path.isdir(dot_git):
        pointer = read_small(str(dot_git))
        if not pointer.startswith(b"gitdir:"):
            return None
        dot_git = folder / os.fsdecode(pointer[len(b"gitdir:") :].strip())
    git_dir = Path(os.path.realpath(dot_git))
    return git_dir if find_common_dir(git_dir) else None


def find_common_dir(git_dir: Path) -> Path | None:
    """The git dir with the objects: itself, or that of the main work tree. None if it is not a git dir."""
    head = read_small(f"{git_dir}/HEAD").strip()
    if not head.startswith(b"ref:") and not HASH.fullmatch(os.fsdecode(head)):
        return None
    pointer = read_small(f"{git_dir}/commondir").strip()
    common = Path(os.path.realpath(git_dir / os.fsdecode(pointer))) if pointer else git_dir
    return common if os.path.isdir(common / "objects") and os.path.isdir(common / "refs") else None


class GitObjects:
    """The objects and refs of one work tree or bare repository. A hash (`sha`) is 40 hex digits."""

    def __init__(self, git_dir: Path, common_git_dir: Path) -> None:
        self._git_dir = git_dir
        self._common = common_git_dir
        self._trees: dict[str, dict[str, tuple[int, str]]] = {}

    @cached_property
    def _db(self) -> Any:
        from gitdb import GitDB

        return GitDB(str(self._common / "objects"))

    @cached_property
    def _has_special_pack(self) -> bool:
        """Is a pack a FIFO or a device, which would block a reader for ever?"""
        return any(not path.is_file() for path in (self._common / "objects/pack").glob("*"))

    def resolve(self, rev: str) -> str | None:
        """The commit that a revision names, or None."""
        match = REVISION.fullmatch(rev)
        if match is None:
            return None
        name, steps = match.groups()
        commit = self._commit(name if HASH.fullmatch(name) else self._named(name) or self._complete(name))
        for kind, digits in STEP.findall(steps):
            count = int(digits or 1)
            for nth in [1] * count if kind == "~" else [count]:
                candidates = [commit, *self._header(commit, b"parent")] if commit else []
                commit = self._commit(candidates[nth]) if nth < len(candidates) else None
                if commit is None:
                    return None
        return commit

    def ref(self, name: str) -> str | None:
        """The hash in a ref (full name), loose or packed, through symbolic refs; it may be of a tag. Or None."""
        for _ in range(5):
            if not is_safe(name):
                return None
            content = read_small(f"{self._git_dir}/{name}") or read_small(f"{self._common}/{name}")
            value = os.fsdecode(content).strip()
            if value.startswith("ref:"):
                name = value[len("ref:") :].strip()
                continue
            if HASH.fullmatch(value):
                return value
            packed = read_small(f"{self._common}/packed-refs", MAX_OBJECT_BYTES)
            line = re.search(rb"^([0-9a-f]{40,64}) " + re.escape(os.fsencode(name)) + rb"$", packed, re.MULTILINE)
            return line[1].decode("ascii") if line else None
        return None

    def tree_of(self, commit: str) -> str:
        """The hash of a commit's top tree."""
        with self._checked(commit):
            return self._header(commit, b"tree")[0]

    def tree(self, sha: str) -> dict[str, tuple[int, str]]:
        """name -> (mode, hash) of the entries of a tree."""
        if sha not in self._trees:
            entries = TREE_ENTRY.findall(self._read(sha, b"tree"))
            self._trees[sha] = {os.fsdecode(name): (int(mode, 8), binary.hex()) for mode, name, binary in entries}
        return self._trees[sha]

    def blob(self, sha: str) -> bytes:
        return self._read(sha, b"blob", limit=MAX_FILE_BYTES)

    def _named(self, name: str) -> str | None:
        name = "HEAD" if name == "@" else name
        return next((sha for place in REF_PLACES if (sha := self.ref(place.format(name)))), None)

    def _complete(self, start: str) -> str | None:
        """The hash of the only object whose hash starts with `start`, else None."""
        from gitdb.exc import ODBError

        if not re.fullmatch(r"[0-9a-f]{4,39}", start):
            return None
        with self._checked(start):
            try:
                return str(self._db.partial_to_complete_sha_hex(start).hex())
            except ODBError:  # no object, or several
                return None

    def _commit(self, sha: str | None) -> str | None:
        """`sha` if it is a commit, else the commit that it tags, else None."""
        for _ in range(10):
            if sha is None or len(sha) != 40 or not self._has(sha):
                return None
            kind = self._info(sha)[0]
            if kind != b"tag":
                return sha if kind == b"commit" else None
            sha = next(iter(self._header(sha, b"object")), None)
        return None

    def _header(self, sha: str, field: bytes) -> list[str]:
        """The hashes in the header lines of a commit or tag that start with `field`."""
        head = self._read(sha, b"commit", b"tag").partition(b"\n\n")[0]
        return [value.decode("ascii") for value in re.findall(rb"^%b ([0-9a-f]{40})$" % field, head, re.MULTILINE)]

    def _has(self, sha: str) -> bool:
        with self._checked(sha):
            return bool(self._db.has_object(bytes.fromhex(sha)))

    def _info(self, sha: str) -> tuple[bytes, int]:
        """Type and size in bytes, without reading the object."""
        with self._checked(sha):
            info = self._db.info(bytes.fromhex(sha))
            return info.type, info.size

    def _read(self, sha: str, *kinds: bytes, limit: int = MAX_OBJECT_BYTES) -> bytes:
        kind, size = self._info(sha)
        if size > limit:
            raise Skip("larger than 1 MiB")
        with self._checked(sha):
            if kind not in kinds:
                raise ValueError(f"{kind!r} in place of {kinds}")
            data: bytes = self._db.stream(bytes.fromhex(sha)).read()
            return data

    @contextmanager
    def _checked(self, sha: str) -> Iterator[None]:
        """Turns any exception of gitdb for a missing or damaged object into a UsageError."""
        from gitdb.exc import BadObject, ODBError

        loose = self._common / "objects" / sha[:2] / sha[2:]
        if self._has_special_pack or (loose.exists() and not loose.is_file()):
            raise UsageError(f"object {sha} is not in a regular file: {self._common}", hint="git fsck")
        try:
            yield
        except BadObject:
            hint = "git fetch --refetch --no-filter"
            raise UsageError(f"object {sha} is missing, as in a partial clone: {self._common}", hint=hint) from None
        except (ODBError, *DAMAGE) as error:
            raise UsageError(f"object {sha} is damaged ({error!r}): {self._common}", hint="git fsck") from error


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
        return self._objects.blob(sha)
