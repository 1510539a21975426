"""Lines that define a name, told by their words."""

from __future__ import annotations

import pytest

from awareness.index.search.defining_lines import defines, defines_plainly


@pytest.mark.parametrize(
    ("line", "is_definition"),
    [
        ("error Shortfall(address owner);", True),
        ("  fault Shortfall(owner)", True),
        ("contract Shortfall is Base", True),
        ("revert Shortfall(owner);", False),
        ("// error Shortfall(address owner)", False),
        ("the Shortfall is", False),
        ("x = Shortfall(1)", False),
    ],
)
def test_lines_that_define_where_there_is_no_grammar(line, is_definition):
    assert defines(f"a\n{line}\nb", "shortfall", guess=True) is is_definition


def test_without_a_guess_only_known_words_define():
    assert not defines("fault Shortfall(owner)", "shortfall", guess=False)
    assert defines("error Shortfall(owner)", "shortfall", guess=False)


@pytest.mark.parametrize(
    ("line", "is_definition"),
    [
        ("class Blueprint(Base):", True),
        ("    def Blueprint(self):", True),
        ("export default class Blueprint {", True),
        ("func (a *App) Blueprint() {", True),
        ("pub(crate) struct Blueprint;", True),
        ("public static final class Blueprint {", True),
        ("#define Blueprint 1", True),
        ("class BlueprintGroup(Base):", False),
        ("class blueprint:", False),
        ("the type Blueprint is public", False),
        ("x = Blueprint()", False),
        ("def group(*blueprints: Blueprint):", False),
    ],
)
def test_plain_definitions_begin_their_line(line, is_definition):
    assert defines_plainly(f"a\n{line}\nb", "Blueprint") is is_definition
