"""The short questions of benchmarks/answers: their splits, and what check.py finds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ANSWERS = Path(__file__).parents[2] / "benchmarks" / "answers"
ENTRY = {"question": "which port", "expected": "5000.", "contains": ["5000"], "place": "src/cli.py:2-3"}


@pytest.fixture(scope="module")
def check():
    """The script as a module, with `load_questions` and `matches` in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ANSWERS))
        yield importlib.import_module("check")


def write(folder: Path, repo: str = "httpx", **fields: object) -> Path:
    with (folder / f"{repo}.jsonl").open("a") as file:
        file.write(json.dumps(ENTRY | fields) + "\n")
    return folder


def test_development_questions(check):
    questions = check.load_questions(split="dev")
    repositories = {"httpx", "celery", "express", "cobra", "sinatra", "hyper", "guzzle"}
    assert Counter(question.repo for question in questions) == dict.fromkeys(repositories, 14)
    assert len({check.listed()[repo]["language"] for repo in repositories}) == 6


def test_all_questions_are_well_formed(check):
    assert check.format_problems(check.load_questions()) == []


def test_a_split(check, tmp_path):
    for repo in ("httpx", "chi", "elsewhere"):
        write(tmp_path, repo)
    repositories = {
        split: [question.repo for question in check.load_questions(tmp_path, split)]
        for split in ("dev", "held_out", None)
    }
    assert repositories == {"dev": ["httpx"], "held_out": ["chi"], None: ["chi", "elsewhere", "httpx"]}


def problems(check: ModuleType, folder: Path) -> list[str]:
    return check.format_problems(check.load_questions(folder))


@pytest.mark.parametrize(
    ("repo", "fields", "problem"),
    [
        ("elsewhere", {"question": "which host"}, "does not list the repository"),
        ("httpx", {"question": "is it port `5000`"}, "the question holds its own answer"),
        ("httpx", {"question": "which host", "expected": "80"}, "what is expected does not hold any of ['5000']"),
        ("httpx", {"question": "which host", "place": "src/cli.py:3-2"}, "has no lines, or more than 30"),
        ("httpx", {"question": "which host", "place": "src/cli.py:1-31"}, "has no lines, or more than 30"),
        ("httpx", {"question": "Which  port?"}, "asked twice"),
        ("httpx", {"question": "which host", "derived": True}, "1 of 2 questions are derived"),
    ],
)
def test_problems_of_form(check, tmp_path, repo, fields, problem):
    assert problems(check, write(tmp_path)) == []
    (found,) = problems(check, write(tmp_path, repo, **fields))
    assert problem in found


def test_two_repositories_may_be_asked_the_same(check, tmp_path):
    write(tmp_path)
    assert problems(check, write(tmp_path, "celery")) == []


def test_the_script(tmp_path):
    """Exit 0 and a table if the places hold the strings; else exit 1 and one line for each problem."""
    source = tmp_path / "checkouts" / "httpx" / "src"
    source.mkdir(parents=True)
    (source / "cli.py").write_text("import click\nport = 5_000\nhour = 60 * 60\n")
    folder = tmp_path / "questions"
    folder.mkdir()
    write(folder)
    for number in range(8):
        write(folder, question=f"question {number}")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ANSWERS / "check.py", tmp_path / "checkouts", "--questions", folder]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    write(folder, question="how long", contains=["3600"], derived=True)
    good = run()
    assert (good.returncode, good.stderr) == (0, "")
    assert "| dev | python | httpx | 10 |" in good.stdout
    write(folder, question="first", place="src/none.py:1-2")
    write(folder, question="second", place="src/cli.py:2-4")
    write(folder, question="third", place="src/cli.py:1-1")
    bad = run()
    assert bad.returncode == 1
    first, second, third = bad.stderr.splitlines()
    assert first.startswith("httpx: 'first': there is no ")
    assert second == "httpx: 'second': src/cli.py:2-4, but the file has 3 lines"
    assert third == "httpx: 'third': src/cli.py:1-1 does not hold any of ['5000']"
