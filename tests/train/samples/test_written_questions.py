"""What a teacher is asked about a chunk, and which of its questions and answers are kept."""

from __future__ import annotations

import random

import pytest

from awareness.model.load import load
from awareness.model.model_files import find
from awareness.train.samples import written_questions
from awareness.train.samples.written_questions import Request, Result, Writer, _asked_again, flaw, requests, same_answer
from awareness.types import Chunk

POOL = Chunk(
    "src/pool.py",
    1,
    15,
    "Pool.acquire",
    '''logger = logging.getLogger("pool.log")

    def acquire(self, timeout):
        """Return a free connection. It waits until another task returns one, if the pool is full."""
        if self.closed:
            raise PoolClosed("the pool was closed")
        # retried because a peer may close an idle connection at any time
        for attempt in range(5):
            connection = self.idle.wait_for_one(timeout)
            self.mode = "exclusive-mode"
            self.modes = ["shared-mode", "private-mode"]
            self.named = {
                "first-key": timeout,
            }
        return Lease(connection)

    def size(self):
        raise NotImplementedError()
''',
)
TEXT = POOL.encoded_text


def test_requests_are_about_what_the_chunk_shows():
    found = {(request.start, request.fact, request.sentence) for request in requests(random.Random(0), POOL)}
    assert found == {
        ("Which exception does `Pool.acquire` raise when", "PoolClosed", ""),
        ("When does `Pool.acquire`", "", "It waits until another task returns one, if the pool is full."),
        ("Which method does `Pool.acquire` call to", "wait_for_one", ""),
        ("Which string does `Pool.acquire`", "exclusive-mode", ""),
        ("Which number does `Pool.acquire`", "5", ""),
        ("What does `Pool.acquire` return", "Lease", ""),
    }  # neither a fragment of a sentence, nor one of several strings, nor a key
    assert {request.text for request in requests(random.Random(0), POOL)} == {TEXT}
    orders = {tuple(request.ask for request in requests(random.Random(seed), POOL)) for seed in range(5)}
    assert len(orders) > 1 and requests(random.Random(3), POOL) == requests(random.Random(3), POOL)


def test_a_docstring_that_began_before_the_chunk_is_no_code():
    text = '    It listens at call_this(8080) and uses \'some-string\'.\n    """\n    run_server(9090)\n'
    chunk = Chunk("a.py", 5, 7, "serve", text)
    assert {request.fact for request in requests(random.Random(0), chunk)} == {"run_server", "9090"}


def test_the_definition_a_line_belongs_to():
    text = "class Store:\n    def load(self):\n        read_all(5000)\n\n\ndef alone():\n    read_one(6000)\n"
    found = {request.start for request in requests(random.Random(0), Chunk("a.py", 1, 7, "Store", text))}
    assert found == {
        f"{start} `{name}`{end}"
        for name in ("Store.load", "alone")
        for start, end in (("Which function does", " call to"), ("Which number does", ""))
    }


FACT = Request(TEXT, "", "Which exception does `Pool.acquire` raise when", "PoolClosed")
FREE = Request(
    TEXT, "", "Why does `Pool.acquire`", "", "retried because a peer may close an idle connection at any time"
)
GOOD = ("Which exception does `Pool.acquire` raise when the pool is shut?", "It raises `PoolClosed`.")


@pytest.mark.parametrize(
    ("request_", "question", "answer", "reason"),
    [
        (FACT, *GOOD, ""),
        (FACT, GOOD[0], "`PoolClosed`.", ""),
        (FACT, "Which exception does `Pool.acquire` raise when the given pool is shut?", GOOD[1], ""),
        (FREE, "Why does `Pool.acquire` retry?", "A peer may close an idle connection at any time.", ""),
        (FACT, "Which exception does `Pool.acquire` raise when it", GOOD[1], "no question"),
        (FACT, "`Pool.acquire` raises what?", GOOD[1], "no question"),
        (FACT, GOOD[0], "It raises `PoolClosed` when the", "no whole answer"),
        (FACT, "Does `Pool.acquire` raise when the pool is shut?", GOOD[1], "a yes-or-no question"),
        (
            FACT,
            "Which exception does the function in this snippet raise?",
            GOOD[1],
            "a question that needs the chunk beside it",
        ),
        (
            FACT,
            "Which exception is raised when the pool is shut?",
            GOOD[1],
            "a question that names nothing of the chunk",
        ),
        (
            FACT,
            "Which exception does `Pool.acquire` raise for `max_age`?",
            GOOD[1],
            "a question with names that are not in the chunk",
        ),
        (
            FACT,
            GOOD[0],
            "It raises `PoolClosed` or `PoolFull`.",
            "an answer with names or values that are not in the chunk",
        ),
        (
            FACT,
            GOOD[0],
            "It raises `PoolClosed` after 30 seconds.",
            "an answer with names or values that are not in the chunk",
        ),
        (FACT, GOOD[0], "It raises an error about `closed`.", "an answer that is not what was asked for"),
        (
            FACT,
            "Which exception does `Pool.acquire` raise, `PoolClosed`?",
            GOOD[1],
            "an answer that is not what was asked for",
        ),
        (
            FREE,
            "Why does `Pool.acquire` retry?",
            "The network of the user is often slow.",
            "an answer that is not what was asked for",
        ),
        (
            FREE,
            "Why does a peer of `Pool.acquire` close an idle connection?",
            "A peer may close an idle connection.",
            "an answer that says what the question says",
        ),
    ],
)
def test_checks(request_, question, answer, reason):
    assert flaw(request_, question, answer) == reason


