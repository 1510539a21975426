"""`awareness search --callers` and its like, and `awareness map`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.conftest import commit_all, write_tree

FILES = {
    "shop/cart.py": (
        "def total(items):\n    return sum(items)\n\n\ndef pay(items):\n    return total(items) + total([])\n"
    ),
    "shop/app.py": "from shop.cart import pay\n\n\ndef run_shop(session):\n    session.total()\n    return [pay]\n",
    "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1]) == 1\n",
    "café/日本.py": "def größe():\n    return 1\n\n\ndef messen():\n    return größe()\n",
}


@pytest.fixture
def at(tmp_path: Path, model_folder: Path, capfd):
    """Runs one command line on a small repository: (exit code, stdout, stderr)."""
    root = commit_all(write_tree(tmp_path / "repo", FILES))
    assert run(["index", str(root), "--lazy", "--model", str(model_folder)]) == 0
    capfd.readouterr()

    def call(*line: str) -> tuple[int, str, str]:
        code = run([*line, "--repo", str(root)])
        return code, *capfd.readouterr()

    return call


def test_callers_as_text(at):
    code, out, err = at("search", "--callers", "total")
    assert (code, err) == (0, "")
    assert out == (
        "shop/cart.py:6  pay  1.00\n    return total(items) + total([])\n"
        "tests/test_cart.py:5  test_total  0.95\n    assert total([1]) == 1\n"
    )
    _, out, _ = at("search", "--callers", "pay")
    assert out == "shop/app.py:6  run_shop  0.90  passed on\n    return [pay]\n"
    _, out, _ = at("search", "--callers", "größe")
    assert out.startswith("café/日本.py:6  messen  1.00\n")


def test_the_json_of_a_hit_has_the_fields_of_search_and_those_of_the_call(at):
    code, out, _ = at("search", "--callers", "shop/cart.py:total", "--format", "json", "--scope", "shop", "-k", "1")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"query", "relation", "hits", "seconds"}
    assert (found["query"], found["relation"], len(found["hits"])) == ("shop/cart.py:total", "callers", 1)
    _, plain, _ = at("search", "total items", "--format", "json")
    hit = found["hits"][0]
    assert set(hit) == set(json.loads(plain)["hits"][0]) | {"line", "lines", "name", "text", "how", "proven", "target"}
    assert hit | {"start_line": 1, "end_line": 6} == hit
    assert (hit["path"], hit["line"], hit["lines"], hit["name"]) == ("shop/cart.py", 6, [6], "pay")
    assert (hit["how"], hit["proven"], hit["target"], hit["stale"]) == ("call", True, "shop/cart.py:total", False)


def test_jsonl_has_one_hit_a_line(at):
    _, out, _ = at("search", "--callers", "total", "--format", "jsonl")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["pay", "test_total"]
    _, out, _ = at("search", "total items", "--format", "jsonl")
    assert json.loads(out.splitlines()[0])["path"] == "shop/cart.py"


def test_callees_tests_and_similar(at):
    _, out, _ = at("search", "--callees", "pay")
    assert out == "shop/cart.py:1  total  1.00\n    line 6: return total(items) + total([])\n"
    _, out, _ = at("search", "--tests-of", "total")
    assert out.startswith("tests/test_cart.py:5  test_total  ")
    code, out, _ = at("search", "--similar", "shop/cart.py:2", "--format", "json")
    assert code == 0
    assert "shop/cart.py" not in {hit["path"] for hit in json.loads(out)["hits"]}


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        (["--callers", "totl"], 1, "the code defines nothing named 'totl'", "one of total"),
        (["--callees", "total"], 1, "'total' calls nothing that this repository defines", "awareness search 'total'"),
        (["--callers", "test_total"], 1, "nothing in this repository calls 'test_total'", None),
        (
            ["--callers", "total", "--scope", "gone/**"],
            1,
            "matches none of the 4 indexed files",
            "another --scope, or none",
        ),
        (["--callers", "total", "words"], 2, "QUERY and --callers do not go together", None),
        (["--callers", "total", "--tests-of", "pay"], 2, "--callers and --tests-of do not go together", None),
        (["--callers", " "], 2, "--callers is empty", None),
        (["--callers", "total", "--kind", "docs"], 2, "--kind and --callers do not go together", None),
        (["--similar", "shop/cart.py"], 2, "'shop/cart.py' is no place", "FILE:LINE"),
        (["--similar", "shop/cart.py:99"], 2, "shop/cart.py has no line 99", "a line from 1 to 6"),
        (["--similar", "gone.py:1"], 2, "gone.py is not indexed", "awareness status --why gone.py"),
    ],
)
def test_what_is_refused(at, line, code, message, hint):
    given, out, err = at("search", *line)
    assert (given, out) == (code, "")
    assert message in err
    assert hint is None or f"try: {hint}" in err


def test_map_as_text_and_json(at):
    code, out, err = at("map")
    assert code == 0
    assert "shop/cart.py\n    1 def total(items):\n    5 def pay(items):\n" in out
    assert "4 of 4 files with definitions, " in err
    code, out, _ = at("map", "--tokens", "60", "--scope", "shop/**", "--format", "json")
    made = json.loads(out)["maps"][0]
    assert code == 0
    assert {file["path"] for file in made["files"]} <= {"shop/cart.py", "shop/app.py"}
    assert made["tokens"] <= made["budget"] == 60
    assert set(made["files"][0]["definitions"][0]) == {"line", "symbol", "signature", "depth"}


def test_a_map_that_has_no_room(at):
    code, out, err = at("map", "--tokens", "1")
    assert (code, out) == (1, "")
    assert "nothing fits into 1 token" in err and "try: --tokens 4" in err
    code, _, err = at("map", "--scope", "gone/**")
    assert code == 1 and "try: another --scope, or none" in err
