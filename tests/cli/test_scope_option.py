"""`--scope` of every command that has it, as a shell completes it, and one that matches nothing."""

from __future__ import annotations

import json

import pytest

from awareness.cli.app import run


@pytest.fixture
def call(sample, model_folder, capfd, monkeypatch):
    monkeypatch.chdir(sample)
    monkeypatch.setenv("AWARENESS_MODEL", str(model_folder))

    def called(*line):
        code = run([*line])
        out, err = capfd.readouterr()
        return code, out, err

    assert called("index", ".", "--lazy", "--quiet")[0] == 0
    return called


@pytest.mark.parametrize("scope", ["./src", "src/", "src//", "./src/pool.py", r"src\pool.py"])
def test_search_and_ask_take_a_scope_as_it_is_typed(call, scope):
    code, out, _ = call("search", "HTTPConnectionPool", "--scope", scope, "--format", "json")
    assert (code, json.loads(out)["hits"][0]["path"]) == (0, "src/pool.py")
    code, out, err = call("ask", "HTTPConnectionPool acquire", "--scope", scope, "-n", "2", "--format", "json")
    assert code == 0, err
    assert {c["path"].split("/")[0] for c in json.loads(out)["citations"]} == {"src"}


def test_a_scope_without_a_file_is_named_with_what_is_nearest(call):
    code, out, err = call("search", "HTTPConnectionPool", "--scope", "scr/")
    assert (code, out) == (1, "")
    assert "--scope 'scr/' matches none of the 4 indexed files; the nearest: src/" in err
    code, out, err = call("search", "HTTPConnectionPool", "--scope", "scr", "--format", "json")
    assert (code, json.loads(out)["hits"]) == (1, []) and "matches none" in err
    code, out, err = call("ask", "HTTPConnectionPool", "--scope", "scr")
    assert code == 1 and "--scope 'scr' matches none of the 4 indexed files" in err


def test_a_scope_with_files_but_no_answer_is_only_nothing_found(call):
    code, _, err = call("search", "qwertzuiop", "--scope", "src")
    assert code == 1 and "nothing found for 'qwertzuiop'" in err


def test_an_index_or_pack_of_an_empty_scope_is_refused_and_nothing_changes(call, tmp_path):
    before = call("status", "--format", "json")[1]
    code, out, err = call("index", ".", "--lazy", "--scope", "scr")
    assert (code, out) == (2, "") and "--scope 'scr' matches none of the 4 files; the nearest: src/" in err
    assert call("pack", str(tmp_path / "x.awm"), "--scope", "scr")[0] == 2
    assert call("status", "--format", "json")[1] == before and not (tmp_path / "x.awm").exists()


def test_a_scope_of_the_index_does_not_depend_on_the_working_folder(call, sample, monkeypatch):
    monkeypatch.chdir(sample / "src")
    assert call("index", "..", "--lazy", "--scope", "./pool.py")[0] == 0
    monkeypatch.chdir(sample)
    (snapshot,) = json.loads(call("status", "--format", "json")[1])["snapshots"]
    assert (snapshot["scope"], snapshot["files"]) == (["/src/pool.py"], 1)
    assert call("ask", "HTTPConnectionPool", "-n", "1")[0] == 0
    assert json.loads(call("status", "--format", "json")[1])["snapshots"][0]["files"] == 1
