"""Which repositories an agent may ask about: those that were named, and any below the allowed folders."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from awareness.engine.engine import Engine
from awareness.engine.model_pool import ModelPool
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.units import named_list
from awareness.errors import UsageError
from awareness.index.files.repository import Repository
from awareness.serve.repositories import Repositories, Served
from awareness.types import printable

MAX_NAME_CHARS = 4096


class AllowedRepositories:
    """Finds the repository that an argument means, and refuses every other. May be used from several threads."""

    def __init__(
        self,
        sources: Sequence[Path] = (),
        roots: Sequence[Path] = (),
        *,
        here: Path | None = None,
        models: ModelPool | None = None,
        stores: Sequence[str] = (),
        reporter: Reporter = SILENT,
        **options: Any,
    ) -> None:
        """sources, stores: as of `Repositories`; without any, the git repository around `here`, if there is one.
        roots: folders below which every repository is allowed. here: the working folder, whose repository is meant
        where none is named. options: of `Engine`. Raises UsageError."""
        self._here = Path(os.path.realpath(here or Path.cwd()))
        self._models = models or ModelPool()
        self._reporter, self._options = reporter, options
        self._roots = [_folder(root) for root in roots]
        for source in sources:
            _check_size(source)
        around = Repository.open(self._here)
        is_here = around.common_git_dir is not None and not stores
        named = list(sources) or ([around.root] if is_here else [])
        self._named = self._open(named, stores) if named or stores else None
        self._found: dict[Path, Repositories] = {}
        self._lock = threading.Lock()

    @property
    def all(self) -> list[Served]:
        """Those that were named, and those that were found below the allowed folders so far."""
        return [served for repositories in self._opened() for served in repositories.all]

    def find(self, name: str | None = None) -> Served:
        """By name or path; without one, the only one, or that of the working folder. Raises UsageError."""
        return self._find(name)[1]

    @contextlib.contextmanager
    def engine(self, name: str | None = None, *, refresh: bool = True) -> Iterator[Engine]:
        """As `Repositories.engine`."""
        repositories, served = self._find(name)
        with repositories.engine(served.name, refresh=refresh) as engine:
            yield engine
        for others in self._opened():
            others.close_idle()

    def close(self) -> None:
        for repositories in self._opened():
            repositories.close()
        self._models.close()

    def _opened(self) -> list[Repositories]:
        with self._lock:
            return [*([self._named] if self._named else []), *self._found.values()]

    def _open(self, sources: Sequence[Path], stores: Sequence[str] = ()) -> Repositories:
        return Repositories(sources, models=self._models, stores=stores, reporter=self._reporter, **self._options)

    def _find(self, name: str | None) -> tuple[Repositories, Served]:
        if not name:
            return self._default()
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise UsageError(f"'{printable(name[:80])}' is no name of a repository", hint=self._hint())
        if self._named is not None:
            if name in (".", "./"):
                name = str(self._here)
            with contextlib.suppress(UsageError):
                return self._named, self._named.find(name)
        for root in self._roots:
            if (top := _below(root, name)) is not None:
                with self._lock:
                    if top not in self._found:
                        self._found[top] = self._open([top])
                    found = self._found[top]
                return found, found.all[0] if len(found.all) == 1 else found.find(str(top))
        raise UsageError(f"'{printable(name[:200])}' is not one of the allowed repositories", hint=self._hint())

    def _default(self) -> tuple[Repositories, Served]:
        if self._named is None:
            where = named_list([str(root) for root in self._roots])
            if where:
                raise UsageError("`repo` is missing", hint=f"the path of a repository below {where}")
            raise UsageError(
                f"{printable(str(self._here))} is in no git repository",
                hint="start `awareness mcp REPO`, or `awareness mcp --root FOLDER` and pass `repo`",
            )
        if len(self._named.all) > 1:
            with contextlib.suppress(UsageError):
                return self._named, self._named.find(str(self._here))
            raise UsageError("`repo` is missing", hint=self._hint())
        return self._named, self._named.all[0]

    def _hint(self) -> str:
        names = self._named.names if self._named else []
        below = [f"a path below {root}" for root in self._roots]
        return f"`repo` is one of: {named_list([*names, *below], 12) or 'none is allowed'}"


def _check_size(source: Path) -> None:
    """An editor that is opened in the home folder passes it: that is not meant. Raises UsageError."""
    real = Path(os.path.realpath(source))
    if real in (Path.home(), Path(real.anchor)) and Repository.open(real).common_git_dir is None:
        raise UsageError(f"{real} is no repository", hint="name a repository, or --root and pass `repo`")


def _folder(path: Path) -> Path:
    real = Path(os.path.realpath(path.expanduser()))
    if not real.is_dir():
        raise UsageError(f"{printable(str(path))} is not a folder", hint="--root with the folder of your repositories")
    return real


def _below(root: Path, name: str) -> Path | None:
    """The top folder of the repository that a path names, if it lies below the root: symlinks and `..` are followed
    first. A part of a repository that begins above the root ends there."""
    path = Path(os.path.realpath(root / name))  # an absolute name replaces the root
    if not path.is_relative_to(root) or not path.is_dir():
        return None
    repository = Repository.open(path)
    if repository.common_git_dir is None:
        return None
    return repository.root if repository.root.is_relative_to(root) else path
