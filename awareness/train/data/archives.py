"""Read the files of a source archive into memory. Nothing is unpacked to disk, nothing is run.

Archives are treated as hostile. Only regular members with a relative path of at most `MAX_FILE` bytes are read; links,
devices, encrypted members and paths with `..` are skipped. An archive that unpacks to more than `MAX_BYTES` or has more
than `MAX_MEMBERS` is refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from awareness.errors import UsageError
from awareness.index.files.safe_read import is_safe

MAX_FILE = 400_000  # bytes; larger files are generated
MAX_BYTES = 1 << 29
MAX_MEMBERS = 100_000
_TARS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".tar.bz2": bz2.open,
}
_ZIPS = (".whl", ".zip")
SUFFIXES = (*_ZIPS, *_TARS)
_BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, OverflowError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
)


def suffix_of(path: Path) -> str:
    """`.tar.gz` for `flask.tar.gz`; empty for a path that is not named like an archive."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def read_archive(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Path -> bytes of the files whose name, without folders, `is_wanted`. A folder around all files is removed.

    Raises UsageError for an archive that is damaged or too large.
    """
    suffix = suffix_of(path)
    try:
        members = _zip_members(path) if suffix in _ZIPS else _tar_members(path, _TARS[suffix])
        files: dict[str, bytes] = {}
        tops: set[str] = set()
        total = 0
        for number, (name, size, read) in enumerate(members):
            if number >= MAX_MEMBERS:
                raise _refused(path, f"it has more than {MAX_MEMBERS} members")
            name = name.removeprefix("./")
            if read is None or not is_safe(name):
                continue
            tops.add(name.partition("/")[0])
            if size <= MAX_FILE and is_wanted(name.rpartition("/")[2]):
                files[name] = data = read()
                total += len(data)
                if total > MAX_BYTES:
                    raise _refused(path, f"it unpacks to more than {MAX_BYTES >> 20} MiB")
    except _BROKEN as error:
        raise _refused(path, str(error) or type(error).__name__) from error
    top = tops.pop() if len(tops) == 1 else ""
    return {name.removeprefix(f"{top}/"): data for name, data in sorted(files.items())}


_Member = tuple[str, int, "Callable[[], bytes] | None"]
"""(path, declared size in bytes, a function that reads it, None for what is not a regular file)"""


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            is_file = not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode))
            # zipfile decompresses other methods without a limit.
            is_plain = not info.flag_bits & 1 and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with archive.open(info) as member:
                    return member.read(MAX_FILE)

            yield info.filename, info.file_size, read if is_file and is_plain else None


def _tar_members(path: Path, decompress: Callable[..., Any]) -> Iterator[_Member]:
    with decompress(path) as stream, tarfile.open(fileobj=_Capped(stream, path), mode="r|") as archive:  # type: ignore[call-overload]
        for info in archive:

            def read(info: tarfile.TarInfo = info) -> bytes:
                member = archive.extractfile(info)
                return member.read(MAX_FILE) if member else b""

            yield info.name, info.size, read if info.isreg() and not info.issparse() else None
            archive.members = []  # otherwise every header stays in memory


class _Capped:
    """A stream that raises after `MAX_BYTES`: a header can claim any length, and tarfile reads all of it at once."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        self._read = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > MAX_BYTES:
            raise _refused(self._path, f"it unpacks to more than {MAX_BYTES >> 20} MiB")
        return data


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"data.sources: {path} cannot be read: {why}", hint="unpack it, and name the folder")
