"""The library under every front end: one model for many questions, several threads, streams, refusals."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from awareness.engine.answer import NotAnswered
from awareness.engine.engine import Engine
from awareness.engine.indexing import Indexer
from awareness.engine.reporter import Reporter
from awareness.errors import NoIndex, UsageError
from awareness.model.model_files import find
from tests.conftest import git, write_tree

FILES = {
    "src/pool.py": "class HTTPConnectionPool:\n    def acquire(self):\n        return 1\n",
    "src/cookie.py": "def sign_cookie(value):\n    return hmac_digest(value)\n",
}


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    write_tree(root, FILES)
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


@pytest.fixture
def engine(repository, model_folder):
    with Engine.open(repository, model=str(model_folder)) as opened:
        opened.refresh()
        yield opened


def test_it_needs_an_index_until_refreshed(repository, model_folder):
    with Engine.open(repository, model=str(model_folder)) as engine:
        with pytest.raises(NoIndex):
            engine.search("HTTPConnectionPool")
        (refreshed,) = engine.refresh()
        assert refreshed.files == 2
        assert engine.search("HTTPConnectionPool")[0].chunk.path == "src/pool.py"


def test_a_change_is_found_after_the_next_refresh(engine, repository):
    write_tree(repository, {"src/cookie.py": "def verify_signature(value):\n    return value\n"})
    hits = engine.search("sign_cookie")
    assert hits[0].chunk.path == "src/cookie.py" and not hits[0].is_current
    engine.refresh()
    assert engine.search("verify_signature")[0].chunk.path == "src/cookie.py"
    assert all("sign_cookie" not in hit.chunk.text for hit in engine.search("sign_cookie"))


def test_one_model_answers_many_questions(engine, monkeypatch):
    first = engine.ask("HTTPConnectionPool acquire", max_new_tokens=2)
    model = engine.load()
    monkeypatch.setattr("awareness.engine.model_pool.load_model", lambda *_, **__: pytest.fail("loaded twice"))
    second = engine.ask("sign_cookie", max_new_tokens=2)
    assert engine.load() is model
    assert first.hits[0].chunk.path == "src/pool.py" and second.hits[0].chunk.path == "src/cookie.py"
    assert first.memory.chunks == len(first.hits) == len(first.citations) > 0
    assert first.memory.tokens == engine.attach(first.hits).tokens
    assert set(first.to_json()) == set(second.to_json())


def test_the_best_hit_stands_next_to_the_question(engine):
    hits = engine.search("HTTPConnectionPool acquire sign_cookie", top_k=2)
    spans = {span.name: span for span in engine.attach(hits).spans}
    assert spans["0"].stop == engine.attach(hits).tokens
    assert spans["1"].stop == spans["0"].start


def test_hits_outlive_a_refresh_but_belong_to_their_engine(engine, tmp_path, model_folder):
    hits = engine.search("HTTPConnectionPool")
    tokens = engine.attach(hits).tokens
    engine.refresh()
    assert engine.attach(hits).tokens == tokens
    write_tree(tmp_path / "other", {"a.py": "class HTTPConnectionPool: ...\n"})
    with Engine.open(tmp_path / "other", model=str(model_folder)) as other:
        other.refresh()
        with pytest.raises(UsageError, match="is not open in this engine"):
            other.attach(hits)


def test_a_refusal_says_what_was_searched(engine):
    with pytest.raises(NotAnswered) as refusal:
        engine.ask("quantum banana pudding")
    assert refusal.value.exit_code == 1
    assert refusal.value.looked_at == 2
    assert refusal.value.to_json()["abstained"] is True


def test_a_stream_yields_the_sentences_of_the_answer(engine):
    asked = engine.ask("HTTPConnectionPool acquire", max_new_tokens=8)
    stream = engine.stream("HTTPConnectionPool acquire", max_new_tokens=8)
    assert tuple(stream) == stream.answer.sentences == asked.sentences
    assert list(stream) == []
    refused = engine.stream("quantum banana pudding")
    with pytest.raises(NotAnswered):
        list(refused)
    with pytest.raises(NotAnswered):
        _ = refused.answer


def test_a_stream_that_nobody_reads_is_cancelled(engine):
    stream = engine.stream("HTTPConnectionPool acquire", max_new_tokens=400)
    future = stream._future
    del stream
    gc.collect()
    assert future.result(timeout=60).is_cancelled


@pytest.mark.parametrize("top_k", [0, -1])
def test_at_least_one_hit_is_asked_for(engine, top_k):
    with pytest.raises(UsageError, match=f"top_k {top_k} is not a number of hits"):
        engine.search("sign_cookie", top_k=top_k)


def test_an_exception_of_a_callback_reaches_the_caller_and_the_engine_still_works(engine):
    def fail(sentence):
        raise RuntimeError("the page was closed")

    with pytest.raises(RuntimeError, match="the page was closed"):
        engine.ask("HTTPConnectionPool acquire", max_new_tokens=8, on_sentence=fail)
    assert engine.ask("HTTPConnectionPool acquire", max_new_tokens=2).hits


def test_an_index_that_is_rebuilt_meanwhile_is_searched(engine, repository, model_folder):
    """Another process throws the index away and makes it again while this one has it open."""
    write_tree(repository, {"src/token.py": "def refresh_token():\n    return 1\n"})
    with Engine.open(repository, model=str(model_folder)) as other:
        Indexer(other._workspaces[0], find(str(model_folder)), (), None, None, 1 << 20).run(0.0, rebuild=True)
    assert engine.search("refresh_token")[0].chunk.path == "src/token.py"


def test_a_cancelled_answer_ends_early(engine):
    whole = engine.ask("HTTPConnectionPool acquire", max_new_tokens=40)
    calls = 0

    def after_three() -> bool:
        nonlocal calls
        calls += 1
        return calls >= 3

    cut = engine.ask("HTTPConnectionPool acquire", max_new_tokens=40, is_cancelled=after_three)
    assert cut.is_cancelled and not whole.is_cancelled
    assert len(cut.text) < len(whole.text)


def test_threads_get_the_answers_that_one_thread_gets(engine):
    questions = ["HTTPConnectionPool acquire", "sign_cookie"] * 2
    expected = [engine.ask(question, max_new_tokens=4) for question in questions]
    answers: dict[int, object] = {}
    searches: list[str] = []

    def ask(place: int) -> None:
        answers[place] = engine.ask(questions[place], max_new_tokens=4).sentences
        searches.append(engine.search(questions[place])[0].chunk.path)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {place: answer.sentences for place, answer in enumerate(expected)}
    assert sorted(searches) == ["src/cookie.py"] * 2 + ["src/pool.py"] * 2


def test_closed_and_used_again(engine):
    engine.close()
    assert engine.search("sign_cookie")[0].chunk.path == "src/cookie.py"


def test_an_unknown_mode_is_named(repository):
    with pytest.raises(UsageError, match="no mode 'both'"):
        Engine.open(repository, mode="both")


def test_a_front_end_is_told_what_happens(repository, model_folder):
    notes = []

    class Notes(Reporter):
        def note(self, message: str) -> None:
            notes.append(message)

    with Engine.open(repository, model=str(model_folder), reporter=Notes()) as engine:
        engine.refresh()
    assert len(notes) == 1 and notes[0].startswith("indexed 2 files, 2 chunks")


def test_it_knows_neither_typer_nor_rich_nor_torch():
    code = "import sys, awareness.engine.engine; heavy = {'typer', 'rich', 'torch', 'transformers', 'numpy'}\n"
    code += "print(sorted(heavy & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"[]\n"


def test_a_refresh_without_changes_keeps_the_index_open(sample, model_folder):
    with Engine([sample], model=str(model_folder)) as engine:
        engine.refresh()
        (opened,) = engine.corpora
        engine.refresh()
        assert engine.corpora[0] is opened
        write_tree(sample, {"src/added.py": "def gamma_added():\n    return 3\n"})
        with Engine([sample], model=str(model_folder)) as other:
            other.refresh()
        engine.refresh()
        assert engine.search("gamma_added")[0].chunk.path == "src/added.py"


def test_languages_narrow_a_search(sample, model_folder):
    with Engine([sample], model=str(model_folder)) as engine:
        engine.refresh()
        assert {hit.chunk.path for hit in engine.search("cookie", languages=["markdown"])} == {"docs/guide.md"}
        with pytest.raises(UsageError, match="'elvish' is not a known language"):
            engine.search("cookie", languages=["elvish"])


def test_only_indexed_files_are_read(sample, model_folder):
    (sample / ".env").write_text("KEY=secret\n")
    with Engine([sample], model=str(model_folder)) as engine:
        engine.refresh()
        file = engine.read("src/pool.py")
        assert (file.total, file.between(2, 2)) == (5, [(2, "    max_size = 10")])
        for path in (".env", "../x", ".git/config", str(sample.parent / "x")):
            with pytest.raises(UsageError, match="is not indexed"):
                engine.read(path)
