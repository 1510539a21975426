"""Places that may not be written and users without a home, in processes of their own, without root's privileges."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.engine.workspace import Workspace
from awareness.index.store.store import Store
from tests.conftest import write_tree

ROOT = Path(__file__).parents[2]
AS_A_STRANGER = "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search --ambient-caps"
"""A user without a name, who may read everything (Python may lie in root's home) but writes only what he may."""


def _prefix() -> list[str] | None:
    if os.geteuid():
        return []  # anybody but root is refused by modes
    prefix = [*AS_A_STRANGER.split(), "+dac_read_search"]
    works = shutil.which("setpriv") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    return prefix if works else None


PREFIX = _prefix()
pytestmark = pytest.mark.skipif(PREFIX is None, reason="root without setpriv")


@pytest.fixture
def index(sample: Path, model_folder: Path, capfd) -> Path:
    """The folder of the index."""
    assert run(["index", str(sample), "--all", "--model", str(model_folder)]) == 0
    capfd.readouterr()
    return Workspace.open(sample).layout.root


@pytest.fixture
def call(sample: Path, model_folder: Path):
    if not os.geteuid():  # a capability is not asked by access(2), which git calls
        for folder in (sample, model_folder, Path(os.environ["AWARENESS_INDEX_DIR"])):
            for path in (folder, *folder.parents[:-2]):
                path.chmod(path.stat().st_mode | 0o055)

    def called(*line: str, **variables: str | None) -> tuple[int, str, str]:
        everything = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        environment = {name: value for name, value in everything.items() if value is not None}
        command = [*(PREFIX or []), sys.executable, "-m", "awareness.cli.app", *line]
        done = subprocess.run(command, cwd=sample, env=environment, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return called


def protect(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture(autouse=True)
def _writable_again(tmp_path: Path, request: pytest.FixtureRequest):
    yield
    folders = [tmp_path, Path(os.environ["AWARENESS_INDEX_DIR"])]
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def test_a_read_only_index_answers(index, call, model_folder):
    protect(index)
    code, out, err = call("search", "HTTPConnectionPool", "--format", "json")
    assert (code, json.loads(out)["hits"][0]["path"]) == (0, "src/pool.py"), err
    assert call("status")[0] == call("check", "--read-data")[0] == 0
    code, out, err = call("ask", "HTTPConnectionPool acquire", "-n", "2", "--format", "json")
    assert (code, json.loads(out)["citations"][0]["path"]) == (0, "src/pool.py"), err


def test_a_read_only_index_of_changed_files_says_so(index, call, sample):
    protect(index)
    write_tree(sample, {"src/new.py": "def brand_new():\n    return 1\n"})
    code, out, err = call("search", "HTTPConnectionPool")
    assert code == 0 and "src/pool.py" in out and "Permission denied" in err and "used as it is" in err


def test_a_read_only_index_with_a_log_that_was_not_applied(index, call, sample, tmp_path):
    """As a writer leaves it that was killed: the log and its shared memory are there."""
    with Store.open(Workspace.open(sample).layout) as store:
        with store.changing():
            store.remember("name", "value")
        shutil.copytree(index, tmp_path / "copy")
    assert (tmp_path / "copy/manifest.db-wal").stat().st_size > 0
    shutil.rmtree(index)
    shutil.copytree(tmp_path / "copy", index)
    protect(index)
    code, out, err = call("search", "HTTPConnectionPool")
    assert code == 0 and "src/pool.py" in out, err


@pytest.mark.parametrize("line", [("index", ".", "--lazy"), ("gc",), ("repair",)], ids=" ".join)
def test_what_has_to_write_to_a_read_only_index_is_13(index, call, line):
    protect(index)
    code, out, err = call(*line)
    assert (code, out) == (13, "")
    assert str(index) in err and "Permission denied" in err and "AWARENESS_INDEX_DIR" in err


def test_a_home_that_may_not_be_written(index, call, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    protect(home)
    assert call("search", "HTTPConnectionPool", HOME=str(home), XDG_CACHE_HOME=None)[0] == 0
    code, _, err = call("index", ".", "--lazy", HOME=str(home), XDG_CACHE_HOME=None, AWARENESS_INDEX_DIR=None)
    assert code == 13 and str(home) in err and "AWARENESS_INDEX_DIR" in err
    assert not [*home.iterdir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user that has no entry")
def test_without_a_home_and_without_a_name(index, call, sample):
    protect(index)
    code, out, err = call("search", "HTTPConnectionPool", HOME=None, XDG_CACHE_HOME=None)
    assert code == 0 and "src/pool.py" in out, err
    code, out, err = call("search", "HTTPConnectionPool", HOME=None, XDG_CACHE_HOME=None, AWARENESS_INDEX_DIR=None)
    assert (code, out) == (2, "") and "HOME is not set" in err and "AWARENESS_INDEX_DIR=FOLDER" in err
    assert "~" not in os.listdir(sample)
    code, _, err = call("ask", "HTTPConnectionPool acquire", "-n", "2", HOME=None, XDG_CACHE_HOME=None)
    assert code == 0, err


def test_an_output_that_may_not_be_written_is_refused_before_the_work(index, call, sample, model_folder, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    protect(locked)
    out = str(locked / "results")
    code, _, err = call("eval", "latency", "--model", str(model_folder), "--tokens", "64", "--out", out)
    assert code == 13 and out in err and "Permission denied" in err
    config = write_tree(
        tmp_path, {"r.yaml": f"task: router\ndata: {{folders: ['{sample}']}}\noutput: {out}.safetensors\n"}
    )
    code, _, err = call("train", "--config", str(config / "r.yaml"))
    assert code == 13 and out in err


def test_a_pack_in_a_folder_that_may_not_be_written(index, call, model_folder, tmp_path):
    for path in [index, *index.rglob("*")]:
        path.chmod(0o777)
    locked = tmp_path / "locked"
    locked.mkdir()
    protect(locked)
    code, _, err = call("pack", str(locked / "x.awm"), "--model", str(model_folder))
    assert code == 13 and str(locked) in err and "Permission denied" in err
