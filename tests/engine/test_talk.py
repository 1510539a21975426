"""A talk: chunks that stay attached, a KV cache that is exact, and turns in the prompt."""

from __future__ import annotations

import pytest

from awareness.engine.answer import NotAnswered
from awareness.engine.earlier_turns import EarlierTurns
from awareness.engine.engine import Engine
from awareness.engine.talk import Talk
from awareness.engine.talk_memory import TalkMemory
from tests.conftest import commit_all, write_tree

FILES = {
    "src/pool.py": "class HTTPConnectionPool:\n    def acquire(self):\n        return self.idle.pop()\n",
    "src/cookie.py": "def sign_cookie(value):\n    return hmac_digest(value)\n",
    "src/retry.py": "def count_retries(policy):\n    return policy.limit\n",
}


@pytest.fixture
def engine(tmp_path, model_folder):
    root = commit_all(write_tree(tmp_path / "repository", FILES))
    with Engine.open(root, model=str(model_folder)) as opened:
        opened.refresh()
        yield opened


def paths(answer):
    return [hit.chunk.path for hit in answer.hits]


def test_a_follow_up_finds_what_was_talked_about(engine):
    with pytest.raises(NotAnswered):
        engine.ask("and who uses it?", max_new_tokens=4)
    talk = Talk(engine)
    assert paths(talk.ask("sign_cookie", top_k=1, max_new_tokens=4)) == ["src/cookie.py"]
    assert paths(talk.ask("and who uses it?", top_k=1, max_new_tokens=4)) == ["src/cookie.py"]
    assert [turn.question for turn in talk.turns.turns] == ["sign_cookie", "and who uses it?"]


def test_memory_grows_by_what_the_new_question_needs(engine):
    talk = Talk(engine)
    first = talk.ask("sign_cookie", top_k=1, max_new_tokens=4)
    assert first.cited == [0]
    second = talk.ask("HTTPConnectionPool acquire", top_k=1, max_new_tokens=4)
    assert paths(second) == ["src/pool.py", "src/cookie.py"]
    third = talk.ask("sign_cookie", top_k=1, max_new_tokens=4)
    assert paths(third) == paths(second)  # it is there already
    assert third.memory.tokens == second.memory.tokens


def test_a_chunk_whose_code_has_changed_does_not_stay(engine):
    talk = Talk(engine)
    hit = talk.ask("sign_cookie", top_k=1, max_new_tokens=4).hits[0]
    root = engine._workspaces[0].repository.root
    write_tree(root, {"src/cookie.py": "def other(value):\n    return value\n"})
    assert not hit.is_current
    assert paths(talk.ask("HTTPConnectionPool acquire", top_k=1, max_new_tokens=4)) == ["src/pool.py"]


def test_the_kept_cache_gives_the_same_answer(engine):
    talk = Talk(engine)
    talk.ask("sign_cookie", top_k=1, max_new_tokens=12)
    earlier = talk.turns
    kept = talk.ask("and who uses it?", top_k=1, max_new_tokens=12)
    assert kept.reused > 40
    anew = engine.ask("and who uses it?", top_k=1, max_new_tokens=12, earlier=earlier)
    assert anew.reused == 0
    assert [s.text for s in kept.sentences] == [s.text for s in anew.sentences]


def test_another_memory_empties_the_cache(engine):
    talk = Talk(engine)
    talk.ask("sign_cookie", top_k=1, max_new_tokens=4)
    assert talk.ask("HTTPConnectionPool acquire", top_k=1, max_new_tokens=4).reused == 0


def test_earlier_turns_are_read(engine):
    alone = engine.ask("sign_cookie", top_k=1, max_new_tokens=12)
    after = engine.ask(
        "sign_cookie", top_k=1, max_new_tokens=12, earlier=EarlierTurns.of([("acquire", "`HTTPConnectionPool`")])
    )
    assert alone.text != after.text


def test_a_refused_question_is_no_turn(engine):
    talk = Talk(engine)
    with pytest.raises(NotAnswered):
        talk.ask("quantum banana pudding")
    assert talk.turns.turns == ()


def test_a_long_talk_stays_within_the_positions(engine):
    talk = Talk(engine)
    for _ in range(4):
        talk.ask("sign_cookie " + "and hmac_digest of its value " * 15, top_k=1, max_new_tokens=4)
    assert len(talk.turns.turns) == 4
    assert 1 <= len(talk.turns.prompt(4096)) < 4


def test_clearing_forgets_everything(engine):
    talk = Talk(engine)
    talk.ask("sign_cookie", top_k=1, max_new_tokens=4)
    talk.clear()
    assert talk.turns.turns == () and talk.memory.hits == ()
    with pytest.raises(NotAnswered):
        talk.ask("and who uses it?")


def test_what_answers_rested_on_is_kept_within_a_bound(engine):
    memory = TalkMemory()
    hits = engine.search("sign_cookie HTTPConnectionPool count_retries", top_k=3)
    for hit in hits * 3:
        memory.answered([hit], [0])
    assert len(memory.grown_by([])) <= 4
