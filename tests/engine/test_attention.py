"""What an answer looked at, computed again: the same weights as while it was generated, on the chunks' own text."""

from __future__ import annotations

import pytest
import torch

from awareness.engine.engine import Engine
from awareness.errors import UsageError
from awareness.model import answering, generate
from awareness.model.attention_record import AttentionRecord
from tests.conftest import git, write_tree

FILES = {
    "src/pool.py": "\n\nclass HTTPConnectionPool:\n    # größer → 1\n    def acquire(self):\n        return 1\n",
    "src/cookie.py": "def sign_cookie(value):\n    return hmac_digest(value)\n",
}


@pytest.fixture
def engine(tmp_path, model_folder):
    root = write_tree(tmp_path / "repository", FILES)
    git(root, "init", "-q")
    with Engine.open(root, model=str(model_folder)) as opened:
        opened.refresh()
        yield opened


def test_it_is_what_the_decoder_gave_while_it_answered(engine, monkeypatch):
    records = []

    def keeping(decoder, prompt, memory, *, record, **options):
        records.append(AttentionRecord(memory.keys, keep=True))
        return generate.generate(decoder, prompt, memory, record=records[0], **options)

    monkeypatch.setattr(answering, "generate", keeping)
    answer = engine.ask("HTTPConnectionPool acquire", max_new_tokens=12)
    attention = engine.attention(answer)
    assert attention.total == len(attention.tokens) == len(answer.tokens.answer) > 2
    assert attention.layers == tuple(records[0].memory_attention_weights)
    for row, steps in enumerate(records[0].memory_attention_weights.values()):  # a step gave the token after it
        assert torch.allclose(attention.weights[row, :, 1:].float(), steps[0], atol=1e-3)


def test_the_pieces_of_the_tokens_are_the_text_of_the_chunks(engine):
    answer = engine.ask("HTTPConnectionPool acquire", max_new_tokens=4)
    attention = engine.attention(answer)
    assert {own.place: "".join(own.pieces) for own in attention.chunks} == {
        place: hit.chunk.text for place, hit in enumerate(answer.hits)
    }
    last = max(attention.chunks, key=lambda own: own.start)
    assert last.place == 0 and last.start + len(last.pieces) == answer.memory.tokens
    assert min(own.start for own in attention.chunks) == attention.sink > 0
    decoder = engine.load().decoder
    assert "".join(attention.tokens) == decoder.tokenizer.decode(answer.tokens.answer, skip_special_tokens=True)


def test_means_over_layers_heads_and_tokens(engine):
    attention = engine.attention(engine.ask("HTTPConnectionPool acquire", max_new_tokens=4))
    weights, rows = attention.weights.float(), [attention.layers.index(own) for own in attention.retrieval]
    layer = attention.layers[-1]
    assert torch.allclose(attention.heat(), weights[rows].mean(dim=(0, 1, 2)), atol=1e-6)
    assert torch.allclose(attention.heat(layer, 2, 1), weights[-1, 2, 1])
    assert torch.allclose(attention.heat(layer, head=3), weights[-1, 3].mean(dim=0), atol=1e-6)
    assert torch.allclose(attention.heat(token=0), weights[rows][:, :, 0].mean(dim=(0, 1)), atol=1e-6)


def test_of_a_long_answer_the_first_tokens_are_kept(engine, monkeypatch):
    answer = engine.ask("HTTPConnectionPool acquire", max_new_tokens=12)
    whole = engine.attention(answer)
    monkeypatch.setattr("awareness.model.token_attention.MOST_BYTES", 3 * whole.weights[:, :, 0].numel() * 2)
    first = engine.attention(answer)
    assert first.weights.shape[2] == len(first.tokens) == 3 and first.total == whole.total
    assert torch.allclose(first.weights, whole.weights[:, :, :3], atol=1e-3)


def test_an_answer_without_a_memory_is_refused(tmp_path, engine, model_folder):
    with Engine.open(tmp_path / "repository", model=str(model_folder), mode="text") as engine:
        answer = engine.ask("HTTPConnectionPool acquire", max_new_tokens=2)
        with pytest.raises(UsageError, match="mode text"):
            engine.attention(answer)
