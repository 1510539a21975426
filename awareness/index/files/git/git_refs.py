"""Read the refs of a repository: in files, in `packed-refs`, or in a reftable. Runs no git and reads no reflog."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path

from awareness.errors import UsageError
from awareness.index.files.git import reftable
from awareness.index.files.git.git_dirs import has_reftable
from awareness.index.files.safe_read import is_safe, read_small

MAX_PACKED_REFS_BYTES = 1 << 26
MAX_SYMBOLIC = 5  # refs that point to refs, as in git
PER_WORK_TREE = ("refs/bisect/", "refs/worktree/", "refs/rewritten/")
ALWAYS_FILES = ("FETCH_HEAD", "MERGE_HEAD")


class GitRefs:
    """The refs that one work tree sees. git_dir: of the work tree; common_git_dir: of all. hash_bytes: 20 or 32."""

    def __init__(self, git_dir: Path, common_git_dir: Path, hash_bytes: int) -> None:
        self._git_dir = git_dir
        self._common = common_git_dir
        self._hash_bytes = hash_bytes
        self._hash = re.compile(rf"([0-9a-f]{{{2 * hash_bytes}}})(?:\s|$)")

    def read(self, name: str) -> str | None:
        """The hash in a ref (full name), through symbolic refs; it may be of a tag. Or None."""
        for _ in range(MAX_SYMBOLIC):
            if not is_safe(name):
                return None
            value = self._value(name)
            if not value.startswith("ref:"):
                match = self._hash.match(value)
                return match[1] if match else None
            name = value[len("ref:") :].strip()
        return None

    def _value(self, name: str) -> str:
        """A hash, `ref: NAME`, or anything else if there is no such ref."""
        folder, name = self._place(name)
        if self._has_reftable and name not in ALWAYS_FILES:
            try:
                return reftable.look_up(folder / "reftable", name, self._hash_bytes) or ""
            except (OSError, EOFError, LookupError, ValueError) as error:
                message = f"the refs are damaged ({error!r}): {folder}/reftable"
                raise UsageError(message, hint="git refs verify") from error
        loose = os.fsdecode(read_small(f"{folder}/{name}")).strip()
        if loose.startswith("ref:") or self._hash.match(loose):
            return loose
        packed = re.search(rb"^([0-9a-f]+) " + re.escape(os.fsencode(name)) + rb"$", self._packed, re.MULTILINE)
        return packed[1].decode("ascii") if packed else ""

    def _place(self, name: str) -> tuple[Path, str]:
        """The git dir that holds a ref, and the ref's name there."""
        if name.startswith("main-worktree/"):
            return self._common, name.partition("/")[2]
        if name.startswith("worktrees/") and name.count("/") >= 2:
            _, work_tree, inner = name.split("/", 2)
            return self._common / "worktrees" / work_tree, inner
        is_shared = name.startswith("refs/") and not name.startswith(PER_WORK_TREE)
        return (self._common if is_shared else self._git_dir), name

    @cached_property
    def _has_reftable(self) -> bool:
        return has_reftable(self._common)

    @cached_property
    def _packed(self) -> bytes:
        return read_small(f"{self._common}/packed-refs", MAX_PACKED_REFS_BYTES)
