"""git_objects: revisions and commits in repositories of every kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from awareness.errors import UsageError
from awareness.index.files.repository import Repository
from tests.index.files.git.reftable_repository import HASHES
from tests.index.files.test_repository import (
    commit,
    git,
    listed,
    make_blob,
    make_repo,
    make_tree,
    no_user_config,  # noqa: F401
    write,
)

REVISIONS = (
    *(
        "HEAD",
        "@",
        "main",
        "heads/main",
        "refs/heads/main",
        "side",
        "v0",
        "v1",
        "tags/v1",
        "v2",
        "origin",
        "origin/main",
    ),
    *("HEAD~1", "HEAD~2", "HEAD^", "HEAD^2", "HEAD~1^2", "HEAD~2^2", "HEAD^2~1", "v1^{commit}~2", "v1^{}^1", "main~0"),
    *("main^0", "@~~", "HEAD~9", "HEAD^3", "nope", "v1~99", "FETCH_HEAD", "ORIG_HEAD", "v1-0-gffff", "HEAD^{tree}"),
)


def make_history(root: Path, hash_name: str) -> Path:
    """Two merges, one on top of the other; a tag of a commit, and a tag of that tag."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    write(root, {"a.py": "".join(f"line {number}\n" for number in range(300)), "d/e/f.py": "1"})
    git(root, "tag", "v0", commit(root, "first"))
    for merge in range(2):
        git(root, "checkout", "-q", "-B", "side", "v0")
        write(root, {f"side{merge}.py": "2\n"})
        commit(root, f"side {merge}")
        git(root, "checkout", "-q", "main")
        write(root, {f"main{merge}.py": "3\n"})
        commit(root, f"main {merge}")
        git(root, "merge", "-q", "--no-ff", "-m", f"merge {merge}", "side")
    git(root, "tag", "-a", "-m", "tag", "v1")
    git(root, "tag", "-a", "-m", "tag of a tag", "v2", "v1")
    git(root, "update-ref", "refs/remotes/origin/main", "v0")
    git(root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git(root, "fetch", "-q", ".", "side")
    return root


def by_git(root: Path, rev: str) -> str | None:
    return git(root, "rev-parse", "-q", "--verify", f"{rev}^{{commit}}", check=False) or None


def resolved(root: Path, rev: str) -> str | None:
    objects = Repository.open(root).objects
    assert objects
    return objects.resolve(rev)


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("packed", [False, True])
def test_revisions_agree_with_git(tmp_path: Path, packed: bool, hash_name: str) -> None:
    root = make_history(tmp_path, hash_name)
    if packed:
        git(root, "gc", "-q")
        git(root, "pack-refs", "--all")
    full = [git(root, "rev-parse", name) for name in ("HEAD", "v0", "v1", "v2", "HEAD^{tree}", "HEAD:a.py")]
    revisions = [*REVISIONS, *full, *(sha[:9] for sha in full), *(sha[:-1] for sha in full), full[0][:12].upper()]
    revisions += [full[0].upper(), f"v0-3-g{full[0][:7]}", git(root, "describe", "--always", "--long", "side")]
    expected = {rev: by_git(root, rev) for rev in revisions if rev != "HEAD^{tree}"}
    assert {rev: resolved(root, rev) for rev in expected} == expected
    assert resolved(root, "HEAD^{tree}") is None
    assert sum(bool(commit) for commit in expected.values()) > 30


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("packed", [False, True])
def test_the_files_of_a_commit_are_what_git_shows(tmp_path: Path, packed: bool, hash_name: str) -> None:
    root = make_history(tmp_path, hash_name)
    if packed:
        git(root, "gc", "-q")
    for rev in ("v0", "HEAD", "side"):
        names = git(root, "ls-tree", "-r", "--name-only", rev).splitlines()
        found = listed(root, rev=rev)
        assert list(found) == sorted(names)
        for name, data in found.items():
            assert isinstance(data, bytes)
            assert make_blob(root, data) == git(root, "rev-parse", f"{rev}:{name}")


def commits_of(tree: str) -> Iterator[tuple[bytes, str]]:
    """The content and the SHA-1 of many commits."""
    for number in range(1 << 20):
        body = f"tree {tree}\nauthor a <a> {number} +0000\ncommitter a <a> 0 +0000\n\nm\n".encode()
        yield body, hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
def test_the_start_of_several_hashes_is_refused(tmp_path: Path, packed: bool) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    seen: dict[str, bytes] = {}
    for body, sha in commits_of(git(root, "rev-parse", "HEAD^{tree}")):
        if sha[:4] in seen:
            break
        seen[sha[:4]] = body
    one, two = (git(root, "hash-object", "-t", "commit", "-w", "--stdin", data=data) for data in (body, seen[sha[:4]]))
    assert one[:4] == two[:4] and one != two
    if packed:
        git(root, "update-ref", "refs/heads/one", one)
        git(root, "update-ref", "refs/heads/two", two)
        git(root, "gc", "-q")
    with pytest.raises(UsageError, match=f"{one[:4]} is the start of 2 commits") as caught:
        resolved(root, one[:4])
    assert one in caught.value.message and two in caught.value.message and caught.value.hint
    assert by_git(root, one[:4]) is None
    assert [resolved(root, sha[:12]) for sha in (one, two)] == [one, two]


def test_a_blob_whose_hash_starts_alike_is_not_meant(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    head = git(root, "rev-parse", "HEAD")
    contents = (b"%d" % number for number in range(1 << 22))
    data = next(d for d in contents if hashlib.sha1(b"blob %d\0" % len(d) + d).hexdigest().startswith(head[:4]))
    assert make_blob(root, data)[:4] == head[:4]
    assert resolved(root, head[:4]) == by_git(root, head[:4]) == head


@pytest.mark.parametrize("hash_name", HASHES)
def test_a_shallow_clone_ends_where_git_says(tmp_path: Path, hash_name: str) -> None:
    make_history(tmp_path / "r", hash_name)
    git(tmp_path, "clone", "-q", "--depth=2", f"file://{tmp_path}/r", "c")
    for rev in ("HEAD", "HEAD~1", "HEAD^2", "HEAD~2", "HEAD~1^2"):
        assert resolved(tmp_path / "c", rev) == by_git(tmp_path / "c", rev)
    assert listed(tmp_path / "c", rev="HEAD") == listed(tmp_path / "r", rev="HEAD")
    with pytest.raises(UsageError, match="HEAD~2 names no commit"):
        Repository.open(tmp_path / "c").resolve("HEAD~2")
    git(tmp_path / "c", "fetch", "-q", "--unshallow")
    write(tmp_path / "c", {".git/shallow": git(tmp_path / "r", "rev-parse", "HEAD") + "\n"})
    assert resolved(tmp_path / "c", "HEAD~1") is by_git(tmp_path / "c", "HEAD~1") is None


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("what", ["blob:none", "tree:0"])
def test_a_partial_clone_names_what_is_missing(tmp_path: Path, what: str, hash_name: str) -> None:
    make_history(tmp_path / "r", hash_name)
    git(tmp_path / "r", "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", f"--filter={what}", f"file://{tmp_path}/r", "c")
    before = sorted((tmp_path / "c/.git").rglob("*"))
    with pytest.raises(UsageError, match=r"object [0-9a-f]+ is missing, as in a partial clone") as caught:
        listed(tmp_path / "c", rev="HEAD")
    assert caught.value.hint == "git fetch --refetch --no-filter"
    assert resolved(tmp_path / "c", "HEAD~1") == git(tmp_path / "r", "rev-parse", "HEAD~1")
    assert sorted((tmp_path / "c/.git").rglob("*")) == before


def test_replacements_and_grafts_are_ignored(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    first = git(root, "rev-parse", "HEAD")
    write(root, {"a.py": "2"})
    second = commit(root, "second")
    git(root, "replace", second, first)
    write(root, {".git/info/grafts": f"{second}\n"})
    assert git(root, "show", f"{second}:a.py") == "1", "git itself obeys"
    assert listed(root, rev="HEAD") == {"a.py": b"2"}
    assert resolved(root, "HEAD~1") == first


@pytest.mark.parametrize("hash_name", HASHES)
def test_a_submodule_is_a_repository_of_its_own(tmp_path: Path, hash_name: str) -> None:
    """Its `.git` is a file that names a folder below `.git/modules` of the outer repository."""
    inner = make_history(tmp_path / "inner", hash_name)
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    write(outer, {"o.py": "1"})
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "lib/sub")
    commit(outer)
    assert (outer / "lib/sub/.git").is_file()
    repository = Repository.open(outer / "lib/sub/d")
    assert (repository.root, repository.key) == (outer / "lib/sub", outer / ".git/modules/lib/sub")
    assert repository.head() == git(inner, "rev-parse", "HEAD")
    assert listed(outer / "lib/sub") == listed(outer / "lib/sub", rev="HEAD") == listed(inner)
    assert listed(outer / "lib/sub", rev="origin/side") == listed(inner, rev="side")
    for rev in (None, "HEAD"):
        found = listed(outer, rev=rev)
        assert (found["o.py"], found["lib/sub"]) == (b"1", "submodule") and len(found) == 3


@pytest.mark.parametrize("hash_name", HASHES)
def test_the_tree_of_a_work_tree_is_listed_whatever_its_index(tmp_path: Path, hash_name: str) -> None:
    """Of the main work tree and of another: split, sparse, with and without extensions of file system monitors."""
    root = tmp_path / "r"
    root.mkdir()
    git(root, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    write(root, {"in/a.py": "1", "out/b.py": "2"})
    commit(root)
    git(root, "worktree", "add", "-q", str(tmp_path / "w"), "-b", "side")
    for where in (root, tmp_path / "w"):
        write(where, {"new.py": "3", "x.log": "4"})
        write(root, {".git/info/exclude": "*.log\n"})
        expected: dict[str, bytes | str] = {"in/a.py": b"1", "new.py": b"3", "out/b.py": b"2"}
        assert listed(where) == expected
        git(where, "update-index", "--untracked-cache", "--split-index")
        assert listed(where) == expected
        git(where, "update-index", "--no-split-index")
        git(where, "config", "core.fsmonitor", "true")
        git(where, "update-index", "--fsmonitor", check=False)
        git(where, "fsmonitor--daemon", "stop", check=False)
        git(where, "config", "--unset", "core.fsmonitor")
        assert listed(where) == expected
        git(where, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
        assert "out/" in git(where, "ls-files", "--sparse")
        del expected["out/b.py"]
        assert listed(where) == expected


def test_a_tree_that_ends_early_is_damaged(tmp_path: Path) -> None:
    """Else the files after the damage would be missing without a word."""
    root = make_repo(tmp_path, {"a.py": "1"})
    good = b"100644 a.py\0" + bytes.fromhex(git(root, "rev-parse", "HEAD:a.py"))
    for data in (good + good[:20], good + b"x" + good.replace(b"a.py", b"b.py"), b"\0"):
        tree = git(root, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=data)
        broken = git(root, "commit-tree", tree, "-m", "m")
        with pytest.raises(UsageError, match=f"object {tree} is damaged"):
            listed(root, rev=broken)


def test_a_commit_whose_tree_is_not_one_is_damaged(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    blob = make_blob(root, b"1")
    for tree in (f"tree {blob}\n", ""):
        body = f"{tree}author a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nm\n".encode()
        broken = git(root, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", data=body)
        with pytest.raises(UsageError, match="is damaged"):
            listed(root, rev=broken)
    empty = git(root, "commit-tree", make_tree(root), "-m", "empty")
    assert listed(root, rev=empty) == {}
