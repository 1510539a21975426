"""Find and read the sources of `data.sources`: folders, git repositories, archives, wheels of PyPI, and fleets.

Nothing in a source is run, and no read leaves it: the index package reads folders, archives.py reads archives.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from awareness.config.environment import cache_dir
from awareness.errors import ModelNotAvailable, UsageError
from awareness.index.chunks.languages import language_of
from awareness.index.files.encodings.decoding import decode
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.files.repository import Repository, SourceFile
from awareness.index.files.safe_read import Skip
from awareness.model.download import DownloadFailed, pip_download
from awareness.model.model_files import sync_tree
from awareness.train.data.archives import MAX_FILE, SUFFIXES, read_archive, suffix_of
from awareness.train.data.fleet_sources import FleetPlace, is_store, repositories_of
from awareness.train.data.licences import names_licence
from awareness.types import Progress, printable, silent

MAX_LINE = 400  # characters; files with longer lines are minified
_VENDORED = {"node_modules", "vendor", "_vendor", "vendored", "third_party", ".git"}
_PINNED = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!+_-]*)")
_WHEEL_TAGS = re.compile(r"(-[0-9][^-]*)-.*$")
_VERSION = re.compile(r"[-=@]+v?[0-9]+(?:\.[\w.+!-]*)?$")


@dataclass(frozen=True)
class Source:
    """name: `flask-3.1.0`. place: a folder or file, NAME==VERSION of a wheel that is fetched when it is read, or a
    repository of a fleet."""

    name: str
    place: Path | str | FleetPlace

    @property
    def project(self) -> str:
        """The name without folders and version, shared by all versions."""
        return project(self.name)

    def is_called(self, name: str) -> bool:
        """Whether `name` means this source, with or without its version."""
        last = self.name.rpartition("/")[2]
        return _normal(name) in (_normal(self.name), _normal(last), self.project)


def project(name: str) -> str:
    return _normal(_VERSION.sub("", name.rpartition("/")[2]))


def _normal(name: str) -> str:
    """As PyPI compares names: lower case, `-` for `_` and `.`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_sources(wanted: Sequence[str]) -> list[Source]:
    """The sources that `data.sources` names, in its order, each once and with a unique name. Nothing is fetched.

    Raises UsageError for a path that does not exist, and for a wheel without a version.
    """
    by_place: dict[Path | str | FleetPlace, Source] = {}
    for name in wanted:
        for source in _found(name):
            by_place.setdefault(source.place, source)
    sources = list(by_place.values())
    names = [source.name for source in sources]
    return [_with_parent(source) if names.count(source.name) > 1 else source for source in sources]


def _found(name: str) -> list[Source]:
    if name.startswith("pypi:"):
        return [_pinned(name)]
    if is_store(name):
        return [Source(place.name, place) for place in repositories_of(name)]
    return _on_disk(name)


def _pinned(name: str) -> Source:
    pinned = _PINNED.fullmatch(name)
    if not pinned:
        raise UsageError(
            f"data.sources: '{printable(name)}' has no exact version",
            hint="write pypi:NAME==VERSION, as pypi:flask==3.1.0",
        )
    return Source(f"{pinned[1]}-{pinned[2]}", f"{pinned[1]}=={pinned[2]}")


def _on_disk(name: str) -> list[Source]:
    path = Path(name).expanduser()
    paths = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    kept = [Path(os.path.realpath(path)) for path in paths if path.is_dir() or (suffix_of(path) and path.is_file())]
    if not kept:
        wrong = f"is not an archive ({' '.join(SUFFIXES)})" if paths else "does not exist"
        raise UsageError(f"data.sources: '{printable(name)}' {wrong}", hint="--set 'data.sources=[PATH]'")
    return [Source(_stem(path), path) for path in kept]


def _stem(path: Path) -> str:
    """The name of a folder or an archive: `flask-3.1.0` for flask-3.1.0-py3-none-any.whl."""
    suffix = "" if path.is_dir() else suffix_of(path)
    stem = path.name[: len(path.name) - len(suffix)]
    return _WHEEL_TAGS.sub(r"\1", stem) if suffix == ".whl" else stem


def _with_parent(source: Source) -> Source:
    """The source with its parent folder in its name, which tells two folders named `src` apart."""
    return (
        replace(source, name=f"{source.place.parent.name}/{source.name}") if isinstance(source.place, Path) else source
    )


def read_source(source: Source, fetch: Callable[[str], Path]) -> dict[str, bytes]:
    """Path (relative, with `/`) -> bytes of the files that can hold code or name the licence; not of a fleet's."""
    assert not isinstance(source.place, FleetPlace)
    place = fetch(source.place) if isinstance(source.place, str) else source.place
    files = _read_folder(place) if place.is_dir() else read_archive(place, _is_wanted)
    return {path: data for path, data in files.items() if names_licence(path) or kind_of(path) is FileKind.SOURCE}


def _is_wanted(name: str) -> bool:
    return names_licence(name) or kind_of(name) is FileKind.SOURCE


def _read_folder(root: Path) -> dict[str, bytes]:
    repository = Repository.open(root)
    if repository.root != root:  # a folder inside a larger repository: only the folder was named
        repository = Repository(root, None, is_bare=False, git_dir=None)
    scanned = (file for file in repository.scan() if isinstance(file, SourceFile))
    return {file.path: file.data for file in scanned if _is_wanted(file.path.rpartition("/")[2])}


def may_be_source(path: str) -> bool:
    """Does a path look like source, and not like a test, a document or vendored code (`vendor`, `node_modules`)?"""
    return not _VENDORED.intersection(path.split("/")) and kind_of(path) is FileKind.SOURCE


def source_text(path: str, data: bytes) -> str | None:
    """The text of a hand-written file in a known language; None for large and minified files, tests, documents,
    vendored code (`vendor`, `node_modules`), and for bytes that are not text."""
    if not may_be_source(path) or len(data) > MAX_FILE:
        return None
    try:
        text = decode(data)
    except Skip:
        return None
    return text if max(map(len, text.split("\n"))) <= MAX_LINE and language_of(path, text) else None


def fetch_wheel(pinned: str, progress: Progress = silent) -> Path:
    """The wheel of NAME==VERSION, from the user's cache or, the first time, from PyPI. Raises ModelNotAvailable."""
    from filelock import FileLock

    root = cache_dir() / "sources"
    folder = root / pinned.replace("==", "-")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if not any(folder.glob("*.whl")):
            for stale in root.glob(".fetch-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root, ignore_cleanup_errors=True) as temporary:
                work = Path(temporary, "wheel")
                work.mkdir()
                try:
                    pip_download(pinned, work, progress)
                except DownloadFailed as error:
                    raise ModelNotAvailable(
                        f"data.sources: pypi:{pinned}: {error}",
                        hint="try again with a connection to PyPI, or name a folder or an archive instead",
                    ) from error
                sync_tree(work)
                work.rename(folder)
    return next(folder.glob("*.whl"))
