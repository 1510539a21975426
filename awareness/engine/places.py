"""Which repositories the paths of a command mean: one, a part of one, or all that a folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from awareness.engine.units import named_list
from awareness.engine.workspace import Workspace
from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.index.files.nested import Nested, all_nested, look_inside, submodules
from awareness.index.files.repository import SourceFile, is_below
from awareness.index.store.lock import writing
from awareness.index.store.pack import is_pack
from awareness.index.store.store import Store

_NESTED = "nested."


def open_workspaces(repos: Sequence[Path], packs: Sequence[Path], rev: str | None = None) -> list[Workspace]:
    """What is searched, each place once: the places named; else the working folder's, unless only packs are named.

    A folder without git stands for the repositories in it, if there are any, and for its files in no repository; a
    repository that was indexed with those inside it, for all of them. Raises UsageError."""
    places: Sequence[Path | None] = repos or ([] if packs else [None])
    return _each_once([workspace for place in places for workspace in expand(place, rev=rev)])


def expand(
    path: Path | None, *, rev: str | None = None, local: bool = False, nested: bool | None = None
) -> list[Workspace]:
    """The workspaces that a path stands for, each with `found_in` unless the path names it.

    nested: with the repositories inside a repository; None for those that were indexed with it. Raises UsageError."""
    workspace = _named(path)
    root = workspace.repository.root
    if workspace.repository.common_git_dir is None and not workspace.below:
        found = look_inside(root)
        if found.repositories:
            opened = _open_each(found.repositories, root, rev, local)
            own = replace(workspace, found_in=root)
            has_own = rev is None and (found.has_files or own.layout.exists)
            return [own, *opened] if has_own or not opened else opened
    if rev or local:
        workspace = Workspace.open(path, rev=rev, local=local)
    inner = [] if rev or nested is False else all_nested(workspace.repository) if nested else _remembered(workspace)
    inside = [root / name for name in inner if is_below(name, workspace.below)]
    return [workspace, *_open_each(inside, root, rev, local)]


def expand_for_index(
    paths: Sequence[Path], *, rev: str | None = None, local: bool = False, nested: bool | None = None
) -> list[Workspace]:
    """The whole repositories that the paths stand for, each once; without paths, the working folder's.

    nested: with the repositories inside each, None for as it was indexed before. The files of a folder of repositories
    that are in none of them count as one more, if there are any. Raises UsageError."""
    workspaces = []
    places: Sequence[Path | None] = paths or [None]
    for path in places:
        outer = _named(path)
        is_wanted = bool(_remembered(outer)) if nested is None else nested
        for workspace in expand(outer.repository.root, rev=rev, local=local, nested=is_wanted):
            repository = workspace.repository
            is_own = repository.common_git_dir is None and workspace.found_in is not None
            if not is_own or workspace.layout.exists or any(isinstance(f, SourceFile) for f in repository.scan()):
                workspaces.append(workspace)
    return _each_once(workspaces)


def _named(path: Path | None) -> Workspace:
    """The workspace that a path names. Raises UsageError for a pack, and for a submodule that is not initialised."""
    if path is not None and path.is_file() and is_pack(path):
        raise UsageError(f"{path} is a pack, not a repository", hint=f"--memory {path}")
    workspace = Workspace.open(path)
    root, below = workspace.repository.root, workspace.below
    if below and workspace.top.is_dir() and Nested(below, False) in submodules(root):
        hint = f"git -C {root} submodule update --init {below}"
        raise UsageError(f"{workspace.top} is a submodule that is not initialised", hint=hint)
    return workspace


def _open_each(folders: Sequence[Path], found_in: Path, rev: str | None, local: bool) -> list[Workspace]:
    """Repositories that were found; with `rev`, those that have such a commit. Raises UsageError if none has."""
    opened, failure = [], None
    for folder in folders:
        try:
            workspace = Workspace.open(folder, rev=rev, local=local)
        except UsageError as error:  # it has no such commit, or is gone
            failure = error
            continue
        if workspace.repository.root == folder:  # neither a symlink now nor a part of the repository around it
            opened.append(replace(workspace, below="", found_in=found_in))
    if failure is not None and not opened and rev:
        raise failure
    return opened


def _each_once(workspaces: Sequence[Workspace]) -> list[Workspace]:
    """Without those that are named twice, or lie in another one of the same repository."""
    kept: dict[tuple[Path, str, str], Workspace] = {}
    for workspace in workspaces:
        key = (workspace.layout.root, workspace.snapshot_name, workspace.below)
        if key not in kept or kept[key].found_in is not None:
            kept[key] = workspace
    return [
        workspace
        for (index, snapshot, below), workspace in kept.items()
        if not any(
            (index, snapshot) == (other[0], other[1]) and below != other[2] and is_below(below, other[2])
            for other in kept
        )
    ]


def only_workspace(path: Path | None, command: str, rev: str | None = None) -> Workspace:
    """The one repository that a path means. command: what is refused for a folder of several. Raises UsageError."""
    workspace = Workspace.open(path, rev=rev)
    if workspace.repository.common_git_dir is None and not workspace.layout.exists:
        folders = look_inside(workspace.repository.root).repositories
        if folders:
            raise UsageError(
                f"{workspace.repository.root} is no repository but holds {named_list([f.name for f in folders])}",
                hint=f"{command} --repo {folders[0]}",
            )
    return workspace


def _remembered(workspace: Workspace) -> list[str]:
    """The paths of the repositories inside that were indexed with this one (`remember_nested`)."""
    if not workspace.layout.exists:
        return []
    try:
        with Store.open(workspace.layout) as store:
            return list(json.loads(store.setting(_NESTED + workspace.snapshot_name) or "[]"))
    except (IndexCorrupt, NoIndex):
        return []


def remember_nested(workspace: Workspace, indexed: Sequence[Workspace]) -> None:
    """From now on those of `indexed` that were found in this repository are searched with it. Raises IndexLocked."""
    root = workspace.repository.root
    paths = [other.repository.root.relative_to(root).as_posix() for other in indexed if other.found_in == root]
    if workspace.found_in is None and paths != _remembered(workspace):
        with writing(workspace.layout), Store.open(workspace.layout) as store:
            store.remember(_NESTED + workspace.snapshot_name, json.dumps(paths))
