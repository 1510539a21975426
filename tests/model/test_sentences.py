"""Sentences of a stream, the source of each, and names that no source has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.model.sentences import Sentence, Sentences, Sources, is_whole, names_in, without_echo
from awareness.types import Chunk

AUTH = Chunk("src/auth.py", 1, 4, "Session.sign", "class Session:\n    def sign_cookie(self):\n        return MAX_AGE")
POOL = Chunk("src/pool.py", 7, 9, "Pool", "class HTTPConnectionPool:\n    max_size = 10\n    idle_timeout = 5.0")


def cut(text, size=3):
    sentences = Sentences()
    found = [s for i in range(0, len(text), size) for s in sentences.add(text[i : i + size])]
    return [s.strip() for s in found], sentences.rest().strip()


@pytest.mark.parametrize(
    ("text", "whole", "rest"),
    [
        ("It is 5. It is kept in `a.b`. Then", ["It is 5.", "It is kept in `a.b`."], "Then"),
        ("The default is 5.0 seconds, e.g. for reads. Done", ["The default is 5.0 seconds, e.g. for reads."], "Done"),
        ("Call `x. y()`! Is it? Yes", ["Call `x. y()`!", "Is it?"], "Yes"),
        ("Two ways:\n- first one\n- second one\n", ["Two ways:", "- first one"], "- second one"),
        ("1. Open it.\n2. Close it.\n", ["1. Open it."], "2. Close it."),
        ("A paragraph\n\nAnother one", ["A paragraph"], "Another one"),
        ("So:\n```py\na = 1. \nb. c\n```\nThat is it", [], "So:\n```py\na = 1. \nb. c\n```\nThat is it"),
        ("no end", [], "no end"),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_sentences_end_where_the_next_begins(text, whole, rest, size):
    assert cut(text, size) == (whole, rest)


@given(st.text(alphabet="ab .!?`\n-1e,", max_size=60), st.integers(1, 9))
def test_no_text_is_lost_in_any_split(text, size):
    sentences = Sentences()
    found = [s for i in range(0, len(text), size) for s in sentences.add(text[i : i + size])]
    assert "".join(found).split() == "".join([*found, sentences.rest()]).removesuffix(sentences.rest()).split()
    assert "".join("".join([*found, sentences.rest()]).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("It is so.", True), ("It is `5`.", True), ("```\nx\n```", True), ("It is", False), ("```\nx.", False)],
)
def test_is_whole(text, expected):
    assert is_whole(text) is expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The `max_size` of HTTPConnectionPool is 10.", ["max_size", "HTTPConnectionPool"]),
        ("Call sign_cookie() in src/auth.py or Session.sign.", ["sign_cookie", "src/auth.py", "Session.sign"]),
        ("Plain English, e.g. read/write and URLs, in Python 3.11.", []),
        ("It returns `5.0`, `7` or `Timeout(5)`, since 3.11.", ["5.0", "Timeout"]),
        ("```py\nnever_looked_at()\n```", []),
    ],
)
def test_names_in(text, names):
    assert names_in(text) == names


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`Session.sign_cookie` uses `MAX_AGE`.", []),
        ("`Session.verify_cookie` checks it.", ["Session.verify_cookie"]),
        ("It stands in src/pool.py, not in src/pools.py.", ["src/pools.py"]),
        ("`self.max_size` is 10, `min_size` is not there.", ["min_size"]),
        ("It is `10` for `5.0` s, not `100`, `1_0` or `1`.", ["100"]),
        ("It came with `v10.5`, long before `V5.0`.", ["v10.5"]),
    ],
)
def test_unknown_names(text, unknown):
    assert Sources([AUTH, POOL]).unknown(text) == unknown


def test_a_sentence_rests_on_the_chunk_that_has_its_words():
    sources = Sources([AUTH, POOL], "how large is the pool")
    assert sources.source("The `max_size` is 10.") == 1
    assert sources.source("`sign_cookie` returns it.", [0.1, 0.9]) == 0  # attention alone does not make it the source


def test_attention_decides_where_words_do_not():
    sources = Sources([AUTH, POOL])
    assert sources.source("It is so.", [0.2, 0.8]) == 1
    assert sources.source("It is so.", [0.8, 0.2]) == 0
    assert sources.source("It is so.") == 0  # the best routed


def test_a_sentence_names_the_lines_it_rests_on():
    sentence = Sources([AUTH, POOL], "how large is the pool").sentence("`max_size` is 10.")
    assert (sentence.source, sentence.lines) == (1, (8, 8))
    assert sentence.confidence > 0.5
    assert sentence.marked == "`max_size` is 10 [2]."


def test_no_line_is_named_where_it_is_uncertain_or_has_no_number():
    vague = Sources([AUTH, POOL]).sentence("Nobody knows that.")
    assert (vague.source, vague.lines, vague.confidence) == (0, None, None)
    cells = Chunk("a.ipynb", 10, 40, "cell 1", "max_size = 10\nidle_timeout = 5.0")  # rows on other lines of the file
    assert Sources([cells]).sentence("`max_size` is 10.") == Sentence("`max_size` is 10.", 0)
    empty = Chunk("a.c", 1, 2, "", "{\n}")
    assert Sources([empty]).sentence("`max_size` is 10.") == Sentence("`max_size` is 10.", 0, ("max_size",))


def test_attention_to_lines_chooses_the_source_too():
    sources = Sources([AUTH, POOL])
    sentence = sources.sentence("It is so.", [0.9, 0.1], [0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.9])
    assert (sentence.source, sentence.lines) == (1, (9, 9))
    assert sources.sentence("It is so.", [0.9, 0.1], [0.0] * 8) == sources.sentence("It is so.", [0.9, 0.1])


def test_without_chunks_there_is_no_source_and_no_mark():
    assert Sources([]).sentence("`nothing_known` here.") == Sentence("`nothing_known` here.")


@pytest.mark.parametrize(
    ("sentence", "marked"),
    [
        (Sentence("It is 10. ", 1), "It is 10 [2]. "),
        (Sentence("`a_b` is 10.", 0, ("a_b",)), "`a_b` (not in the sources) is 10 [1]."),
        (Sentence("Call a_b() now", 0, ("a_b",)), "Call a_b() (not in the sources) now [1]"),
        (Sentence("So:\n```\nx\n```\n", 2), "So:\n```\nx\n```\n[3]\n"),
        (Sentence("Nothing was read."), "Nothing was read."),
    ],
)
def test_marked_sentences(sentence, marked):
    assert sentence.marked == marked


def test_chunk_headers_are_removed():
    assert without_echo("# file: src/auth.py · Session\nIt is 5.") == "It is 5."
    assert without_echo("The # file: marker stays inside.") == "The # file: marker stays inside."
