"""benchmarks/arms.py: the parts of the table of arms, measured once each, and what joins them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.conftest import git, write_tree

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SOURCE = "".join(f"def function_{i}(a, b):\n    return a * {i} + b\n\n\n" for i in range(40))
QUESTION = {
    "question": "what does function_3 multiply by",
    "expected": "3",
    "contains": ["3"],
    "place": "src/a.py:9-10",
}


@pytest.fixture
def arms(tmp_path, monkeypatch):
    """The script, with a repository of its own; parts run in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("arms")
    write_tree(tmp_path / "checkouts/one", {"src/a.py": SOURCE, "src/b.py": SOURCE.replace("function", "other")})
    git(tmp_path / "checkouts/one", "init")
    (tmp_path / "one.jsonl").write_text(json.dumps(QUESTION) + "\n")
    monkeypatch.setattr(script, "QUESTIONS", tmp_path)
    monkeypatch.setattr(script, "listed", lambda split: ["one", "two"])
    monkeypatch.setattr(script, "NEEDLE_REPOSITORIES", {"dev": ("one",)})
    monkeypatch.setattr(script, "LINES_REPOSITORIES", {"dev": ("one",)})
    monkeypatch.setattr(script, "run_part", lambda command: run(command[3:]))
    return script


@pytest.fixture
def call(arms, tmp_path, monkeypatch, capfd):
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["arms.py", str(tmp_path / "checkouts"), str(tmp_path / "out"), *arguments])
        arms.main()
        return capfd.readouterr().out

    return call


def test_every_part_is_listed_with_a_command_and_takes_less_than_twenty_minutes(call):
    lines = call("--list").splitlines()
    assert lines[0].startswith(f"{len(lines) - 1} parts, {len(lines) - 1} to measure")
    parts = [line.split(" min  awareness eval ") for line in lines[1:]]
    assert all(0 < float(minutes) < 20 for minutes, _ in parts)
    assert len({command for _, command in parts}) == len(parts)
    measures = {(command.split()[0], arm) for _, command in parts for arm in command.split("--arms ")[1].split()[:1]}
    assert {("answers", "text@qwen2.5-coder-1.5b"), ("perplexity", "joint"), ("refusals", "none")} <= measures
    assert ("perplexity", "text@qwen2.5-coder-1.5b") not in measures


def test_the_real_parts_of_both_splits_have_their_files(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("arms")
    for split in ("dev", "held_out"):
        repositories = set(script.listed(split))
        assert {*script.NEEDLE_REPOSITORIES[split], *script.LINES_REPOSITORIES[split]} <= repositories
        assert {path.stem for path in script.QUESTIONS.glob("*.jsonl")} & repositories


def test_parts_are_measured_once_and_joined(call, model_folder, tmp_path):
    options = ["--model", str(model_folder), "--samples", "1", "--only", "two_hop-one-16"]
    first = call("--arms", "none,joint", *options)
    assert "2 parts, 2 to measure" in first and "left out" not in first
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "needle-two_hop-one-16-joint.json",
        "needle-two_hop-one-16-none.json",
    ]
    assert "2 parts, 0 to measure" in call("--arms", "none,joint", *options)
    assert "2 parts" in call("--arms", "none,joint", *options, "--summary", str(tmp_path / "results"))
    joined = json.loads((tmp_path / "results/needle-two_hop-arms.json").read_text())
    assert [(row["arm"], row["chunks"], row["n"]) for row in joined["intervals"]] == [("none", 16, 1), ("joint", 16, 1)]


def test_right_answers_of_all_parts_are_compared_and_drawn(arms, tmp_path):
    row = {"top_k": 8, "repo": "one", "question": "q", "answer": "", "is_found": True, "is_cited": False}
    row |= {"is_refused": False, "chunks": 8, "tokens": 9, "bytes": 9, "answer_tokens": 3, "tokens_per_s": 5.0}
    shared = {"model": "m", "quant": "int4", "seed": 11, "max_new_tokens": 8, "second_stage": False, "threads": 2}
    reports = [
        {"rows": [row | {"arm": arm, "is_right": arm == "joint", "first_token_s": seconds}], **shared}
        for arm, seconds in (("text", 4.0), ("joint", 0.5))
    ]
    joined = arms._answers(reports, tmp_path)
    assert [(score["arm"], score["of_text"]) for score in joined["answers"]] == [("text", 1.0), ("joint", 0.125)]
    assert joined["answers"][1]["minus_text"]["mean"] == 1.0 and joined["samples"] == 1
    assert (tmp_path / "answers-arms.png").read_bytes().startswith(b"\x89PNG")


def test_shares_of_parts_are_weighed_by_their_cases(arms):
    assert arms._over([(1.0, 10), (0.5, 30)]) == {"accuracy": 0.625, "low": 0.4703, "high": 0.7578, "n": 40}


def test_refusals_and_lines_of_all_parts(arms, tmp_path):
    asked = {"arm": "joint", "chunks": 4, "shape": "hex", "question": "q", "answer": "", "found": 1.0}
    shared = {"samples": 1, "chunk_tokens": 120, "max_new_tokens": 8, "shapes": ["hex"]}
    reports = [
        {"answers": [asked | {"is_answerable": way, "refused": not way} for way in (True, False)], "repository": name}
        for name in ("one", "two")
    ]
    joined = arms._refusals([report | shared for report in reports], tmp_path)
    assert joined["refusals"][0]["refused"]["n"] == 2 and joined["refusals"][0]["false_refusals"]["mean"] == 0.0
    assert joined["repository"] == "one, two"
    lines = [{"perplexity": [{"arm": arm}], "cases": [1, 2]} for arm in ("text", "joint")]
    joined = arms._perplexity(lines, tmp_path)
    assert ([row["arm"] for row in joined["perplexity"]], joined["lines"]) == (["text", "joint"], 2)
