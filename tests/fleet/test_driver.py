from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from awareness.engine.engine import Engine
from awareness.errors import UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet import driver
from awareness.fleet.checking import check
from awareness.fleet.cluster import Stale, Workers, write_repository
from awareness.fleet.collecting import collect
from awareness.fleet.cutting import Rules
from awareness.fleet.driver import run_fleet
from awareness.fleet.encoding_worker import EncodingWorker
from awareness.fleet.object_store import open_store
from awareness.fleet.repository_object import SHARDS, Place, read
from awareness.fleet.sources import Source, read_sources
from awareness.index.store.chunk_table import to_line
from awareness.index.store.latent_table import Latents
from awareness.index.store.store import StoredChunk
from awareness.types import Chunk, digest
from tests.conftest import commit_all, git, write_tree
from tests.fleet.fixtures import index


def test_repositories_are_indexed_and_what_they_share_is_encoded_once(store, indexed_repositories, model_folder):
    opened = open_store(str(store))
    known, _ = catalogues.read(opened)
    assert sorted(known.repositories) == ["billing", "mail", "sample"]
    assert known.repositories["mail"].source == str(indexed_repositories / "mail")
    places = {name: read(opened, entry).places for name, entry in known.repositories.items()}
    shared = places["billing"].keys() & places["mail"].keys()
    assert len(shared) == 1
    assert all(places["billing"][name] == places["mail"][name] for name in shared)
    assert not check(opened, sample=None).problems


def test_the_latents_are_those_of_the_plain_index(store, indexed_repositories, model_folder):
    with Engine([indexed_repositories / "sample"], model=str(model_folder)) as engine:
        engine.refresh()
        hits = engine.search("cookie")
        engine.attach(hits)
        plain = Latents(engine.corpora[0].store.layout, engine.corpora[0].store.db, None)
        opened = open_store(str(store))
        known, _ = catalogues.read(opened)
        places = read(opened, known.repositories["sample"]).places
        for hit in hits:
            own = plain.read(known.spec, [hit.chunk.digest])[hit.chunk.digest]
            place = places[hit.chunk.digest]
            (data,) = opened.read_ranges(place.key, [(place.offset, place.length)])
            assert len(own.data) == len(data) and own.tokens == place.tokens


def test_nothing_changed_means_nothing_done(store, indexed_repositories, model_folder, ray_here):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    report = index(store, indexed_repositories, model_folder)
    assert (report.indexed, len(report.unchanged), report.bytes_written) == ([], 3, {})
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_only_what_changed_is_encoded(tmp_path, repositories, model_folder, ray_here):
    first = index(tmp_path / "store", repositories, model_folder)
    assert first.saved_tokens > 0  # the shared file
    (repositories / "mail/mail/more.py").write_text("def more():\n    return 1\n")
    second = index(tmp_path / "store", repositories, model_folder)
    assert second.indexed == ["mail"] and second.encoded_chunks == 1
    known, _ = catalogues.read(open_store(str(tmp_path / "store")))
    assert known.repositories["mail"].files == 3


def test_a_clone_and_a_bare_repository_are_read_by_their_commit(tmp_path, repositories, model_folder, ray_here):
    git(repositories, "clone", "-q", "--bare", "sample", "bare.git")
    address = f"file://{repositories}/sample"
    sources = read_sources([address, str(repositories / "bare.git")])
    options = {"model": str(model_folder), "quant": "int4", "rules": Rules(str(model_folder))}
    store = open_store(str(tmp_path / "store"))
    report = run_fleet(store, sources, workers=Workers(encoders=1), **options)
    assert sorted(report.indexed) == ["bare", "sample"]
    known, _ = catalogues.read(store)
    head = git(repositories / "sample", "rev-parse", "HEAD").strip()
    assert {entry.rev for entry in known.repositories.values()} == {head}
    again = run_fleet(store, sources, workers=Workers(encoders=1), **options)
    assert sorted(again.unchanged) == ["bare", "sample"]


def test_a_bad_repository_stops_no_other(tmp_path, repositories, model_folder, ray_here):
    commit_all(write_tree(repositories / "empty", {"id_rsa": "-----BEGIN RSA PRIVATE KEY-----\n"}))
    damaged = commit_all(write_tree(repositories / "damaged", {"a.py": "x = 1\n"}))
    git(repositories, "clone", "-q", "--bare", "damaged", "broken.git")
    shutil.rmtree(repositories / "broken.git/objects")
    (repositories / "broken.git/objects").mkdir()
    sources = [*read_sources([str(repositories)]), Source("gone", "file:///no/such", False)]
    sources.append(Source("removed", str(tmp_path / "removed"), True))
    report = run_fleet(
        open_store(str(tmp_path / "store")),
        sources,
        model=str(model_folder),
        quant="int4",
        rules=Rules(str(model_folder)),
        workers=Workers(encoders=1),
    )
    assert sorted(report.indexed) == ["billing", "damaged", "mail", "sample"]
    failed = {failure.name: failure.message for failure in report.failed}
    assert sorted(failed) == ["broken", "empty", "gone", "removed"] and damaged.is_dir()
    assert "no file to index" in failed["empty"] and "cannot be cloned" in failed["gone"]


