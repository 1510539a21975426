"""Batches of texts: little padding, few splits."""

from __future__ import annotations

from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from tests.conftest import tiny_model


def test_batches_have_little_padding_and_few_splits(tokenizer):
    model = fuse(tiny_model("llama"))
    encoder = SelfEncoder(model, tokenizer, fingerprint="tiny", batch_tokens=1600)
    sizes: list[tuple[int, int]] = []
    model.model.layers[0].register_forward_pre_hook(lambda m, args: sizes.append(tuple(args[0].shape[:2])))
    lengths = range(200, 100, -1)
    assert [latent.tokens for latent in encoder.encode(["a" * length for length in lengths])] == list(lengths)
    computed = [rows * width for rows, width in sizes]
    assert max(computed) <= 1600
    assert sum(computed) < 1.02 * sum(lengths)
    assert all(size >= 400 for size in computed[:-1])
    sizes.clear()
    list(encoder.encode(["a" * 200] * 8 + ["b"]))
    assert sizes == [(8, 200), (1, 1)]
