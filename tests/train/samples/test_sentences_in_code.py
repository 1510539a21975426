"""Sentences in strings of code."""

from __future__ import annotations

import pytest

from awareness.train.samples.sentences_in_code import sentence_in


@pytest.mark.parametrize(
    ("text", "sentence", "rest"),
    [
        ('fail("cannot open the file")', "cannot open the file", 'fail(" ")'),
        ("throw new Error('the socket was closed early');", "the socket was closed early", "throw new Error(' ');"),
        ("log(`user ${id} is not known here`)", "user   is not known here", "log(` `)"),
        ('errorf("lost %d of %s bytes on the way\\n", a, b)', "lost   of   bytes on the way ", 'errorf(" ", a, b)'),
        (
            'a("one two three four") b("one two three four five")',
            "one two three four five",
            'a("one two three four") b(" ")',
        ),
        ('sql("x = 1, y = 2, z = 3 or so it is")', "", None),
        ('name("not_a_sentence_at_all")', "", None),
        ("x = 1", "", None),
    ],
)
def test_the_longest_sentence_is_cut_out(text, sentence, rest):
    assert sentence_in(text) == (sentence, text if rest is None else rest)


def test_many_quotes_take_linear_time():
    assert sentence_in('"' * 40_000) == ("", '"' * 40_000)
