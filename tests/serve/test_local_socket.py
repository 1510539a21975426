"""The folder in which a server is found: private, or not used; and what a killed server leaves there."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from awareness.serve import local_socket
from awareness.serve.local_socket import LocalEntry, connect, is_same_user, remove_stale, runtime_folder, sockets


@pytest.fixture
def runtime(monkeypatch):
    """A short path: that of a socket is limited."""
    folder = Path(tempfile.mkdtemp(prefix="aw-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    yield folder / "awareness"
    shutil.rmtree(folder)


def test_the_folder_is_made_for_this_user_alone(runtime):
    assert runtime_folder(make=False) is None and not runtime.exists()
    assert runtime_folder() == runtime
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert runtime_folder(make=False) == runtime


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_not_used(runtime, mode):
    runtime.mkdir(mode=0o700)
    runtime.chmod(mode)
    assert runtime_folder() == runtime.parent / "cache" / "awareness" / "run"


def test_a_link_and_a_file_in_its_place_are_not_used(runtime):
    elsewhere = runtime.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    runtime.symlink_to(elsewhere)
    assert runtime_folder() == runtime.parent / "cache" / "awareness" / "run"
    runtime.unlink()
    runtime.write_text("")
    assert runtime_folder() == runtime.parent / "cache" / "awareness" / "run"


def test_a_folder_of_another_user_is_not_used(runtime, monkeypatch):
    assert runtime_folder() == runtime
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert runtime_folder(make=False) is None


def test_a_path_that_is_too_long_for_a_socket_is_not_used(runtime, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime.parent / ("x" * 100)))
    assert runtime_folder() == runtime.parent / "cache" / "awareness" / "run"


def test_socket_and_token_are_for_this_user_and_go_with_the_server(runtime):
    folder = runtime_folder()
    entry = LocalEntry(folder, 1234)
    listening = entry.open("secret")
    assert entry.token_path.read_text() == "secret\n"
    for path in (entry.socket_path, entry.token_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sockets(folder) == [entry.socket_path]
    connection = connect(entry.socket_path)
    assert connection is not None and is_same_user(connection)
    connection.close()
    listening.close()
    entry.close()
    assert list(folder.iterdir()) == []


def test_what_a_killed_server_left_is_removed(runtime):
    folder = runtime_folder()
    killed, alive = LocalEntry(folder, 1), LocalEntry(folder, 2)
    killed.open("one").close()
    listening = alive.open("two")  # which removes the other's
    assert sockets(folder) == [alive.socket_path] and not killed.token_path.exists()
    assert remove_stale(folder) == []
    again = LocalEntry(folder, 2)
    replaced = again.open("three")
    alive.close()  # is not its own any more
    assert again.token_path.read_text() == "three\n" and again.socket_path.exists()
    for one in (listening, replaced):
        one.close()


@pytest.mark.parametrize("name", ["serve-1.sock.old", "serve-x.sock", "other.sock", "serve-1.token"])
def test_other_names_are_no_servers(runtime, name):
    (runtime_folder() / name).write_text("")
    assert sockets(runtime) == []


def test_a_socket_that_others_may_use_and_a_link_are_no_servers(runtime):
    folder = runtime_folder()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "serve-1.sock"))
        os.chmod(folder / "serve-1.sock", 0o666)
        (folder / "serve-2.sock").symlink_to(folder / "serve-1.sock")
        (folder / "serve-3.sock").write_text("")
        assert sockets(folder) == []


def test_another_user_at_the_other_end_is_seen(monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_same_user(ours)
        monkeypatch.setattr(local_socket.os, "geteuid", lambda: 12345)
        assert not is_same_user(ours)
