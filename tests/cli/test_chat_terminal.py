"""The chat in a terminal: a real one (pty) of 80 columns, with and without its abilities."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import time

import pytest

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

PATIENCE_S = 120
PROMPT = ">"
"""Its space may be a movement of the cursor."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78]|\][^\x07]*\x07)")


class Terminal:
    """A chat that runs in a pseudo terminal."""

    def __init__(self, arguments, **variables):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        command = [sys.executable, "-m", "awareness.cli.app", "chat", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **variables}, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE_S
        while text not in _ESCAPES.sub("", self.seen):
            assert time.monotonic() < deadline, self.seen
            ready, _, _ = select.select([self.master], [], [], 1)
            if ready:
                try:
                    read = os.read(self.master, 4096)
                except OSError:  # the program has ended
                    break
                self.seen += read.decode("utf-8", "replace")
                if "\x1b[6n" in self.seen:  # where is the cursor?
                    self.seen = self.seen.replace("\x1b[6n", "")
                    os.write(self.master, b"\x1b[1;1R")
        seen, self.seen = self.seen, ""
        assert text in _ESCAPES.sub("", seen), seen
        return seen

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        """Types Ctrl-D until the program has ended: one that comes before it reads the terminal itself is lost."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.type("\x04")
                if select.select([self.master], [], [], 1)[0]:
                    os.read(self.master, 4096)
        self.process.wait(1)
        os.close(self.master)
        return self.process.returncode


@pytest.fixture
def terminal(sample, brief_model, tmp_path):
    started = []

    def open_it(*options, **variables):
        state = {"XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm-256color", **variables}
        started.append(Terminal([sample, "--model", brief_model, *options], **state))
        return started[-1]

    yield open_it
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=["colour", "dumb", "no colour"])
def test_a_talk_in_a_terminal(terminal, tmp_path, variables):
    chat = terminal(**variables)
    chat.wait_for(PROMPT)
    chat.type("/search sign_cookie\r")
    chat.wait_for("src/auth.py")
    chat.type("sign_cookie of Session\r")
    answer = chat.wait_for("  [")
    if "TERM" in variables:
        assert "\x1b" not in answer
    if "NO_COLOR" in variables:
        assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])(?:;\d+)*m", answer)
    chat.wait_for(PROMPT)
    chat.type("\x04")
    assert chat.end() == 0
    if "TERM" in variables:
        return
    history = tmp_path / "state" / "awareness" / "chat_history"
    assert "sign_cookie of Session" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_ctrl_c_ends_the_answer_and_not_the_chat(terminal):
    chat = terminal("--no-history", "--long")
    chat.wait_for(PROMPT)
    chat.type("sign_cookie of Session\r")
    chat.wait_for("sign_cookie of Session")
    time.sleep(1)
    os.kill(chat.process.pid, signal.SIGINT)
    chat.type("\x15/help\r")
    chat.wait_for("/sources")
    chat.wait_for(PROMPT)
    chat.type("\x04")
    assert chat.end() == 0


def test_tab_completes_and_no_history_keeps_nothing(terminal, tmp_path):
    chat = terminal("--no-history")
    chat.wait_for(PROMPT)
    chat.type("/he\t")
    chat.wait_for("/help")
    chat.type("\r")
    chat.wait_for("/sources")
    chat.wait_for(PROMPT)
    chat.type("/quit\r")
    assert chat.end() == 0
    assert not (tmp_path / "state").exists()