def test_latents_of_another_model_are_not_mixed(store, repositories, model_folder, ray_here):
    with pytest.raises(UsageError, match="int4"):
        run_fleet(
            open_store(str(store)),
            read_sources([str(repositories / "mail")]),
            model=str(model_folder),
            quant="int8",
            rules=Rules(str(model_folder), scope=("mail/**",)),
            workers=Workers(encoders=1),
        )


def test_shards_of_a_run_that_was_killed_are_used(store, indexed_repositories, model_folder, ray_here):
    """The catalogue is all that is lost: the next run finds the shards by their headers, and encodes nothing."""
    (store / "catalogue.json").unlink()
    report = index(store, indexed_repositories, model_folder)
    assert len(report.indexed) == 3 and report.encoded_tokens == 0


def test_a_damaged_shard_is_made_again(store, indexed_repositories, model_folder, ray_here):
    (store / "catalogue.json").unlink()
    for path in (store / "shards").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    report = index(store, indexed_repositories, model_folder)
    assert len(report.indexed) == 3 and report.encoded_tokens > 0


def test_a_shard_that_gc_deletes_meanwhile_is_made_again(
    store, indexed_repositories, model_folder, ray_here, monkeypatch
):
    """`gc` runs after the run has looked up what the store has, and before it names it."""
    opened = open_store(str(store))
    catalogues.commit(opened, None, lambda old: replace(old, repositories={}, routing=(), listings=()))
    for path in store.rglob("*"):
        os.utime(path, (1e9, 1e9))
    commits, ran = catalogues.commit, []

    def collects_first(*arguments, **options):
        if not ran:
            ran.append(collect(open_store(str(store))))
        return commits(*arguments, **options)

    # `collect` commits, too: only the driver's own name for it is another one
    monkeypatch.setattr(driver, "catalogues", _With(catalogues, commit=collects_first))
    report = index(store, indexed_repositories, model_folder)
    assert ran[0].objects and sorted(report.indexed) == ["billing", "mail", "sample"]
    monkeypatch.undo()
    assert not check(opened, sample=None).problems


class _With:
    """A module with some names replaced."""

    def __init__(self, module: object, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def test_many_routing_objects_are_joined(tmp_path, model_folder, ray_here, monkeypatch):
    monkeypatch.setattr("awareness.fleet.repository_words.MOST_OBJECTS", 1)
    for number in range(2):
        commit_all(write_tree(tmp_path / "set" / f"r{number}", {f"f{number}.py": f"def special{number}(): pass\n"}))
        index(tmp_path / "store", tmp_path / "set", model_folder)
    known, _ = catalogues.read(open_store(str(tmp_path / "store")))
    assert len(known.routing) == 1 and len(known.repositories) == 2
    described = {name for shard in known.routing for name in shard.objects}
    assert described >= {entry.object for entry in known.repositories.values()}
    assert (tmp_path / "store" / known.routing[0].key).is_file()


def test_more_than_there_is_room_for_is_refused(tmp_path, model_folder, ray_here):
    with pytest.raises(UsageError, match="no room"):
        run_fleet(
            open_store(str(tmp_path / "store")),
            [],
            model=str(model_folder),
            quant="int4",
            rules=Rules(str(model_folder)),
            workers=Workers(gpus=1.0),
        )


def test_equal_latents_make_equal_bytes(tmp_path, model_folder):
    """A shard is named by its latents, so two runs that make the same ones must write the same object."""
    texts = {digest(f"# file: a.py\nx = {i}\n"): f"# file: a.py\nx = {i}\n" for i in range(4)}
    places, held = [], []
    for number, order in enumerate((list(texts), list(reversed(texts)))):
        store = open_store(str(tmp_path / f"store{number}"))
        shard = EncodingWorker(store, str(model_folder), "int4", 1).encode({name: texts[name] for name in order})
        places.append(shard.places)
        held.append(store.read(SHARDS + shard.name)[0])
    assert places[0] == places[1] and held[0] == held[1]


def test_a_damaged_shard_of_the_same_name_is_written_again(tmp_path, model_folder):
    store = open_store(str(tmp_path / "store"))
    text = "# file: a.py\nx = 1\n"
    worker = EncodingWorker(store, str(model_folder), "int4", 1)
    name = worker.encode({digest(text): text}).name
    whole = (tmp_path / "store" / SHARDS / name).read_bytes()
    (tmp_path / "store" / SHARDS / name).write_bytes(whole[:-1] + b"?")
    assert worker.encode({digest(text): text}).name == name
    assert store.read(SHARDS + name)[0] == whole


def test_text_that_is_not_what_was_encoded_is_not_written(tmp_path):
    """Ray cuts a repository again if a machine with its text is lost; it may have changed."""
    chunk = Chunk("a.py", 1, 1, "", "x = 1")
    line = to_line(StoredChunk(0, chunk, 5, chunk.digest), "f" * 64)
    store = open_store(str(tmp_path))
    with pytest.raises(Stale):
        write_repository(store, ("a", None, "1", "m", "{}"), {"0" * 64: Place("a" * 64, 0, 1, 5, "xxh3:1")}, [line])
    assert not list(store.list("repositories"))
