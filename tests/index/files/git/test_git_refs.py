"""git_dirs and git_refs: refs in files and in tables, of several work trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from awareness.errors import UsageError
from awareness.index.files.git.git_dirs import count_hash_bytes, has_reftable
from awareness.index.files.repository import Repository
from tests.index.files.git.reftable_repository import HASHES, make_reftable_repo
from tests.index.files.test_repository import (
    commit,
    git,
    listed,
    make_repo,
    no_user_config,  # noqa: F401
    write,
)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("[extensions]\n\tobjectFormat = sha256\n", (32, False)),
        ("[Extensions] ObjectFormat=SHA256 ; why\n[extensions]refstorage = reftable\r\n", (32, True)),
        ('[extensions]\n  objectformat = "sha256"\n  refStorage = "reftable" # why\n', (32, True)),
        ("[extensions]\n\tobjectformat = sha1\n\trefstorage = files\n", (20, False)),
        ("# objectformat = sha256\n; refstorage = reftable\n", (20, False)),
        ("[extensions]\n\tobjectformat = sha2567\n\trefstorage = reftable://elsewhere\n", (20, False)),
        ("[include]\n\tpath = other\n", (20, False)),
    ],
)
def test_what_the_config_says_about_formats(tmp_path: Path, config: str, expected: tuple[int, bool]) -> None:
    write(tmp_path, {"config": config, "other": "[extensions]\n\tobjectformat = sha256\n\trefstorage = reftable\n"})
    assert (count_hash_bytes(tmp_path), has_reftable(tmp_path)) == expected


@pytest.mark.parametrize("hash_name", HASHES)
def test_a_repository_with_reftables(tmp_path: Path, hash_name: str) -> None:
    hashes = make_reftable_repo(tmp_path, hash_name)
    main, other = Repository.open(tmp_path / "r"), Repository.open(tmp_path / "w")
    assert main.key == other.key == tmp_path / "r/.git"
    names = ["HEAD", "@", "main", "v1", "origin", "origin/main", "topic/7", "heads/topic/150", "main-worktree/HEAD"]
    names += ["worktrees/w/HEAD", "worktrees/w/refs/bisect/bad", hashes["commit"], hashes["commit"][:7], hashes["tag"]]
    for repository in (main, other):
        assert {name: repository.resolve(name) for name in names} == dict.fromkeys(names, hashes["commit"])
        assert repository.head() == hashes["commit"]
        assert repository.objects and repository.objects.ref("refs/tags/v1") == hashes["tag"]
        for name in ("gone", "topic", "topic/151", "HEAD~1"):
            with pytest.raises(UsageError, match="names no commit"):
                repository.resolve(name)
    assert other.resolve("refs/bisect/bad") == hashes["commit"]
    with pytest.raises(UsageError, match="names no commit"):
        main.resolve("refs/bisect/bad")
    for root in (tmp_path / "r", tmp_path / "w"):
        assert listed(root) == listed(root, rev="v1") == {"a.py": b"1"}


def test_a_bare_repository_with_reftables(tmp_path: Path) -> None:
    hashes = make_reftable_repo(tmp_path, "sha256")
    (tmp_path / "r/.git").rename(tmp_path / "bare.git")
    repository = Repository.open(tmp_path / "bare.git/reftable")
    assert repository.is_bare and repository.head() == hashes["commit"]
    assert listed(tmp_path / "bare.git") == {"a.py": b"1"}


def test_pseudo_refs_are_files_beside_reftables(tmp_path: Path) -> None:
    hashes = make_reftable_repo(tmp_path, "sha1")
    write(tmp_path, {"r/.git/FETCH_HEAD": f"{hashes['commit']}\t\tbranch 'main' of x\n{'1' * 40}\tnot-for-merge\t\n"})
    assert Repository.open(tmp_path / "r").resolve("FETCH_HEAD") == hashes["commit"]
    write(tmp_path, {"r/.git/refs/x": hashes["commit"], "r/.git/packed-refs": f"{hashes['commit']} refs/heads/y\n"})
    for name in ("refs/x", "y"):
        with pytest.raises(UsageError, match="names no commit"):
            Repository.open(tmp_path / "r").resolve(name)


def test_damaged_reftables_raise_an_error_of_one_line(tmp_path: Path) -> None:
    make_reftable_repo(tmp_path, "sha1")
    for content in ("../x.ref\n", "0x1-0x1-gone.ref\n"):
        write(tmp_path, {"r/.git/reftable/tables.list": content})
        with pytest.raises(UsageError, match="the refs are damaged") as caught:
            Repository.open(tmp_path / "r").resolve("main")
        assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("hash_name", HASHES)
def test_each_work_tree_has_refs_of_its_own(tmp_path: Path, hash_name: str) -> None:
    root = tmp_path / "r"
    root.mkdir()
    git(root, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    first = commit(root, "first")
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "w"))
    second = commit(tmp_path / "w", "second")
    for name in ("refs/bisect/bad", "refs/worktree/x"):
        git(root, "update-ref", name, first)
    git(tmp_path / "w", "update-ref", "refs/worktree/x", second)
    git(root, "pack-refs", "--all")
    names = ["HEAD", "main", "side", "refs/bisect/bad", "refs/worktree/x", "main-worktree/HEAD", "worktrees/w/HEAD"]
    names += ["main-worktree/refs/worktree/x", "worktrees/w/refs/worktree/x"]
    for where in (root, tmp_path / "w"):
        objects = Repository.open(where).objects
        assert objects
        expected = {name: git(where, "rev-parse", "-q", "--verify", name, check=False) or None for name in names}
        assert {name: objects.resolve(name) for name in names} == expected
        assert expected["worktrees/w/HEAD"] == second
    assert "refs/bisect/bad" in git(root, "for-each-ref") and "refs/bisect" not in git(tmp_path / "w", "for-each-ref")


def test_the_work_tree_of_a_bare_repository(tmp_path: Path) -> None:
    make_repo(tmp_path / "r", {"a.py": "1"})
    git(tmp_path, "clone", "-q", "--bare", "r", "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", "-b", "side", str(tmp_path / "w"))
    write(tmp_path / "w", {"b.py": "2"})
    commit(tmp_path / "w")
    assert listed(tmp_path / "w") == listed(tmp_path / "w", rev="side") == {"a.py": b"1", "b.py": b"2"}
    assert listed(tmp_path / "bare.git") == listed(tmp_path / "w", rev="main") == {"a.py": b"1"}
    assert Repository.open(tmp_path / "w").key == Repository.open(tmp_path / "bare.git").key


def test_a_loose_ref_hides_the_packed_one(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    git(root, "branch", "old")
    git(root, "pack-refs", "--all")
    old = git(root, "rev-parse", "old")
    new = commit(root, "second")
    repository = Repository.open(root)
    assert (repository.resolve("old"), repository.resolve("main")) == (old, new)


def test_a_hash_of_the_wrong_length_is_no_ref(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    write(root, {".git/refs/heads/long": "1" * 64, ".git/packed-refs": "1" * 64 + " refs/heads/packed\n"})
    for name in ("long", "packed"):
        with pytest.raises(UsageError, match="names no commit"):
            Repository.open(root).resolve(name)
