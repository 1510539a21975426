"""Which repositories the paths of a command mean: one, a part of one, or all that a folder holds."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.units import named_list
from awareness.engine.workspace import Workspace
from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.index.files.nested import MAX_FOLDERS, Nested, all_nested, look_inside, submodules
from awareness.index.files.repository import Repository, SourceFile, is_below
from awareness.index.store.layout import layout_for
from awareness.index.store.lock import writing
from awareness.index.store.pack import is_pack
from awareness.index.store.store import Store

_NESTED = "nested."


def open_workspaces(
    repos: Sequence[Path], packs: Sequence[Path], rev: str | None = None, reporter: Reporter = SILENT
) -> list[Workspace]:
    """What is searched, each place once: the places named; else the working folder's, unless only packs are named.

    A folder without git stands for the repositories in it, if there are any, and for its files in no repository; a
    repository that was indexed with those inside it, for all of them. Raises UsageError."""
    places: Sequence[Path | None] = repos or ([] if packs else [None])
    return _each_once([workspace for path in places for workspace in _searched(path, rev, reporter)])


def _searched(path: Path | None, rev: str | None, reporter: Reporter) -> list[Workspace]:
    """The workspaces that a path stands for, each with `found_in` unless the path names it."""
    workspace = _named(path)
    if found := _in_folder(workspace, rev=rev, reporter=reporter):
        return [*found, *(inner for outer in found for inner in _inside(outer))]
    around = _indexed_around(workspace)
    if path is None and around is not workspace:
        return _searched(around.repository.root, rev, reporter)
    if rev:
        workspace = Workspace.open(path, rev=rev)
    return [around, *_inside(workspace)] if rev is None else [workspace]


def expand_for_index(
    paths: Sequence[Path],
    *,
    rev: str | None = None,
    local: bool = False,
    nested: bool | None = None,
    reporter: Reporter = SILENT,
) -> list[Workspace]:
    """The whole repositories that the paths stand for, each once; without paths, the working folder's.

    nested: with the repositories inside each, None for as it was indexed before. The files of a folder of repositories
    that are in none of them count as one more, if there are any. Raises UsageError."""
    workspaces: list[Workspace] = []
    places: Sequence[Path | None] = paths or [None]
    for path in places:
        root = _named(path).repository.root
        outer = _in_folder(Workspace.open(root), rev=rev, local=local, reporter=reporter)
        for workspace in outer or [Workspace.open(root, rev=rev, local=local)]:
            repository = workspace.repository
            is_own = repository.common_git_dir is None and workspace.found_in is not None
            if is_own and not workspace.layout.exists:
                if not any(isinstance(file, SourceFile) for file in repository.scan()):
                    continue
                workspace = replace(Workspace.open(root, local=local), found_in=root)
            is_wanted = bool(_remembered(workspace)) if nested is None else nested
            names = all_nested(repository) if is_wanted and rev is None and repository.common_git_dir else []
            inside = [repository.root / name for name in names]
            workspaces += [workspace, *_open_each(inside, repository.root, local=local)]
    return _each_once(workspaces)


def _in_folder(workspace: Workspace, *, rev: str | None, local: bool = False, reporter: Reporter) -> list[Workspace]:
    """The repositories in a folder without git, after the folder itself if it has files of its own; else none."""
    root = workspace.repository.root
    if workspace.repository.common_git_dir is not None or workspace.below:
        return []
    found = look_inside(root)
    if not found.is_complete:
        reporter.note(f"{root} has more than {MAX_FOLDERS} folders; repositories are looked for in the first ones only")
    opened = _open_each(found.repositories, root, rev=rev, local=local)
    has_own = rev is None and (found.has_files or workspace.layout.exists)
    return [replace(workspace, found_in=root), *opened] if opened and has_own else opened


def _inside(workspace: Workspace) -> list[Workspace]:
    """Those inside a repository that were indexed with it, as far as they are below what is searched."""
    if workspace.rev is not None:
        return []
    root = workspace.repository.root
    return _open_each([root / name for name in _remembered(workspace) if is_below(name, workspace.below)], root)


def _indexed_around(workspace: Workspace) -> Workspace:
    """The folder without git around a part of it, if only the outer one is indexed."""
    if workspace.repository.common_git_dir is not None or workspace.layout.exists:
        return workspace
    for folder in workspace.repository.root.parents:
        layout = layout_for(folder, folder)
        if layout.exists:
            outer = Repository(folder, None, is_bare=False, git_dir=None)
            return Workspace(outer, layout, None, outer.below(workspace.top))
    return workspace


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


def _open_each(
    folders: Sequence[Path], found_in: Path, *, rev: str | None = None, local: bool = False
) -> list[Workspace]:
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
        around = _indexed_around(workspace)
        if around is not workspace:
            return around if path else replace(around, below="")
        folders = look_inside(workspace.repository.root).repositories
        if folders:
            raise UsageError(
                f"{workspace.repository.root} is no repository but holds {named_list([f.name for f in folders])}",
                hint=f"{command} --repo {folders[0]}",
            )
    return workspace


def workspace_around(path: Path, command: str) -> Workspace:
    """The working folder's repository, if the path is in it; else the one that the path is in, if there is one. The
    path may be gone. command: as for `only_workspace`. Raises UsageError."""
    here = None
    with contextlib.suppress(UsageError):  # of a folder of repositories
        here = only_workspace(None, command)
        places = (Path(os.path.abspath(path)), Path(os.path.realpath(path.parent)))
        if any(place.is_relative_to(here.repository.root) for place in places):
            return here
    there = Workspace.open(next(place for place in (path, *path.absolute().parents) if os.path.exists(place)))
    if there.repository.common_git_dir is not None or there.layout.exists:
        return replace(there, below="")
    return here or only_workspace(None, command)


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
    if workspace.repository.common_git_dir is not None and paths != _remembered(workspace):
        with writing(workspace.layout), Store.open(workspace.layout) as store:
            store.remember(_NESTED + workspace.snapshot_name, json.dumps(paths))
