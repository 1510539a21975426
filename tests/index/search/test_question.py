"""What a search reads out of a question."""

from __future__ import annotations

import pytest

from awareness.index.files.file_kinds import FileKind
from awareness.index.search.question import Question

ISSUE = """Frobnicator hangs on empty input

I call it with an empty list and it never returns. I tried `retry_limit` and the flag too.

```python
client.frobnicate([], retry_limit=3)
```

  File "/site-packages/frob/core.py", line 120, in frobnicate
"""


def test_an_issue_has_a_title_and_a_body():
    question = Question(ISSUE)
    assert question.is_issue and question.title == "Frobnicator hangs on empty input"
    assert {"retry_limit", "frobnicate"} <= question.body_names
    assert [mention.line for mention in question.mentions] == [120]
    assert question.weights["hang"] == 1.0 > question.weights["list"] > 0
    assert not question.is_lookup


def test_a_sentence_is_no_issue():
    question = Question("how are retries delayed after a timeout")
    assert not question.is_issue and question.body == "" and question.title == question.text


@pytest.mark.parametrize(
    ("text", "is_lookup"),
    [
        ("HTTPException", True),
        ("where is parse_flags defined", True),
        ("class HTTPException", True),
        ("the use() method", True),
        ("Session.get", True),
        ("Blockwise._cull_dependencies", True),
        ("how does HTTPException reach the client", False),
        ("how are retries delayed", False),
        (ISSUE, False),
    ],
)
def test_lookups(text, is_lookup):
    assert Question(text).is_lookup is is_lookup


@pytest.mark.parametrize(
    ("text", "literals"),
    [
        ("--dry-run", ["--dry-run"]),
        ("array.slicing.split-large-chunks", ["array.slicing.split-large-chunks", "split-large-chunks"]),
        (")]}'", [")]}"]),
        ("\udc9b31m", []),  # bytes that are not UTF-8
        ('where is "max-age=0" sent', ["max-age=0"]),
        ("HTTPException", []),
        ("Session.get", []),
        ("how are retries delayed", []),
    ],
)
def test_literals(text, literals):
    assert list(Question(text).literals) == literals


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("tests of the router", {FileKind.TEST}),
        ("what do the docs say about caching", {FileKind.DOCS}),
        ("how do I stream a file", {FileKind.DOCS}),
        ("how does streaming work", set()),
        ("when was stream_with_context added", {FileKind.CHANGELOG}),
        ("the deprecated parser", {FileKind.LEGACY}),
    ],
)
def test_kinds_that_a_question_asks_for(text, kinds):
    assert Question(text).kinds == kinds


def test_a_question_in_another_language_is_read_in_english_and_as_asked():
    question = Question("在哪里删除 cookie_jar 里的缓存")
    assert question.weights == {
        "cookie_jar": 1.0, "cooki": 0.35, "jar": 0.35, "remov": 0.7, "delet": 0.42, "cach": 0.7,
    }  # fmt: skip
    assert {"cookie_jar", "删除", "缓存"} <= set(question.as_asked)
    assert "remov" not in question.as_asked
    assert question.in_english == "cookie_jar remove delete cache"
    assert question.size == 5


def test_words_that_are_in_no_glossary_stay_as_they_are():
    weights = Question("wo wird der Cookie-Watermark geprüft").weights
    assert weights["watermark"] == 1.0
    assert weights["cooki"] == 0.7
    assert not {"wo", "wird", "der", "geprüft"} & set(weights)


def test_an_english_question_has_one_reading():
    question = Question("where is the cache deleted")
    assert question.as_asked == {}
    assert question.in_english == question.text
    assert question.size == len(question.weights)


def test_a_translated_question_asks_for_kinds_too():
    assert Question("路由的测试在哪里").kinds == {FileKind.TEST}


def test_a_question_word_of_another_language_is_no_part_of_a_look_up():
    assert Question("wo ist parse_flags definiert").is_lookup
    assert Question("где определён parse_flags").is_lookup
    assert not Question("wo wird parse_flags geprüft").is_lookup
