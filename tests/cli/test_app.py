"""Exit codes: what ends a command, in a process of its own where streams, signals or folders are concerned."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from awareness import __version__
from awareness.cli import app, streams
from awareness.cli.app import run
from awareness.errors import AwarenessError, NothingFound
from tests.conftest import write_tree

PROGRAM = [sys.executable, "-m", "awareness.cli.app"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(sample: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in the sample repository; stdout and stderr are pipes unless others are named."""
    started = []

    def begin(*arguments: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": sample, "text": True}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
        started.append(subprocess.Popen([*PROGRAM, *arguments], env=environment, **{**pipes, **options}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def indexed(sample: Path, model_folder: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    assert run(["index", str(sample), "--lazy", "--model", str(model_folder)]) == 0
    capfd.readouterr()
    return sample


def broken_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


LINES = [
    ("search", "HTTPConnectionPool"),
    ("search", "HTTPConnectionPool", "--format", "json"),
    ("status",),
    ("models", "list"),
    ("search", "--help"),
    ("--version",),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_reader_that_is_gone_is_141(line, indexed, start):
    process = start(*line, stdout=broken_pipe())
    assert (process.communicate()[1], process.returncode) == ("", 141)


def test_a_reader_of_stderr_that_is_gone_is_141(indexed, start):
    process = start("search", "qwertzuiop", stderr=broken_pipe())
    assert (process.communicate()[0], process.returncode) == ("", 141)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stdout_is_13(line, indexed, start):
    with open("/dev/full", "w") as full:
        process = start(*line, stdout=full)
        err = process.communicate()[1]
    assert process.returncode == 13
    assert err.startswith("error: ") and "No space left" in err and "Traceback" not in err and "ignored" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stderr_changes_nothing(indexed, start):
    for line, code in (("HTTPConnectionPool", 0), ("qwertzuiop", 1)):
        with open("/dev/full", "w") as full:
            process = start("search", line, stderr=full)
            process.communicate()
        assert process.returncode == code


def test_a_closed_stdout_is_13_and_a_closed_stderr_is_nothing(indexed):
    search = "search HTTPConnectionPool"
    for line, code, says in (
        (f"{search} >&-", 13, "Bad file descriptor"),
        (f"{search} 2>&-", 0, "src/pool.py"),
        ("--help >&-", 13, "Bad file descriptor"),  # which Typer writes
        ("status --help >&-", 13, "Bad file descriptor"),
    ):
        done = subprocess.run(
            ["sh", "-c", " ".join((*PROGRAM, line))],
            cwd=indexed,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, says in done.stdout + done.stderr) == (code, True)


@pytest.mark.parametrize("line", ["search x", "ask x", "index .", "pack out.awm"])
def test_an_empty_revision_is_2(line, capfd):
    assert run([*line.split(), "--rev", ""]) == 2
    assert capfd.readouterr().err.startswith("error: --rev is empty")


@pytest.mark.parametrize("line", ["search x", "pack out.awm", "eval perplexity --out o"])
def test_a_deleted_working_folder_is_2(line, indexed, start, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    process = start(*line.split(), cwd=gone, preexec_fn=lambda: shutil.rmtree(gone))
    err = process.communicate()[1]
    assert process.returncode == 2 and "working folder was deleted" in err and "Traceback" not in err


def test_sigterm_is_143_and_keeps_what_was_committed(sample, model_folder, start):
    process = start("index", ".", "--watch", "--lazy", "--model", str(model_folder))
    assert process.stderr is not None
    until = time.monotonic() + 120
    while "watching" not in process.stderr.readline() and time.monotonic() < until:
        pass
    process.send_signal(signal.SIGTERM)
    err = process.communicate()[1]
    assert process.returncode == 143 and "terminated; what was committed stays" in err and "Traceback" not in err
    assert run(["search", "HTTPConnectionPool", "--repo", str(sample)]) == 0


ENDS = {
    "ours": (IndexError("list index out of range"), 70, "IndexError: list index out of range"),
    "recursion": (RecursionError("too deep"), 70, "RecursionError"),
    "base": (AwarenessError("of no kind"), 70, "of no kind"),
    "not found": (NothingFound("nothing"), 1, "nothing"),
    "memory": (MemoryError(), 13, "not enough memory"),
    "torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 13, "not enough memory"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/x/y"), 13, "/x/y: Read-only file system"),
    "denied": (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 13, "/x/y: Permission denied"),
    "full": (OSError(errno.ENOSPC, "No space left on device"), 13, "No space left"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), 13, "/x/y: Disk quota exceeded"),
    "failing": (OSError(errno.EIO, "Input/output error", "/x/y"), 13, "/x/y: Input/output error"),
    "handles": (OSError(errno.EMFILE, "Too many open files", "/x/y"), 13, "Too many open files"),
    "temporary": (FileNotFoundError(2, "No usable temporary directory found in ['/a']"), 13, "temporary"),
    "missing": (FileNotFoundError(2, "No such file or directory", "/x/y"), 70, "FileNotFoundError"),
    "sqlite full": (apsw.FullError("database or disk is full"), 13, "full"),
    "sqlite read-only": (apsw.ReadOnlyError("attempt to write a readonly database"), 13, "readonly"),
    "sqlite opening": (apsw.CantOpenError("unable to open database file"), 13, "unable to open"),
    "sqlite reading": (apsw.IOError("disk I/O error"), 13, "disk I/O error"),
    "sqlite damage": (apsw.CorruptError("malformed"), 12, "malformed"),
    "sqlite busy": (apsw.BusyError("database is locked"), 11, "locked"),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_kind_of_exception_has_its_exit_code_and_one_line(name, sample, capfd, monkeypatch):
    error, code, says = ENDS[name]

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("awareness.cli.search.Engine", fail)
    assert run(["search", "x", "--repo", str(sample)]) == code
    out, err = capfd.readouterr()
    first, _, hint = err.partition("\n")
    assert out == "" and first.startswith("error: ") and says in first
    assert hint == "" or (hint.startswith("  try: ") and hint.count("\n") == 1)
    if code == 70:
        assert f"awareness {__version__}, Python 3." in first and "--verbose" in hint and "report" in hint


def test_verbose_shows_the_traceback_of_an_error_of_ours(sample, capfd, monkeypatch):
    monkeypatch.setattr("awareness.cli.search.Engine", lambda *_, **__: {}["nothing"])
    assert run(["search", "x", "--repo", str(sample), "--verbose"]) == 70
    assert "Traceback" in capfd.readouterr().err


def test_a_report_goes_to_the_address_of_the_package(monkeypatch):
    named = {"Project-URL": ["Homepage, https://example.org", "Issues, https://example.org/issues"]}

    class Metadata:
        def get_all(self, name: str) -> list[str] | None:
            return named.get(name)

    monkeypatch.setattr("importlib.metadata.metadata", lambda _: Metadata())
    assert app._how_to_report().endswith("report what it prints to https://example.org/issues")
    named.clear()
    assert app._how_to_report().endswith("report what it prints")


def test_no_exit_code_of_an_error_is_1_by_accident():
    def kinds(kind: type[AwarenessError]) -> set[type[AwarenessError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    ones = {kind for kind in kinds(AwarenessError) if kind.exit_code == 1}
    assert ones and all(issubclass(kind, NothingFound) for kind in ones)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_stdout_of_any_encoding_gets_the_whole_answer(encoding, sample, model_folder, start, capfd):
    write_tree(sample, {"src/oil.py": 'def oil_hinge():\n    """é · 中文 — “oil” … 😀"""\n    return 1\n'})
    assert run(["index", str(sample), "--lazy", "--quiet", "--model", str(model_folder)]) == 0
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    process = start("search", "oil_hinge", env=environment, text=False)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    text = out.decode(encoding)
    shown = "é · 中文 — “oil” … 😀" if encoding == "utf-8" else r"\u4e2d\u6587"
    assert shown in text and "return 1" in text
    if encoding == "ascii":
        assert r'"""\xe9 * \u4e2d\u6587 - "oil" ... \U0001f600"""' in text
    process = start("search", "oil_hinge", "--format", "json", env=environment, text=False)
    assert "中文" in json.loads(process.communicate()[0].decode("ascii"))["hits"][0]["preview"]


def test_lines_of_boxes_have_look_alikes():
    assert "a─│┌┐x".encode("ascii", streams.REPLACING) == b"a-|++x"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", streams.REPLACING)
