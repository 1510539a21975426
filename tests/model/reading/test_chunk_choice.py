"""Some chunks of a memory: the same as if only they had been assembled, in this order."""

from __future__ import annotations

import pytest
import torch

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.reading.chunk_choice import best_chunks, chunk_scores, with_chunks

TEXTS = ["MAX = 3\n", "def login(self):\n    return MAX\n", "class Pool:\n    size = MIN\n", "x = 1\n"]


@pytest.fixture
def assembled(model, tokenizer):
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="tiny", quant="int8")
    latents = list(encoder.encode(TEXTS))

    def of(places, sharpness=1.0):
        names = [str(place) for place in places]
        chosen = [latents[place] for place in places]
        return assemble(model, encoder.spec, encoder.sink, chosen, names, sharpness=sharpness)

    return of


@pytest.mark.parametrize(("places", "sharpness"), [([0, 1, 2, 3], 1.5), ([2], 1.0), ([3, 0], 1.5), ([1, 2], 1.0)])
def test_the_memory_is_that_of_these_chunks_alone(model, assembled, places, sharpness):
    got, want = with_chunks(model, assembled(range(4), sharpness), places), assembled(places, sharpness)
    assert (got.spans, got.sharpness) == (want.spans, want.sharpness)
    for layer in want.keys:
        torch.testing.assert_close(got.keys[layer], want.keys[layer], atol=1e-4, rtol=1e-4)
        assert torch.equal(got.values[layer], want.values[layer])


def test_the_best_chunks_keep_their_order(assembled):
    memory = assembled(range(4))
    weights = torch.zeros(memory.tokens)
    weights[0] = 9.0  # the sink's do not count
    for span, weight in zip(memory.spans[1:], (3.0, 1.0, 4.0, 2.0), strict=True):
        weights[span.start + 1] = weight
    scores = chunk_scores(memory, weights)
    assert scores == [3.0, 1.0, 4.0, 2.0]
    assert best_chunks(scores, 1) == [2]
    assert best_chunks(scores, 3) == [0, 2, 3]
    assert best_chunks(scores, 9) == [0, 1, 2, 3]
