"""The repositories in a folder: found as `Repository.open` would open them, within bounds, and never through a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from awareness.index.files import nested
from awareness.index.files.nested import Nested, all_nested, look_inside, nested_repositories
from awareness.index.files.repository import Repository
from tests.conftest import git, write_tree


def make(root: Path, name: str = "main.py") -> Path:
    write_tree(root, {name: "x = 1\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def add_submodule(root: Path, library: Path, path: str) -> None:
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), path)
    git(root, "commit", "-qm", f"add {path}")


def found(top: Path) -> list[str]:
    return [folder.relative_to(top).as_posix() for folder in look_inside(top).repositories]


def test_clones_are_found_a_few_levels_below(tmp_path):
    for name in ("till", "org/depot", "src/host.org/team/api", ".github"):
        make(tmp_path / name)
    git(tmp_path, "clone", "-q", "--bare", "till", "mirrors/till.git")
    git(tmp_path / "till", "worktree", "add", "-q", str(tmp_path / "till-fix"))
    assert found(tmp_path) == [".github", "mirrors/till.git", "org/depot", "src/host.org/team/api", "till", "till-fix"]
    for folder in look_inside(tmp_path).repositories:
        assert Repository.open(folder).root == folder


def test_the_walk_stops_where_no_clone_of_the_user_is(tmp_path):
    make(tmp_path / "till")
    make(tmp_path / "till/inner")
    for name in ("node_modules/dep", ".cache/pre-commit/hook", "env/src/dep", "a/b/c/d/e/f/g"):
        make(tmp_path / name)
    (tmp_path / "env/pyvenv.cfg").touch()
    make(tmp_path.with_name(f"{tmp_path.name}-outside"))
    (tmp_path / "link").symlink_to(tmp_path.with_name(f"{tmp_path.name}-outside"))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken/.git").mkdir(parents=True)
    assert found(tmp_path) == ["till"]


def test_a_folder_without_repositories(tmp_path):
    write_tree(tmp_path, {"a/b.py": "1"})
    assert look_inside(tmp_path) == nested.Inside([], has_files=True, is_complete=True)


@pytest.mark.parametrize(("name", "has_files"), [("README.md", True), ("docs/a.md", True), (".DS_Store", False)])
def test_files_in_no_repository_are_seen(tmp_path, name, has_files):
    make(tmp_path / "till")
    write_tree(tmp_path, {name: "text"})
    assert look_inside(tmp_path).has_files is has_files
    assert not look_inside(tmp_path / "till/.git").repositories


def test_the_walk_is_bounded(tmp_path, monkeypatch):
    for number in range(9):
        make(tmp_path / f"r{number}")
    monkeypatch.setattr(nested, "MAX_FOLDERS", 5)
    inside = look_inside(tmp_path)
    assert len(inside.repositories) == 4 and not inside.is_complete


def test_repositories_inside_another(tmp_path):
    library, root = make(tmp_path / "library"), make(tmp_path / "app")
    add_submodule(root, library, "libs/a")
    add_submodule(root, library, "libs/b")
    make(root / "clone")
    write_tree(root, {".gitignore": "/ignored/\n"})
    make(root / "ignored/x")
    git(root, "worktree", "add", "-q", str(root / "fix"))
    git(root, "submodule", "--quiet", "deinit", "-f", "libs/b")
    assert nested_repositories(Repository.open(root)) == [
        Nested("clone", True), Nested("ignored/x", True), Nested("libs/a", True), Nested("libs/b", False),
    ]  # fmt: skip
    assert nested_repositories(Repository.open(library)) == []


def test_a_bare_repository_has_none_inside(tmp_path):
    make(tmp_path / "r")
    git(tmp_path, "clone", "-q", "--bare", "r", "r.git")
    assert nested_repositories(Repository.open(tmp_path / "r.git")) == []


def test_repositories_inside_those_inside(tmp_path):
    library, middle, root = make(tmp_path / "library"), make(tmp_path / "middle"), make(tmp_path / "app")
    add_submodule(middle, library, "deep")
    add_submodule(root, middle, "libs/middle")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    assert all_nested(Repository.open(root)) == ["libs/middle", "libs/middle/deep"]


@pytest.mark.parametrize("path", ["../secret", "link", "link/inner", "/etc", ".git", "missing", "", "a\0b"])
def test_a_hostile_gitmodules_leads_nowhere(tmp_path, path):
    make(tmp_path / "secret")
    make(tmp_path / "secret/inner")
    root = make(tmp_path / "app")
    (root / "link").symlink_to(tmp_path / "secret")
    write_tree(root, {".gitmodules": f'[submodule "x"]\n\tpath = {path}\n\turl = x\n'})
    assert nested_repositories(Repository.open(root)) == []
