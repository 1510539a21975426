"""repository, work_tree, safe_read: which files are read, and that no repository can make us read or run more."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from awareness.errors import UsageError
from awareness.index.files import work_tree
from awareness.index.files.git import git_objects
from awareness.index.files.patterns import build_scope
from awareness.index.files.repository import Repository, SkippedFile, SourceFile, is_below
from awareness.index.files.safe_read import MAX_FILE_BYTES

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


@pytest.fixture(autouse=True)
def no_user_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code under test obeys the user's global config: give it an empty home."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return home


def git(where: Path, *args: str | bytes, data: bytes | None = None, check: bool = True) -> str:
    command = ["git", "-C", str(where), *args]
    done = subprocess.run(command, env=ENVIRONMENT, input=data, capture_output=True, check=check)
    return os.fsdecode(done.stdout).strip()


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_repo(root: Path, files: dict[str, str | bytes], *, bare: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", *(["--bare"] if bare else []))
    if files:
        write(root, files)
        commit(root)
    return root


def commit(root: Path, message: str = "m") -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


def make_tree(root: Path, *entries: tuple[str, bytes, str]) -> str:
    """A tree object as it is written, however wrong: (mode, name, hash)."""
    data = b"".join(b"%b %b\0" % (mode.encode(), name) + bytes.fromhex(sha) for mode, name, sha in entries)
    return git(root, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=data)


def make_blob(root: Path, data: bytes) -> str:
    return git(root, "hash-object", "-w", "--stdin", data=data)


def listed(root: Path, *, rev: str | None = None, scope: tuple[str, ...] = ()) -> dict[str, bytes | str]:
    """path -> the data of a file, or the reason it was skipped for."""
    found = list(Repository.open(root).scan(rev=rev, scope=scope))
    assert [os.fsencode(f.path) for f in found] == sorted({os.fsencode(f.path) for f in found})
    return {f.path: f.data if isinstance(f, SourceFile) else f.reason for f in found}


# what a scan gives


def test_a_file_comes_with_its_bytes_and_digest(tmp_path: Path) -> None:
    make_repo(tmp_path, {"b/x.py": b"x = 1\r\n", "a.py": b""})
    assert list(Repository.open(tmp_path).scan()) == [
        SourceFile("a.py", hashlib.blake2b(b"", digest_size=32).hexdigest(), b""),
        SourceFile("b/x.py", hashlib.blake2b(b"x = 1\r\n", digest_size=32).hexdigest(), b"x = 1\r\n"),
    ]


def test_tracked_and_untracked_files_are_listed_but_not_ignored_or_deleted_ones(
    tmp_path: Path, no_user_config: Path
) -> None:
    make_repo(
        tmp_path, {"kept.py": "1", "gone.py": "2", "gone.pem": "3", "sub/.gitignore": "*.log\n", "tracked.log": "4"}
    )
    write(
        tmp_path, {".gitignore": "/out/\n", "new.py": "5", "out/a": "6", "sub/a.log": "7", "local": "8", "mine~": "9"}
    )
    write(tmp_path, {".awareness/config": "10", ".git/info/exclude": "local\n"})
    write(no_user_config, {"config/git/ignore": "*~\n"})
    (tmp_path / "gone.py").unlink()
    (tmp_path / "gone.pem").unlink()
    assert listed(tmp_path) == {
        **{".gitignore": b"/out/\n", "kept.py": b"1", "new.py": b"5", "sub/.gitignore": b"*.log\n"},
        "tracked.log": b"4",
    }


def test_sorted_by_bytes_of_the_path_in_both_sources(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a/b": "1", "a.c": "2", "a0": "3", "B": "4"})
    expected = ["B", "a.c", "a/b", "a0"]
    assert list(listed(tmp_path)) == list(listed(tmp_path, rev="HEAD")) == expected


def test_odd_names(tmp_path: Path) -> None:
    names = [
        "a\nb.py",
        "q\"u'o`te.py",
        " lead",
        "tab\t",
        "-rf",
        "*.py",
        "żółć.py",
        "日本.py",
        os.fsdecode(b"\xff\xfe.py"),
    ]
    expected = {name: b"%d" % number for number, name in enumerate(names)}
    make_repo(tmp_path, dict(expected))
    assert listed(tmp_path) == listed(tmp_path, rev="HEAD") == expected
    repository = Repository.open(tmp_path)
    assert {name: repository.read(name) for name in names} == expected
    assert {name: repository.read(name, rev="main") for name in names} == expected


def test_an_unmerged_file_is_listed_once(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "base\n"})
    git(tmp_path, "checkout", "-q", "-b", "other")
    write(tmp_path, {"a.py": "theirs\n"})
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "main")
    write(tmp_path, {"a.py": "ours\n"})
    commit(tmp_path)
    git(tmp_path, "merge", "other", check=False)
    assert git(tmp_path, "ls-files").splitlines() == ["a.py"] * 3
    assert [file.path for file in Repository.open(tmp_path).scan()] == ["a.py"]


def test_one_file_in_memory_at_a_time(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a": "1", "b": "2"})
    scan = Repository.open(tmp_path).scan()
    next(scan)
    (tmp_path / "b").write_text("later")
    assert next(scan) == SourceFile("b", hashlib.blake2b(b"later", digest_size=32).hexdigest(), b"later")


@pytest.mark.parametrize("bare", [False, True])
def test_an_empty_repository_has_no_files(tmp_path: Path, bare: bool) -> None:
    make_repo(tmp_path / "r", {}, bare=bare)
    repository = Repository.open(tmp_path / "r")
    assert list(repository.scan()) == [] and repository.head() is None
    assert repository.read("a") is None
    with pytest.raises(UsageError, match="HEAD names no commit"):
        repository.scan(rev="HEAD")
    (tmp_path / "empty").mkdir()
    assert list(Repository.open(tmp_path / "empty").scan()) == []


# what is worth reading

SKIPPED: dict[str, tuple[bytes | str, str]] = {
    **{
        name: ("x", "secret")
        for name in (".env", ".env.local", ".ENV", "d/server.pem", "tls.key", "id_rsa", "id_rsa.old")
    },
    **{name: ("x", "secret") for name in ("id_ed25519", "a.p12", "a.pfx", "a.jks", "a.keystore", "pw.kdbx", ".netrc")},
    **{name: ("x", "secret") for name in (".npmrc", ".pypirc", ".htpasswd", "home/.aws/credentials", ".envrc")},
    "key.txt": ("\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "secret"),
    "service.json": ('{\n  "type": "x",\n  "private_key": "-----BEGIN PRIVATE KEY-----\\nAAAA"}\n', "secret"),
    "l/yarn.lock": ("# yarn lockfile v1\n", "generated"),
    "a.js.map": ('{"version":3,"sources":["a.ts"],"names":[],"mappings":"AAAA"}', "generated"),
    "pb.go": ("// Code generated by protoc-gen-go. DO NOT EDIT.\n", "generated"),
    "gen.js": ("/**\n * @generated by relay\n */\n", "generated"),
    "nul.py": (b"x = 1\n\0", "binary"),
    "wrong.txt": (bytes(range(0x80, 0x100)) * 2 + b" \n", "in no encoding that is known"),
    "bundle.js": ("x" * 6000 + "\n", "minified"),
    "a.min.js": ("!" + "f(a,b);" * 40 + "\n", "minified"),
    "big.py": (b"#\n" * (MAX_FILE_BYTES // 2) + b"#", "larger than 16 MiB"),
}
KEPT: dict[str, bytes] = {
    **{
        name: b"x"
        for name in (".env.example", ".env.sample", ".env.template", "id_rsa.pub", "credentials", "monkey", "keys.py")
    },
    **{f"l/{name}": b"x" for name in ("package-lock.json", "yarn.lock", "go.sum", "a.min.js", "a.min.css", "a.js.map")},
    "id_rsa_parser.py": b"x",
    "at_most.py": b"#\n" * (MAX_FILE_BYTES // 2),
    "latin1.txt": "déjà vu, naïve café, and a good deal of plain text\n".encode("latin-1"),
    "koi8.txt": "Привет, мир\n".encode("koi8-r") * 9,
    "one_line.json": b"[" + b"1," * 2400 + b"1]",
    "quotes.py": b"MARK = '@generated'  # and user@generated.example\nBEGIN = b'-----BEGIN PRIVATE KEY-----'\n",
    "late.py": b"#\n" * 600 + b"-----BEGIN PRIVATE KEY-----\n@generated\n",
    "late_nul.bin": b"#\n" * 4096 + b"\0",
    "prose.md": (b"word " * 60 + b"\n") * 20,
    "long.py": b"x = 1  # " + b"word " * 60 + b"\n" + b"y = 2\n" * 1200,
}


@pytest.mark.parametrize("rev", [None, "HEAD"])
def test_secret_generated_binary_and_large_files_are_skipped(tmp_path: Path, rev: str | None) -> None:
    make_repo(tmp_path, {**{name: content for name, (content, _) in SKIPPED.items()}, **KEPT})
    assert listed(tmp_path, rev=rev) == {**{name: reason for name, (_, reason) in SKIPPED.items()}, **KEPT}


def test_a_secret_file_is_not_opened_by_scan_but_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(tmp_path, {".env": "TOKEN=1", "a.py": "1"})
    opened: list[str] = []
    real = os.open

    def spy(path: str, *args: object, **kwargs: object) -> int:
        opened.append(str(path))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", spy)
    assert listed(tmp_path) == {".env": "secret", "a.py": b"1"}
    assert "a.py" in opened and ".env" not in opened
    assert Repository.open(tmp_path).read(".env") == b"TOKEN=1"


def test_awarenessignore(tmp_path: Path) -> None:
    make_repo(
        tmp_path,
        {".awarenessignore": "# data\ndata/\n*.csv\n!keep.csv\n", "data/a.py": "1", "b.csv": "2", "keep.csv": "3"},
    )
    reason = "ignored by .awarenessignore"
    expected = {"b.csv": reason, "data/a.py": reason, "keep.csv": b"3"}
    ignore = {".awarenessignore": (tmp_path / ".awarenessignore").read_bytes()}
    assert listed(tmp_path) == {**ignore, **expected}
    (tmp_path / ".awarenessignore").write_text("keep.csv\n")
    assert listed(tmp_path, rev="HEAD") == {**ignore, **expected}, "a commit is read by its own rules"
    assert listed(tmp_path)["keep.csv"] == reason and listed(tmp_path)["b.csv"] == b"2"
    (tmp_path / ".awarenessignore").write_text("ok\n[z-a]\n")
    with pytest.raises(UsageError, match=r"not a pattern in \.awarenessignore: \[z-a\]"):
        Repository.open(tmp_path).scan()


def test_awarenessignore_may_be_in_any_encoding_and_form(tmp_path: Path) -> None:
    make_repo(tmp_path, {"größe.py": "1", "テスト.py": "2", "a.py": "3"})
    for text in ("gro\u0308ße.py\r\nテスト.py\r\n".encode("utf-16"), "größe.py\rテスト.py".encode("utf-8-sig")):
        (tmp_path / ".awarenessignore").write_bytes(text)
        assert {path for path, data in listed(tmp_path).items() if isinstance(data, bytes)} == {
            ".awarenessignore",
            "a.py",
        }


def test_awarenessignore_is_read_as_safely_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("*\n")
    make_repo(tmp_path / "r", {"a.py": "1"})
    (tmp_path / "r/.awarenessignore").symlink_to(tmp_path / "outside")
    assert listed(tmp_path / "r") == {".awarenessignore": "symlink", "a.py": b"1"}


@pytest.mark.parametrize(
    ("patterns", "inside"),
    [
        ((), {"a.py", "src/a.py", "src/gen/b.py", "docs/c.md"}),
        (("src/",), {"src/a.py", "src/gen/b.py"}),
        (("*.py",), {"a.py", "src/a.py", "src/gen/b.py"}),
        (("/*.py",), {"a.py"}),
        (("src/**", "docs/*.md"), {"src/a.py", "src/gen/b.py", "docs/c.md"}),
        (("src/", "!src/gen/"), {"src/a.py"}),
        (("!src/gen/", "src/"), {"src/a.py", "src/gen/b.py"}),
        (("src/", "!src/gen/", "b.py"), {"src/a.py", "src/gen/b.py"}),
        (("!src/",), {"a.py", "docs/c.md"}),
        (("nothing",), set()),
    ],
)
def test_scope(tmp_path: Path, patterns: tuple[str, ...], inside: set[str]) -> None:
    paths = {"a.py", "src/a.py", "src/gen/b.py", "docs/c.md"}
    assert set(filter(build_scope(patterns), paths)) == inside
    make_repo(tmp_path, {path: "x" for path in paths})
    write(tmp_path, {"docs/.env": "x"})
    assert listed(tmp_path, scope=patterns).keys() - {"docs/.env"} == inside


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("größe/", "gro\u0308ße/a.py"),
        ("gro\u0308ße.py", "größe.py"),
        ("データ*", "テ\u3099ータ/a.py"),
        ("ａ.py", "a.py"),
    ],
)
def test_a_scope_matches_all_unicode_forms_of_a_path(pattern: str, path: str) -> None:
    assert list(filter(build_scope([pattern]), [path, "other.py"])) == [path]
    assert list(filter(build_scope(["!" + pattern]), [path, "other.py"])) == ["other.py"]


@pytest.mark.parametrize("pattern", ["!", "[z-a]", "", "# no", "/"])
def test_an_invalid_scope_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="scope") as caught:
        Repository.open(tmp_path).scan(scope=("src/", pattern))
    assert pattern in caught.value.message and caught.value.hint


# where a repository is


def test_open_finds_the_top_and_the_common_git_dir(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"a/b/c.py": "1"})
    (tmp_path / "link").symlink_to(root / "a")
    for start in (root, root / "a/b", root / ".git/hooks", tmp_path / "link/b"):
        repository = Repository.open(start)
        assert (repository.root, repository.common_git_dir, repository.is_bare) == (root, root / ".git", False)
    assert repository.key == root / ".git"


def test_worktrees_share_the_key_and_keep_their_head(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"a.py": "1"})
    first = git(root, "rev-parse", "HEAD")
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "w"))
    write(tmp_path / "w", {"b.py": "2"})
    second = commit(tmp_path / "w")
    main, side = Repository.open(root), Repository.open(tmp_path / "w")
    assert side.root == tmp_path / "w" and main.key == side.key == root / ".git"
    assert (main.head(), side.head()) == (first, second)
    assert main.resolve("HEAD") == first and main.resolve("side") == side.resolve("HEAD") == second
    assert listed(tmp_path / "w") == listed(root, rev="side") == {"a.py": b"1", "b.py": b"2"}
    assert listed(root) == {"a.py": b"1"}


def test_a_bare_repository_is_read_at_head(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"a.py": "1", ".awareness/x": "2"})
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
    repository = Repository.open(tmp_path / "bare.git/refs")
    assert repository.is_bare and repository.root == repository.key == tmp_path / "bare.git"
    assert [file.path for file in repository.scan()] == ["a.py"]
    assert repository.read("a.py") == b"1" and repository.read("b.py") is None


def test_a_folder_without_git(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1", "sub/b.py": "2", ".gitignore": "*.log\n", "x.log": "3", "sub/deep/y.log": "4"})
    write(
        tmp_path, {f"sub/{name}/x.py": "5" for name in (".venv", "node_modules", "__pycache__", ".tox", ".mypy_cache")}
    )
    (tmp_path / "link").symlink_to("/etc")
    repository = Repository.open(tmp_path)
    assert (repository.key, repository.common_git_dir, repository.is_bare) == (tmp_path, None, False)
    assert listed(tmp_path) == {
        **{".gitignore": b"*.log\n", "a.py": b"1", "link": "symlink", "sub/b.py": b"2"},
        **{f"sub/{name}/": "dependencies" for name in (".venv", "node_modules")},
        **{f"sub/{name}/": "build or cache" for name in ("__pycache__", ".tox", ".mypy_cache")},
    }
    assert repository.head() is None
    with pytest.raises(UsageError, match="main names no commit"):
        repository.resolve("main")


@pytest.mark.parametrize("name", ["missing", "~missing", "missing/", "file/x"])
def test_a_missing_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="does not exist") as caught:
        Repository.open(Path(name))
    assert caught.value.hint


def test_a_file_is_in_the_repository_of_its_folder(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"a/b.py": "1"})
    write(tmp_path, {"plain/c.py": "2"})
    assert Repository.open(root / "a/b.py").root == root
    assert Repository.open(tmp_path / "plain/c.py").root == tmp_path / "plain"


def test_the_part_of_a_repository_that_a_path_names(tmp_path: Path, no_user_config: Path) -> None:
    root = make_repo(tmp_path / "r", {"a/b/c.py": "1"})
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
    (tmp_path / "link").symlink_to(root / "a")
    (no_user_config / "r").symlink_to(root)
    parts = {
        root: "", root / "a": "a", root / "a/b/": "a/b", root / "a/../a/b/c.py": "a/b/c.py", tmp_path / "link": "a",
        root / ".git": "", root / ".git/refs": "", root / ".git/HEAD": "", Path("~/r/a/b"): "a/b",
    }  # fmt: skip
    for path, part in parts.items():
        repository = Repository.open(path)
        assert (repository.root, repository.below(path)) == (root, part)
    bare = Repository.open(tmp_path / "bare.git/refs")
    assert bare.below(tmp_path / "bare.git/refs") == ""


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        ("a/b.py", "", True),
        ("a/b.py", "a", True),
        ("a/b.py", "a/b.py", True),
        ("ab.py", "a", False),
        ("a", "a/b", False),
    ],
)
def test_is_below(path: str, folder: str, inside: bool) -> None:
    assert is_below(path, folder) is inside


def test_submodules_and_nested_repositories_are_left_out(tmp_path: Path) -> None:
    library = make_repo(tmp_path / "library", {"lib.py": "1"})
    root = make_repo(tmp_path / "r", {"a.py": "1"})
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    commit(root)
    make_repo(root / "nested", {"n.py": "2"})
    modules = (root / ".gitmodules").read_bytes()
    assert listed(root, rev="HEAD") == {".gitmodules": modules, "a.py": b"1", "sub": "submodule"}
    assert listed(root) == {".gitmodules": modules, "a.py": b"1", "nested": "submodule", "sub": "submodule"}
    assert listed(root / "sub") == {"lib.py": b"1"}
    assert Repository.open(root / "sub").key == root / ".git/modules/sub"


def test_a_git_file_that_names_no_git_dir_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/HEAD": "root:x:0:0\n", "elsewhere/objects/x": "", "elsewhere/refs/x": ""})
    write(tmp_path, {"r/.git": f"gitdir: {tmp_path}/elsewhere\n", "r/a.py": "1"})
    assert Repository.open(tmp_path / "r").common_git_dir is None
    write(tmp_path, {"elsewhere/HEAD": "ref: refs/heads/main\n"})
    assert Repository.open(tmp_path / "r").common_git_dir == tmp_path / "elsewhere"


def test_git_variables_of_the_caller_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = (
        make_repo(tmp_path / "r", {"a.py": "1", "tracked.log": "3"}),
        make_repo(tmp_path / "other", {"b.py": "2"}),
    )
    write(root, {".gitignore": "*.log\n"})
    head = git(root, "rev-parse", "HEAD")
    for name, value in {
        "DIR": ".git",
        "WORK_TREE": "",
        "INDEX_FILE": ".git/index",
        "OBJECT_DIRECTORY": ".git/objects",
    }.items():
        monkeypatch.setenv(f"GIT_{name}", str(other / value))
    monkeypatch.setenv("GIT_COMMON_DIR", str(other / ".git"))
    committed = {"a.py": b"1", "tracked.log": b"3"}
    assert listed(root) == {".gitignore": b"*.log\n", **committed}
    assert listed(root, rev="HEAD") == committed
    repository = Repository.open(root)
    assert repository.key == root / ".git" and repository.head() == repository.resolve("main") == head


def test_without_git_on_the_path_commits_can_still_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    monkeypatch.setenv("PATH", "/nowhere")
    assert listed(tmp_path, rev="HEAD") == {"a.py": b"1"}
    with pytest.raises(UsageError, match="git is not on PATH"):
        listed(tmp_path)


def test_a_listing_that_blocks_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    os.mkfifo(tmp_path / ".gitignore")
    monkeypatch.setattr(work_tree, "TIMEOUT_S", 0.5)
    with pytest.raises(UsageError, match=r"more than 0\.5 s"):
        listed(tmp_path)


@pytest.mark.parametrize("setting", ["core.splitIndex=true", "index.version=4", "core.untrackedCache=true"])
def test_kinds_of_index(tmp_path: Path, setting: str) -> None:
    make_repo(tmp_path, {"d/a.py": "1", "d/b.py": "2"})
    git(tmp_path, "config", *setting.split("="))
    write(tmp_path, {"c.py": "3"})
    git(tmp_path, "update-index", "--add", "--force-write-index", "c.py")
    assert listed(tmp_path) == {"c.py": b"3", "d/a.py": b"1", "d/b.py": b"2"}


def test_a_sparse_index_is_expanded(tmp_path: Path) -> None:
    make_repo(tmp_path, {"in/a.py": "1", "out/b.py": "2"})
    git(tmp_path, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
    assert "out/" in git(tmp_path, "ls-files", "--sparse"), "the index names a tree"
    assert listed(tmp_path) == {"in/a.py": b"1"}
    write(tmp_path, {".git/info/exclude": "*.py\n", "out/b.py": "2", "out/c.py": "3"})
    assert listed(tmp_path) == {"in/a.py": b"1", "out/b.py": b"2"}, "tracked, so it is not ignored"


def test_a_damaged_index_raises_an_error_of_one_line(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    write(tmp_path, {".git/index": b"DIRC" + bytes(100)})
    with pytest.raises(UsageError, match=r"git cannot list .*: .+") as caught:
        listed(tmp_path)
    assert "\n" not in caught.value.message


def test_a_sha256_work_tree_is_listed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--object-format=sha256")
    write(tmp_path, {"a.py": "1", "b.log": "2", "c.log": "3"})
    head = commit(tmp_path)
    write(tmp_path, {".git/info/exclude": "*.log\n", "d.log": "4"})
    assert listed(tmp_path) == {"a.py": b"1", "b.log": b"2", "c.log": b"3"}, "tracked, so they are not ignored"
    assert Repository.open(tmp_path).head() == head
    assert listed(tmp_path, rev="HEAD") == listed(tmp_path)


# revisions


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge with a tag on top, half of it packed."""
    root = make_repo(tmp_path_factory.mktemp("history"), {"a.py": "".join(f"line {n}\n" for n in range(300))})
    git(root, "tag", "v0")
    git(root, "checkout", "-q", "-b", "side/branch")
    write(root, {"b.py": "2\n"})
    commit(root, "side")
    git(root, "checkout", "-q", "main")
    write(root, {"a.py": "".join(f"line {n}\n" for n in range(301))})
    commit(root, "main")
    git(root, "gc", "-q")
    git(root, "merge", "-q", "--no-ff", "-m", "merge", "side/branch")
    git(root, "tag", "-a", "-m", "annotated", "v1")
    git(root, "update-ref", "refs/remotes/origin/main", "v0")
    git(root, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    return root


@pytest.mark.parametrize(
    "rev",
    [
        *("HEAD", "@", "main", "heads/main", "refs/heads/main", "side/branch", "v0", "v1", "origin", "origin/main"),
        *("HEAD~1", "HEAD~", "HEAD^", "HEAD^2", "HEAD^2~1", "v1^{commit}~2", "v1^{}^1", "main~0", "main^0", "@~~"),
    ],
)
def test_resolve_agrees_with_git(history: Path, rev: str) -> None:
    assert Repository.open(history).resolve(rev) == git(history, "rev-parse", f"{rev}^{{commit}}")


def test_resolve_hashes(history: Path) -> None:
    repository = Repository.open(history)
    for rev in ("HEAD", "v0"):  # loose, packed
        sha = git(history, "rev-parse", rev)
        assert repository.resolve(sha) == repository.resolve(sha[:7]) == repository.resolve(sha[:10]) == sha
    assert repository.resolve(git(history, "rev-parse", "v1")) == repository.head()


@pytest.mark.parametrize(
    "rev",
    [
        *(
            "nope",
            "HEAD~9",
            "HEAD^3",
            "-h",
            "--output=x",
            "",
            "^",
            "HEAD^{tree}",
            "HEAD:a.py",
            ":/main",
            "main^{/x}",
            "@{1}",
        ),
        *("../HEAD", "refs/../HEAD", "/etc/passwd", "config", "refs/heads", "0" * 40, "f" * 64, "abc", "a\nb", "a\0b"),
    ],
)
def test_an_unknown_revision_is_refused(history: Path, rev: str) -> None:
    with pytest.raises(UsageError, match="names no commit") as caught:
        Repository.open(history).resolve(rev)
    assert caught.value.hint and "\n" not in caught.value.message


def test_the_hash_of_a_tree_or_blob_is_not_a_commit(history: Path) -> None:
    for what in ("HEAD^{tree}", "HEAD:a.py"):
        with pytest.raises(UsageError, match="names no commit"):
            Repository.open(history).resolve(git(history, "rev-parse", what))


def test_a_branch_that_is_named_like_a_hash_is_not_it(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    first = git(tmp_path, "rev-parse", "HEAD")
    second = commit(tmp_path, "second")
    write(tmp_path, {f".git/refs/heads/{first}": second + "\n"})
    assert Repository.open(tmp_path).resolve(first) == first


def test_commits_are_read_from_packs_and_deltas(history: Path) -> None:
    assert "chain length" in git(history, "verify-pack", "-v", *map(str, (history / ".git/objects/pack").glob("*.idx")))
    for rev in ("v0", "v1"):
        names = git(history, "ls-tree", "-r", "--name-only", rev).splitlines()
        expected = {name: (git(history, "show", f"{rev}:{name}") + "\n").encode() for name in names}
        assert listed(history, rev=rev) == expected


def test_head_follows_a_detached_checkout(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    first = git(tmp_path, "rev-parse", "HEAD")
    commit(tmp_path, "second")
    git(tmp_path, "checkout", "-q", first)
    assert Repository.open(tmp_path).head() == first


def test_refs_that_run_in_circles_end(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    write(tmp_path, {".git/HEAD": "ref: refs/heads/x\n", ".git/refs/heads/x": "ref: HEAD\n"})
    assert Repository.open(tmp_path).head() is None


# hostile repositories


def traps(root: Path, marker: Path) -> str:
    """A config in which every setting that can name a program names one that leaves a mark."""
    script = root / "trap.sh"
    write(root, {"trap.sh": f"#!/bin/sh\ntouch '{marker}'\n"})
    script.chmod(0o755)
    trap = str(script)
    hooks = root / "hooks"
    for hook in ("post-index-change", "post-checkout", "pre-commit", "reference-transaction", "fsmonitor-watchman"):
        write(root, {f"hooks/{hook}": f"#!/bin/sh\ntouch '{marker}'\n"})
        (hooks / hook).chmod(0o755)
    return f"""
[core]
    repositoryformatversion = 1
    fsmonitor = {trap}
    hooksPath = {hooks}
    pager = {trap}
    editor = {trap}
    sshCommand = {trap}
    gitProxy = {trap}
    askPass = {trap}
    alternateRefsCommand = {trap}
    worktree = {marker.parent / "elsewhere"}
    attributesFile = {root / ".gitattributes"}
    partialCloneFilter = blob:none
[extensions]
    partialClone = origin
[remote "origin"]
    url = {root}
    promisor = true
    uploadpack = {trap}
[filter "trap"]
    clean = {trap}
    smudge = {trap}
    process = {trap}
    required = true
[diff]
    external = {trap}
[diff "trap"]
    textconv = {trap}
    command = {trap}
[merge "trap"]
    driver = {trap} %O %A %B
[alias]
    ls-files = !{trap}
    version = !{trap}
    rev-parse = !{trap}
    status2 = !{trap}
[pager]
    ls-files = {trap}
[credential]
    helper = !{trap}
[gpg]
    program = {trap}
[interactive]
    diffFilter = {trap}
[sequence]
    editor = {trap}
[uploadpack]
    packObjectsHook = {trap}
[include]
    path = {root / "more.config"}
"""


def hostile(tmp_path: Path) -> tuple[Path, Path]:
    root = make_repo(tmp_path / "r", {"a.py": "1\n", ".gitattributes": "* filter=trap diff=trap merge=trap\n"})
    marker = tmp_path / "marker"
    write(tmp_path, {"elsewhere/private.py": "TOKEN = 1\n"})
    config = traps(root, marker)
    (root / ".git/config").write_text(config)
    (root / "more.config").write_text(config.split("[include]")[0])
    return root, marker


@pytest.mark.parametrize(
    "provoke",
    [
        pytest.param(["status"], id="fsmonitor"),
        pytest.param(["ls-files", "-co"], id="fsmonitor of ls-files"),
        pytest.param(["-c", "core.fsmonitor=false", "add", "a.py"], id="filter"),
        pytest.param(["-c", "core.fsmonitor=false", "status2"], id="alias"),
        pytest.param(["-c", "core.fsmonitor=false", "diff", "--no-index", "a.py", "b"], id="diff"),
        pytest.param(["-c", "core.fsmonitor=false", "cat-file", "-p", "1" * 40], id="promisor"),
    ],
)
def test_the_traps_are_real(tmp_path: Path, provoke: list[str]) -> None:
    root, marker = hostile(tmp_path)
    write(root, {"a.py": "changed\n", "b": "x"})
    git(root, f"--work-tree={root}", *provoke, check=False)
    assert marker.exists()


def test_a_hostile_config_runs_nothing_and_leads_nowhere(tmp_path: Path) -> None:
    root, marker = hostile(tmp_path)
    write(root, {"a.py": "changed\n"})
    before = {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")}
    repository = Repository.open(root)
    head = repository.head()
    assert head is not None and repository.resolve("HEAD") == repository.resolve(head[:8]) == head
    assert repository.root == root and repository.key == root / ".git"
    found = {file.path: getattr(file, "data", None) for file in repository.scan()}
    assert found.keys() == {".gitattributes", "a.py", "trap.sh", "more.config"} | {
        f"hooks/{hook.name}" for hook in (root / "hooks").iterdir()
    }
    assert found["a.py"] == repository.read("a.py") == b"changed\n"
    assert listed(root, rev="HEAD")["a.py"] == repository.read("a.py", rev="HEAD") == b"1\n"
    assert repository.read("private.py") is None and repository.read("../elsewhere/private.py") is None
    assert not marker.exists()
    assert {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")} == before, "nothing was written"


def test_reading_commits_starts_no_process(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    program = """
import sys
from pathlib import Path
watched = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
started = []
sys.addaudithook(lambda event, args: started.append(args) if event in watched else None)
from awareness.index.files.repository import Repository
repository = Repository.open(Path(sys.argv[1]))
assert repository.head() == repository.resolve("HEAD") == repository.resolve(repository.head()[:6])
assert [file.data for file in repository.scan(rev="HEAD")] == [repository.read("a.py", rev="HEAD")] == [b"1"]
assert not started, started
assert "git" not in sys.modules
list(repository.scan())
assert len(started) >= 1, "the work tree is listed by git, and the hook sees it"
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])


def test_missing_objects_are_not_fetched(tmp_path: Path) -> None:
    """A promisor remote whose upload-pack is a trap: git itself falls into it, for a blob as for a sparse index."""
    root, marker = hostile(tmp_path)
    blob = git(root, "rev-parse", "HEAD:a.py")
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(UsageError, match=f"object {blob} is missing") as caught:
        listed(root, rev="HEAD")
    assert "\n" not in caught.value.message and caught.value.hint
    with pytest.raises(UsageError, match="is missing"):
        Repository.open(root).read("a.py", rev="HEAD")
    assert not marker.exists()


def test_a_sparse_index_without_its_trees_is_not_fetched(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"in/a.py": "1", "out/b.py": "2"})
    git(root, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
    tree = git(root, "rev-parse", "HEAD:out")
    (root / ".git/objects" / tree[:2] / tree[2:]).unlink()
    marker = tmp_path / "marker"
    write(root, {".git/trap.sh": f"#!/bin/sh\ntouch '{marker}'\n"})
    (root / ".git/trap.sh").chmod(0o755)
    with (root / ".git/config").open("a") as config:
        config.write('[extensions]\n  partialClone = origin\n[remote "origin"]\n  promisor = true\n')
        config.write(f"  url = {root}\n  uploadpack = {root}/.git/trap.sh\n")
    assert listed(root) == {"in/a.py": b"1"}
    assert not marker.exists()
    git(root, "ls-files", check=False)
    assert marker.exists(), "plain git ls-files falls into the trap"


def test_a_damaged_object_raises_an_error_of_one_line(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.py": "1"})
    blob = git(tmp_path, "rev-parse", "HEAD:a.py")
    path = tmp_path / ".git/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    for damage in (
        b"",
        b"not zlib",
        zlib.compress(b"tree 1\0x"),
        zlib.compress(b"blob x\0x"),
        zlib.compress(b"blob 5"),
    ):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match=f"object {blob} is damaged") as caught:
            listed(tmp_path, rev="HEAD")
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["absolute", "parent", "git"])
def test_an_index_that_names_files_outside(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret.py").write_text("TOKEN = 1\n")
    root = make_repo(tmp_path / "r", {"a.py": "1", "XXXXXXXXXXXX": "2"})
    entry = {"absolute": b"/etc//passwd", "parent": b"../secret.py", "git": b".GIT//config"}[kind]
    index = (root / ".git/index").read_bytes()[:-20].replace(b"XXXXXXXXXXXX", entry)
    (root / ".git/index").write_bytes(index + hashlib.sha1(index).digest())
    path = entry.decode()
    expected = {path: "outside the repository", "a.py": b"1", "XXXXXXXXXXXX": b"2"}
    assert listed(root) == expected
    assert Repository.open(root).read(path) is None


def test_names_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    name = "d/" + "x" * 300
    git(root, "update-index", "--add", "--cacheinfo", f"100644,{make_blob(root, b'2')},{name}")
    assert listed(root) == {"a.py": b"1"}
    write(root, {"d/b.py": "3"})
    assert listed(root) == {"a.py": b"1", "d/b.py": b"3"}
    assert Repository.open(root).read(name) is None
    tree = git(root, "write-tree")
    assert listed(root, rev=git(root, "commit-tree", tree, "-m", "m")) == {"a.py": b"1", name: b"2"}


def test_a_symlinked_folder_does_not_lead_out(tmp_path: Path) -> None:
    write(tmp_path, {"outside/secret.txt": "TOKEN\n"})
    root = make_repo(
        tmp_path / "r", {"a/secret.txt": "harmless", "b/c/secret.txt": "harmless", "link": "", "ok.py": "1"}
    )
    for folder in ("a", "b/c"):
        shutil.rmtree(root / folder)
        (root / folder).symlink_to(tmp_path / "outside")
    (root / "link").unlink()
    (root / "link").symlink_to("ok.py")
    assert (root / "a/secret.txt").read_text() == "TOKEN\n"
    found = listed(root)
    assert set(found.values()) == {"symlink", b"1"} and found["a/secret.txt"] == found["link"] == "symlink"
    repository = Repository.open(root)
    assert [repository.read(p) for p in ("a/secret.txt", "b/c/secret.txt", "link", "ok.py")] == [None, None, None, b"1"]


def test_a_folder_swapped_after_the_listing_does_not_lead_out(tmp_path: Path) -> None:
    write(tmp_path, {"outside/x.py": "TOKEN\n"})
    root = make_repo(tmp_path / "r", {"a.py": "1", "b/x.py": "2"})
    scan = Repository.open(root).scan()
    next(scan)
    shutil.rmtree(root / "b")
    (root / "b").symlink_to(tmp_path / "outside")
    assert list(scan) == [SkippedFile("b/x.py", "symlink")]


def test_what_is_not_a_regular_file_does_not_block(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"fifo": "1", "socket": "2", "folder": "3", "parent/x": "4", "ok.py": "5"})
    for name in ("fifo", "socket", "folder", "parent/x"):
        (root / name).unlink()
    os.mkfifo(root / "fifo")
    (root / "parent").rmdir()
    (root / "parent").write_text("a file where a folder was")
    write(root, {"folder/inner.py": "6"})
    here = os.getcwd()
    os.chdir(root)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            found = listed(root)
    finally:
        os.chdir(here)
    assert found == {
        **{"fifo": "not a regular file", "socket": "not a regular file", "folder": "submodule", "ok.py": b"5"},
        **{"folder/inner.py": b"6", "parent": b"a file where a folder was"},
    }
    assert [Repository.open(root).read(name) for name in ("fifo", "folder", "parent/x")] == [None, None, None]


def test_a_file_without_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repo(tmp_path, {"a.py": "1", "b.py": "2"})
    real = os.open

    def refuse(path: str, *args: object, **kwargs: object) -> int:  # root, who may run the tests, is never refused
        if path == "a.py":
            raise PermissionError(path)
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    assert listed(tmp_path) == {"a.py": "unreadable", "b.py": b"2"}
    assert Repository.open(tmp_path).read("a.py") is None


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/etc/passwd", "a/../a.py", "a//b", ".git/config", ".GIT/HEAD", "a\0b", "x" * 5000]
)
@pytest.mark.parametrize("rev", [None, "HEAD"])
def test_read_refuses_paths_that_are_not_plain(tmp_path: Path, path: str, rev: str | None) -> None:
    make_repo(tmp_path, {"a.py": "1", "a/b": "2"})
    repository = Repository.open(tmp_path)
    assert repository.read(path, rev=rev) is None
    assert repository.read("a/b", rev=rev) == b"2"


def test_read_has_the_limit_of_scan(tmp_path: Path) -> None:
    make_repo(tmp_path, {"big": b"x" * (MAX_FILE_BYTES + 1), "fits": b"x" * MAX_FILE_BYTES})
    repository = Repository.open(tmp_path)
    for rev in (None, "HEAD"):
        assert repository.read("big", rev=rev) is None
        assert repository.read("fits", rev=rev) == b"x" * MAX_FILE_BYTES


def test_a_file_that_grows_while_it_is_read_has_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"big": b"x" * (MAX_FILE_BYTES + 1), "small": b"x"})
    before = os.stat(tmp_path / "small")
    monkeypatch.setattr(os, "fstat", lambda fd: before)
    assert Repository.open(tmp_path).read("big") is None


def test_a_hostile_tree(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    blob = make_blob(root, b"x")
    inner = make_tree(root, ("100644", b"config", blob))
    tree = make_tree(
        root,
        ("100644", b"../up.py", blob),
        ("40000", b"..", inner),
        ("40000", b".GiT", inner),
        ("100644", b"/etc/passwd", blob),
        ("120000", b"link", make_blob(root, b"/etc/passwd")),
        ("160000", b"module", "1" * 40),
        ("100755", b"ok.sh", blob),
        ("100644", b"\xff\n", blob),
    )
    evil = git(root, "commit-tree", tree, "-m", "evil")
    outside = ("../config", "../up.py", ".GiT/config", "/etc/passwd")
    assert listed(root, rev=evil) == {
        **dict.fromkeys(outside, "outside the repository"),
        **{"link": "symlink", "module": "submodule", "ok.sh": b"x", os.fsdecode(b"\xff\n"): b"x"},
    }
    assert [Repository.open(root).read(path, rev=evil) for path in (*outside, "link", "module")] == [None] * 6


def test_trees_that_spell_too_many_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few small trees, each ten times in the next: 10^12 empty folders."""
    root = make_repo(tmp_path, {"a.py": "1"})
    tree = make_tree(root)
    for _ in range(12):
        tree = make_tree(root, *(("40000", b"%d" % n, tree) for n in range(10)))
    bomb = git(root, "commit-tree", tree, "-m", "bomb")
    monkeypatch.setattr(git_objects, "MAX_PATHS", 1000)
    with pytest.raises(UsageError, match="more than 1000 paths"):
        listed(root, rev=bomb)


def test_a_tree_inside_itself_ends(tmp_path: Path) -> None:
    """Nobody can make one, but hashes are not checked."""
    root = make_repo(tmp_path, {"a.py": "1"})
    tree = git(root, "rev-parse", "HEAD^{tree}")
    path = root / ".git/objects" / tree[:2] / tree[2:]
    path.chmod(0o644)
    body = b"40000 d\0" + bytes.fromhex(tree)
    path.write_bytes(zlib.compress(b"tree %d\0" % len(body) + body))
    assert list(listed(root, rev="HEAD").values()) == ["outside the repository"]


def test_importing_costs_nothing(tmp_path: Path) -> None:
    program = "import sys, awareness.index.files.repository; heavy = {'git', 'pathspec', 'torch'}\n"
    program += "print(sorted(heavy & sys.modules.keys()))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True).stdout == b"[]\n"
