"""past_commits: the history of a commit, and what each commit changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from awareness.index.files.git import past_commits
from awareness.index.files.git.git_objects import Commit
from awareness.index.files.git.past_commits import PastCommits
from awareness.index.files.repository import Repository
from tests.index.files.git.reftable_repository import HASHES
from tests.index.files.git.test_git_objects import make_history
from tests.index.files.test_repository import (
    commit,
    git,
    make_blob,
    make_repo,
    make_tree,
    no_user_config,  # noqa: F401
    write,
)


def history(root: Path, count: int = 100) -> dict[str, list[str] | None]:
    """commit -> the paths that it changed."""
    repository = Repository.open(root)
    head, objects = repository.head(), repository.objects
    assert head and objects
    past = PastCommits(objects, seconds=60)
    changes = {sha: past.changed(found) for sha, found in past.newest(head, count)}
    return {sha: list(change.paths) if change else None for sha, change in changes.items()}


def by_git(root: Path) -> dict[str, list[str] | None]:
    found: dict[str, list[str] | None] = {}
    for sha in git(root, "log", "--format=%H").splitlines():
        if len(git(root, "log", "-1", "--format=%P", sha).split()) > 1:
            found[sha] = None
        else:
            names = git(root, "diff-tree", "-r", "--root", "--no-commit-id", "--name-only", "--no-renames", sha)
            found[sha] = sorted(names.splitlines())
    return found


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("packed", [False, True])
def test_history_is_what_git_shows(tmp_path: Path, packed: bool, hash_name: str) -> None:
    root = make_history(tmp_path, hash_name)
    shutil.rmtree(root / "d/e")
    write(root, {"d/e": "now a file\n", "a.py": "changed\n"})
    commit(root, "a file for a folder")
    git(root, "mv", "a.py", "b.py")
    commit(root, "renamed")
    if packed:
        git(root, "gc", "-q")
    expected = by_git(root)
    assert history(root) == expected
    assert None in expected.values() and ["a.py", "b.py"] in expected.values()
    assert ["a.py", "d/e", "d/e/f.py"] in expected.values()


def test_the_newest_known_parent_comes_next(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    tree = git(root, "rev-parse", "HEAD^{tree}")

    def made(second: int, *parents: str) -> str:
        head = "".join(f"parent {parent}\n" for parent in parents)
        data = f"tree {tree}\n{head}author a <a> 0 +0000\ncommitter a <a> {second} +0000\n\nm\n"
        return git(root, "hash-object", "-t", "commit", "-w", "--stdin", data=data.encode())

    first = made(5)
    old, new = made(20, made(10, first)), made(30, made(25, first))
    git(root, "update-ref", "refs/heads/main", made(40, old, new))
    objects = Repository.open(root).objects
    assert objects
    times = [objects.commit(sha).time for sha in history(root)]
    assert times == [40, 30, 25, 20, 10, 5]
    assert list(history(root, count=3)) == list(history(root))[:3]


def test_the_message_and_the_time_of_a_commit(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    sha = commit(root, "Fix it\n\nBecause it was broken.\n\ncommitter x <y> 5 +0000")
    objects = Repository.open(root).objects
    assert objects
    found = objects.commit(sha)
    parent, tree = git(root, "rev-parse", f"{sha}^", f"{sha}^{{tree}}").split()
    message = "Fix it\n\nBecause it was broken.\n\ncommitter x <y> 5 +0000\n"
    assert found == Commit(tree, (parent,), 1704067200, message)


def test_hostile_commits_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    tree, first = git(root, "rev-parse", "HEAD^{tree}", "HEAD").split()

    def made(message: str, parents: list[str]) -> str:
        head = "".join(f"parent {parent}\n" for parent in parents)
        data = f"tree {tree}\n{head}author a <a> 0 +0000\ncommitter a <a> 9 +0000\n\n{message}"
        return git(root, "hash-object", "-t", "commit", "-w", "--stdin", data=data.encode())

    objects = Repository.open(root).objects
    assert objects
    assert objects.commit(made("m" * 10_000, [first])).message == "m" * 8192
    parents = [made(f"parent {number}", []) for number in range(70)]
    many = made("octopus", parents)
    assert objects.commit(many).parents == tuple(parents[:64])
    huge = made("m" * (1 << 20), [first])
    git(root, "update-ref", "refs/heads/main", huge)
    assert history(root) == {}
    git(root, "update-ref", "refs/heads/main", many)
    monkeypatch.setattr(past_commits, "MAX_WAITING", 5)
    assert list(history(root)) == [many, *sorted(parents[:5])]


def test_a_shallow_clone_ends_where_its_parents_are_missing(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "full", {"a.py": "1"})
    for number in range(4):
        write(root, {f"b{number}.py": "1"})
        commit(root, f"add {number}")
    git(tmp_path, "clone", "-q", "--depth", "2", f"file://{root}", "shallow")
    assert list(history(tmp_path / "shallow").values()) == [["b3.py"], None]


@pytest.mark.parametrize("missing", ["HEAD~2", "HEAD~2^{tree}"])
def test_a_missing_object_ends_the_walk_or_hides_two_changes(tmp_path: Path, missing: str) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    for number in range(3):
        write(root, {f"b{number}.py": "1"})
        commit(root, f"add {number}")
    sha = git(root, "rev-parse", missing)
    (root / ".git/objects" / sha[:2] / sha[2:]).unlink()
    changed = list(history(root).values())
    assert changed == ([["b2.py"], None] if missing == "HEAD~2" else [["b2.py"], None, None, ["a.py"]])


def test_a_work_tree_and_a_bare_repository_have_the_same_history(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "main", {"a.py": "1"})
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    write(tmp_path / "side", {"side.py": "1"})
    commit(tmp_path / "side", "side")
    git(tmp_path, "clone", "-q", "--bare", "-b", "side", str(root), "bare.git")
    assert list(history(root).values()) == [["a.py"]]
    assert list(history(tmp_path / "side").values()) == [["side.py"], ["a.py"]]
    assert history(tmp_path / "bare.git") == history(tmp_path / "side")


def test_a_commit_of_many_files_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repo(tmp_path, {f"{number}/f.py": "1" for number in range(5)})
    monkeypatch.setattr(past_commits, "MAX_CHANGED", 5)
    assert list(history(root).values()) == [[f"{number}/f.py" for number in range(5)]]
    monkeypatch.setattr(past_commits, "MAX_CHANGED", 4)
    assert list(history(root).values()) == [None]


def test_files_that_only_moved_are_told(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"lib/a.py": "1", "lib/b.py": "2", "lib/deep/c.py": "3", "x.py": "", "y.py": ""})
    git(root, "mv", "lib", "src")
    git(root, "mv", "x.py", "x2.py")
    git(root, "mv", "y.py", "y2.py")  # which is as empty as the other
    write(root, {"src/b.py": "changed"})
    commit(root, "move")
    repository = Repository.open(root)
    head, objects = repository.head(), repository.objects
    assert head and objects
    change = PastCommits(objects, seconds=60).changed(objects.commit(head))
    assert change and change.renamed == {"lib/a.py": "src/a.py", "lib/deep/c.py": "src/deep/c.py"}
    assert {"lib/b.py", "src/b.py", "x.py", "y2.py"} <= set(change.paths)


def test_paths_that_lead_out_are_left_out(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    blob = make_blob(root, b"2")
    inner = make_tree(root, ("100644", b"config", blob))
    tree = make_tree(root, ("40000", b"..", inner), ("40000", b".git", inner), ("100644", b"b\xff.py", blob))
    sha = git(root, "commit-tree", "-p", "HEAD", "-m", "hostile", tree)
    git(root, "update-ref", "refs/heads/main", sha)
    assert history(root)[sha] == ["a.py", os.fsdecode(b"b\xff.py")]


def test_a_commit_with_a_huge_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    write(root, {f"d/{number}.py": "1" for number in range(9)})
    commit(root, "many")
    assert [len(paths or ()) for paths in history(root).values()] == [9, 1]
    monkeypatch.setattr(past_commits, "MAX_TREE_BYTES", 100)
    assert list(history(root).values()) == [None, ["a.py"]]


def test_trees_that_contain_each_other_are_given_up(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    tree = make_tree(root, ("100644", b"f", make_blob(root, b"1")))
    for _ in range(20):  # a million paths
        tree = make_tree(root, ("40000", b"a", tree), ("40000", b"b", tree))
    sha = git(root, "commit-tree", "-p", "HEAD", "-m", "bomb", tree)
    git(root, "update-ref", "refs/heads/main", sha)
    assert history(root)[sha] is None


def test_nothing_is_read_when_the_time_is_over(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    repository = Repository.open(root)
    head, objects = repository.head(), repository.objects
    assert head and objects
    assert list(PastCommits(objects, seconds=-1).newest(head, 10)) == []
    assert PastCommits(objects, seconds=-1).changed(objects.commit(head)) is None


def test_no_file_is_read_and_few_trees_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    for number in range(6):
        write(root, {"a.py": str(number + 2), "d/b.py": str(number)})
        commit(root, f"change {number}")
    expected = by_git(root)
    for blob in {git(root, "rev-parse", f"HEAD~{n}:a.py") for n in range(7)}:
        (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    monkeypatch.setattr(past_commits, "CACHED_ENTRIES", 2)
    assert history(root) == expected
