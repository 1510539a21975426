"""JSON values on disk, each under a digest of what it was made of: what is expensive to make is made once.

An entry is one gzip file, whose checksum is read with it. A value is written beside its place and then renamed, so no
reader sees half of one. The folder is the user's alone, and has a limit: what was used longest ago is deleted first.
A cache only saves time. An entry that is damaged counts as missing, and a disk that takes none is no error.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 1 << 29  # bytes
_SUFFIX = ".json.gz"


@dataclass(frozen=True)
class DiskCache:
    """folder: of the entries. limit: bytes of all entries together."""

    folder: Path
    limit: int = LIMIT

    def get(self, key: str) -> Any | None:
        """The value under a key, None if there is none or it is damaged. It counts as used now."""
        path = self._path(key)
        try:
            value = json.loads(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return value

    def put(self, key: str, value: Any) -> None:
        """Keep a value, and delete what is over the limit."""
        data = gzip.compress(json.dumps(value).encode("ascii"), 1, mtime=0)
        if len(data) > self.limit:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self._make_room(len(data))
            descriptor, partial = tempfile.mkstemp(suffix=".partial", dir=self.folder)
            try:
                with open(descriptor, "wb") as out:
                    out.write(data)
                os.replace(partial, self._path(key))
            except OSError:
                os.unlink(partial)
                raise

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self, wanted: int) -> None:
        """Deletes what was used longest ago, until `wanted` bytes fit; also what killed processes have left."""
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process deletes, too
                state = path.stat()
                entries.append((state.st_mtime_ns, state.st_size, path))
        total = wanted + sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size
