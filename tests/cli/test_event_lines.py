"""`ask --format lines`: what an editor may rely on, and what the recipes of docs/editors.md make of the output."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from awareness.cli.app import run
from tests.conftest import write_tree

RECIPES = Path(__file__).parents[2] / "docs" / "editors.md"
PLACED = {"uri", "path", "range"}
KEYS = {
    "source": {"event", "number", "symbol", "score"} | PLACED,
    "nearest": {"event", "number", "symbol", "score"} | PLACED,
    "begun": {"event", "text"},
    "sentence": {"event", "text", "marked", "source", "unknown", "confidence"} | PLACED,
}


@pytest.fixture
def ask(sample, model_folder, capfd):
    def asked(question, *options, repo=("--repo",)):
        where = [*repo, str(sample)] if repo == ("--repo",) else list(repo)
        code = run(["ask", question, *where, "--model", str(model_folder), "--format", "lines", *options])
        captured = capfd.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return asked


def file_of(event):
    return Path(unquote(urlparse(event["uri"]).path, errors="surrogateescape"))


def test_events_come_in_the_order_in_which_things_happen(ask):
    code, events, _ = ask("HTTPConnectionPool acquire", "-n", "8")
    names = [event["event"] for event in events]
    assert code == 0
    assert re.fullmatch(r"(source )+((begun )*sentence )+(begun )*answer", " ".join(names))
    for event in events[:-1]:
        assert set(event) == KEYS[event["event"]]
    assert set(events[-1]) > {"event", "question", "answer", "citations", "sentences", "timings"}


def test_places_are_as_in_the_language_server_protocol(ask, sample):
    _, events, _ = ask("HTTPConnectionPool acquire", "-n", "8")
    answer = events[-1]
    sources = [event for event in events if event["event"] == "source"]
    assert [source["number"] for source in sources] == list(range(1, len(answer["citations"]) + 1))
    for source, citation in zip(sources, answer["citations"], strict=True):
        assert file_of(source) == sample / citation["path"]
        assert source["range"]["start"] == {"line": citation["start_line"] - 1, "character": 0}
        assert source["range"]["end"] == {"line": citation["end_line"], "character": 0}
        rows = (
            file_of(source).read_text().split("\n")[source["range"]["start"]["line"] : source["range"]["end"]["line"]]
        )
        assert source["path"].endswith(".md") or source["symbol"].rpartition(".")[2] in "\n".join(rows)
    for sentence, told in zip((e for e in events if e["event"] == "sentence"), answer["sentences"], strict=True):
        assert sentence["source"] == told["source"]
        assert sentence["path"] == sources[sentence["source"] - 1]["path"]


def test_a_refusal_names_the_nearest_places(ask):
    code, events, err = ask("quantum banana pudding")
    assert code == 1
    assert events[-1]["event"] == "refusal" and events[-1]["abstained"] is True
    assert "seems to answer" in events[-1]["message"] and "error: " in err
    assert {event["event"] for event in events[:-1]} <= {"nearest"}


def test_what_is_no_file_on_disk_has_no_uri(ask, sample):
    code, events, _ = ask("HTTPConnectionPool acquire", "-n", "2", "--rev", "HEAD")
    sources = [event for event in events if event["event"] == "source"]
    assert code == 0 and sources
    assert all(source["uri"] is None and source["path"] for source in sources)


def test_a_strange_file_name_is_one_uri_on_one_line(ask, sample):
    write_tree(sample, {"src/a b\n%#é.py": "def hostile_place():\n    return 1\n"})
    _, events, _ = ask("hostile_place", "-n", "2")
    assert sample / "src/a b\n%#é.py" in [file_of(event) for event in events if event["event"] == "source"]


def test_an_unknown_format_is_refused(sample, capfd):
    assert run(["ask", "x", "--repo", str(sample), "--format", "lsp"]) == 2
    assert "lines" in capfd.readouterr().err


def block(language, holding):
    """The fenced block of the recipes in a language that has this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", RECIPES.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if holding in text]
    return found


def test_the_problem_matcher_reads_what_search_prints(sample, model_folder, capfd):
    matcher = json.loads(block("json", "problemMatcher"))["tasks"][0]["problemMatcher"]
    pattern = matcher["pattern"]
    assert run(["search", "HTTPConnectionPool acquire", "--repo", str(sample)]) in (0, 10)
    capfd.readouterr()
    assert run(["index", str(sample), "--lazy", "--model", str(model_folder)]) == 0
    assert run(["search", "sign_cookie", "--repo", str(sample), "--format", "jsonl"]) == 0
    hits = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert run(["search", "sign_cookie", "--repo", str(sample)]) == 0
    found = [match for line in capfd.readouterr().out.splitlines() if (match := re.search(pattern["regexp"], line))]
    places = [tuple(match[pattern[key]] for key in ("file", "line", "endLine")) for match in found]
    assert places == [(hit["path"], str(hit["start_line"]), str(hit["end_line"])) for hit in hits]
    assert all(match[pattern["message"]] for match in found)


def test_the_expression_for_emacs_reads_the_same(sample, model_folder, capfd):
    lisp = re.search(r'awareness "((?:[^"\\]|\\.)+)" 1 \(2 \. 3\)', block("elisp", "compilation-error-regexp-alist"))
    in_python = lisp[1].replace("\\\\(", "(").replace("\\\\)", ")").replace("\\n", "\n")
    assert run(["index", str(sample), "--lazy", "--model", str(model_folder)]) == 0
    capfd.readouterr()
    assert run(["search", "sign_cookie", "--repo", str(sample)]) == 0
    lines = capfd.readouterr().out.splitlines()
    hits = [line for line in lines if not line.startswith("    ")]
    assert hits and [line for line in lines if re.match(in_python, line)] == hits
