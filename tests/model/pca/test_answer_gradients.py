"""The weights say which numbers of a memory an answer depends on."""

from __future__ import annotations

import pytest
import torch

from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.model.pca.answer_gradients import answer_weights
from awareness.model.presets import NEUTRAL
from awareness.model.quantisation import to_tensor
from tests.conftest import tiny_model


@pytest.fixture(scope="module")
def asked(tokenizer):
    """(encoder, a function: latents of two memories -> the weights)"""
    model = fuse(tiny_model("qwen3"))
    model.config.max_position_embeddings = 4096
    encoder = SelfEncoder(model, tokenizer, fingerprint="test")
    decoder = Decoder(model, tokenizer, ModelFolder("tiny", None, "test"))
    sink = to_tensor(encoder.sink, encoder.spec)

    def weights(latents):
        groups = [[(f"name_{i}", latent)] for i, latent in enumerate(latents)]
        return answer_weights(decoder, NEUTRAL, encoder.spec, sink, groups)

    return encoder, weights


def latents(encoder):
    return [to_tensor(latent, encoder.spec) for latent in encoder.encode(["def a():\n    return 1\n", "b = 2\n"])]


def test_weights_are_a_covariance_of_every_layer_and_always_the_same(asked):
    encoder, weights = asked
    given = latents(encoder)
    found = weights(given)
    width = encoder.spec.num_kv_heads * encoder.spec.head_dim
    assert found.shape == (2, len(encoder.spec.layers), width, width)
    assert found.diagonal(dim1=2, dim2=3).mean().item() == pytest.approx(1.0)
    assert (torch.linalg.eigvalsh(found.double()) > -1e-6).all()
    assert (found.diagonal(dim1=2, dim2=3).sum(-1) > 0).all()  # every layer is read
    assert torch.equal(weights(given), found)
    assert not any(latent.requires_grad for latent in given)


def test_a_layer_whose_values_are_not_read_has_no_weight(asked):
    """The output projection of one head is zero: its values change nothing."""
    encoder, weights = asked
    layer = encoder.spec.layers[0]
    attention = encoder.model.model.layers[layer].self_attn
    kept = attention.o_proj.weight.detach().clone()
    dim, per_head = encoder.spec.head_dim, kept.shape[1] // encoder.spec.num_kv_heads
    with torch.no_grad():
        attention.o_proj.weight[:, :per_head] = 0.0  # all query heads of the first key/value head
    try:
        found = weights(latents(encoder))[1, 0].diagonal()
    finally:
        with torch.no_grad():
            attention.o_proj.weight.copy_(kept)
    assert (found[:dim] == 0).all() and (found[dim:] > 0).all()
