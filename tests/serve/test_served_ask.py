"""`awareness ask` uses a running server by itself, says the same, and does without one where it has to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from awareness.cli.app import run
from awareness.serve import server_client
from tests.serve.conftest import PROGRAM, QUESTION, events, eventually


@pytest.fixture
def asked(server, monkeypatch, capfd):
    """Runs `ask` in this process, in the folder and with the settings of the server."""
    for name in ("AWARENESS_INDEX_DIR", "AWARENESS_MODEL", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, server.environment[name])
    monkeypatch.chdir(server.repo)

    def ask(*options, question=QUESTION):
        code = run(["ask", question, "-n", "4", *options])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return ask


@pytest.fixture
def no_engine(monkeypatch):
    """Fails where this process would answer itself."""

    def refuse(*_, **__):
        raise AssertionError("an own process")

    monkeypatch.setattr("awareness.engine.engine.Engine.__init__", refuse)


def test_the_server_says_what_an_own_process_says(asked):
    served, own = asked(), asked("--no-server")
    assert served[0] == own[0] == 0
    assert "\nSources\n" in served[1] and "\nSources\n" in own[1]
    left, right = (json.loads(asked("--format", "json", *more)[1]) for more in ((), ("--no-server",)))
    assert list(left) == list(right)
    for name in ("question", "mode", "model", "weights", "cut"):
        assert left[name] == right[name]
    for name in ("path", "start_line", "end_line", "verified"):
        assert [one[name] for one in left["citations"]] == [one[name] for one in right["citations"]]
    assert left["memory"]["tokens"] == right["memory"]["tokens"]


def test_a_refusal_is_the_same(asked):
    for options in ((), ("--format", "json")):
        served, own = (asked(*options, *more, question="zebra qwertzuiop") for more in ((), ("--no-server",)))
        assert served[0] == own[0] == 1 and served[2] == own[2]
        if options:
            left, right = json.loads(served[1]), json.loads(own[1])
            left.pop("timings"), right.pop("timings")
            assert left == right
        else:
            assert served[1] == own[1]


@pytest.mark.parametrize(
    "options",
    [
        ("--repo", "."),
        ("--scope", "src"),
        ("--scope", "./src/pool.py"),
        ("--top-k", "2", "--long"),
        ("--temperature", "2", "--seed", "3", "--top-p", "0.9", "--sampling-top-k", "5"),
        ("--recompute", "0.2", "--read-chunks", "1"),
    ],
    ids=" ".join,
)
def test_these_options_reach_the_server(asked, no_engine, options):
    assert asked(*options)[0] == 0


def test_a_folder_inside_means_the_repository_around_it(asked, no_engine, server, monkeypatch):
    monkeypatch.chdir(server.repo / "src")
    code, out, _ = asked("--scope", "./pool.py", "--format", "json")
    assert code == 0
    assert {citation["path"] for citation in json.loads(out)["citations"]} == {"src/pool.py"}


@pytest.mark.parametrize(
    "options",
    [
        ("--no-server",),
        ("--rev", "HEAD"),
        ("--repo", "src"),
        ("--repo", ".", "--repo", "src"),
        ("--model", "other-model"),
        ("--adapter", "none"),
        ("--mode", "text"),
        ("--weights", "int8"),
        ("--budget", "1GiB"),
    ],
    ids=" ".join,
)
def test_these_need_an_own_process(asked, no_engine, options):
    with pytest.raises(AssertionError, match="an own process"):
        code, _, err = asked(*options)
        raise AssertionError("an own process" if code == 70 and "an own process" in err else err)


@pytest.mark.parametrize("name", ["AWARENESS_INDEX_DIR", "AWARENESS_MODEL"])
def test_other_settings_need_an_own_process(asked, no_engine, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, str(tmp_path))
    code, _, err = asked()
    assert code == 70 and "an own process" in err


def test_another_version_needs_an_own_process(asked, no_engine, monkeypatch):
    monkeypatch.setattr(server_client, "__version__", "0.0.0")
    code, _, err = asked()
    assert code == 70 and "an own process" in err


def test_another_repository_needs_an_own_process(asked, no_engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = asked()
    assert code == 70 and "an own process" in err


def test_what_the_server_refuses_is_refused(asked, no_engine):
    code, out, err = asked("--read-chunks", "1", "--scope", "nowhere/**")
    assert (code, out) == (1, "\n") or code == 1
    assert "matches none of" in err


def test_neither_torch_nor_the_server_is_imported(server):
    code = (
        "import sys; from awareness.cli.app import run\n"
        f"code = run(['ask', {QUESTION!r}, '-n', '4'])\n"
        "names = ('torch', 'transformers', 'numpy', 'fastapi', 'uvicorn', 'apsw', 'awareness.engine.engine')\n"
        "assert code == 0 and not [name for name in names if name in sys.modules], sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=server.repo, env=server.environment, check=True, timeout=120)


def test_a_reader_that_leaves_cancels_the_question(server, http):
    def is_busy():
        with http.stream("POST", "/ask", json={"question": QUESTION, "max_new_tokens": 1}) as response:
            return json.loads(next(events(response))[1])["position"] == 1

    process = subprocess.Popen(
        [*PROGRAM, "ask", QUESTION, "--long", "-n", "3000"],
        cwd=server.repo,
        env=server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(is_busy) and process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: not is_busy(), seconds=20)  # the whole answer takes longer
