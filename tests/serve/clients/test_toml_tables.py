"""One table of Codex's TOML file goes in and comes out again, and every other byte stays."""

from __future__ import annotations

import pytest

from awareness.serve.clients.toml_tables import parse, with_table, without_table

WAY = ("mcp_servers", "awareness")
ENTRY = {"command": "/usr/bin/awareness", "args": ["mcp"], "env": {"AWARENESS_MODEL": 'a "b" \\ c'}}

FILES = {
    "empty": "",
    "settings": 'model = "gpt-5"\n# mine\n\n[tui]\ntheme = "dark" # dark\n',
    "other server": '[mcp_servers.other]\ncommand = "x"\nargs = []\n\n[mcp_servers.other.env]\nA = "1"\n',
    "windows": 'model = "x"\r\n\r\n[tui]\r\na = 1\r\n',
    "blank lines at the end": "a = 1\n\n\n",
    "header in a string": 'a = """\n[mcp_servers.awareness]\n"""\n',
    "dotted": 'mcp_servers.other.command = "x"\n[z]\nb = 1\n',
    "comment of the next table": '[mcp_servers.other]\ncommand = "x"\n\n# of tui\n[tui]\na = 1\n',
    "comment at the end": "a = 1\n\n[b]\nc = 2\n# the end\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_table_goes_in_and_out(text):
    changed = with_table(text, WAY, ENTRY)
    assert changed.startswith(text)
    assert parse(changed)["mcp_servers"]["awareness"] == ENTRY
    assert with_table(changed, WAY, ENTRY) == changed
    assert without_table(changed, WAY) == text


def test_a_file_without_a_last_line_break_gets_one():
    assert without_table(with_table("a = 1", WAY, ENTRY), WAY) == "a = 1\n"


def test_what_follows_stays():
    ours = '[mcp_servers."awareness"] # ours\ncommand = "x"\n\n[ mcp_servers . awareness . env ]\nA = "1"\n\n'
    text = f"{ours}# z\n[z]\na = 1\n"
    assert without_table(text, WAY) == "# z\n[z]\na = 1\n"
    changed = with_table(text, WAY, ENTRY)
    assert parse(changed) == {"z": {"a": 1}, "mcp_servers": {"awareness": ENTRY}}


@pytest.mark.parametrize(
    "text",
    ['mcp_servers = { awareness = { command = "x" } }\n', 'mcp_servers.awareness.command = "x"\n', "a = \n", "[a\n"],
)
def test_other_forms_and_broken_files_are_refused(text):
    for change in (lambda: with_table(text, WAY, ENTRY), lambda: without_table(text, WAY)):
        with pytest.raises(ValueError):
            change()


def test_an_inline_table_of_others_is_refused():
    with pytest.raises(ValueError):
        with_table('mcp_servers = { other = { command = "x" } }\n', WAY, ENTRY)
