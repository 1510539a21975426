"""Names that a question means without writing them so."""

from __future__ import annotations

import pytest

from awareness.index.search.known_names import _is_one_edit


@pytest.mark.parametrize(
    ("a", "b", "is_near"),
    [
        ("httpexeption", "httpexception", True),
        ("recieve", "receive", True),
        ("parse_flag", "parse_flags", True),
        ("parse_flahs", "parse_flags", True),
        ("parse_flags", "parse_flags", False),
        ("parse_flags", "parse_args", False),
        ("abcdef", "abcdefgh", False),
        ("ab", "ba", True),
    ],
)
def test_one_edit(a, b, is_near):
    assert _is_one_edit(a, b) is is_near
    assert _is_one_edit(b, a) is is_near
