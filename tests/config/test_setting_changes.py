"""Two trees of settings, compared key by key."""

from __future__ import annotations

from awareness.config.setting_changes import ABSENT, changed_settings, first_lines

FIRST = {"model": {"name": "a"}, "data": {"sources": ["x"], "kinds": {"which": 1}}, "seed": 0, "losses": {}}
SECOND = {"model": {"name": "a", "dropout": 0.1}, "data": {"sources": ["x", "y"], "kinds": {"which": 1}}, "seed": 1}


def test_only_what_differs_is_named_with_both_values():
    found = {setting.key: (setting.first, setting.second) for setting in changed_settings(FIRST, SECOND)}
    assert found == {
        "data.sources": (["x"], ["x", "y"]),
        "seed": (0, 1),
        "losses": ({}, ABSENT),
        "model.dropout": (ABSENT, 0.1),
    }
    assert changed_settings(FIRST, FIRST) == []


def test_a_line_shows_values_as_yaml_has_them_and_not_too_much():
    changed = changed_settings({"a": None, "b": "x" * 200, "c": 1}, {"a": True, "b": "", "c": 2})
    assert changed[0].line == "a was null, now true"
    assert changed[1].line == f'b was "{"x" * 76}..., now ""'
    assert first_lines(changed, 1) == "a was null, now true; and 2 more"
    assert first_lines(changed[:1]) == "a was null, now true"
