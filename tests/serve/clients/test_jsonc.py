"""One member of a JSON file with comments goes in and comes out again, and every other byte stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.serve.clients.jsonc import parse, with_member, without_member

WAY = ("mcpServers", "awareness")
ENTRY = {"command": "/usr/bin/awareness", "args": ["mcp"]}

FILES = {
    "empty object": "{}\n",
    "one line": '{"theme": "dark"}',
    "two spaces": '{\n  "theme": "dark"\n}\n',
    "four spaces": '{\n    "theme": "dark",\n    "font": {\n        "size": 12\n    }\n}\n',
    "tabs": '{\n\t"theme": "dark"\n}\n',
    "windows": '{\r\n  "theme": "dark"\r\n}\r\n',
    "other servers": '{\n  "mcpServers": {\n    "other": {\n      "command": "x"\n    }\n  }\n}\n',
    "comments": (
        '// my settings\n{\n  // the theme\n  "theme": "dark", // dark\n  /* servers */\n  "mcpServers": {\n'
        '    "other": {"command": "x"} // one, of "two"\n    // "gone": {}\n  } // the end\n}\n// done\n'
    ),
    "trailing commas": '{\n  "mcpServers": {\n    "other": {"command": "x",}, // note\n  },\n}\n',
    "only a comment": "{\n  // nothing yet\n}\n",
    "strings like code": '{\n  "a": "// no { comment",\n  "b": "/* \\" */ }"\n}\n',
    "byte order mark": '\ufeff{\n  "a": 1\n}\n',
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_member_goes_in_and_out(text):
    changed = with_member(text, WAY, ENTRY)
    before, after = parse(text).value, parse(changed).value
    assert after["mcpServers"]["awareness"] == ENTRY
    assert {**after, "mcpServers": before.get("mcpServers")} == {**before, "mcpServers": before.get("mcpServers")}
    assert without_member(changed, WAY) == text
    assert with_member(changed, WAY, ENTRY) == changed


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_no_comment_is_lost(text):
    changed = with_member(text, WAY, ENTRY)
    for comment in ("// my settings", "// the theme", "// dark", "/* servers */", "// done", "// note", "// the end"):
        assert changed.count(comment) == text.count(comment)
    assert ("\r\n" in text) == ("\r\n" in changed)
    assert "\r\n" not in text or changed.count("\n") == changed.count("\r\n")


def test_it_follows_the_indentation():
    assert with_member('{\n\t"a": 1\n}\n', ("s", "n"), {"x": [1]}) == (
        '{\n\t"a": 1,\n\t"s": {\n\t\t"n": {\n\t\t\t"x": [\n\t\t\t\t1\n\t\t\t]\n\t\t}\n\t}\n}\n'
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=6), VALUES, max_size=4),
    st.sampled_from([None, 0, 2, 4, "\t"]),
    st.sampled_from(["", "\n"]),
    st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda key: key != "awareness"), VALUES, max_size=3),
)
def test_any_file_goes_in_and_out(root, indent, end, servers):
    root = {key: value for key, value in root.items() if key != "mcpServers"}
    if servers:
        root["mcpServers"] = servers
    text = json.dumps(root, indent=indent, ensure_ascii=False) + end
    changed = with_member(text, WAY, ENTRY)
    assert parse(changed).value == {**root, "mcpServers": {**servers, "awareness": ENTRY}}
    assert without_member(changed, WAY) == text


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{]",
        '{"a" 1}',
        '{"a": }',
        '{"a": 1 "b": 2}',
        "{'a': 1}",
        "{a: 1}",
        '{"a": 1}}',
        "{,}",
        '{"a": 1,,}',
        "[1,,]",
        "[" * 5000,
        '{"a": "\n"}',
        "nul",
        '{"a": /* 1}',
        "\0",
        '"\\x"',
    ],
)
def test_a_broken_file_is_an_error(text):
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize("text", ["[]", "1", '{"mcpServers": []}', '{"mcpServers": "x"}'])
def test_nothing_goes_into_what_is_no_object(text):
    with pytest.raises(ValueError, match="is not an object"):
        with_member(text, WAY, ENTRY)
