"""Attention to tokens -> attention to lines: every token in its own line, none guessed."""

from __future__ import annotations

import pytest
import torch

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.reading.line_attention import LineAttention
from awareness.types import SINK, Chunk, Memory, Span

CHUNKS = [
    Chunk("src/auth.py", 1, 2, "sign", "def sign(self):\n    return MAX_AGE"),
    Chunk("src/ü.py", 7, 10, "", "größe = 1\n\n}\nmax_size = 10"),
]


def by_hand(tokenizer, chunks):
    """For each token of the encoded texts (a byte each): the number of the line if it counts, or None."""
    numbers, before = [], 0
    for chunk in chunks:
        own = []
        for row, line in enumerate(chunk.encoded_text.split("\n")):
            data = (line + "\n").encode()
            for at, byte in enumerate(data):
                letter = line[len(data[:at].decode(errors="ignore")) :][:1]
                counts = at > 0 and letter.isalnum() and byte != 10
                own.append(before + row if counts else None)
        numbers.append(own[:-1])
        before += chunk.text.count("\n") + 2
    return numbers


@pytest.fixture
def memory(model, tokenizer):
    fused = fuse(model)
    encoder = SelfEncoder(fused, tokenizer, fingerprint="tiny")
    latents = list(encoder.encode([chunk.encoded_text for chunk in reversed(CHUNKS)]))
    return assemble(fused, encoder.spec, encoder.sink, latents, ["1", "0"])


def test_each_token_counts_for_its_line(tokenizer, memory):
    steps = torch.rand(2, memory.tokens, generator=torch.Generator().manual_seed(0))
    expected = [[0.0] * 8, [0.0] * 8]
    for span in memory.spans:
        if span.name != SINK:
            numbers = by_hand(tokenizer, CHUNKS)[int(span.name)]
            assert len(numbers) == span.stop - span.start
            for own, weights in zip(expected, steps[:, span.start : span.stop].tolist(), strict=True):
                for number, weight in zip(numbers, weights, strict=True):
                    if number is not None:
                        own[number] += weight
    found = LineAttention(tokenizer, memory, CHUNKS)(steps)
    assert found == pytest.approx(list(map(max, *expected)), abs=1e-5)
    assert found[5] == found[6] == 0.0 and all(found[i] > 0 for i in (0, 1, 2, 3, 4, 7))  # nothing but a bracket counts


def test_learned_tokens_around_a_chunk_are_in_no_line(tokenizer):
    length = len(tokenizer(CHUNKS[0].encoded_text, add_special_tokens=False)["input_ids"])
    spans = (Span(SINK, 0, 2), Span("0", 2, 2 + 3 + length + 1))
    memory = Memory({0: torch.zeros(1, 1, length + 6, 8)}, {0: torch.zeros(1, 1, length + 6, 8)}, spans)
    weights = torch.zeros(1, length + 6)
    weights[0, [0, 1, 2, 3, 4, 5, -1]] = 1.0  # the last but one is the header's first
    assert LineAttention(tokenizer, memory, CHUNKS[:1], (3, 1))(weights) == [0.0, 0.0, 0.0]
    weights[0, 2 + 3 + len(CHUNKS[0].header.encode()) + 1 + 1] = 0.5  # the second letter of `def`
    assert LineAttention(tokenizer, memory, CHUNKS[:1], (3, 1))(weights) == [0.0, 0.5, 0.0]


def test_a_latent_of_other_tokens_than_the_text_gets_nothing(tokenizer):
    memory = Memory({0: torch.zeros(1, 1, 9, 8)}, {0: torch.zeros(1, 1, 9, 8)}, (Span(SINK, 0, 2), Span("0", 2, 9)))
    assert LineAttention(tokenizer, memory, CHUNKS[:1])(torch.ones(1, 9)) == [0.0, 0.0, 0.0]
