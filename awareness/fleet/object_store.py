"""Where a fleet's memory is kept: a bucket (S3, Google, Azure) through `obstore`, or a folder.

Objects are named by their content and never change, but for one, the catalogue, which is replaced by
compare-and-swap: `replace` writes only if the object is still what the caller has read. A bucket compares ETags
(`If-Match`), a folder holds a lock.

A bucket is asked again while it does not answer, for `patience_s` seconds. Its address and secrets come from the
environment, as those of other programs: AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and so on; without them, those of boto3 are used if it is
installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.errors import StorageFailed, UsageError, reason, storage_errors
from awareness.index.store.tensorfile import sync_folder
from awareness.types import Buffer

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

PATIENCE_S = 180.0
"""How long a run waits for a store that does not answer."""
EXTRA = 'pip install "awareness[fleet]"'
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https")
_KEY = re.compile(r"[a-z0-9]+(?:[/.-][a-z0-9]+)*")


class NoSuchObject(StorageFailed):
    """The store has no object of this name."""


@dataclass(frozen=True)
class StoredObject:
    """bytes: its size. modified: when it was written, by the store's clock."""

    key: str
    bytes: int
    modified: datetime


class Version(str):
    """Identifies what an object held when it was read: an ETag, or a digest."""


class ObjectStore(ABC):
    """url: as the user wrote it. All methods raise StorageFailed if the store cannot be read or written."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, Version]:
        """The whole object. Raises NoSuchObject."""

    @abstractmethod
    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[Buffer]:
        """The bytes at each (offset, length). Raises NoSuchObject."""

    @abstractmethod
    def size(self, key: str) -> int:
        """The bytes of an object. Raises NoSuchObject."""

    @abstractmethod
    def create(self, key: str, data: Buffer) -> bool:
        """Writes an object that is named by its content; returns False, and writes nothing, if it exists."""

    @abstractmethod
    def replace(self, key: str, data: Buffer, expected: Version | None) -> bool:
        """Writes an object if it is still what was `expected` (None: missing), else returns False."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects in this folder and below, in any order."""

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; those that are missing are no error."""


def is_store(place: str) -> bool:
    """Does `place` mean a store, rather than a repository or a pack: the URL of a bucket, or a store's folder?"""
    return bool(_scheme(place)) or (Path(place) / "catalogue.json").is_file()


def open_store(place: str, *, patience_s: float = PATIENCE_S) -> ObjectStore:
    """place: `s3://bucket/prefix`, `gs://…`, `az://…`, or a folder, which need not exist. Raises UsageError for another
    kind of URL and without the extra."""
    scheme = _scheme(place)
    if scheme == "file":
        return FolderStore(place, Path(place.removeprefix("file://")))
    if not scheme:
        return FolderStore(place, Path(place).expanduser().absolute())
    if scheme not in _SCHEMES:
        hint = "s3://BUCKET/FOLDER, gs://…, az://… or a folder"
        raise UsageError(f"{place}: '{scheme}' is not a kind of store", hint=hint)
    if importlib.util.find_spec("obstore") is None:
        raise UsageError(f"{place}: buckets need the extra `fleet` of the package", hint=EXTRA)
    return BucketStore(place, patience_s)


def _scheme(place: str) -> str:
    """The scheme of a URL, empty for a path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", place)
    return match[1].lower() if match else ""


def checked_key(key: str) -> str:
    """A key of ours; one that could lead anywhere else is an error of this program."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not the name of an object: {key!r:.80}")
    return key


# --- a folder -------------------------------------------------------------------------------------------------------


class FolderStore(ObjectStore):
    """A folder, on this machine or mounted. Every object is complete and on disk before it has its name."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(url)
        self.root = root

    def read(self, key: str) -> tuple[bytes, Version]:
        with self._reading(key) as path:
            data = path.read_bytes()
        return data, _version(data)

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[Buffer]:
        with self._reading(key) as path, open(path, "rb") as file:
            return [os.pread(file.fileno(), length, offset) for offset, length in ranges]

    def size(self, key: str) -> int:
        with self._reading(key) as path:
            return path.stat().st_size

    def create(self, key: str, data: Buffer) -> bool:
        path = self._path(key)
        with storage_errors(path):
            if path.exists():
                return False
            self._written(path, data).rename(path)  # over another process's, perhaps, which has the same bytes
            sync_folder(path.parent)
        return True

    def replace(self, key: str, data: Buffer, expected: Version | None) -> bool:
        from filelock import FileLock

        path = self._path(key)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                current = _version(path.read_bytes()) if path.exists() else None
                if current != expected:
                    return False
                self._written(path, data).rename(path)
                sync_folder(path.parent)
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for path in sorted((self.root / prefix).rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # another process deletes
                stat = path.stat()
                if path.is_file() and not path.name.startswith("."):
                    modified = datetime.fromtimestamp(stat.st_mtime, timezone.utc)
                    yield StoredObject(path.relative_to(self.root).as_posix(), stat.st_size, modified)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._path(key)
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with storage_errors(path):
            try:
                yield path
            except (FileNotFoundError, NotADirectoryError):
                raise NoSuchObject(f"{path} does not exist", hint=_check(self.url)) from None

    def _written(self, path: Path, data: Buffer) -> Path:
        """A temporary file beside `path` with these bytes, on disk. A killed process leaves at most this file, which
        begins with a dot and is not listed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temporary


