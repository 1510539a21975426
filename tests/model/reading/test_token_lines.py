"""The line of each token."""

from __future__ import annotations

import pytest

from awareness.model.prompts import encode
from awareness.model.reading.token_lines import token_lines


@pytest.mark.parametrize("text", ["", "a", "a\nbc\n\nd", "\n\n", "é\n→ x\n", "<|im_end|>\nx", "a\r\nb"])
def test_a_token_belongs_to_the_line_that_it_begins_in(tokenizer, text):
    lines = token_lines(tokenizer, text)
    assert len(lines) == len(encode(tokenizer, text))
    # This tokenizer has a token for each byte.
    data = text.encode()
    assert lines == [data[:at].count(b"\n") for at in range(len(data))]


def test_a_lone_surrogate_is_one_token(tokenizer):
    assert token_lines(tokenizer, "a\n\udcff\nb") == [0, 0, 1, 1, 2]
