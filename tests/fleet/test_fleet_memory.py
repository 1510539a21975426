from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from awareness.engine.engine import Engine
from awareness.engine.reporter import Reporter
from awareness.errors import NoIndex, StorageFailed, UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet.fleet_memory import FleetMemory
from awareness.fleet.object_store import open_store
from awareness.index.store.layout import indexes_dir
from awareness.serve.repositories import Repositories
from tests.fleet.fixtures import upload, use_s3

BUDGET = 1 << 30


class Notes(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def engine_of(place: Path | str, model: Path | None = None, budget: int = BUDGET, **options: object) -> Engine:
    notes = Notes()
    memory = FleetMemory(str(place), budget=budget, reporter=notes, **options)  # type: ignore[arg-type]
    engine = Engine(memories=[memory], model=None if model is None else str(model), adapter="none", reporter=notes)
    engine.notes = notes.notes  # type: ignore[attr-defined]
    return engine


def test_a_question_finds_its_repository(store):
    with engine_of(store) as engine:
        assert engine.searched == "this memory of 3 repositories"
        hits = engine.search("how is mail sent")
        assert hits[0].corpus.name == "mail" and hits[0].chunk.path == "mail/sender.py" and hits[0].is_current
        assert engine.search("sum of the prices of an invoice")[0].corpus.name == "billing"
        assert json.loads(json.dumps(hits[0].to_json()))["origin"] == "mail"


def test_latents_are_read_from_the_store_and_kept(store, model_folder):
    with engine_of(store, model_folder) as engine:
        hits = engine.search("how is mail sent")
        corpus = hits[0].corpus
        made = engine.load().encoder.storing_as("int4")
        assert corpus.store.latents.missing(made.spec, [hits[0].chunk.digest])
        memory = engine.attach(hits[:1])
        assert memory.tokens > 0
        kept = corpus.store.latents.read(made.spec, [hits[0].chunk.digest])[hits[0].chunk.digest]
        (fetched,) = corpus.fetch([hits[0].chunk.digest]).values()
        assert bytes(kept.data) == bytes(fetched.data)


def test_an_answer_cites_the_repository(store, model_folder):
    with engine_of(store, model_folder) as engine:
        answer = engine.ask("how is mail sent", max_new_tokens=8)
        assert answer.hits and "mail" in answer.hits[0].place


def test_a_bucket_answers_and_afterwards_without_it(store, s3, model_folder, monkeypatch):
    upload(store, s3)
    with engine_of(s3, model_folder) as engine:
        first = engine.search("how is mail sent")
        engine.attach(first[:1])
    use_s3(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("awareness.fleet.fleet_memory.PATIENCE_S", 0.3)
    with engine_of(s3, model_folder) as engine:
        engine.refresh()
        again = engine.search("how is mail sent")
        assert [hit.place for hit in again] == [hit.place for hit in first]
        assert engine.attach(again[:1]).tokens > 0
        assert any("as it was the last time" in note for note in engine.notes)


def test_where_latents_cannot_be_read_they_are_made_here(store, model_folder):
    with engine_of(store, model_folder) as engine:
        hits = engine.search("how is mail sent")
        shutil.rmtree(store / "shards")
        assert engine.attach(hits[:1]).tokens > 0
        assert any("made here" in note for note in engine.notes)


def test_a_damaged_latent_is_made_here(store, model_folder):
    with engine_of(store, model_folder) as engine:
        hits = engine.search("how is mail sent")
        for path in (store / "shards").iterdir():
            data = bytearray(path.read_bytes())
            header = 8 + int.from_bytes(data[:8], "little")
            data[header:] = bytes(len(data) - header)
            path.write_bytes(data)
        assert engine.attach(hits).tokens > 0
        assert any("damaged" in note and "shards/" in note and "--repair" in note for note in engine.notes)


@pytest.mark.parametrize("kind", ["repositories", "routing"])
def test_a_damaged_object_is_left_out_and_named(store, kind):
    for path in (store / kind).iterdir():
        path.write_bytes(path.read_bytes() + b"x")
    with engine_of(store) as engine:
        hits = engine.search("how is mail sent")
        assert any("damaged" in note for note in engine.notes)
        assert not hits if kind == "repositories" else hits[0].corpus.name == "mail"  # so few are all searched


def test_a_repository_that_is_gone_is_said_to_be_left_out(store):
    known, _ = catalogues.read(open_store(str(store)))
    (store / known.repositories["mail"].key).unlink()
    with engine_of(store) as engine:
        assert all(hit.corpus.name != "mail" for hit in engine.search("how is mail sent"))
        assert any("mail" in note for note in engine.notes)


def test_a_change_is_seen_by_the_next_refresh(store):
    opened = open_store(str(store))
    with engine_of(store) as engine:
        engine.refresh()
        assert engine.search("how is mail sent")[0].corpus.name == "mail"
        catalogues.commit(
            opened,
            None,
            lambda old: replace(old, repositories={n: e for n, e in old.repositories.items() if n != "mail"}),
        )
        engine.refresh()
        assert all(hit.corpus.name != "mail" for hit in engine.search("how is mail sent"))
        assert engine.searched == "this memory of 2 repositories"


def test_the_cache_keeps_within_its_budget(store):
    def kept() -> int:
        return len(list(indexes_dir().glob("fleets/*/repositories/*/manifest*")))

    with engine_of(store, most_repositories=1) as engine:
        for question in ("how is mail sent", "sum of the prices of an invoice", "sign the cookie of a session"):
            engine.search(question)
    assert kept() >= 3
    for folder in indexes_dir().glob("fleets/*/repositories/*"):
        os.utime(folder, (1e9, 1e9))
    with engine_of(store, budget=1, most_repositories=1) as engine:
        engine.search("how is mail sent")
    assert kept() == 1


def test_what_was_attached_is_opened_again(store, model_folder, monkeypatch):
    """A talk keeps chunks of earlier answers, whose repositories may have been closed meanwhile."""
    monkeypatch.setattr("awareness.fleet.fleet_memory._OPEN_AT_ONCE", 1)
    with engine_of(store, model_folder, most_repositories=1) as engine:
        first = engine.search("how is mail sent")[:1]
        engine.search("sum of the prices of an invoice")
        assert engine.attach(first).tokens > 0
        engine.refresh()
        assert engine.attach(first).tokens > 0


def test_a_repository_is_searched_beside_it(store, sample):
    memory = FleetMemory(str(store), budget=BUDGET)
    with Engine([sample], memories=[memory]) as engine:
        engine.refresh()
        origins = {hit.corpus.name for hit in engine.search("how is mail sent")}
        assert "mail" in origins


def test_what_needs_one_whole_repository_is_refused(store):
    with engine_of(store) as engine:
        for refused in (engine.map, engine.outline):
            with pytest.raises(UsageError, match="of a repository"):
                refused()


def test_callers_are_found_in_the_repository_of_the_name(store):
    with engine_of(store) as engine:
        assert engine.callers("sign_cookie")[0].hit.chunk.path == "tests/test_auth.py"


def test_a_strangers_model_is_not_fetched(store):
    with engine_of(store) as engine, pytest.raises(UsageError, match="was made by the model"):
        engine.ask("how is mail sent")


def test_a_store_without_a_fleet_is_said_so(tmp_path):
    with engine_of(tmp_path / "none") as engine, pytest.raises(NoIndex, match="holds no fleet"):
        engine.search("mail")


def test_a_store_that_never_answered_is_said_so(monkeypatch):
    use_s3(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("awareness.fleet.fleet_memory.PATIENCE_S", 0.3)
    with engine_of("s3://code/fleet") as engine, pytest.raises(StorageFailed, match="s3://code/fleet"):
        engine.search("mail")


def test_several_processes_may_open_it_at_once(store, tmp_path):
    """Each waits for the one that makes an index, and reads what that has made."""
    program = (
        "import sys; from awareness.fleet.fleet_memory import FleetMemory; from awareness.engine.engine import Engine\n"
        "engine = Engine(memories=[FleetMemory(sys.argv[1], budget=1 << 30)])\n"
        "print(engine.search('how is mail sent')[0].corpus.name)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["mail"] * 3


def test_a_server_answers_from_it(store):
    with contextlib.closing(Repositories(stores=[str(store)])) as repositories:
        served = repositories.find()
        assert served.is_pack and repositories.names == [str(store)]
        with repositories.engine() as engine:
            assert engine.search("how is mail sent")[0].corpus.name == "mail"