def _version(data: bytes) -> Version:
    return Version(hashlib.blake2b(data, digest_size=32).hexdigest())


# --- a bucket -------------------------------------------------------------------------------------------------------


class BucketStore(ObjectStore):
    """A bucket, or a folder of one."""

    def __init__(self, url: str, patience_s: float) -> None:
        super().__init__(url)
        self._patience_s = patience_s
        self._opened: Bucket | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return BucketStore, (self.url, self._patience_s)  # a connection does not travel to another process

    @property
    def _bucket(self) -> Bucket:
        if self._opened is None:
            with self._failures(self.url):
                self._opened = _open_bucket(self.url, self._patience_s)
        return self._opened

    def read(self, key: str) -> tuple[bytes, Version]:
        with self._failures(checked_key(key)):
            result = self._bucket.get(key)
            return bytes(result.bytes()), Version(result.meta.get("e_tag") or "")

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[Buffer]:
        if not ranges:
            return []
        with self._failures(checked_key(key)):
            starts, lengths = zip(*ranges, strict=True)
            return [bytes(data) for data in self._bucket.get_ranges(key, starts=starts, lengths=lengths)]

    def size(self, key: str) -> int:
        with self._failures(checked_key(key)):
            return int(self._bucket.head(key)["size"])

    def create(self, key: str, data: Buffer) -> bool:
        from obstore.exceptions import AlreadyExistsError

        with self._failures(checked_key(key)):
            try:
                self._bucket.put(key, bytes(data), mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def replace(self, key: str, data: Buffer, expected: Version | None) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._failures(checked_key(key)):
            try:
                mode: Any = "create" if expected is None else {"e_tag": str(expected)}
                self._bucket.put(key, bytes(data), mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with self._failures(prefix):
            for page in self._bucket.list(prefix):
                for meta in page:
                    yield StoredObject(meta["path"], meta["size"], meta["last_modified"])

    def delete(self, keys: Sequence[str]) -> None:
        checked = [checked_key(key) for key in keys]
        with self._failures("objects"), contextlib.suppress(FileNotFoundError):
            if checked:
                self._bucket.delete(checked)

    @contextlib.contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        """Turns what the bucket answers into StorageFailed, which names the store and the object."""
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError as error:
            missing = f"{self.url}: there is no object {key}, or no such bucket"
            raise NoSuchObject(missing, hint=_check(self.url)) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise StorageFailed(f"{self.url}: access is denied", hint=_SECRETS) from error
        except (exceptions.BaseError, NotImplementedError, ValueError, OSError) as error:
            raise StorageFailed(f"{self.url}: {_cause(error)}", hint=_ADDRESS) from error


_SECRETS = "set the secrets of the store in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_ADDRESS = "look whether the store runs, and at its address: AWS_ENDPOINT_URL, AWS_REGION; what was written is kept"


def _open_bucket(url: str, patience_s: float) -> Bucket:
    from obstore.store import from_url

    options: dict[str, Any] = {}
    if _scheme(url) in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
        if endpoint:  # of another maker than Amazon: the name of the bucket is no part of the host's
            options = {"endpoint": endpoint, "virtual_hosted_style_request": False}
        if endpoint.startswith("http://"):
            options["client_options"] = {"allow_http": True}
        has_secrets = os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE")
        if not has_secrets and importlib.util.find_spec("boto3"):
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider()
    elif url.startswith("http://"):
        options["client_options"] = {"allow_http": True}
    options["retry_config"] = {
        "max_retries": 1000,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        "retry_timeout": timedelta(seconds=patience_s),
    }
    return from_url(url, **options)


def _cause(error: Exception) -> str:
    """The part of an error of obstore that says why, on one line."""
    text = reason(error)
    text = re.sub(r"^Generic \w+ error: ", "", text)
    return text[:200]


def _check(url: str) -> str:
    return f"awareness fleet check {url}"
