"""A folder and a bucket behave the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from awareness.errors import StorageFailed, UsageError
from awareness.fleet.object_store import NoSuchObject, ObjectStore, is_store, open_store
from tests.fleet.fixtures import use_s3


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture
def objects(place: str) -> ObjectStore:
    return open_store(place, patience_s=5)


def test_an_object_is_read_back_whole_and_in_ranges(objects):
    assert objects.create("shards/ab12", b"0123456789")
    assert objects.read("shards/ab12")[0] == b"0123456789"
    assert [bytes(part) for part in objects.read_ranges("shards/ab12", [(2, 3), (9, 1)])] == [b"234", b"9"]
    assert objects.size("shards/ab12") == 10


def test_an_object_is_created_once(objects):
    assert objects.create("shards/a", b"first")
    assert not objects.create("shards/a", b"second")
    assert objects.read("shards/a")[0] == b"first"


def test_a_missing_object_is_said_to_be_missing(objects):
    for read in (objects.read, objects.size, lambda key: objects.read_ranges(key, [(0, 1)])):
        with pytest.raises(NoSuchObject):
            read("shards/none")


def test_listing_and_deleting(objects):
    for key in ("shards/a", "shards/b", "routing/c"):
        objects.create(key, b"12")
    assert {(one.key, one.bytes) for one in objects.list("shards")} == {("shards/a", 2), ("shards/b", 2)}
    objects.delete(["shards/a", "shards/never-there"])
    assert [one.key for one in objects.list("shards")] == ["shards/b"]


def test_replacing_needs_what_was_read(objects):
    assert objects.replace("catalogue.json", b"1", None)
    assert not objects.replace("catalogue.json", b"x", None)
    _, version = objects.read("catalogue.json")
    assert objects.replace("catalogue.json", b"2", version)
    assert not objects.replace("catalogue.json", b"x", version)
    assert objects.read("catalogue.json")[0] == b"2"


def test_of_many_at_once_each_change_of_a_folder_counts(tmp_path):
    objects = open_store(str(tmp_path))
    objects.replace("catalogue.json", b"0", None)

    def count(_: int) -> None:
        own = open_store(str(tmp_path))
        for _ in range(5):
            while True:
                data, version = own.read("catalogue.json")
                if own.replace("catalogue.json", str(int(data) + 1).encode(), version):
                    break

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert objects.read("catalogue.json")[0] == b"20"


@pytest.mark.parametrize("key", ["../a", "a/../b", "/a", "a//b", "a/.b", "A b", ""])
def test_a_key_leads_nowhere_else(objects, key):
    with pytest.raises(ValueError):
        objects.create(key, b"")


def test_what_means_a_store(tmp_path):
    open_store(str(tmp_path / "fleet")).replace("catalogue.json", b"{}", None)
    assert is_store("s3://bucket/x") and is_store(str(tmp_path / "fleet"))
    assert not is_store(str(tmp_path)) and not is_store("repo.awm") and not is_store("C:/x")


def test_another_kind_of_address_is_refused():
    with pytest.raises(UsageError, match="ftp"):
        open_store("ftp://host/x")


def test_a_store_that_does_not_answer_is_said_so(monkeypatch):
    use_s3(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(StorageFailed, match="s3://code/fleet"):
        open_store("s3://code/fleet", patience_s=0.3).read("catalogue.json")


def test_a_bucket_that_does_not_exist_is_said_so(s3):
    with pytest.raises(StorageFailed, match="s3://other/fleet"):
        open_store("s3://other/fleet", patience_s=1).create("shards/a", b"1")


def test_a_folder_that_may_not_be_written_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file"):
        open_store(str(tmp_path / "file" / "store")).create("shards/a", b"1")
