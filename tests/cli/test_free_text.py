"""Questions that begin with a dash, are empty or are not quoted."""

from __future__ import annotations

import json

import pytest

from awareness.cli.app import run
from tests.conftest import write_tree


@pytest.fixture
def call(sample, model_folder, capfd, monkeypatch):
    write_tree(sample, {"src/cli.py": 'parser.add_argument("--dry-run", help="show only")\n'})
    monkeypatch.chdir(sample)
    assert run(["index", ".", "--lazy", "--quiet", "--model", str(model_folder)]) == 0
    capfd.readouterr()

    def called(*line):
        code = run([*line])
        out, err = capfd.readouterr()
        return code, out, err

    return called


@pytest.mark.parametrize(
    "line",
    [
        ["--dry-run"],
        ["-dry run"],
        ["--dry-run", "--scope", "src"],
        ["--scope", "src", "--dry-run"],
        ["--", "--dry-run"],
        ["--dry-run is what"],
    ],
    ids=" ".join,
)
def test_a_query_that_is_no_option_is_searched_for(call, line):
    code, out, err = call("search", *line, "--format", "json") if "--" not in line else call("search", *line)
    assert code == 0, err
    assert (json.loads(out)["hits"][0]["path"] if out.startswith("{") else out[:10]) == "src/cli.py"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["search", "--verbose"], "awareness search -- --verbose"),
        (["search", "-k"], "awareness search -- -k"),
        (["search", "--scop"], "awareness search -- --scop"),
        (["search", "foo", "--dry-run"], "awareness search -- 'foo --dry-run'"),
        (["ask", "-n is what"], "awareness ask -- '-n is what'"),
        (["ask", "session", "cookie"], "awareness ask 'session cookie'"),
        (["search"], "awareness search --help"),
        (["search", ""], "awareness search 'session cookie'"),
        (["ask", " \t "], "awareness ask 'session cookie'"),
    ],
)
def test_what_is_refused_names_the_command_that_works(call, line, hint):
    code, out, err = call(*line)
    assert (code, out) == (2, "")
    assert f"  try: {hint}\n" in err


def test_the_text_is_the_same_after_two_dashes(call):
    code, out, _ = call("search", "--format", "json", "--", "--verbose")
    assert code in (0, 1) and json.loads(out)["query"] == "--verbose"
