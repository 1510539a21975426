"""Short questions: their form, what is wrong with a line, and when an answer is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awareness.errors import UsageError
from awareness.evals.short_questions import matches, read_short_questions
from awareness.types import Chunk

ENTRY = {"question": "which port", "expected": "5000.", "contains": ["5000"], "place": "src/cli.py:2-3"}


def write(folder: Path, **fields: object) -> Path:
    with (folder / "httpx.jsonl").open("a") as file:
        file.write(json.dumps(ENTRY | fields) + "\n")
    return folder / "httpx.jsonl"


def test_fields(tmp_path):
    (question,) = read_short_questions(write(tmp_path, contains=["3600", "an hour"], derived=True))
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
def test_right_answers(answer, contains):
    assert matches(answer, contains)


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
def test_wrong_answers(answer, contains):
    assert not matches(answer, contains)


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
        ({"repo": 3}, "'repo' must be the folder name"),
    ],
)
def test_what_is_no_question(tmp_path, fields, message):
    write(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        read_short_questions(write(tmp_path, **fields))
    assert "httpx.jsonl:2: " in str(error.value)


def test_what_is_no_object(tmp_path):
    (tmp_path / "httpx.jsonl").write_text("[1]\n")
    with pytest.raises(UsageError, match=r"httpx\.jsonl:1: not an object"):
        read_short_questions(tmp_path / "httpx.jsonl")


def test_the_repository_is_named_by_the_line_or_the_file(tmp_path):
    write(tmp_path)
    first, second = read_short_questions(write(tmp_path, repo="celery"))
    assert (first.repo, first.is_named) == ("httpx", False)
    assert (second.repo, second.is_named) == ("celery", True)


def test_a_chunk_shows_the_place_by_one_common_line(tmp_path):
    (question,) = read_short_questions(write(tmp_path))
    places = [("src/cli.py", 3, 9), ("src/cli.py", 1, 2), ("src/cli.py", 4, 9), ("cli.py", 2, 3)]
    assert [question.is_shown(Chunk(path, a, b, "", "")) for path, a, b in places] == [True, True, False, False]


def test_a_file_without_questions_or_no_file(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match=r"q\.jsonl has no questions"):
        read_short_questions(tmp_path / "q.jsonl")
    with pytest.raises(UsageError, match="can't be read"):
        read_short_questions(tmp_path / "none.jsonl")
