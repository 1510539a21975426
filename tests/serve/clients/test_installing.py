"""`awareness install` writes what each client reads, touches nothing else, and takes it out again."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.serve.clients import jsonc, toml_tables
from awareness.serve.clients.known_clients import clients, is_ours

PROJECT = [name for name, client in clients().items() if client.project]


@pytest.fixture
def home(tmp_path, monkeypatch, sample):
    """A home folder of its own, with a program `awareness` on the PATH; the working folder is in a repository."""
    folder = tmp_path / "home"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "awareness"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "AWARENESS_INDEX_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.chdir(sample / "src")
    return folder


def files(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): path.read_text()
        for path in top.rglob("*")
        if path.is_file() and ".git/" not in str(path)
    }


def install(name: str, *options: str, roots: bool = True) -> int:
    more = ["--root", "."] if roots and not clients()[name].knows_project else []
    return run(["install", name, *more, *options])


EXPECTED = {
    "claude": (".claude.json", ("mcpServers",), {"type": "stdio", "command": "PROGRAM", "args": ["mcp"]}),
    "claude-desktop": (None, ("mcpServers",), {"command": "PROGRAM", "args": ["mcp", "--root=HERE"]}),
    "cursor": (".cursor/mcp.json", ("mcpServers",), {"command": "PROGRAM", "args": ["mcp", "${workspaceFolder}"]}),
    "vscode": (None, ("servers",), {"type": "stdio", "command": "PROGRAM", "args": ["mcp", "${workspaceFolder}"]}),
    "codex": (".codex/config.toml", ("mcp_servers",), {"command": "PROGRAM", "args": ["mcp"]}),
    "gemini": (".gemini/settings.json", ("mcpServers",), {"command": "PROGRAM", "args": ["mcp"]}),
    "zed": (".config/zed/settings.json", ("context_servers",), {"command": "PROGRAM", "args": ["mcp"]}),
    "windsurf": (
        ".codeium/windsurf/mcp_config.json",
        ("mcpServers",),
        {"command": "PROGRAM", "args": ["mcp", "--root=HERE"]},
    ),
    "opencode": (
        ".config/opencode/opencode.json",
        ("mcp",),
        {"type": "local", "command": ["PROGRAM", "mcp"], "enabled": True},
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_client_gets_what_it_reads_and_loses_it_again(name, home, sample, capfd):
    before = files(home)
    assert install(name) == 0
    path, way, entry = EXPECTED[name]
    path = path or clients()[name].user
    text = (home / path).read_text()
    value = toml_tables.parse(text) if path.endswith(".toml") else json.loads(text)
    wanted = json.dumps(entry).replace("PROGRAM", str(home / "bin/awareness")).replace("HERE", str(sample / "src"))
    assert value == {way[0]: {"awareness": json.loads(wanted)}}
    assert is_ours(value[way[0]]["awareness"])
    rules = clients()[name].user_rules
    assert rules is None or "`search` tool of `awareness`" in (home / rules.path).read_text()
    written = files(home)
    assert install(name) == 0
    assert "already there: nothing changed" in capfd.readouterr().out
    assert files(home) == written
    assert install(name, "--uninstall") == 0
    assert files(home) == before
    assert install(name, "--uninstall") == 0
    assert "nothing to remove" in capfd.readouterr().out


@pytest.mark.parametrize("name", PROJECT)
def test_a_project_has_its_own_files_at_its_top(name, home, sample):
    before, at_home = files(sample), files(home)
    assert install(name, "--project") == 0
    client = clients()[name]
    assert set(files(sample)) - set(before) == {client.project, client.project_rules.path}
    assert files(home) == at_home
    assert install(name, "--project", "--uninstall") == 0
    assert files(sample) == before


@pytest.mark.parametrize("name", EXPECTED)
def test_print_changes_nothing(name, home, capfd):
    before = files(home)
    broken = home / clients()[name].user
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("{ broken")
    assert install(name, "--print") == 0
    out = capfd.readouterr().out
    assert str(broken) in out and str(home / "bin/awareness") in out
    broken.unlink()
    assert files(home) == before


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_not_ours_stays(name, home, capfd):
    client = clients()[name]
    path = home / client.user
    path.parent.mkdir(parents=True, exist_ok=True)
    other = {"command": "/bin/other", "args": ["mcp"]}
    if client.is_toml:
        path.write_text('[mcp_servers.awareness]\ncommand = "/bin/other"\n')
    else:
        path.write_text(json.dumps({client.key: {"awareness": other}}))
    before = files(home)
    for options in ((), ("--uninstall",)):
        assert install(name, *options) == 2
        assert "a server 'awareness' that starts another program" in capfd.readouterr().err
        assert files(home) == before


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("text", ['{"a": ', "[", "\x00", '["a"]'])
def test_a_broken_file_is_left_as_it_is(name, text, home, capfd):
    path = home / clients()[name].user
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if name == "codex" and text == '["a"]':
        pytest.skip("a table, in TOML")
    before = files(home)
    assert install(name) == 2
    err = capfd.readouterr().err
    assert "is left as it is" in err and str(path) in err
    assert files(home) == before


def test_settings_with_comments_keep_every_byte(home):
    path = home / ".config/zed/settings.json"
    path.parent.mkdir(parents=True)
    servers = '  "context_servers": {\n    "x": {"command": "x",},\n  },\n'
    text = '// Zed settings\n{\n  "theme": "One Dark", // dark\n' + servers + "}\n"
    path.write_text(text)
    path.chmod(0o600)
    assert install("zed") == 0
    changed = path.read_text()
    assert "// dark" in changed and set(jsonc.parse(changed).value["context_servers"]) == {"x", "awareness"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert install("zed", "--uninstall") == 0
    assert path.read_text() == text


def test_what_the_user_added_to_our_entry_stays(home):
    assert install("codex") == 0
    path = home / ".codex/config.toml"
    path.write_text(path.read_text() + "startup_timeout_sec = 30\n\n[tui]\na = 1\n")
    (home / "bin/awareness").rename(home / "bin/old")
    (home / "bin2").mkdir()
    assert install("codex") == 0
    assert toml_tables.parse(path.read_text())["mcp_servers"]["awareness"]["startup_timeout_sec"] == 30
    assert toml_tables.parse(path.read_text())["tui"] == {"a": 1}


def test_a_linked_dotfile_stays_a_link(home, tmp_path):
    real = tmp_path / "dotfiles" / "claude.json"
    real.parent.mkdir()
    real.write_text("{}\n")
    (home / ".claude.json").symlink_to(real)
    assert install("claude") == 0
    assert (home / ".claude.json").is_symlink()
    assert "awareness" in json.loads(real.read_text())["mcpServers"]


@pytest.mark.parametrize(("name", "linked"), [("codex", "AGENTS.md"), ("claude", ".mcp.json"), ("cursor", ".cursor")])
def test_a_repository_cannot_lead_a_write_outside(name, linked, home, sample, capfd):
    outside = home / "outside"
    outside.mkdir() if linked == ".cursor" else outside.write_text("mine\n")
    (sample / linked).symlink_to(outside)
    before = files(home), files(sample)
    assert install(name, "--project") == 2
    assert "is a link out of the repository" in capfd.readouterr().err
    assert (files(home), files(sample)) == before


def test_the_users_rules_are_not_touched(home, sample):
    agents = sample / "AGENTS.md"
    agents.write_text("# Rules\n\nUse tabs.\n")
    assert install("codex", "--project") == 0
    assert agents.read_text().startswith("# Rules\n\nUse tabs.\n\n<!-- awareness:begin -->\n")
    assert install("zed", "--project") == 0
    assert agents.read_text().count("awareness:begin") == 1
    assert install("codex", "--project", "--uninstall") == 0
    assert agents.read_text() == "# Rules\n\nUse tabs.\n"


def test_a_skill_of_somebody_else_is_refused_before_anything_is_written(home, capfd):
    skill = home / ".claude/skills/awareness/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("mine\n")
    before = files(home)
    assert install("claude") == 2
    assert "was not written by awareness" in capfd.readouterr().err
    assert files(home) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(home, capfd):
    (home / ".gemini").mkdir(mode=0o500)
    assert install("gemini") == 13
    assert ".gemini" in capfd.readouterr().err


def test_a_folder_in_place_of_a_file_is_named(home, capfd):
    (home / ".claude.json").mkdir()
    assert install("claude") == 2
    assert "is a folder" in capfd.readouterr().err


def test_settings_of_this_terminal_go_with_it(home, monkeypatch):
    monkeypatch.setenv("AWARENESS_INDEX_DIR", "/data/indexes")
    assert install("opencode") == 0
    entry = json.loads((home / ".config/opencode/opencode.json").read_text())["mcp"]["awareness"]
    assert entry["environment"] == {"AWARENESS_INDEX_DIR": "/data/indexes"}


def test_the_newer_form_of_opencode_is_kept(home):
    path = home / ".config/opencode/opencode.jsonc"
    path.parent.mkdir(parents=True)
    path.write_text('{\n  "mcp": {\n    "servers": {}\n  }\n}\n')
    assert install("opencode") == 0
    assert list(json.loads(path.read_text())["mcp"]["servers"]) == ["awareness"]


def test_wrong_usage_is_named(home, tmp_path, monkeypatch, capfd):
    assert install("windsurf", roots=False) == 2
    assert "awareness install windsurf --root FOLDER" in capfd.readouterr().err
    assert install("windsurf", "--project") == 2
    assert run(["install", "emacs"]) == 2
    assert "one of claude, claude-desktop, cursor" in capfd.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert install("claude", "--project") == 2
    assert "is in no git repository" in capfd.readouterr().err
