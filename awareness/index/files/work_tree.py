"""List and read the files of a git work tree or a plain folder, without showing git the repository's config.

A config can name programs (`core.fsmonitor`, filters, a promisor remote's upload-pack) and other places
(`core.worktree`, `include.path`), and each version of git adds more. So `git ls-files` runs on a stand-in git dir that
is written here: our config and an empty ref store, with links to the repository's index and `info/exclude`. The user's
global config is read, for `core.excludesFile`. Plain folders are listed the same way, without an index.

git lists untracked folders without looking into them; folders.py tells which of them are other people's code or made by
a tool, and only the others are listed by git.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError, storage_errors
from awareness.index.files.file_stat import FileStat, stat_from, stat_of
from awareness.index.files.git.git_dirs import count_hash_bytes, find_git_dir
from awareness.index.files.own.folders import Tree, find_foreign, find_own, innermost
from awareness.index.files.own.own_code import Listed, divide
from awareness.index.files.safe_read import Skip, is_safe, read_beneath
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
MANY_PLACES = 256
"""Folders that git is told to look into; if there are more, it looks everywhere."""
SHA256_BYTES = 32
SHA256_CONFIG = "[extensions]\n    objectFormat = sha256\n"


class WorkTreeFiles:
    """The files below `root`. git_dir, common_git_dir: None for a plain folder."""

    def __init__(self, root: Path, git_dir: Path | None, common_git_dir: Path | None) -> None:
        self._root = str(root)
        self._git_dir = git_dir
        self._common_git_dir = common_git_dir
        self._stats: dict[str, FileStat] = {}

    def listed(self) -> Listed:
        """Every path, tracked or not, but not ignored; of nested repositories and left-out folders only the name."""
        with _temporary_folder() as temporary:
            stand_in = Path(temporary, ".git")
            found = self._ls_files(stand_in, ["-t", "--cached", "--others", "--directory", "--exclude-standard"])
            tracked = {entry[2:] for entry in found if entry[0] != "?"}
            others = {entry[2:] for entry in found if entry[0] == "?"}
            others |= {f"{path}/" for path in self._turned_into_folders(tracked)}
            tree = Tree(tracked, others, self.load, self._root)
            foreign = find_foreign(tree, lambda paths: self._ignored(stand_in, paths))
            memory: dict[str, str | None] = {}
            unread = sorted(
                path
                for path in tree.unread
                if innermost(path, foreign, memory) is None and not tree.is_repository(path)
            )
            if unread:
                others.difference_update(f"{path}/" for path in unread)
                # git does not look below a place where it tracks a file.
                places = unread if len(unread) <= MANY_PLACES and tracked.isdisjoint(unread) else None
                others.update(self._below(stand_in, places, foreign))
        return divide(tree, tracked, others, foreign)

    def _turned_into_folders(self, tracked: Iterable[str]) -> list[str]:
        """Tracked files in whose place is a folder now, which git does not name. Keeps the stats of the others."""
        folders = []
        for path in tracked:
            try:
                status = os.lstat(f"{self._root}/{path}")
            except (OSError, ValueError):
                continue
            if not stat.S_ISDIR(status.st_mode):
                self._stats[path] = stat_from(status)
            elif is_safe(path) and not find_git_dir(Path(self._root, path)) and _holds_something(self._root, path):
                folders.append(path)
        return folders

    def untracked(self, places: Sequence[str] | None, is_wanted: Callable[[str], bool]) -> set[str]:
        """The untracked paths that are wanted, also of ignored files, but not of an index of ours.

        places: only at and below these; None for everywhere."""
        with _temporary_folder() as temporary:
            found = self._ls_files(Path(temporary, ".git"), ["--others"], places)
        wanted = {path for path in (path.rstrip("/") for path in found) if is_wanted(path)}
        own = find_own(Tree((), (), self.load, self._root), wanted)
        memory: dict[str, str | None] = {}
        return {path for path in wanted if innermost(path.rpartition("/")[0], own, memory) is None}

    def has(self, path: str) -> bool:
        return not is_safe(path) or os.path.lexists(f"{self._root}/{path}")

    def stat(self, path: str) -> FileStat | None:
        """None if it is missing. As it was listed, if it was: what changed since then is seen the next time."""
        if not is_safe(path):
            return None
        return self._stats.pop(path, None) or stat_of(f"{self._root}/{path}")

    def load(self, path: str) -> bytes:
        return read_beneath(self._root, path)

    def start(self, path: str) -> bytes:
        """The first bytes of a file that is too large to be loaded; empty if it cannot be read."""
        try:
            return read_beneath(self._root, path, only_start=True)
        except (Skip, FileNotFoundError):
            return b""

    def _below(self, stand_in: Path, folders: Sequence[str] | None, foreign: Iterable[str]) -> list[str]:
        """The untracked files below these folders, or everywhere, without those of foreign folders."""
        excludes = stand_in / "foreign"
        # A pattern cannot hold a line break: such a folder is listed, and what lies in it left out afterwards.
        lines = [_escaped(os.fsencode(path)) for path in foreign if "\n" not in path]
        excludes.write_bytes(b"".join(b"/%b/\n" % line for line in lines))
        arguments = ["--others", "--exclude-standard", f"--exclude-from={excludes}"]
        places = None if folders is None else [f"{folder}/" for folder in folders]
        return self._ls_files(stand_in, arguments, places)

    def _ls_files(self, stand_in: Path, arguments: list[str], places: Sequence[str] | None = None) -> list[str]:
        """The lines of `git ls-files`, of tracked files (which may be deleted) and untracked ones."""
        listed = self._git(
            stand_in,
            ["ls-files", "-z", *arguments, *(("--", *(f":(literal){place}" for place in places)) if places else ())],
        )
        if listed.returncode:
            reason = printable(os.fsdecode(listed.stderr).partition("\n")[0])
            raise UsageError(f"git cannot list {self._root}: {reason}", hint="git fsck")
        return os.fsdecode(listed.stdout).split("\0")[:-1]

    def _ignored(self, stand_in: Path, paths: list[str]) -> set[str]:
        """Those of these untracked paths that git ignores."""
        given = "".join(f"./{path}\0" for path in paths)  # so that a name with a `:` is no magic of git
        found = self._git(stand_in, ["check-ignore", "-z", "--stdin"], os.fsencode(given))
        return {path.removeprefix("./") for path in os.fsdecode(found.stdout).split("\0")}

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
        """Runs git on the stand-in git dir, which it creates if it is missing."""
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
        """Creates the stand-in git dir unless it exists; returns the environment variables it needs."""
        objects = {"GIT_OBJECT_DIRECTORY": f"{self._common_git_dir}/objects"} if self._common_git_dir else {}
        if stand_in.exists():
            return objects
        for folder in ("objects", "refs", "info"):
            (stand_in / folder).mkdir(parents=True)
        (stand_in / "HEAD").write_text("ref: refs/heads/none\n")
        (stand_in / "config").write_text(GIT_CONFIG)
        if self._git_dir is None or self._common_git_dir is None:
            return objects
        for index in (self._git_dir / "index", *self._git_dir.glob("sharedindex.*")):
            _link(stand_in / index.name, index)
        _link(stand_in / "info/exclude", self._common_git_dir / "info/exclude")
        if count_hash_bytes(self._common_git_dir) == SHA256_BYTES:
            (stand_in / "config").write_text(GIT_CONFIG + SHA256_CONFIG)
        return objects  # a sparse index refers to trees


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    import tempfile

    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="awareness-") as temporary:
        yield temporary


def _escaped(path: bytes) -> bytes:
    """A path as a pattern of gitignore that matches nothing else."""
    return re.sub(rb"([\\*?\[])", rb"\\\1", path)


def _holds_something(root: str, path: str) -> bool:
    try:
        with os.scandir(f"{root}/{path}") as entries:
            return any(entries)
    except OSError:
        return False


def _link(name: Path, target: Path) -> None:
    """Links regular files only: a FIFO would block git for ever."""
    if target.is_file():
        name.symlink_to(target)
