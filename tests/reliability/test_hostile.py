"""Hostile repositories, indexed by the program itself in a process of its own: nothing runs, leaks, blocks or swells.

What each module does about them is tested next to it (tests/index/test_repo.py); here it is what a user types.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.index.files.test_repository import commit, git, make_blob, make_repo, make_tree, write

INSIDE = "canary_inside_6b1f"
OUTSIDE = "canary_outside_93ce"
CODE = f"def {INSIDE}(canary):\n    return canary\n"
LIMIT_BYTES = 2 << 30
LIMIT_S = 60
HOOKS = ("post-checkout", "post-index-change", "pre-commit", "reference-transaction", "fsmonitor-watchman")


# A process counts what its parent held when it was forked, and pytest with torch holds a lot: so a small one stands
# in between.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


@dataclass(frozen=True)
class Place:
    """Where a hostile repository is built. `marker` is what the program `trap` leaves; `elsewhere` is none of ours."""

    root: Path
    marker: Path
    elsewhere: Path

    @property
    def trap(self) -> Path:
        return self.root / "trap.sh"

    def configure(self, text: str) -> None:
        with (self.root / ".git/config").open("a") as config:
            config.write(text)


@dataclass(frozen=True)
class Hostile:
    """What to expect of a repository. left_out: path -> reason. arguments: more of them, for `index` and `search`."""

    left_out: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Indexed:
    """What became of `awareness index`. peak: resident memory of it and its children, in bytes."""

    code: int
    out: str
    err: str
    seconds: float
    peak: int


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A repository with one good file, a trap, and a neighbour that is none of its business."""
    made = Place(tmp_path / "r", tmp_path / "marker", tmp_path / "elsewhere")
    write(tmp_path, {"elsewhere/private.py": f"{OUTSIDE} = 1\n"})
    make_repo(made.root, {"good.py": CODE, "trap.sh": f"#!/bin/sh\ntouch '{made.marker}'\n"})
    made.trap.chmod(0o755)
    commit(made.root)
    return made


def awareness_index(place: Place, model_folder: Path, *arguments: str) -> Indexed:
    command = [sys.executable, "-m", "awareness.cli.app", "index", str(place.root), "--lazy", "--format", "json"]
    command += ["--model", str(model_folder), *arguments]
    peak_file = place.marker.with_name("peak")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(peak_file), *command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=LIMIT_S + 5,
    )
    peak = int(peak_file.read_text()) * (1 if sys.platform == "darwin" else 1024)
    return Indexed(done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - started, peak)


