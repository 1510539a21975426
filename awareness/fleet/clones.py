"""A repository by its address: the newest commit of its main branch, cloned without anything that could run.

The clone is bare (no file of it is ever checked out), shallow, of a single branch, without tags, hooks, templates,
submodules and filters; commits are then read by awareness/index/files/git/, not by git. Secrets come from the user's
own git configuration (credential helpers, ssh keys), and git never asks for one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from awareness.errors import UsageError, storage_errors
from awareness.types import printable

PREFIX = "awareness-clone-"
PROTOCOLS = "https:http:ssh:git:file"
_SAFE = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.symlinks=false"),
    *("-c", "transfer.bundleURI=false"),
    *("-c", "protocol.ext.allow=never"),
)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class CloneFailed(UsageError):
    """A repository that cannot be reached or read by git."""


def newest(address: str, timeout_s: float) -> str:
    """The hash of the newest commit of the main branch, without cloning anything. Raises CloneFailed."""
    words = _git(["ls-remote", "--", address, "HEAD"], address, timeout_s).split()
    if not words or not _HASH.fullmatch(words[0]):
        raise CloneFailed(f"{printable(address)} has no commit on its main branch", hint=f"git ls-remote {address}")
    return words[0]


@contextlib.contextmanager
def cloned(address: str, timeout_s: float) -> Iterator[Path]:
    """The folder of a bare clone, deleted at the end. Raises CloneFailed, and StorageFailed if the disk is full."""
    _sweep()
    folder = Path(tempfile.gettempdir())
    with (
        storage_errors(folder),
        tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as top,
    ):
        target = Path(top) / "clone.git"
        flags = ["--bare", "--depth=1", "--single-branch", "--no-tags", "--no-local", "--template=", "--quiet"]
        _git(["clone", *flags, "--", address, str(target)], address, timeout_s)
        yield target


def _git(arguments: Sequence[str], address: str, timeout_s: float) -> str:
    """Runs git and returns what it prints. It is ended with all it has started when the time is over."""
    git = shutil.which("git")
    if git is None:
        raise CloneFailed("git is not on PATH, and git is needed to clone", hint="install git")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _OF_THE_USER}
    environment = {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": PROTOCOLS, "GIT_LFS_SKIP_SMUDGE": "1"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    process = subprocess.Popen(
        [git, *_SAFE, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed, said = process.communicate(timeout=timeout_s)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        message = f"git took more than {timeout_s:g} s for {printable(address)}"
        raise CloneFailed(message, hint="a longer --timeout, or clone it yourself and name the folder") from None
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["git said nothing"]
        last = next((line for line in reversed(lines) if line.startswith(("fatal:", "error:", "ERROR:"))), lines[-1])
        message = f"{printable(address)} cannot be cloned: {printable(last)[:300]}"
        raise CloneFailed(message, hint=f"git ls-remote {printable(address)}")
    return printed.decode("utf-8", "replace")


_OF_THE_USER = {"GIT_SSH_COMMAND", "GIT_SSH", "GIT_ASKPASS", "GIT_SSL_CAINFO", "GIT_PROXY_COMMAND", "GIT_CONFIG_GLOBAL"}


def _sweep() -> None:
    """Deletes the clones of processes that were killed."""
    import psutil

    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            is_left = pid.isdecimal() and not psutil.pid_exists(int(pid))
            if is_left and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
