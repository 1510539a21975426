"""The chat, line by line as in a pipe: follow-ups, commands, files it writes, and hostile input."""

from __future__ import annotations

import io
import os
import re
import signal
import stat

import pytest

from awareness.cli import chatting as chatting_module
from awareness.cli import editors
from awareness.cli.app import run
from awareness.cli.chat_commands import COMMANDS, completions, parsed
from awareness.cli.chatting import _ctrl_c
from awareness.cli.talk_page import _code
from awareness.cli.typed_lines import matches, private_file
from awareness.engine.indexed_names import IndexedNames
from awareness.errors import StorageFailed, UsageError
from tests.conftest import write_tree


@pytest.fixture
def chat(sample, brief_model, capfd, monkeypatch):
    """Types lines into a chat about the sample; returns (exit code, stdout, stderr)."""

    def typed(*lines, options=(), data=None):
        text = "".join(f"{line}\n" for line in lines).encode() if data is None else data
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
        code = run(["chat", str(sample), "--model", str(brief_model), *options])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return typed


def test_a_talk(chat):
    code, out, err = chat("sign_cookie of Session", "", "and where is it tested?", "/sources", "/quit", "never read")
    assert code == 0
    assert "> sign_cookie of Session\n" in out and "> and where is it tested?\n" in out
    assert "[1] " in out.partition("> /sources")[2]
    assert "never read" not in out
    assert "error" not in err


def test_a_chat_without_a_line_ends_well(chat):
    assert chat()[0] == 0


