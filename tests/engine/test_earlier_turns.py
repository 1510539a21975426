"""What a follow-up is searched with, and the turns before it in the prompt."""

from __future__ import annotations

import pytest

from awareness.engine.earlier_turns import EarlierTurns, Turn, stands_alone

SAID = EarlierTurns.of([("where is the retry timeout set?", "It is set in `RetryPolicy.wait` to 5 seconds.")])


@pytest.mark.parametrize(
    "question",
    [
        "and where is it called?",
        "what about the timeout?",
        "how is that tested?",
        "why?",
        "Who calls this function?",
        "what does it raise when the file is missing?",
        "is there a test for that",
        "the default?",
        "what else reads those?",
    ],
)
def test_a_follow_up_takes_its_subject_from_before(question):
    assert not stands_alone(question)
    query = SAID.query(question)
    assert query.startswith(question)
    assert "retry timeout" in query and "RetryPolicy.wait" in query


@pytest.mark.parametrize(
    "question",
    [
        "where is the connection pool closed?",
        "what does HTTPConnectionPool do?",
        "which function parses the header that ends a chunk?",
        "is there a limit on the size of a request body?",
        "how does this project read its settings file?",
        "what is sign_cookie",
        "redraw the tree view as soon as a file in it changes",
        "does HTTPTransport try again when it fails?",
        "The build fails\n\nIt worked before.",
    ],
)
def test_a_question_that_stands_alone_is_searched_as_it_is(question):
    assert stands_alone(question)
    assert SAID.query(question) == question


def test_without_turns_nothing_is_added():
    assert EarlierTurns().query("and where is it called?") == "and where is it called?"
    assert EarlierTurns().prompt(4096) == []


def test_the_subject_comes_from_the_last_question_that_had_one():
    said = EarlierTurns.of(
        [
            ("where are cookies signed?", "In `Session.sign`."),
            ("where is the connection pool closed?", "In `Pool.close`."),
            ("and who calls it?", "`Client.stop` does."),
        ]
    )
    query = said.query("is that tested?")
    assert "connection pool" in query and "who calls it" in query and "Client.stop" in query
    assert "cookies" not in query


def test_names_of_the_sources_are_in_the_query():
    said = EarlierTurns((Turn("how are retries counted?", "One by one.", ("Retry.increment", "src/retry.py")),))
    assert said.query("why?") == "why? how are retries counted? Retry.increment src/retry.py"


def test_the_prompt_holds_the_last_turns_within_a_quarter_of_the_positions():
    said = EarlierTurns.of([(f"question {i} " + "é" * 40, "a" * 100) for i in range(9)])
    pairs = said.prompt(4 * 400)
    assert [pair[0][:10] for pair in pairs] == ["question 7", "question 8"]
    assert said.prompt(4) == []


def test_a_long_turn_is_shortened():
    ((question, answer),) = EarlierTurns.of([("q" * 9000, "a" * 9000)]).prompt(100_000)
    assert (len(question), len(answer)) == (500, 1000)
