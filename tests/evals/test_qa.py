"""Questions from a file: how they are read and routed, and how answers and citations are scored."""

from __future__ import annotations

import json

import pytest

from awareness.errors import UsageError
from awareness.evals.qa import ask, fused, recall, sample_of, token_f1
from awareness.evals.readers import Reader
from awareness.evals.routing import RoutedQuestion, route
from awareness.evals.setup import Setup
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.generate import Generation
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.model.presets import SETTINGS, ReadingSettings
from awareness.train.samples.question_files import Place, Question, read_questions
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer


def chunk(path: str, first: int = 1, last: int = 9) -> Chunk:
    return Chunk(path, first, last, "", f"text of {path} {first}")


A, B, C, D = (chunk(f"{name}.py") for name in "abcd")
ROUTED = RoutedQuestion(Question("Which?", (Place("d.py"),), "the old cat"), (A, B, C, D), (D, A, B, C))


def test_both_formats_are_read(tmp_path):
    lines = tmp_path / "q.jsonl"
    lines.write_text(
        '{"question": "Q", "answer": "A", "gold": ["src/a.py", "b:c.py:10-40"], "repo": "r"}\n\n'
        '{"question": "absent", "gold": []}\n'
    )
    gold = (Place("src/a.py"), Place("b:c.py", 10, 40))
    assert read_questions(lines) == [Question("Q", gold, "A", "r")]
    listed = tmp_path / "q.json"
    place = {"path": "a.py", "start_line": 3, "end_line": 4}
    listed.write_text(json.dumps([{"query": "Q", "relevant": ["b.py", place]}, {"query": "no", "relevant": []}]))
    assert read_questions(listed) == [Question("Q", (Place("b.py"), Place("a.py", 3, 4)))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "Q", "gold": ["a"]}\n{"question": "Q"}\n', "question 2: it has no 'relevant'"),
        ('{"gold": ["a"]}\n', "question 1: it has no 'query'"),
        ('{"question": " ", "gold": ["a"]}\n', "question 1: question, answer and repo are texts"),
        ('{"question": "Q", "gold": "a.py"}\n', "question 1: question, answer and repo are texts, gold is a list"),
        ('{"question": "Q", "gold": [3]}\n', "question 1"),
        ("[1]", "question 1"),
        ('{"question": "Q", "gold": []}\n', "has 1 questions, and none of them has gold"),
        ("nothing", "is neither JSON lines"),
    ],
)
def test_what_is_no_question(tmp_path, text, message):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_questions(path)
    with pytest.raises(UsageError, match="can't be read"):
        read_questions(tmp_path / "none.jsonl")


def test_gold_is_reached_by_a_shared_line():
    question = Question("Q", (Place("a.py", 5, 7), Place("b.py")))
    chunks = [chunk("a.py", 1, 4), chunk("a.py", 1, 5), chunk("a.py", 7, 9), chunk("a.py", 8, 9), chunk("b.py"), C]
    assert question.gold_among(chunks) == (1, 2, 4)


def test_f1_is_of_bags_of_normalised_words():
    assert token_f1("The  CAT, sat.", "a cat sat") == 1.0
    assert token_f1("cat cat cat", "cat dog") == pytest.approx(2 * 1 / 5)
    assert token_f1("dog", "cat") == token_f1("", "cat") == 0.0
    assert token_f1("theatre", "a theatre") == 1.0  # an article is a word


def test_recall_is_of_files_in_the_first_three_chunks():
    question = Question("Q", (Place("a.py", 1, 2), Place("a.py", 5, 6), Place("d.py")))
    assert recall(question, [A, B, C, D]) == 0.5
    assert recall(question, [A, A, D]) == 1.0
    assert recall(question, []) == 0.0


def test_fusion_is_reciprocal_rank():
    assert fused([0, 1, 2, 3], [0, 1, 2, 3]) == [0, 1, 2, 3]
    assert fused([0, 1, 2], [2, 1, 0]) == [0, 2, 1]  # 1/61 + 1/63 is more than 2/62, and equals stay
    assert fused([0, 1, 2, 3], [3, 0, 1, 2]) == [0, 3, 1, 2]
    assert fused([0, 1, 2, 3], [2, 1, 3, 0]) == [2, 1, 0, 3]  # twice second is better than first and last


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> list[Reader]:
    folder = ModelFolder("tiny", tmp_path_factory.mktemp("m"), "tiny")
    decoder = Decoder(fuse(tiny_model("qwen3")), tiny_tokenizer(), folder)
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    return [Reader("text", "text", decoder), Reader("joint", "memory", decoder, encoder)]


def test_citations_in_three_orders(readers, monkeypatch):
    # The last place in memory is the best routed chunk, A; attention prefers the first, D.
    shares = {"0": 0.7, "1": 0.1, "2": 0.1, "3": 0.1}
    generation = Generation("an old cat", 3, 0.1, 0.2, shares)
    calls = []
    monkeypatch.setitem(SETTINGS, "tiny", ReadingSettings(repetition_penalty=1.15))
    monkeypatch.setattr("awareness.evals.readers.generate", lambda *a, **k: calls.append((a, k)) or generation)
    scores, answers = ask(readers, [ROUTED], max_new_tokens=4, seed=0)
    assert [score.arm for score in scores] == ["text", "joint", "bm25"]
    recalls = [{order: found.mean for order, found in score.recall.items()} for score in scores]
    assert recalls == [{"routing": 0.0}, {"routing": 0.0, "attention": 1.0, "both": 1.0}, {"routing": 1.0}]
    assert [score.f1 and score.f1.mean for score in scores] == [1.0, 1.0, None]
    assert [answer.text for answer in answers] == ["an old cat"] * 2
    assert calls[0][0][1] == readers[0].prompt(
        sample_of(ROUTED.question, (D, C, B, A))
    )  # the best next to the question
    for (_, _, memory), options in calls:
        assert options["max_new_tokens"] == 4 and options["repetition_penalty"] == 1.15
        assert (options["record"] is None) == (memory is None)


def test_a_question_without_any_chunk_counts(readers):
    scores, answers = ask(readers, [ROUTED, RoutedQuestion(ROUTED.question, (), ())], max_new_tokens=4, seed=0)
    assert [score.recall["routing"].n for score in scores] == [2, 2, 2]
    assert set(scores[1].recall) == {"routing", "attention", "both"}
    assert answers[-1].recall == {"routing": 0.0, "attention": 0.0, "both": 0.0}


def test_a_reader_without_room_is_left_out(readers):
    long = RoutedQuestion(ROUTED.question, tuple(chunk("x" * 200 + f"{i}.py") for i in range(3)), ())
    scores, _ = ask(readers, [long], max_new_tokens=4, seed=0)
    assert (scores[0].f1, scores[0].recall) == (None, {})
    assert scores[1].f1.n == 1


def test_questions_are_routed_in_their_repository(sample, model_folder):
    signed = Question("How is the cookie signed?", (Place("src/auth.py"),), repo="sample")
    other = Question("How is the cookie signed?", (Place("x.py"),), repo="elsewhere")
    setup = Setup([sample], str(model_folder))
    (found,) = route([signed, other], setup, top_k=2)
    assert found.question == signed
    assert found.chunks[0].path == "src/auth.py" and len(found.chunks) == 2
    assert {chunk.path for chunk in found.bm25} <= {"src/auth.py", "tests/test_auth.py", "docs/guide.md", "src/pool.py"}
    with pytest.raises(UsageError, match="none of 1 questions is about sample"):
        route([other], setup, top_k=2)
