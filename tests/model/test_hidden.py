"""Vectors from the decoder's hidden states: what is read, what is kept, and SmolLM2's own states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from awareness.errors import UsageError
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.hidden import CHUNKS, QUESTIONS, Head, HiddenStateEmbedder, MiddleStates
from awareness.model.load import Decoder, load
from awareness.model.prompts import encode
from awareness.model.sources import ModelFolder, pull
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer

TEXTS = ["def f(x):\n    return x\n", "x", "", "class A:\n" + "    pass\n" * 9, "y = 1\n"]


@pytest.fixture(params=["qwen3", "llama"])
def decoder(request, tmp_path) -> Decoder:
    return Decoder(fuse(tiny_model(request.param)), tiny_tokenizer(), ModelFolder("tiny", tmp_path, "print"))


@pytest.fixture
def embedder(decoder) -> HiddenStateEmbedder:
    torch.manual_seed(0)
    return HiddenStateEmbedder(decoder, Head(48, dim=16, queries=2), layer=3)


def test_states_are_those_of_the_decoder_behind_the_sink(decoder):
    states = MiddleStates(decoder, 3)
    for text, got in zip(TEXTS, states(TEXTS), strict=True):
        ids = torch.tensor([encode(decoder.tokenizer, text or "\n")])
        with attached(decoder.model, states.sink), torch.inference_mode():
            want = decoder.model(ids, output_hidden_states=True).hidden_states[3][0]
        assert torch.allclose(got, want, atol=1e-4)


def test_the_pass_that_makes_latents_goes_through_the_same_states(decoder):
    """A hook on that layer, while latents are made, sees them: an index could have both from one pass."""
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="x")
    seen = []
    handle = decoder.model.model.layers[2].register_forward_hook(lambda module, args, output: seen.append(output))
    list(encoder.encode(TEXTS[:1]))
    handle.remove()
    want = next(MiddleStates(decoder, 3)(TEXTS[:1]))
    near = torch.cosine_similarity(seen[-1][0], want, dim=-1)  # the sink that all can read is rounded to bfloat16
    assert near.min() > 0.999


def test_no_hook_stays_and_the_decoder_is_what_it_was(decoder):
    ids = torch.arange(5)[None]
    with torch.inference_mode():
        before = decoder.model(ids).logits
        list(MiddleStates(decoder, 6)(TEXTS))
        assert torch.equal(decoder.model(ids).logits, before)


@pytest.mark.parametrize("layer", [0, 7, -1])
def test_a_layer_that_is_not_there(decoder, layer):
    with pytest.raises(UsageError, match="has no layer"):
        MiddleStates(decoder, layer)


def test_padding_changes_nothing():
    head = Head(8, dim=4)
    states = torch.randn(1, 5, 8)
    alone = head(states[:, :3], torch.ones(1, 3, dtype=torch.bool), CHUNKS)
    padded = head(states, torch.tensor([[True, True, True, False, False]]), CHUNKS)
    assert torch.allclose(alone, padded, atol=1e-6)
    assert padded.norm(dim=-1).item() == pytest.approx(1)
    assert not torch.allclose(head(states, torch.ones(1, 5, dtype=torch.bool), QUESTIONS), padded, atol=1e-3)


def test_one_vector_a_chunk_in_order(embedder):
    chunks = [Chunk("a.py", 1, 1, f"f{n}", text) for n, text in enumerate(TEXTS)]
    vectors = list(embedder.chunks(chunks))
    assert [vector.shape for vector in vectors] == [(16,)] * len(TEXTS)
    for chunk, vector in zip(chunks, vectors, strict=True):
        assert next(embedder.chunks([chunk])) == pytest.approx(vector, abs=1e-5)
    assert np.linalg.norm(embedder.question("where?")) == pytest.approx(1)
    assert list(embedder.chunks([])) == []


def test_a_head_is_read_back(model_folder, tmp_path):
    folder = ModelFolder("tiny", model_folder, "print")
    embedder = HiddenStateEmbedder(load(folder, dtype=torch.float32), Head(48, dim=16), layer=2)
    embedder.save(tmp_path / "heads" / "head.safetensors")
    again = HiddenStateEmbedder.of_file(tmp_path / "heads" / "head.safetensors", lambda name: folder)
    assert again.fingerprint == embedder.fingerprint
    assert again.question("where?") == pytest.approx(embedder.question("where?"))
    other = ModelFolder("tiny", model_folder, "another print")
    with pytest.raises(UsageError, match="was trained for print, not for another print"):
        HiddenStateEmbedder.of_file(tmp_path / "heads" / "head.safetensors", lambda name: other)


def test_the_fingerprint_is_that_of_decoder_layer_and_head(decoder):
    head, other = Head(48, dim=4), Head(48, dim=4)
    made = [HiddenStateEmbedder(decoder, h, layer).fingerprint for h, layer in ((head, 2), (head, 3), (other, 2))]
    assert len(set(made)) == 3
    assert HiddenStateEmbedder(decoder, head, 2).fingerprint == made[0]


def test_a_file_that_holds_no_head(embedder, tmp_path):
    path = tmp_path / "head.safetensors"
    folder = embedder.decoder.folder
    for data in (None, b"", b"not safetensors at all"):
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UsageError, match="holds no head"):
            HiddenStateEmbedder.of_file(path, lambda name: folder)
    embedder.save(path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not the file, which is written over
    save_file(tensors, path)
    with pytest.raises(UsageError, match="holds no head for hidden states: it is another kind of file"):
        HiddenStateEmbedder.of_file(path, lambda name: folder)


def test_smollm2s_states_tell_like_from_unlike():
    """Real weights, a head that was not trained: two ways to sign a cookie are nearer than a way to draw a circle."""
    decoder = load(pull("smollm2-135m"), dtype=torch.float32)
    torch.manual_seed(0)
    embedder = HiddenStateEmbedder(decoder, Head(decoder.model.config.hidden_size), layer=14)
    texts = [
        "def sign(cookie):\n    return hmac(key, cookie)",
        "def signed(cookie, key):\n    return hmac(cookie, key)",
    ]
    texts.append("void draw(Circle c) { canvas.arc(c.x, c.y, c.radius); }")
    one, two, other = embedder.chunks([Chunk("a", 1, 2, "", text) for text in texts])
    assert one @ two > max(one @ other, two @ other) + 0.05
