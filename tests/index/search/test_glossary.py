"""Developers' words of other languages, in English."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from awareness.index.search import glossary
from awareness.index.search.glossary import LANGUAGES, translated

QUESTIONS = Path(__file__).parents[3] / "benchmarks" / "retrieval" / "questions"


@pytest.mark.parametrize(
    ("question", "language", "words"),
    [
        ("请求超时后在哪里重试", "zh", "request timeout retry"),
        ("請求逾時後在哪裡重試", "zh", "request timeout retry"),
        ("環境変数はどこで読み込まれますか", "ja", "environment variable env read load"),
        ("リクエストヘッダーの検証", "ja", "request header validate validation"),
        ("환경 변수를 읽는 코드는 어디에 있나요", "ko", "environment variable env read"),
        ("Wo wird der Verbindungsfehler behandelt?", "de", "connect connection combine error process handle"),
        (
            "Wo werden Umgebungsvariablen gelesen und geprüft?",
            "de",
            "environment variable env read validate check verify",
        ),
        ("Où est lue la variable d'environnement dans ce module ?", "fr", "read environment variable env module"),
        ("¿Dónde se cierran las conexiones?", "es", "close connect connection"),
        ("Onde são lançadas as exceções do servidor?", "pt", "throw raise exception server"),
        ("где закрываются соединения с базой данных", "ru", "close connect connection database"),
        ("Zeitüberschreitung Verbindung", "de", "timeout connect connection"),
    ],
)
def test_words_are_found_in_the_forms_that_people_type(question, language, words):
    found = translated(question)
    assert found.language == language
    assert set(words.split()) <= set(found.words)
    assert len(found.words) <= len(words.split()) + 3


@pytest.mark.parametrize("question", ["conexion perdida en la cola", "conexión perdida en la cola"])
def test_accents_may_be_left_out(question):
    assert {"connection", "lost", "queue"} <= set(translated(question).words)


def test_the_first_word_of_a_concept_weighs_most():
    words = translated("在哪里删除").words
    assert words == {"remove": 0.7, "delete": 0.42}


def test_one_character_weighs_less():
    assert translated("锁在哪里").words == {"lock": 0.28, "mutex": 0.168}


def test_names_of_code_and_common_words_are_not_translated():
    found = translated("wo wird parse_anfrage mit `Warteschlange` gelesen")
    assert set(found.words) == {"read"}
    assert set(translated("进行到哪里").words) == set()


def test_what_is_not_in_the_glossary_is_unknown():
    assert translated("水印在哪里处理").unknown == ("水印",)
    assert "watermark" not in translated("水印在哪里处理").words


def test_no_english_question_is_changed():
    """All questions of the benchmark in ASCII, but those in other languages that have no other letters."""
    asked = [entry for file in sorted(QUESTIONS.glob("*.json")) for entry in json.loads(file.read_text())]
    english = [
        entry["query"]
        for entry in asked
        if entry["query"].isascii() and not entry["query"].startswith(("Wo ", "wo ", "Wie "))
    ]
    assert len(english) > 1000
    assert [question for question in english if translated(question).language] == []


def test_every_line_has_all_languages_and_each_word_is_found():
    for line in glossary._lines():
        assert len(line) == 1 + len(LANGUAGES), line
    for language in LANGUAGES:
        concepts = glossary._concepts(language)
        assert len(concepts) > 1000
        assert all(word and english for word, english in concepts.items())


def test_the_files_stay_small():
    assert sum(path.stat().st_size for path in Path(glossary.__file__).parent.glob("*.txt")) < 150_000


def test_languages_that_share_small_words_are_told_apart():
    assert translated("como exportar a saída do console para um arquivo com várias páginas").language == "pt"
    assert translated("cómo exportar la salida de la consola para un archivo con varias páginas").language == "es"
