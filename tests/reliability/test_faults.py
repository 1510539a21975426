"""A disk that fails, fills up or loses its power in the middle of a run: old state or new state, and nothing lost.

A run is `index` from nothing, `index` of a changed tree with `gc`, or `repair` of a broken manifest. Each of its
writes, fsyncs, renames and unlinks fails, or is where the process dies, in five ways; without `AWARENESS_SOAK` a sample
of them, in one way each.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.engine.workspace import Workspace
from awareness.errors import StorageFailed
from awareness.index import build
from awareness.index.store.check import check, drop_damage, find_damage
from awareness.index.store.garbage import collect_garbage
from awareness.index.store.latent_table import Latents
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from tests.reliability import faults
from tests.reliability.worker import GIB, SOAK, HashEncoder, Workers, refresh, verify, write_version
from tests.reliability.worker import index as worker_index

HOWS = ("EIO", "ENOSPC", "before", "torn", "after")
STEP = 1 if SOAK else 11
SIZES, READS = (20, 20) if SOAK else (10, 10)  # for each kind of run
OLD, NEW = 3, 4


class Place:
    """A tree at version NEW, an index of version OLD, and one whose manifest is broken."""

    def __init__(self, folder: Path, workers: Workers) -> None:
        self.root, self.old, self.broken, self.copy = (folder / name for name in ("tree", "old", "broken", "copy"))
        self.workers = workers
        write_version(self.root, OLD)
        workers.call("index", root=str(self.root), folder=str(self.old))
        shutil.copytree(self.old, self.broken)
        with (self.broken / "manifest.db").open("r+b") as manifest:
            manifest.write(b"no database any more")
        write_version(self.root, NEW)

    def at_fault(self, run: str, **fault: object) -> dict:
        action, pristine, versions = {
            "first index": ("index", "", (None, NEW)),
            "index and gc": ("index", str(self.old), (OLD, NEW)),
            "repair": ("repair", str(self.broken), (OLD, NEW)),
        }[run]
        arguments = {"root": str(self.root), "pristine": pristine, "folder": str(self.copy), "versions": versions}
        return self.workers.call("at_fault", action=action, fault=fault, **arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    with Workers() as workers:
        yield Place(tmp_path_factory.mktemp("faults"), workers)


@pytest.mark.parametrize("run", ["first index", "index and gc", "repair"])
def test_a_fault_at_every_write_fsync_and_rename(place, run):
    whole = place.at_fault(run)
    kinds = whole["told"]["kinds"]
    assert {"write", "fsync", "rename", "lseek", "xWrite", "xSync", "unlink"} - set(kinds) <= (
        {"write", "lseek"} if run == "repair" else set()
    )
    rare = {kinds.index(kind) for kind in kinds if kinds.count(kind) < STEP}
    ended = set()
    hows = itertools.cycle(HOWS)
    for at in sorted({*range(0, len(kinds), STEP), *rare}):
        for how in HOWS if SOAK else (next(hows),):
            ended.add(place.at_fault(run, at=at + 1, how=how)["status"])
    assert ended >= {faults.DEAD, 13}


@pytest.mark.parametrize("run", ["first index", "index and gc"])
def test_a_full_disk_at_twenty_sizes(place, run):
    needed = place.at_fault(run)["told"]["written"]
    ended = [place.at_fault(run, room=needed * part // SIZES)["status"] for part in range(SIZES)]
    assert set(ended) == {13}
    slack = 1 << 16  # how many pages the log takes depends on when it is written back
    assert place.at_fault(run, room=needed + slack)["status"] == 0


@pytest.mark.parametrize("run", ["index and gc", "repair"])
def test_twenty_reads_that_fail(place, run):
    count = place.at_fault(run, on_reads=True)["told"]["events"]
    ended = [place.at_fault(run, on_reads=True, at=1 + count * part // READS)["status"] for part in range(READS)]
    assert set(ended) <= {0, 12, 13}
    assert {12, 13} & set(ended)


def test_a_kernel_that_refuses_to_write(place, tmp_path):
    root = tmp_path / "tree"
    write_version(root, 0)
    sizes = (0, 1, 1000, 20_000, 40_000)
    ended = [place.workers.call("at_limit", root=str(root), folder=str(tmp_path / str(n)), size=n) for n in sizes]
    assert [end["status"] for end in ended] == [13] * len(sizes), ended


def told(capsys) -> tuple[str, list[str]]:
    """What a command printed: stdout, and of stderr how each line begins."""
    printed = capsys.readouterr()
    return printed.out, [line.lstrip().partition(": ")[0] for line in printed.err.splitlines()]


@pytest.mark.parametrize("fault", [{"room": 0}, {"room": 40_000}, {"room": 150_000}, {"at": 30}, {"at": 60}], ids=str)
def test_the_command_reports_a_fault_in_two_lines_and_continues_next_time(sample, model_folder, capsys, fault):
    index = ["index", str(sample), "--all", "--model", str(model_folder), "--quiet"]
    layout = Workspace.open(sample).layout
    with faults.injected(layout.root, **fault):
        assert run(index) == 13
    assert told(capsys) == ("", ["error", "try"])
    assert run(index) == 0
    assert check(layout, read_data=True).problems == []


def test_the_command_reports_a_failed_read_and_changes_nothing(sample, model_folder, capsys):
    index = ["index", str(sample), "--all", "--model", str(model_folder), "--quiet"]
    assert run(index) == 0
    capsys.readouterr()
    layout = Workspace.open(sample).layout
    for at in (1, 4, 7, 10):
        with faults.injected(layout.root, on_reads=True, at=at):
            assert run(["search", "cookie", "--repo", str(sample), "--quiet"]) in (12, 13)
        assert told(capsys) == ("", ["error", "try"])
    assert run(["search", "cookie", "--repo", str(sample), "--quiet"]) == 0
    assert check(layout, read_data=True).problems == []


def test_a_writer_thread_that_cannot_open_the_store_raises_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHARD_BYTES", 1)  # one chunk a shard
    write_version(tmp_path / "tree", 0)
    layout, encoder = IndexLayout(tmp_path / "index"), HashEncoder()
    with writing(layout), Store.create(layout) as store:
        snapshot = refresh(store, str(tmp_path / "tree")).snapshot
        build.keep_sink(store, encoder)

        def refuse(_: IndexLayout) -> Store:
            raise StorageFailed("refused")

        monkeypatch.setattr(Store, "open", refuse)
        with pytest.raises(StorageFailed, match="refused"):
            build.encode_pending(store, snapshot, encoder, budget=GIB)


@pytest.mark.parametrize("loses", ["make_room", "drop_damage", "collect_garbage"])
def test_a_process_killed_while_dropping_latents_does_not_leave_them_marked(tmp_path, monkeypatch, loses):
    write_version(tmp_path / "tree", 0)
    layout = IndexLayout(tmp_path / "index")
    worker_index(str(tmp_path / "tree"), str(layout.root))
    with writing(layout), Store.open(layout) as store:
        (snapshot,) = store.snapshots()
        assert store.encoded_for(snapshot.id) is not None
        if loses == "drop_damage":
            for shard in layout.shards.iterdir():
                shard.write_bytes(b"")
        drop = Latents.drop_shards

        def die(self: Latents, ids: list[int]) -> None:
            drop(self, ids)
            raise KeyboardInterrupt

        monkeypatch.setattr(Latents, "drop_shards", die)
        with pytest.raises(KeyboardInterrupt):
            if loses == "make_room":
                store.latents.make_room(GIB, GIB)
            elif loses == "drop_damage":
                drop_damage(store, find_damage(store))
            else:
                collect_garbage(store, quant="int8")
        assert store.encoded_for(snapshot.id) is None


def test_shards_without_a_manifest_are_adopted_by_the_next_run(tmp_path):
    write_version(tmp_path / "tree", 0)
    layout = IndexLayout(tmp_path / "index")
    worker_index(str(tmp_path / "tree"), str(layout.root))
    layout.manifest.unlink()
    assert worker_index(str(tmp_path / "tree"), str(layout.root)) == {"encoded": []}
    seen = verify(layout, newest=0)
    assert seen.latents == seen.chunks
