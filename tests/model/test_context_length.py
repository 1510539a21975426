"""Memory, question and answer share the decoder's positions."""

from __future__ import annotations

import json

import pytest

from awareness.errors import UsageError
from awareness.model.context_length import CHUNK, CUT, TURNS, fitting_answer, fitting_chunks, fitting_question
from awareness.model.model_files import find
from awareness.model.token_offsets import token_starts


@pytest.fixture
def folder(model_folder, tmp_path):
    """The tiny model, one token a byte, with 1,000 positions."""
    small = tmp_path / "small"
    small.mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (small / name).symlink_to(model_folder / name)
    config = json.loads((model_folder / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1000}))
    return find(str(small))


ROOM = 1000 - TURNS - CHUNK - 64


def test_a_question_that_fits_is_left_as_it_is(folder):
    for text in ("", "short", "x" * ROOM):
        fitted = fitting_question(text, folder, answer_tokens=64, has_chunks=True, may_cut=True)
        assert (fitted.text, fitted.cut) == (text, 0)


def test_a_question_that_is_too_long_is_refused_with_the_numbers(folder):
    with pytest.raises(
        UsageError, match=rf"has 9,412 tokens; .* reads at most {ROOM} .* in 1,000 positions"
    ) as refusal:
        fitting_question("x" * 9412, folder, answer_tokens=64, has_chunks=True)
    assert "--cut" in str(refusal.value.hint)
    assert fitting_question("x" * (ROOM + CHUNK), folder, answer_tokens=64, has_chunks=False).cut == 0


@pytest.mark.parametrize("word", ["x", "é", "中", "😀"])
def test_a_question_that_may_be_cut_keeps_its_head_and_its_tail(folder, word):
    text = f"What is it? {word * 3000} And who wrote it?"
    fitted = fitting_question(text, folder, answer_tokens=64, has_chunks=True, may_cut=True)
    head, tail = fitted.text.split(CUT)
    assert text.startswith(head) and text.endswith(tail) and head.startswith("What is it?") and len(tail) > 20
    count = len(token_starts(folder.path)(fitted.text))
    assert ROOM - 8 <= count <= ROOM
    assert fitted.cut == pytest.approx(len(text.encode()) - count, abs=16)


def test_a_model_without_room_for_any_question_refuses_even_a_cut_one(folder):
    with pytest.raises(UsageError, match="reads at most 0"):
        fitting_question("x" * 10, folder, answer_tokens=2000, has_chunks=True, may_cut=True)


def test_the_worst_chunks_are_dropped_first_and_one_is_kept():
    assert fitting_chunks([100, 200, 50], 350) == 3
    assert fitting_chunks([100, 200, 50], 349) == 2
    assert fitting_chunks([100, 200, 50], 299) == 1, "no worse chunk takes the place of a better one"
    assert fitting_chunks([100, 200, 50], 0) == 1
    assert fitting_chunks([], 0) == 0


def test_an_answer_takes_what_is_left():
    assert fitting_answer(192, 1000, 700, "m") == 192
    assert fitting_answer(192, 1000, 900, "m") == 100
    with pytest.raises(UsageError, match="1,000 tokens; m has 1,000 positions"):
        fitting_answer(192, 1000, 1000, "m")
