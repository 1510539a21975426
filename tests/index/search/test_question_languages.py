"""The language of a question, told by its script and its smallest words."""

from __future__ import annotations

import pytest

from awareness.index.search.question_languages import languages_of, silent_words, spaced_words


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("请求在哪里重试", "zh"),
        ("リクエストはどこで再試行されますか", "ja"),
        ("요청은 어디에서 재시도되나요", "ko"),
        ("где повторяется запрос", "ru"),
        ("wo wird die Anfrage wiederholt", "de"),
        ("où est la requête répétée dans ce module", "fr"),
        ("¿dónde se repite la petición?", "es"),
        ("onde é repetida a requisição?", "pt"),
    ],
)
def test_script_and_small_words_tell_the_language(question, language):
    hits = languages_of(question, spaced_words(question))
    assert max(hits, key=hits.__getitem__) == language
    assert hits[language] >= 2


@pytest.mark.parametrize(
    "question",
    [
        "where does the worker die",
        "where is the DES cipher in the MIT license header",
        'where is "请求在哪里重试" printed',
        "what does `der die das` do",
        "where is café used",
        "connection pool retry",
        "os.path com.example.dos",
        "HTTPException",
        "",
    ],
)
def test_english_is_no_other_language(question):
    assert languages_of(question, spaced_words(question)) == {}


def test_names_and_quotes_are_no_words():
    assert spaced_words("wo wird `das_ist` mit parse_flags, HTTPServer und TLS d'accès geprüft?") == [
        "wo", "wird", "mit", "und", "d", "accès", "geprüft",
    ]  # fmt: skip


def test_silent_words_are_of_one_language():
    assert {"wo", "wird", "implementiert"} <= silent_words("de")
    assert "wo" not in silent_words("fr")
    assert silent_words("zh") == silent_words("") == frozenset()
