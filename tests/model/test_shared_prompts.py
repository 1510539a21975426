"""Prompts whose beginnings are computed once: the same answers as by `generate_batch`."""

from __future__ import annotations

import random

import pytest
import torch

from awareness.model import hf
from awareness.model.fusion import fuse
from awareness.model.generate import generate_batch
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.model.shared_prompts import SharedBeginning
from awareness.model.weights import pack_weights


@pytest.fixture
def decoder(model, tokenizer, tmp_path):
    fuse(model)
    hf.greedy_by_default(model, tokenizer)
    return Decoder(model, tokenizer, ModelFolder("tiny", tmp_path, "tiny"))


def ids(rng, *lengths):
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


def test_answers_are_those_of_whole_prompts(decoder):
    """Rows of several lengths, asked twice, some of them dropped, and one of them twice."""
    rng = random.Random(0)
    (beginning,) = ids(rng, 9)
    middles, first, second = ids(rng, 5, 12, 3), ids(rng, 4, 1, 7), ids(rng, 2, 6, 3)
    shared = SharedBeginning(decoder, beginning)
    rows = shared.rows(middles)
    whole = [beginning + middle + ending for middle, ending in zip(middles, first, strict=True)]
    assert rows.answers(first, 12) == generate_batch(decoder, whole, max_new_tokens=12)
    rows.keep([0, 2, 2])
    whole = [beginning + middles[i] + ending for i, ending in zip((0, 2, 2), second, strict=True)]
    assert rows.answers(second, 9) == generate_batch(decoder, whole, max_new_tokens=9)
    whole = [beginning + middle + ending for middle, ending in zip(middles, first, strict=True)]
    assert shared.rows(middles).answers(first, 5) == generate_batch(decoder, whole, max_new_tokens=5)  # as it was


def test_an_answer_ends_where_it_should(decoder, monkeypatch):
    continued = hf.continued

    def letters(*arguments, **options):
        """Only capital letters are likely: tokens 32 to 57."""
        logits, cache = continued(*arguments, **options)
        logits[..., :32], logits[..., 58:] = -torch.inf, -torch.inf
        return logits, cache

    monkeypatch.setattr(hf, "continued", letters)
    rng = random.Random(1)
    (beginning,), middles, endings = ids(rng, 4), ids(rng, 3, 6), ids(rng, 5, 2)
    rows = SharedBeginning(decoder, beginning).rows(middles)
    free = rows.answers(endings, 10)
    assert [len(text) for text in free] == [10, 10]
    stop = free[0][3]
    assert rows.answers(endings, 10, stop) == [text.partition(stop)[0] for text in free]
    monkeypatch.setattr(hf, "end_tokens", lambda model: {32 + ord(stop) - ord("A")})
    assert rows.answers(endings, 10) == [text.partition(stop)[0] for text in free]


def test_packed_weights_decode(decoder):
    """Rows of a last token are a view that is not contiguous, which the kernels do not take."""
    pack_weights(decoder.model, "int8")
    rng = random.Random(2)
    rows = SharedBeginning(decoder, ids(rng, 3)[0]).rows(ids(rng, 2, 5))
    assert len(rows.answers(ids(rng, 4, 2), 4)) == 2
