"""Two trainings never write to one folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from awareness.cli.app import run
from awareness.errors import IndexLocked, StorageFailed
from awareness.train.resuming.run_lock import alone_in

HOLD = "import sys; from awareness.train.resuming.run_lock import *; from pathlib import Path\n"
HOLD += "with alone_in(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_second_training_in_a_folder_is_refused_until_the_first_has_died(tmp_path, config_file, capfd):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "trained")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    assert run(["train", "--config", str(config_file)]) == 11
    assert f"another awareness process trains in {tmp_path / 'trained'}" in capfd.readouterr().err
    other.kill()
    other.wait()
    with alone_in(tmp_path / "trained"), pytest.raises(IndexLocked), alone_in(tmp_path / "trained"):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file"), alone_in(tmp_path / "file/run"):
        pass
