from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import Catalogue, Entry, RoutingObject
from awareness.fleet.object_store import open_store
from awareness.types import MemorySpec

SPEC = MemorySpec("model", (1, 2), 2, 8)
ENTRY = Entry("/srv/a", "a" * 40, "s" * 64, "1.3:256:x", "0" * 64, 1, 2, 30, 400, 1.5)


def catalogue(**changes: object) -> Catalogue:
    return replace(Catalogue("model", "print", SPEC), **changes)


def test_what_is_written_is_read_back(tmp_path):
    whole = catalogue(
        scope=("src",),
        repositories={"a": ENTRY, "b/é": replace(ENTRY, rev=None)},
        routing=(RoutingObject("1" * 64, ("0" * 64,)),),
        listings=("2" * 64,),
        collecting={"shards/" + "3" * 64: 1.0},
        collected={"routing/" + "4" * 64: 2.0},
    )
    store = open_store(str(tmp_path))
    written = catalogues.commit(store, whole, lambda before: before)
    assert catalogues.read(store)[0] == written
    assert replace(written, generation=0, writer="") == whole and written.generation == 1


def test_without_one_there_is_no_index(tmp_path):
    with pytest.raises(NoIndex, match="holds no fleet"):
        catalogues.read(open_store(str(tmp_path)))
    assert catalogues.read_if_any(open_store(str(tmp_path))) == (None, None)


def test_runs_at_once_lose_nothing_of_each_other(s3):
    def add(name: str) -> None:
        store = open_store(s3)
        catalogues.commit(store, catalogue(), lambda old: replace(old, repositories={**old.repositories, name: ENTRY}))

    names = [f"r{i}" for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, names))
    known, _ = catalogues.read(open_store(s3))
    assert sorted(known.repositories) == sorted(names) and known.generation == 12


def test_an_answer_that_was_lost_is_not_a_conflict(tmp_path):
    """The write arrived, but the connection broke: written again, it meets itself."""
    store = open_store(str(tmp_path))
    replaces = store.replace

    def lost(key, data, expected):
        replaces(key, data, expected)
        return False

    store.replace = lost  # type: ignore[method-assign]
    calls = []
    written = catalogues.commit(store, catalogue(), lambda old: (calls.append(1), old)[1])
    assert written.generation == 1 and len(calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"repositories": {"a\n": vars(ENTRY)}},
        {"repositories": {"a": {**vars(ENTRY), "object": "../../etc/passwd"}}},
        {"repositories": {"a": {**vars(ENTRY), "chunks": -1}}},
        {"repositories": {"a": {**vars(ENTRY), "rev": "--upload-pack"}}},
        {"repositories": {"a": {**vars(ENTRY), "source": "\x1b[2J"}}},
        {"repositories": []},
        {"routing": [{"object": "x", "objects": []}]},
        {"listings": ["/etc/passwd"]},
        {"collected": {"catalogue.json": 1}},
        {"spec": "{}"},
        {"model": 3},
        {"repositories": {"a": {**vars(ENTRY), "indexed": 1e300}}},
        {"repositories": {"a": {**vars(ENTRY), "indexed": 10**400}}},
        {"format": "other"},
    ],
)
def test_a_catalogue_of_a_stranger_is_refused(change):
    value = {**json.loads(catalogue().to_json()), **change}
    with pytest.raises(IndexCorrupt, match="damaged"):
        catalogues.parse(json.dumps(value).encode(), "s3://x")


@pytest.mark.parametrize(
    "change", [{"scope": ("a\n",)}, {"collecting": {"shards/notes.txt": 1.0}}, {"repositories": {"n" * 401: ENTRY}}]
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, change):
    store = open_store(str(tmp_path))
    before = catalogues.commit(store, catalogue(), lambda old: old)
    with pytest.raises(IndexCorrupt):
        catalogues.commit(store, None, lambda old: replace(old, **change))
    assert catalogues.read(store)[0] == before


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"format": 1}', b"[" * 100_000])
def test_garbage_is_refused(data):
    with pytest.raises(IndexCorrupt):
        catalogues.parse(data, "s3://x")


def test_a_newer_format_is_named():
    value = {**json.loads(catalogue().to_json()), "version": 9}
    with pytest.raises(UsageError, match="version 9"):
        catalogues.parse(json.dumps(value).encode(), "s3://x")
