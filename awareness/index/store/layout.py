"""The folder of an index: which one belongs to a repository, and the names of the files inside.

    <root>/manifest.db              SQLite: what is indexed, and where its latents are (manifest.py)
    <root>/shards/*.safetensors     latents; never changed, named by their content (shards.py)
    <root>/lock, lock.pid           held by the one writer; its process id (lock.py)
    <root>/CACHEDIR.TAG             says that the folder is ours and can be made again

A repository's folder is found by the real path of its common git dir, so that its work trees share it. It is in the
user's cache, in AWARENESS_INDEX_DIR, or with `--local` in `.awareness/` of the work tree. The cache remembers that an
index is local: a folder `.awareness/` that comes with a cloned repository is never trusted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from awareness.config.environment import cache_dir, environment
from awareness.errors import storage_errors
from awareness.index.files.own.own_files import CACHE_TAG, OWN_CACHE_TAG
from awareness.types import digest

FORMAT_VERSION = 3
LOCAL_FOLDER = ".awareness"


@dataclass(frozen=True)
class IndexLayout:
    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.db"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def lock_holder(self) -> Path:
        return self.root / "lock.pid"

    def shard(self, name: str) -> Path:
        return self.shards / f"{name}.safetensors"

    @property
    def exists(self) -> bool:
        return self.manifest.is_file()

    def create_root(self) -> None:
        """Creates the folder that everything else is in. Raises OSError."""
        if self.root.is_relative_to(indexes_dir()):
            create_indexes_dir()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _tag(self.root)

    def create(self) -> None:
        """Creates the folders, readable only by their owner."""
        self.create_root()
        self.root.chmod(0o700)
        self.shards.mkdir(mode=0o700, exist_ok=True)
        if self.root.name == LOCAL_FOLDER:
            (self.root / ".gitignore").write_text("*\n")


def _tag(folder: Path) -> None:
    """Marks a folder as ours, wherever it is moved or copied: the listing of a work tree leaves it out."""
    tag = folder / CACHE_TAG
    if not tag.exists():
        tag.write_bytes(OWN_CACHE_TAG)


def create_indexes_dir() -> None:
    """Creates the folder of all indexes. One that is there and holds something may hold more than indexes."""
    folder = indexes_dir()
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        _tag(folder)


def indexes_dir() -> Path:
    """The folder of all indexes: AWARENESS_INDEX_DIR, else in the user's cache."""
    if configured := environment().index_dir:
        return configured.expanduser().absolute()
    return cache_dir() / "indexes"


def layout_for(key: Path, work_tree: Path, *, local: bool = False) -> IndexLayout:
    """The index of the repository with `key` (`Repository.key`). local: keep it in the work tree from now on."""
    main = key.parent if key.name == ".git" else key  # the same for all work trees of a repository
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", main.name)[:40].strip("-.") or "repository"
    shared = indexes_dir() / f"{name}-{digest(os.fsencode(key))[:16]}"
    marker = shared.with_name(f"{shared.name}.local-{digest(os.fsencode(work_tree))[:16]}")
    if local and not marker.exists():
        with storage_errors(marker):
            create_indexes_dir()
            marker.touch(mode=0o600)
    return IndexLayout(work_tree / LOCAL_FOLDER if marker.exists() else shared)
