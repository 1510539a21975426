from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from awareness.errors import IndexLocked, UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet.checking import check
from awareness.fleet.collecting import collect
from awareness.fleet.object_store import open_store


def keys(store):
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file() and path.name[0] != "."}


def test_nothing_that_is_needed_is_deleted(store):
    before = keys(store)
    assert collect(open_store(str(store)), young_s=0).objects == 0
    assert keys(store) == before


def test_what_a_forgotten_repository_alone_needs_is_deleted(store):
    opened = open_store(str(store))
    own = catalogues.read(opened)[0].repositories["mail"].key
    done = collect(opened, forget=["mail"], young_s=0)
    assert done.forgotten == ("mail",) and own not in keys(store)
    assert not check(opened, sample=None).problems
    assert sorted(catalogues.read(opened)[0].repositories) == ["billing", "sample"]


def test_young_objects_are_kept(store):
    opened = open_store(str(store))
    opened.create("shards/" + "0" * 64, b"of a run that goes on")
    assert collect(opened).kept_young == 1
    old = time.time() - 100_000
    os.utime(store / "shards" / ("0" * 64), (old, old))
    assert collect(opened).objects == 1
    assert "shards/" + "0" * 64 in catalogues.read(opened)[0].collected


def test_files_of_others_are_left_alone(store):
    (store / "shards/notes.txt").write_text("mine")
    assert collect(open_store(str(store)), young_s=0).objects == 0
    assert (store / "shards/notes.txt").exists() and not check(open_store(str(store))).problems


def test_a_dry_run_deletes_nothing(store):
    before = keys(store)
    done = collect(open_store(str(store)), forget=["mail"], young_s=0, dry_run=True)
    assert done.objects > 0 and keys(store) == before


def test_another_collection_is_waited_for_and_one_that_was_killed_is_ended(store):
    opened = open_store(str(store))
    key = "shards/" + "0" * 64
    opened.create(key, b"left")
    catalogues.commit(opened, None, lambda old: replace(old, collecting={key: time.time()}))
    with pytest.raises(IndexLocked, match="collects"):
        collect(opened)
    gone = "shards/" + "1" * 64
    was = time.time() - 7200
    catalogues.commit(opened, None, lambda old: replace(old, collecting={key: was, gone: was}))
    assert collect(opened).objects == 1
    known, _ = catalogues.read(opened)
    assert {key, gone} <= known.collected.keys() and not known.collecting and key not in keys(store)


def test_an_unknown_repository_is_named(store):
    with pytest.raises(UsageError, match="nobody"):
        collect(open_store(str(store)), forget=["nobody"])
