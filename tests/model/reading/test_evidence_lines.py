"""The lines that a sentence rests on: by words, by attention, by both; and their probability."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.model.reading.evidence_lines import ENOUGH, MOST_ROWS, Evidence, Lines, terms
from awareness.types import Chunk

POOL = Chunk(
    "src/pool.py",
    7,
    13,
    "Pool",
    "class HTTPPool:\n    # seconds until an idle connection is closed\n    idle_timeout = 5.0\n\n"
    "    max_size = 10\n    retries = 5_000\n}",
)
AUTH = Chunk("src/auth.py", 1, 3, "sign", "def sign(cookie):\n    age = 10\n    return cookie + str(age)")


def rows(evidence):
    return evidence.source, evidence.first, evidence.last


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPConnectionPool.max_size", ["http", "connection", "pool", "max", "siz"]),
        ("1,000 or 5_000 retries, 2.5 s", ["1000", "5000", "retr", "2.5"]),
        ("It is the default.", []),
        ("größe = 3", ["größ", "3"]),
    ],
)
def test_terms(text, expected):
    assert list(terms(text)) == expected


def test_a_line_shares_the_value_of_the_sentence():
    lines = Lines([AUTH, POOL], "how long may an idle connection stay open")
    assert rows(lines.best("After 5.0.")) == (1, 2, 2)
    assert rows(lines.best("It retries 5,000 times.")) == (1, 5, 5)


def test_words_of_the_question_choose_between_lines_with_the_same_value():
    assert rows(Lines([AUTH, POOL], "what is the maximum size").best("10")) == (1, 4, 4)
    assert rows(Lines([AUTH, POOL], "which age has it").best("10")) == (0, 1, 1)


def test_attention_chooses_between_lines_with_the_same_words():
    lines = Lines([AUTH, POOL])
    to_auth = [0.0, 0.0, 0.6, *[0.0] * 6, 0.1, 0.0, 0.0]
    to_pool = [0.0, 0.0, 0.1, *[0.0] * 6, 0.6, 0.0, 0.0]
    assert rows(lines.best("It is 10.", to_auth)) == (0, 1, 1)
    assert rows(lines.best("It is 10.", to_pool)) == (1, 4, 4)


def test_more_agreement_is_more_confidence():
    lines = Lines([AUTH, POOL], "max size")
    sure = lines.best("`max_size` is 10.", [0.0] * 9 + [1.0, 0.0, 0.0])
    unsure = lines.best("It is so.", [0.1] * 12)
    assert sure.confidence > 0.9 > 0.5 > unsure.confidence > 0.0


def test_blank_lines_and_brackets_are_never_evidence():
    lines = Lines([POOL])
    chances = lines.probabilities("anything at all", [0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.9])
    assert chances[4] == chances[7] == 0.0 and sum(chances) == pytest.approx(1)
    assert Lines([Chunk("-", 1, 3, "", "{\n\n}")]).best("anything") is None
    assert Lines([]).best("anything") is None


def test_a_sentence_about_a_path_rests_on_no_line():
    best = Lines([POOL, AUTH], "where is the cookie signed").best("In `src/auth.py`.")
    assert best.source == 1 and best.confidence < ENOUGH


@given(
    st.lists(st.text(alphabet="ab_1 \n", max_size=40), min_size=1, max_size=4),
    st.text(alphabet="ab_1 ", max_size=20),
    st.data(),
)
def test_evidence_is_a_short_part_of_one_chunk(texts, sentence, data):
    chunks = [Chunk("a.py", 1, text.count("\n") + 1, "", text) for text in texts]
    count = sum(chunk.end_line + 1 for chunk in chunks)
    attention = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    lines = Lines(chunks, "what is a_1")
    chances = lines.probabilities(sentence, attention)
    assert len(chances) == count and (sum(chances) == pytest.approx(1) or not any(chances))
    best = lines.best(sentence, attention)
    assert (best is None) == (not any(chances))
    if best is not None:
        assert isinstance(best, Evidence) and 0 <= best.confidence <= 1 + 1e-9
        assert 0 <= best.first <= best.last < chunks[best.source].end_line
        assert best.last - best.first < MOST_ROWS
