"""The short questions of benchmarks/answers: their form, when an answer is right, and what check.py finds."""

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


def test_fields(check, tmp_path):
    (question,) = check.load_questions(write(tmp_path, contains=["3600", "an hour"], derived=True))
    assert question.contains == ("3600", "an hour")
    assert (question.path, question.first, question.last, question.derived) == ("src/cli.py", 2, 3, True)
    assert question.place == ENTRY["place"]


@pytest.mark.parametrize(
    ("answer", "contains"),
    [
        ("It waits 5 seconds.", ["5 seconds"]),
        ("It waits 5.", ["5"]),
        ("(5)", ["5"]),
        ("port=5000,", ["5000"]),
        ("The limit is 1,000.", ["1000"]),
        ("MAX = 65_536", ["65536"]),
        ("1000000 bytes", ["1_000_000"]),
        ("1,000,000 bytes", ["1000000"]),
        ("It raises a `RuntimeError`.", ["runtimeerror"]),
        ('The prefix is "j:".', ["'j:'"]),
        ("crontab(0, 4, *)", ["crontab('0', '4', '*')"]),
        ("5\nseconds", ["5 seconds"]),
        ("It is context.Background().", ["context.Background"]),
        ("the X‑Cascade header", ["X-Cascade"]),
        ("--no-descriptions", ["no-descriptions"]),
        ("C++", ["c++"]),
        ("`<none>`", ["<none>"]),
        ("every three minutes", ["180", "three minutes"]),
    ],
)
def test_right_answers(check, answer, contains):
    assert check.matches(answer, contains)


@pytest.mark.parametrize(
    ("answer", "contains"),
    [
        ("15", ["5"]),
        ("5.0", ["5"]),
        ("2.5", ["5"]),
        ("50,000", ["50", "000", "5000"]),
        ("5000ms", ["5000"]),
        ("after 15 seconds", ["5 seconds"]),
        ("__completeNoDesc", ["__complete"]),
        ("HTTPS_PROXY", ["HTTP_PROXY"]),
        ("the cookies: none", ["s:"]),
        ("weakly", ["weak"]),
        ("the tests", ["test"]),
        ("X-Guzzle-Redirect-Status-History", ["X-Guzzle-Redirect-History"]),
        ("", ["5"]),
        ("It waits 5 seconds.", []),
    ],
)
def test_wrong_answers(check, answer, contains):
    assert not check.matches(answer, contains)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": ""}, "'question' must be a str"),
        ({"contains": "5000"}, "'contains' must be a list"),
        ({"contains": []}, "'contains' must be a list"),
        ({"contains": ["5000", "``"]}, "more than quotes"),
        ({"contains": [5000]}, "list of strings"),
        ({"place": "src/cli.py:2"}, "PATH:FIRST-LAST, not 'src/cli.py:2'"),
        ({"place": "src/cli.py:0-2"}, "PATH:FIRST-LAST"),
        ({"derived": "yes"}, "'derived' must be true or false"),
        ({"answer": "5000", "gold": []}, "unknown fields: answer, gold"),
    ],
)
def test_what_is_no_question(check, tmp_path, fields, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        check.load_questions(write(tmp_path, **fields))
    assert "httpx.jsonl:2: " in str(error.value)


def test_what_is_no_object(check, tmp_path):
    (tmp_path / "httpx.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match=r"httpx\.jsonl:1: not an object"):
        check.load_questions(tmp_path)


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