def test_what_nothing_answers_is_refused_and_the_chat_goes_on(chat):
    code, out, _ = chat("quantum banana pudding", "/search sign_cookie")
    assert code == 0
    assert "seems to answer 'quantum banana pudding'" in out
    assert "src/auth.py" in out.partition("> /search")[2]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("/foo", "there is no command /foo", "/help"),
        ("/open 1", "nothing is numbered yet", "/search WORDS"),
        ("/sources", "there is no answer yet", "ask something"),
        ("/save", "into which file?", "/save talk.md"),
        ("/save x.md", "there is no answer yet that could be saved", "ask something"),
        ("/search", "for what?", "/search session cookie"),
        ("/scope nowhere/**", "nowhere/**", "/scope all"),
        ("/scope 'src", "cannot be read: No closing quotation", "a second quotation mark"),
        ("/model no-such-model", "no-such-model", "models"),
    ],
)
def test_bad_input_gets_one_line_that_names_it(chat, line, message, hint):
    code, _, err = chat(line, "/help")
    assert code == 0
    errors = [row for row in err.splitlines() if row.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert hint in err


def test_every_command_exists_and_is_in_the_help(chat):
    code, out, _ = chat("/help")
    assert code == 0
    for name in COMMANDS:
        assert hasattr(chatting_module.Chatting, f"_do_{name}")
        assert f"/{name}" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_scope_is_kept_until_it_is_ended(chat):
    _, out, _ = chat("/scope docs", "/search cookie", "/scope all", "/search sign_cookie", "/scope")
    inside, _, after = out.partition("> /scope all")
    assert "docs/guide.md" in inside and "src/auth.py" not in inside
    assert "src/auth.py" in after
    assert after.endswith("scope: all of this repository\n")


def test_open_runs_the_editor_with_the_line_and_without_a_shell(chat, sample, tmp_path, monkeypatch):
    editor = tmp_path / "an editor"
    editor.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> "{tmp_path}/opened"\n')
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{editor}' --flag ; touch {tmp_path}/shell")
    code, out, err = chat("/search sign_cookie", "/open 1")
    assert (code, "error" in err) == (0, False)
    path, line = re.search(r"\[1\] (\S+):(\d+)-", out).groups()
    opened = (tmp_path / "opened").read_text().split("|")
    assert opened[:4] == ["--flag", ";", "touch", f"{tmp_path}/shell"]
    assert opened[4:6] == [f"+{line}", str(sample / path)]
    assert not (tmp_path / "shell").exists()


@pytest.mark.parametrize(
    ("editor", "expected"),
    [
        ("vim", ["vim", "+7", "{}"]),
        ("nvim -R", ["nvim", "-R", "+7", "{}"]),
        ("/usr/bin/nano", ["/usr/bin/nano", "+7", "{}"]),
        ("emacsclient -t", ["emacsclient", "-t", "+7", "{}"]),
        ("code --wait", ["code", "--wait", "-g", "{}:7"]),
        ("subl", ["subl", "{}:7"]),
        ("hx", ["hx", "{}:7"]),
        ("pycharm", ["pycharm", "--line", "7", "{}"]),
        ("unheard-of", ["unheard-of", "+7", "{}"]),
    ],
)
def test_each_editor_is_told_the_line_in_its_own_way(tmp_path, editor, expected):
    file = tmp_path / "-a file;$(x).py"
    words = editors.editor_of({"EDITOR": editor})
    assert editors.command(words, file, 7) == [word.format(file) for word in expected]


def test_visual_wins_and_an_empty_one_does_not():
    assert editors.editor_of({"VISUAL": "nvim", "EDITOR": "ed"}) == ["nvim"]
    assert editors.editor_of({"VISUAL": " ", "EDITOR": "ed"}) == ["ed"]
    with pytest.raises(UsageError, match="neither VISUAL nor EDITOR"):
        editors.editor_of({})
    with pytest.raises(UsageError, match="cannot be read"):
        editors.editor_of({"EDITOR": "vi 'm"})


@pytest.mark.parametrize(("editor", "message"), [("no-such-editor-x", "cannot be started"), ("false", "exit code 1")])
def test_an_editor_that_fails_is_one_line(chat, monkeypatch, editor, message):
    monkeypatch.setenv("VISUAL", editor)
    code, _, err = chat("/search sign_cookie", "/open 1")
    assert code == 0 and f"the editor '{editor}'" in err and message in err


def test_a_file_that_leads_out_of_the_repository_is_not_opened(chat, sample, tmp_path, monkeypatch):
    monkeypatch.setenv("VISUAL", "false")
    outside = tmp_path / "outside.py"
    outside.write_text("secret\n")
    listing = chatting_module.Chatting._list

    def swapped(self, hits):
        listing(self, hits)
        file = sample / hits[0].chunk.path
        file.unlink()
        file.symlink_to(outside)

    monkeypatch.setattr(chatting_module.Chatting, "_list", swapped)
    _, _, err = chat("/search sign_cookie", "/open 1")
    assert "is not a file of a work tree" in err and "editor" not in err


def test_save_writes_markdown_and_overwrites_nothing_else(chat, tmp_path):
    other = tmp_path / "other.md"
    other.write_text("mine")
    talk = tmp_path / "talk.md"
    code, out, err = chat("sign_cookie of Session", f"/save {other}", f"/save {talk}", f"/save '{talk}'")
    assert code == 0
    assert other.read_text() == "mine" and f"{other} exists already" in err
    written = talk.read_text()
    assert written.startswith("## sign_cookie of Session\n")
    assert re.search(r"\n- \[\d\] `\S+:\d+", written)
    assert out.count("saved 1 answers in") == 2


def test_backticks_in_a_name_stay_in_the_code():
    assert _code("a`b") == "``a`b``"
    assert _code("`") == "`` ` ``"


def test_clear_forgets(chat):
    _, out, err = chat("sign_cookie of Session", "/clear", "and who uses it?", "/sources")
    assert "forgotten" in out
    assert "there is no answer yet" in err


def test_long_answers_are_switched_on_and_off(chat):
    _, out, _ = chat("/long", "/long")
    assert out.endswith("> /long\nanswers: long\n> /long\nanswers: short\n")


def test_bytes_that_are_no_text_and_very_long_lines_do_not_end_it(chat):
    data = b"\xff\xfe sign_cookie \x1b[31m\n" + b"a" * 50_000 + b"\n\x00\n/search sign_cookie\n"
    code, out, err = chat(data=data)
    assert code == 0
    assert "\x1b" not in out + err
    assert "src/auth.py" in out.rpartition("> /search")[2]


def test_hostile_file_names_reach_no_terminal(chat, sample):
    write_tree(sample, {"src/a\x1b[31m\nb.py": "def hostile_name():\n    return 1\n"})
    _, out, _ = chat("/search hostile_name")
    assert "\x1b" not in out and "src/a\\x1b[31m\\nb.py:1-2" in out


def test_a_changed_file_is_found_without_leaving(chat, sample, monkeypatch):
    def change(self, argument):
        write_tree(sample, {"src/new.py": "def brand_new_function():\n    return 1\n"})

    monkeypatch.setattr(chatting_module.Chatting, "_do_long", change)
    _, out, _ = chat("/search brand_new_function", "/long", "/search brand_new_function")
    before, _, after = out.partition("> /long")
    assert "src/new.py" not in before and "src/new.py" in after


def test_the_model_is_shown_and_changed(chat, brief_model):
    _, out, err = chat("/model", f"/model {brief_model}", "sign_cookie of Session")
    assert out.count(f"model: {brief_model}, joint, no adapter") == 2
    assert re.search(r"\n  \[\d\] \S+:\d+", out) and "error" not in err


def test_a_pack_is_talked_about_but_not_opened(sample, model_folder, tmp_path, chat, capfd, monkeypatch):
    pack = tmp_path / "sample.awm"
    assert run(["pack", str(pack), "--repo", str(sample), "--model", str(model_folder)]) == 0
    capfd.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("/search sign_cookie\n/open 1\n"))
    assert run(["chat", str(pack)]) == 0
    captured = capfd.readouterr()
    assert "src/auth.py" in captured.out and "is not a file of a work tree" in captured.err