def index_bytes() -> bytes:
    folder = Path(os.environ["AWARENESS_INDEX_DIR"])
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def check(place: Place, expected: Hostile, model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = awareness_index(place, model_folder, *expected.arguments)
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert {file["path"]: file["reason"] for file in result["skipped"]} == expected.left_out
    assert done.seconds < LIMIT_S
    assert done.peak < LIMIT_BYTES
    written = index_bytes()
    assert INSIDE.encode() in written, "the search of the bytes can find something"
    assert OUTSIDE.encode() not in written and b"root:x:0:" not in written
    assert run(["search", "canary", "--repo", str(place.root), "--format", "json", *expected.arguments]) == 0
    found = json.loads(capfd.readouterr().out)["hits"]
    assert "good.py" in {
        path for hit in found for path in (hit["path"], *(copy.split(":")[0] for copy in hit["copies"]))
    }
    assert OUTSIDE not in json.dumps(found)
    assert run(["search", OUTSIDE, "--repo", str(place.root), *expected.arguments]) in (0, 1)
    assert f"{OUTSIDE} =" not in capfd.readouterr().out
    assert not place.marker.exists(), "a program of the repository was run"


# what a repository holds


def symlink_loop(place: Place) -> Hostile:
    (place.root / "a").symlink_to("b")
    (place.root / "b").symlink_to("a")
    (place.root / "d").mkdir()
    (place.root / "d/up").symlink_to("..")
    return Hostile({"a": "symlink", "b": "symlink", "d/up": "symlink"})


def symlink_to_a_file_outside(place: Place) -> Hostile:
    (place.root / "passwd.py").symlink_to("/etc/passwd")
    (place.root / "private.py").symlink_to(place.elsewhere / "private.py")
    return Hostile({"passwd.py": "symlink", "private.py": "symlink"})


def symlinked_folder(place: Place) -> Hostile:
    write(place.root, {"sub/private.py": "x = 1\n"})
    commit(place.root)
    shutil.rmtree(place.root / "sub")
    (place.root / "sub").symlink_to(place.elsewhere)
    return Hostile({"sub": "symlink", "sub/private.py": "symlink"})


def symlinked_settings(place: Place) -> Hostile:
    """An `.awarenessignore` and a `.gitattributes` that lead out."""
    for name in (".awarenessignore", ".gitattributes"):
        (place.root / name).symlink_to(place.elsewhere / "private.py")
    return Hostile({".awarenessignore": "symlink", ".gitattributes": "symlink"})


def fifo(place: Place) -> Hostile:
    write(place.root, {"pipe.py": "x"})
    commit(place.root)
    (place.root / "pipe.py").unlink()
    os.mkfifo(place.root / "pipe.py")
    return Hostile({"pipe.py": "not a regular file"})


def device(place: Place) -> Hostile:
    write(place.root, {"zero.py": "x"})
    commit(place.root)
    (place.root / "zero.py").unlink()
    try:
        os.mknod(place.root / "zero.py", 0o20644, os.makedev(1, 5))
    except OSError:
        pytest.skip("only root makes devices")
    return Hostile({"zero.py": "not a regular file"})


def symlink_to_a_device(place: Place) -> Hostile:
    (place.root / "zero.py").symlink_to("/dev/zero")
    return Hostile({"zero.py": "symlink"})


def sparse_file(place: Place) -> Hostile:
    with (place.root / "huge.py").open("wb") as file:
        file.truncate(4 << 30)
    return Hostile({"huge.py": "larger than 16 MiB"})


def million_lines(place: Place) -> Hostile:
    write(place.root, {"lines.py": "\n" * 1_000_000 + CODE})
    return Hostile()


def long_lines(place: Place) -> Hostile:
    write(place.root, {"line.py": "x = '" + "a" * 1_000_000 + "'\n", "nested.py": "(" * 4000 + ")" * 4000})
    return Hostile({"line.py": "minified", "nested.py": "minified"})


def deep_folders(place: Place) -> Hostile:
    path = "/".join(["d" * 100] * 30) + "/deep.py"
    write(place.root, {path: CODE})
    return Hostile()


def names_not_utf8(place: Place) -> Hostile:
    for name in (b"\xff\xfe.py", b"caf\xe9.py", b"\xed\xa0\x80.py"):
        Path(os.fsdecode(os.fsencode(place.root) + b"/" + name)).write_text(CODE)
    return Hostile()


def names_with_newlines(place: Place) -> Hostile:
    write(place.root, {"a\nb.py": CODE, "\n": CODE, "c\r\nleft out: good.py": CODE, "t\tab.py": CODE})
    return Hostile()


def names_with_escapes(place: Place) -> Hostile:
    write(
        place.root, {"\x1b[2J\x1b]0;title\x07.py": CODE, "\u202egnp.py": CODE, "-rf": CODE, "%s{0}$(id)`id`.py": CODE}
    )
    return Hostile()


def at_revision(place: Place, *entries: tuple[str, bytes, str], left_out: dict[str, str]) -> Hostile:
    """A commit with `good.py` and entries that git itself would not write."""
    tree = make_tree(place.root, ("100644", b"good.py", make_blob(place.root, CODE.encode())), *entries)
    evil = git(place.root, "commit-tree", tree, "-m", "evil")
    return Hostile(left_out, ("--rev", evil))


def tree_with_dot_dot(place: Place) -> Hostile:
    blob = make_blob(place.root, b"x = 1\n")
    inner = make_tree(place.root, ("100644", b"private.py", blob))
    outer = make_tree(place.root, ("40000", b"elsewhere", inner))
    names = ["../elsewhere/private.py", "../up.py", "/etc/passwd", "a//b.py", "./c.py"]
    entries = [("100644", name.encode(), blob) for name in names[1:]]
    left_out = dict.fromkeys(names, "outside the repository")
    return at_revision(place, ("40000", b"..", outer), *entries, left_out=left_out)


def tree_with_git_folders(place: Place) -> Hostile:
    blob = make_blob(place.root, b"[core]\n    fsmonitor = ./trap.sh\n")
    inner = make_tree(place.root, ("100644", b"config", blob))
    names = (".git", ".GIT", ".Git")
    entries = [("40000", name.encode(), inner) for name in names]
    return at_revision(place, *entries, left_out={f"{name}/config": "outside the repository" for name in names})


def tree_with_names_like_git(place: Place) -> Hostile:
    """Folders that only other systems take for `.git`: they are read from the commit, and never written anywhere."""
    inner = make_tree(place.root, ("100644", b"config.py", make_blob(place.root, b"x = 1\n")))
    entries = [("40000", name, inner) for name in (b".git ", b".git.", b"GIT~1", ".g\u200cit".encode())]
    return at_revision(place, *entries, left_out={})


def tree_with_odd_names(place: Place) -> Hostile:
    blob = make_blob(place.root, CODE.encode())
    names = (b"\xff\n.py", b"\x1b[31m.py", b"a\rb.py", "\u202e.py".encode())
    return at_revision(place, *(("100644", name, blob) for name in names), left_out={})


def tree_with_links(place: Place) -> Hostile:
    target = make_blob(place.root, os.fsencode(place.elsewhere / "private.py"))
    entries = (("120000", b"link.py", target), ("160000", b"module", "1" * 40))
    return at_revision(place, *entries, left_out={"link.py": "symlink", "module": "submodule"})


def nested_bare_repository(place: Place) -> Hostile:
    """Whoever runs git in there obeys a config that was checked in."""
    bare = make_repo(place.root / "vendor/lib.git", {}, bare=True)
    shutil.rmtree(bare / "hooks")
    shutil.copytree(place.root / ".git/objects", bare / "objects", dirs_exist_ok=True)
    write(bare, {"refs/keep.py": CODE, "objects/keep.py": CODE})
    with (bare / "config").open("a") as config:
        config.write(f"[core]\n    bare = false\n    worktree = {place.elsewhere}\n    fsmonitor = {place.trap}\n")
    shutil.rmtree(bare / "objects")
    write(bare, {"objects/keep.py": CODE})
    commit(place.root)
    return Hostile()


def nested_repository(place: Place) -> Hostile:
    nested = make_repo(place.root / "nested", {"private.py": f"{OUTSIDE} = 1\n"})
    (nested / ".git/config").write_text(f"[core]\n    fsmonitor = {place.trap}\n")
    return Hostile({"nested": "submodule"})


def submodule(place: Place) -> Hostile:
    trap = place.trap
    git(place.root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    modules = f'[submodule "sub"]\n    path = sub\n    url = ext::sh -c {trap}\n    update = !{trap}\n'
    modules += f'[submodule "../../x"]\n    path = -u./trap.sh\n    url = -u./trap.sh\n    branch = {INSIDE}\n'
    write(place.root, {".gitmodules": modules, "sub/.git": f"gitdir: {place.elsewhere}/.git\n"})
    make_repo(place.elsewhere, {})
    place.configure(f'[submodule "sub"]\n    active = true\n    url = ext::sh -c {trap}\n    update = !{trap}\n')
    return Hostile({"sub": "submodule"})


def hooks_and_a_linked_exclude_file(place: Place) -> Hostile:
    """Hooks, and an exclude file that is a link to what is not ours."""
    write(place.root, {f".git/hooks/{hook}": place.trap.read_text() for hook in HOOKS})
    for hook in HOOKS:
        (place.root / ".git/hooks" / hook).chmod(0o755)
    (place.root / ".git/info/exclude").unlink(missing_ok=True)
    (place.root / ".git/info/exclude").symlink_to(place.elsewhere / "private.py")
    return Hostile()


def git_file_that_names_itself(place: Place) -> Hostile:
    shutil.rmtree(place.root / ".git")
    write(place.root, {".git": f"gitdir: {place.root}/.git\n"})
    return Hostile()


def git_file_that_leads_out(place: Place) -> Hostile:
    """What it names is no git dir, whatever it is."""
    shutil.rmtree(place.root / ".git")
    write(place.root, {".git": f"gitdir: {place.elsewhere}\n"})
    return Hostile()


FILES: list[Callable[[Place], Hostile]] = [
    *(symlink_loop, symlink_to_a_file_outside, symlinked_folder, symlinked_settings, fifo, device),
    *(symlink_to_a_device, sparse_file, million_lines, long_lines, deep_folders, names_not_utf8, names_with_newlines),
    *(names_with_escapes, tree_with_dot_dot, tree_with_git_folders, tree_with_names_like_git, tree_with_odd_names),
    *(tree_with_links, nested_bare_repository, nested_repository, submodule, hooks_and_a_linked_exclude_file),
    *(git_file_that_names_itself, git_file_that_leads_out),
]


@pytest.mark.parametrize("build", FILES, ids=lambda build: build.__name__)
def test_a_hostile_repository(
    build: Callable[[Place], Hostile], place: Place, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check(place, build(place), model_folder, capfd)


# what its config says: a program to run, or another place to read

ASK = b"protocol=https\nhost=host.invalid\n\n"
FETCH = '[remote "origin"]\n    url = {root}\n    promisor = true\n    uploadpack = {trap}\n[extensions]\n'


@dataclass(frozen=True)
class Setting:
    """A piece of config, files that go with it, and a plain git command that falls for it, where there is one."""

    config: str
    provoke: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    data: bytes | None = None


SETTINGS: dict[str, Setting] = {
    "core.fsmonitor": Setting("[core]\n    fsmonitor = {trap}\n", ("status",)),
    "core.hooksPath": Setting("[core]\n    hooksPath = {root}/hooks\n", ("checkout", "-q", "HEAD")),
    "core.sshCommand": Setting("[core]\n    sshCommand = {trap}\n", ("ls-remote", "ssh://host.invalid/x")),
    "core.pager": Setting("[core]\n    pager = {trap}\n[pager]\n    ls-files = {trap}\n"),
    "core.editor": Setting("[core]\n    editor = {trap}\n", ("commit", "--allow-empty")),
    "core.askPass": Setting("[core]\n    askPass = {trap}\n", ("credential", "fill"), data=ASK),
    "core.gitProxy": Setting("[core]\n    gitProxy = {trap}\n", ("ls-remote", "git://host.invalid/x")),
    "core.alternateRefsCommand": Setting(
        "[core]\n    alternateRefsCommand = {trap}\n",
        ("rev-list", "--alternate-refs"),
        files={".git/objects/info/alternates": "{elsewhere}/.git/objects\n"},
    ),
    "filter.clean": Setting('[filter "trap"]\n    clean = {trap}\n', ("add", "good.py")),
    "filter.smudge": Setting('[filter "trap"]\n    smudge = {trap}\n', ("checkout", "--", "good.py")),
    "filter.process": Setting('[filter "trap"]\n    process = {trap}\n    required = true\n', ("add", "good.py")),
    "diff.external": Setting("[diff]\n    external = {trap}\n", ("diff",)),
    "diff.textconv": Setting('[diff "trap"]\n    textconv = {trap}\n', ("diff",)),
    "diff.command": Setting('[diff "trap"]\n    command = {trap}\n', ("diff",)),
    "credential.helper": Setting("[credential]\n    helper = !{trap}\n", ("credential", "fill"), data=ASK),
    "gpg.program": Setting("[gpg]\n    program = {trap}\n", ("commit", "-S", "--allow-empty", "-mx")),
    "uploadpack.packObjectsHook": Setting("[uploadpack]\n    packObjectsHook = {trap}\n"),
    "remote.uploadpack": Setting(FETCH + "    partialClone = origin\n", ("cat-file", "-p", "1" * 40)),
    "include.path": Setting("[include]\n    path = {elsewhere}/more.config\n", ("status",)),
    "includeIf": Setting('[includeIf "gitdir:/"]\n    path = {elsewhere}/more.config\n', ("status",)),
    "extensions.worktreeConfig": Setting(
        "[extensions]\n    worktreeConfig = true\n",
        ("status",),
        files={".git/config.worktree": "[core]\n    fsmonitor = {trap}\n"},
    ),
    "core.attributesFile": Setting(
        '[core]\n    attributesFile = {elsewhere}/attributes\n[filter "more"]\n    clean = {trap}\n', ("add", "good.py")
    ),
    "alias": Setting("[alias]\n    ls-files = !{trap}\n    mine = !{trap}\n", ("mine",)),
    "trailer.command": Setting(
        '[trailer "x"]\n    key = X\n    command = {trap}\n', ("interpret-trailers", "--trailer", "x=1"), data=b"m\n"
    ),
}


def configured(place: Place, setting: Setting) -> None:
    where = {"trap": place.trap, "root": place.root, "elsewhere": place.elsewhere}
    make_repo(
        place.elsewhere, {"more.config": f"[core]\n    fsmonitor = {place.trap}\n", "attributes": "* filter=more\n"}
    )
    write(place.root, {f"hooks/{hook}": place.trap.read_text() for hook in HOOKS})
    for hook in HOOKS:
        (place.root / "hooks" / hook).chmod(0o755)
    write(place.root, {".gitattributes": "*.py filter=trap diff=trap merge=trap\n"})
    commit(place.root)
    write(place.root, {name: text.format(**where) for name, text in setting.files.items()})
    write(place.root, {"good.py": CODE + "# changed\n"})
    git(place.root, "config", "core.repositoryFormatVersion", "1")
    place.configure(setting.config.format(**where))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_runs_a_program(
    name: str, place: Place, model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not by us; by git itself, in the very same repository, it is run."""
    setting = SETTINGS[name]
    configured(place, setting)
    check(place, Hostile(), model_folder, capfd)
    if setting.provoke:
        git(place.root, *setting.provoke, data=setting.data, check=False)
        assert place.marker.exists(), "the trap is none"


def test_a_work_tree_that_is_elsewhere(place: Place, model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place.configure(f"[core]\n    worktree = {place.elsewhere}\n")
    check(place, Hostile(), model_folder, capfd)
    assert git(place.root, "ls-files", "--others") == "private.py", "git is led there"


def test_an_exclude_file_that_is_elsewhere(place: Place, model_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(place.elsewhere, {"excludes": "*\n"})
    write(place.root, {"new.py": CODE})
    place.configure(f"[core]\n    excludesFile = {place.elsewhere}/excludes\n")
    check(place, Hostile(), model_folder, capfd)
    assert run(["search", "canary", "--repo", str(place.root), "--scope", "new.py"]) == 0, "it hides nothing from us"
    assert git(place.root, "ls-files", "--others", "--exclude-standard") == "", "it does from git"


@pytest.mark.parametrize("wrong", ["index", "revision"])
def test_an_unreadable_repository_gives_one_line_and_an_exit_code(wrong: str, place: Place, model_folder: Path) -> None:
    arguments: tuple[str, ...] = ()
    if wrong == "index":
        write(place.root, {".git/index": b"DIRC" + bytes(100)})
    else:
        arguments = ("--rev", "\x1b[31m--upload-pack=touch")
    done = awareness_index(place, model_folder, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 2 and "\n  try: git " in done.err
    assert "\x1b" not in done.err and not place.marker.exists()
