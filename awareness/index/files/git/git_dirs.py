"""Find the git dir of a folder, and what its config says about the formats of the repository.

Of the config only two values are read, by a pattern: `extensions.objectFormat` and `extensions.refStorage`. Nothing
that it includes is followed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from awareness.index.files.safe_read import read_small

MAX_CONFIG_BYTES = 1 << 20
HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
EXTENSION = rb'(?:^|\])[ \t]*%b[ \t]*=[ \t]*"?%b"?[ \t\r]*(?:[#;].*)?$'
SHA256 = re.compile(EXTENSION % (b"objectformat", b"sha256"), re.IGNORECASE | re.MULTILINE)
REFTABLE = re.compile(EXTENSION % (b"refstorage", b"reftable"), re.IGNORECASE | re.MULTILINE)


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


def count_hash_bytes(common_git_dir: Path) -> int:
    """The bytes of an object's hash: 20 (SHA-1) or 32 (SHA-256)."""
    return 32 if SHA256.search(_read_config(common_git_dir)) else 20


def has_reftable(common_git_dir: Path) -> bool:
    """Are the refs in tables instead of files?"""
    return bool(REFTABLE.search(_read_config(common_git_dir)))


def _read_config(common_git_dir: Path) -> bytes:
    return read_small(f"{common_git_dir}/config", MAX_CONFIG_BYTES)
