"""One writer and four readers, each a process: no reader meets an error, a mixture of two commits, or wrong bytes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from awareness.errors import IndexLocked
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from tests.reliability.worker import SOAK, Workers, write_version

SECONDS = 60 if SOAK else 5
READERS = 4


def test_one_writer_and_four_readers(tmp_path):
    root, layout = tmp_path / "tree", IndexLayout(tmp_path / "index")
    write_version(root, 0)
    with Workers() as workers:
        workers.call("index", root=str(root), folder=str(layout.root))
        writer = workers.start("write_for", root=str(root), folder=str(layout.root), seconds=SECONDS)
        readers = [workers.start("read_for", folder=str(layout.root), seconds=SECONDS) for _ in range(READERS)]
        ended = [workers.wait(pid) for pid in (writer, *readers)]
    assert [end.status for end in ended] == [0] * (1 + READERS), "\n".join(str(end.result) for end in ended)
    wrote, *read = (end.result for end in ended)
    assert wrote["version"] > 1  # how many more depends on what else the machine does
    assert min(reader["reads"] for reader in read) > 0
    assert min(reader["latents"] for reader in read) > 0
    assert min(reader["version"] for reader in read) > 0


def test_readers_that_open_a_new_index_at_the_same_moment(tmp_path):
    root = tmp_path / "tree"
    write_version(root, 0)
    with Workers() as workers:
        for attempt in range(4):
            folder = str(tmp_path / f"index{attempt}")
            workers.call("index", root=str(root), folder=folder)
            readers = [workers.start("read_for", folder=folder, seconds=0.05) for _ in range(READERS)]
            ended = [workers.wait(pid) for pid in readers]
            assert [end.status for end in ended] == [0] * READERS, "\n".join(str(end.result) for end in ended)


def test_a_second_writer_gets_the_pid_of_the_first_at_once(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    with Workers() as workers:
        holder = workers.start("hold", folder=str(layout.root))
        while not layout.lock_holder.exists() or layout.lock_holder.read_text() != str(holder):
            time.sleep(0.01)
        started = time.monotonic()
        with pytest.raises(IndexLocked, match=f"pid {holder}") as raised, writing(layout):
            pass
        assert time.monotonic() - started < 1
        assert raised.value.exit_code == 11
        os.kill(holder, signal.SIGKILL)
        workers.wait(holder)
        with writing(layout):
            pass
