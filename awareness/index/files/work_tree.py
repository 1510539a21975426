"""List and read the files of a git work tree or a plain folder, without showing git the repository's config.

A config can name programs (`core.fsmonitor`, filters, a promisor remote's upload-pack) and other places
(`core.worktree`, `include.path`), and each version of git adds more. So `git ls-files` runs on a stand-in git dir that
is written here: our config and an empty ref store, with links to the repository's index and `info/exclude`. The user's
global config is read, for `core.excludesFile`. Plain folders are listed the same way, without an index.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError, storage_errors
from awareness.index.files.file_stat import FileStat, stat_of
from awareness.index.files.git_dirs import count_hash_bytes
from awareness.index.files.safe_read import is_safe, read_beneath
from awareness.types import printable

if TYPE_CHECKING:
    import subprocess

TIMEOUT_S = 60  # for git: a `.gitignore` that is a FIFO would block it for ever
GIT_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
GIT_CONFIG = """[core]
    repositoryFormatVersion = 1
    fsmonitor = false
    untrackedCache = false
    hooksPath = /dev/null
"""
SHA256_BYTES = 32
SHA256_CONFIG = "[extensions]\n    objectFormat = sha256\n"

TOOL_FOLDERS = (
    *(".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox", ".eggs", ".cache", ".gradle", ".terraform"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints", ".idea", ".hg", ".svn"),
)


class WorkTreeFiles:
    """The files below `root`. git_dir, common_git_dir: None for a plain folder."""

    def __init__(self, root: Path, git_dir: Path | None, common_git_dir: Path | None) -> None:
        self._root = str(root)
        self._git_dir = git_dir
        self._common_git_dir = common_git_dir

    def paths(self) -> Iterator[str]:
        """Every path, sorted by its bytes: tracked or not, but not ignored; of a nested repository only its folder."""
        with _temporary_folder() as temporary:
            listed = self._list(Path(temporary, ".git"))
        return map(os.fsdecode, sorted({path.rstrip(b"/") for path in listed.split(b"\0")} - {b""}))

    def has(self, path: str) -> bool:
        return not is_safe(path) or os.path.lexists(f"{self._root}/{path}")

    def stat(self, path: str) -> FileStat | None:
        """None if it is missing."""
        return stat_of(f"{self._root}/{path}") if is_safe(path) else None

    def load(self, path: str) -> bytes:
        return read_beneath(self._root, path)

    def _list(self, stand_in: Path) -> bytes:
        """The output of `git ls-files`: tracked files, which may be deleted, and untracked ones, NUL after each."""
        arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        if self._git_dir is None:
            arguments += [f"--exclude={folder}/" for folder in TOOL_FOLDERS]
        listed = self._git(stand_in, arguments)
        if listed.returncode:
            reason = printable(os.fsdecode(listed.stderr).partition("\n")[0])
            raise UsageError(f"git cannot list {self._root}: {reason}", hint="git fsck")
        return listed.stdout

    def ignored_by(self, path: str) -> str | None:
        """The line that makes git ignore an untracked path, as `.gitignore:3: *.log`; None if git does not."""
        with _temporary_folder() as temporary:
            found = self._git(Path(temporary, ".git"), ["check-ignore", "-v", "-z", "--stdin"], os.fsencode(path))
        source, line, pattern, *_ = [*map(os.fsdecode, found.stdout.split(b"\0")), "", "", ""]
        if found.returncode or pattern.startswith("!"):
            return None
        name = "info/exclude" if source.endswith("info/exclude") else source
        return f"{name}:{line}: {pattern}"

    def _git(self, stand_in: Path, arguments: list[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs git on the stand-in git dir, which it creates."""
        import shutil
        import subprocess

        git = shutil.which("git")
        if git is None:
            raise UsageError(
                "git is not on PATH, and git is needed to know what is ignored", hint="--rev HEAD needs no git"
            )
        command = [os.path.abspath(git), "-C", self._root, f"--git-dir={stand_in}", f"--work-tree={self._root}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= GIT_ENVIRONMENT | self._make_stand_in(stand_in)
        try:
            return subprocess.run(
                [*command, *arguments],
                env=environment,
                input=stdin,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = f"git took more than {TIMEOUT_S} s to list {self._root}"
            raise UsageError(message, hint="git ls-files -co --exclude-standard") from None

    def _make_stand_in(self, stand_in: Path) -> dict[str, str]:
        """Creates the stand-in git dir; returns the environment variables it needs."""
        for folder in ("objects", "refs", "info"):
            (stand_in / folder).mkdir(parents=True)
        (stand_in / "HEAD").write_text("ref: refs/heads/none\n")
        (stand_in / "config").write_text(GIT_CONFIG)
        if self._git_dir is None or self._common_git_dir is None:
            return {}
        for index in (self._git_dir / "index", *self._git_dir.glob("sharedindex.*")):
            _link(stand_in / index.name, index)
        _link(stand_in / "info/exclude", self._common_git_dir / "info/exclude")
        if count_hash_bytes(self._common_git_dir) == SHA256_BYTES:
            (stand_in / "config").write_text(GIT_CONFIG + SHA256_CONFIG)
        return {"GIT_OBJECT_DIRECTORY": f"{self._common_git_dir}/objects"}  # a sparse index refers to trees


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    import tempfile

    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="awareness-") as temporary:
        yield temporary


def _link(name: Path, target: Path) -> None:
    """Links regular files only: a FIFO would block git for ever."""
    if target.is_file():
        name.symlink_to(target)
