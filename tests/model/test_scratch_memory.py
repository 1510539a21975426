"""A decoder from scratch reads memory as any other does."""

from __future__ import annotations

import copy

import pytest
import torch

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.types import Latent
from tests.model.test_scratch import CHUNK, PROMPT, SINK, decoder, drawn, kinds, logits


def memory_of(model, tokenizer, *texts):
    layers = range(model.config.num_hidden_layers)
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="test", sink=SINK, layers=layers)
    object.__setattr__(encoder.spec, "dtype", "float32")  # the mechanism is compared, not the rounding of bf16
    encoder.sink = Latent(len(SINK), encoder._project([SINK], encoder.spec)[0].data)
    return assemble(model, encoder.spec, encoder.sink, list(encoder.encode(texts)))


@kinds
def test_fused_without_memory_is_the_decoder_bitwise(tokenizer, settings):
    model = decoder(tokenizer, **settings)
    base = copy.deepcopy(model)
    fuse(model)
    assert torch.equal(logits(model), logits(base))
    assert torch.equal(drawn(model, 1), drawn(base, 1))
    assert list(model.state_dict()) == list(base.state_dict())


@kinds
def test_memory_is_the_text_in_the_prompt(tokenizer, settings):
    model = decoder(tokenizer, **settings)
    base = copy.deepcopy(model)
    text = torch.tensor([SINK + tokenizer(CHUNK)["input_ids"] + PROMPT[0].tolist()])
    memory = memory_of(model, tokenizer, CHUNK)
    with attached(model, memory):
        assert torch.allclose(logits(model), logits(base, text)[:, -PROMPT.shape[1] :], atol=1e-4)
    assert not torch.allclose(logits(model), logits(base, text)[:, -PROMPT.shape[1] :], atol=1e-1)
    want = base.generate(text, max_new_tokens=8, do_sample=False)[0, text.shape[1] :]
    folder = ModelFolder("scratch", None, "test")
    got = generate(Decoder(model, tokenizer, folder), PROMPT[0].tolist(), memory, max_new_tokens=8)
    assert got.text == tokenizer.decode(want, skip_special_tokens=True) != ""


@pytest.mark.parametrize("use_rope", [True, False])
def test_without_rope_the_chunks_of_a_memory_have_no_order(tokenizer, use_rope):
    model = decoder(tokenizer, use_rope=use_rope)
    read = []
    for texts in ((CHUNK, "x = 1\n"), ("x = 1\n", CHUNK)):
        with attached(model, memory_of(model, tokenizer, *texts)):
            read.append(logits(model))
    assert torch.allclose(*read, atol=1e-4) is not use_rope