@pytest.mark.parametrize(
    "line", ["/api/users: who serves it?", " /help me with this", "/etc/passwd", "what?", "//", "/Upper", "/ x"]
)
def test_a_question_may_begin_with_a_slash(line):
    assert parsed(line) is None


def test_commands_have_short_names():
    assert parsed("/q") == parsed("/exit") == ("quit", "")
    assert parsed("/?") == ("help", "")
    assert parsed("/scope  'a b' c ") == ("scope", "'a b' c")


NAMES = IndexedNames(("docs/guide.md", "src/auth.py"), ("Session", "Session.sign_cookie", "sign"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/s", ("/s", ["/sources", "/search", "/scope", "/save"])),
        ("who calls Sess", ("Sess", ["Session", "Session.sign_cookie"])),
        ("who calls cookie", ("cookie", ["Session.sign_cookie"])),
        ("what is in src/au", ("src/au", ["src/auth.py"])),
        ("/scope do", ("do", ["docs/", "docs/guide.md"])),
        ("/model qw", ("qw", ["qwen"])),
        ("/save sr", ("sr", [])),
        ("", ("", [])),
        ("who ", ("", [])),
    ],
)
def test_names_and_commands_are_completed(line, expected):
    assert completions(line, NAMES, ["qwen", "smol"]) == expected


def test_names_that_begin_alike_come_first():
    assert matches("re", ["are", "re", "Redo"]) == ["re", "Redo", "are"]
    assert matches("r", ["are", "re"]) == ["re"]


def test_unprintable_names_are_not_completed(sample, model_folder):
    from awareness.engine.engine import Engine

    write_tree(sample, {"src/a\x1b.py": "def plain():\n    return 1\n"})
    with Engine.open(sample, model=str(model_folder)) as engine:
        engine.refresh()
        names = engine.indexed_names()
    assert "src/auth.py" in names.paths and "Session" in names.symbols
    assert all(name.isprintable() for name in (*names.paths, *names.symbols))


def test_the_history_is_private(tmp_path):
    file = private_file(tmp_path / "state" / "history")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.write_text("kept")
    file.chmod(0o644)
    assert private_file(file).read_text() == "kept"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_history_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "history").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed):
        private_file(tmp_path / "history")
    assert not (tmp_path / "elsewhere").exists()


def test_ctrl_c_ends_the_answer_and_a_second_one_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _ctrl_c() as is_cancelled:
        assert not is_cancelled()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_cancelled()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
