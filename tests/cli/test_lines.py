"""Progress where there is no terminal: what, how far, how long still, in few lines."""

from __future__ import annotations

import io
import itertools
import re
import time

import pytest
from rich.console import Console

from awareness.cli import render
from awareness.cli.bar import shown
from awareness.cli.lines import _Lines, lines
from awareness.cli.streams import ReaderGone


def test_a_known_and_an_unknown_total():
    said = []
    with lines(said.append, lambda: 0.0) as move:
        move("encoding", 0, 1000)
        move("encoding", 250, 1000)
        move("encoding", 1000, 1000)
        move("downloading x", 0, None)
        move("downloading x", 3 << 20, None)
        move("reading", 5, 5)
    by_call = [line for line in said if "encoding: 1,000" not in line and "reading" not in line]
    assert "encoding: 0 tokens of 1,000 tokens, 1 s so far" in by_call
    assert "encoding: 250 tokens of 1,000 tokens, about 1 s for the rest" in by_call
    assert "downloading x: 1 s so far" in by_call and "downloading x: 3.0 MiB so far, 1 s" in by_call


def test_what_changes_meanwhile_is_shown_and_the_time_goes_on():
    said = []
    with lines(said.append, lambda: 0.0) as move:
        move("training · loss 2.5", 0, 100)
        time.sleep(1.1)
        move("training · loss 1.5", 25, 100)
        move("validating", 0, 10)
    assert "training · loss 1.5: 25 of 100, about 3 s for the rest" in said
    assert "validating: 0 of 10, 1 s so far" in said


def test_lines_of_a_long_activity_get_rarer(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("awareness.cli.lines.time.monotonic", lambda: now[0])
    said = []
    shown_as = _Lines(said.append, lambda: 5.0)
    shown_as.ended.set()  # no line by the clock
    times = []
    for second in range(7200):
        now[0] = 1000.0 + second
        before = len(said)
        shown_as.move("training", second, 7200)
        if len(said) > before:
            times.append(second)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == sorted(gaps) and gaps[0] == 5 and gaps[-1] == 60 and len(gaps) < 180


def test_a_bar_keeps_its_time_where_only_what_it_shows_changes():
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120)
    with shown(console) as move:
        move("training · loss 2.5", 0, 100)
        time.sleep(0.2)
        move("training · loss 1.5", 25, 100)
        time.sleep(0.2)
        move("training · loss 0.5", 50, 100)
        time.sleep(0.2)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn.getvalue())
    assert "loss 2.5" in text and "loss 0.5" in text and "50 of 100" in text
    assert re.search(
        r"loss 0\.5.* 50 of 100 .*\d+/s.* 0:00:0\d", text
    )  # one task, so its speed and time left are known


def test_a_line_comes_though_nothing_moves_and_none_after_the_end():
    said = []
    with lines(said.append, lambda: 0.1) as move:
        move("loading m", 0, None)
        time.sleep(1.0)
    count = len(said)
    assert 3 <= count <= 11 and set(said) == {"loading m: 1 s so far"}
    time.sleep(0.3)
    assert len(said) == count


def test_no_more_lines_than_one_a_while_however_many_activities_there_are():
    said = []
    with lines(said.append, lambda: 0.2) as move:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            for i in range(50):
                move(f"activity {i}", i, 100)
            time.sleep(0.01)
    assert 2 <= len(said) <= 6


def test_a_reader_that_goes_ends_the_work():
    def say(_: str) -> None:
        raise ReaderGone

    with pytest.raises(ReaderGone), lines(say, lambda: 0.05) as move:
        move("loading m", 0, None)
        time.sleep(0.5)
    with pytest.raises(ReaderGone), lines(say, lambda: 0.0) as move:
        move("loading m", 0, None)


def test_quiet_says_nothing(monkeypatch, capfd):
    monkeypatch.setattr(render, "LINE_S", 0.0)
    render.set_volume(quiet=True)
    try:
        with render.progress() as move:
            move("encoding", 1, 10)
    finally:
        render.set_volume(quiet=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("setting", [("FORCE_COLOR", "1"), ("CI", "1"), ("TTY_COMPATIBLE", "1"), ("NO_COLOR", "1")])
def test_a_pipe_gets_plain_lines_whatever_the_environment_says(setting, monkeypatch, capfd):
    monkeypatch.setenv(*setting)
    monkeypatch.setattr(render, "_err", render._Console(stderr=True, highlight=False, no_color=True))
    monkeypatch.setattr(render, "LINE_S", 0.0)
    with render.progress() as move:
        move("encoding", 1, 10)
    err = capfd.readouterr().err
    assert "encoding: 1 tokens of 10 tokens" in err and "\x1b[2K" not in err and "⠋" not in err