def test_the_same_answer_in_other_words():
    assert same_answer(FACT, *GOOD, "`PoolClosed` is raised")
    assert not same_answer(FACT, *GOOD, "`PoolClosedError` is raised")
    question, answer = "Why does `Pool.acquire` retry?", "A peer may close an idle connection at any time."
    assert same_answer(FREE, question, answer, "Because idle connections may be closed by a peer.")
    assert not same_answer(FREE, question, answer, "Because it is asynchronous.")
    assert not same_answer(FREE, question, "It sets `mode` to `exclusive-mode`.", "It sets `mode`.")


class _Rows:
    """Replies of a script instead of a decoder: what was asked -> what is said."""

    def __init__(self, script, middles):
        self.script, self.rows = script, list(middles)

    def keep(self, rows):
        self.rows = [self.rows[i] for i in rows]

    def answers(self, endings, max_new_tokens, stop=""):
        return [self.script(row, ending) for row, ending in zip(self.rows, endings, strict=True)]


def test_a_question_is_answered_again_with_and_without_its_chunk(model_folder, monkeypatch):
    decoder = load(find(str(model_folder)))
    decode = decoder.tokenizer.decode
    asked = []

    class Shared:
        def __init__(self, decoder, ids):
            assert decode(ids).count("Question:") == 4 and "Outbox.flush" in decode(ids)

        def rows(self, middles):
            return _Rows(said, middles)

    def said(row, ending):
        """The question about number 1 is answered otherwise with the chunk, that about 2 is known without it."""
        text = decode(row) + decode(ending)
        asked.append(text)
        number = next(n for n in "0123" if f"fact_{n}" in text or f"case {n}" in text)
        if "Write" in text:
            return f" case {number}?\nAnswer: It is `fact_{number}`."
        with_chunk = "# file" in text
        knows = number == "2" if not with_chunk else number != "1"
        return f"It is `fact_{number}`." if knows else "It is something else."

    monkeypatch.setattr(written_questions, "SharedBeginning", Shared)
    texts = [f"# file: a.py · f\nfact_{n}(case, {n})\n" for n in range(4)]
    batch = [
        Request(text, f"Write fact_{n}", "Which function does `f` call in", f"fact_{n}") for n, text in enumerate(texts)
    ]
    results = Writer(decoder)(batch)
    assert [result.question for result in results] == [f"Which function does `f` call in case {n}?" for n in range(4)]
    assert [result.rejected for result in results] == [
        "",
        "the teacher answers otherwise when asked again",
        "the teacher knows the answer without the chunk",
        "",
    ]
    assert [text.count("# file") for text in asked] == [1] * 8 + [0] * 3
    assert (results[0].again, results[0].unread) == ("It is `fact_0`.", "It is something else.")


def test_an_answer_that_names_less_than_the_second_one_is_half_of_it():
    request = Request("if key in (LEFT_SIDE, RIGHT_SIDE):", "", "", "LEFT_SIDE")
    result = Result("Which sides does `key` have?", "It has `LEFT_SIDE`.")
    assert _asked_again(request, result, "It is `LEFT_SIDE`, a `side`.").rejected == ""
    more = _asked_again(request, result, "It is `LEFT_SIDE` or `RIGHT_SIDE`.")
    assert more.rejected == "the teacher names more when asked again"


def test_a_tokenizer_without_a_chat_template(model_folder):
    decoder = load(find(str(model_folder)))
    decoder.tokenizer.chat_template = None
    (result,) = Writer(decoder)([FACT])
    assert result.question.startswith(FACT.start) and result.rejected
