"""The Qwen2 path with real weights: memory is read as the prompt is. Runs with `pytest -m weights -n 0`."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.load import load
from awareness.model.model_files import pull
from awareness.model.prompts import encode, question_ids, sink_ids
from awareness.model.weights import PackedLinear, exact_weights, pack_weights
from awareness.types import Latent

pytestmark = pytest.mark.weights
NAME = "qwen2.5-coder-0.5b"
CHUNK = "# file: a.py\nclass Auth:\n    def login(self, user):\n        return check(user)\nMAX_TRIES = 4821\n"


@pytest.fixture(scope="module")
def decoder():
    return load(pull(NAME), dtype=torch.float32)


@pytest.fixture(scope="module")
def base(decoder):
    return AutoModelForCausalLM.from_pretrained(decoder.folder.path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def packed():
    return load(pull(NAME), dtype=torch.bfloat16)


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def test_without_memory_it_is_the_base_bitwise(decoder, base):
    ids = question_ids(decoder.tokenizer, "What does login return?")
    assert torch.equal(logits(decoder.model, ids), logits(base, ids))


def test_one_chunk_in_all_layers_is_the_text_in_the_prompt(decoder, base):
    depth = decoder.model.config.num_hidden_layers
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="x", layers=range(depth))
    object.__setattr__(encoder.spec, "dtype", "float32")
    sink = sink_ids(decoder.tokenizer)
    in_fp32 = Latent(len(sink), encoder._project([sink], encoder.spec)[0].data)
    memory = assemble(decoder.model, encoder.spec, in_fp32, list(encoder.encode([CHUNK])))
    question = question_ids(decoder.tokenizer, "What is MAX_TRIES?", with_system=False)
    want = logits(base, sink + encode(decoder.tokenizer, CHUNK) + question)[-len(question) :]
    with attached(decoder.model, memory):
        got = logits(decoder.model, question)
    assert torch.allclose(got, want, atol=2e-3, rtol=1e-3)
    assert torch.equal(got.argmax(-1), want.argmax(-1))


def test_a_constant_is_read_from_memory_by_packed_weights(packed):
    """Latents by the published weights and in int4, the answer by weights in int4."""
    pack_weights(packed.model, "int4")
    encoder = SelfEncoder(packed.model, packed.tokenizer, fingerprint="x", quant="int4")
    memory = assemble(packed.model, encoder.spec, encoder.sink, list(encoder.encode([CHUNK])))
    ids = question_ids(packed.tokenizer, "What is MAX_TRIES?", with_system=False, answer_prefix="MAX_TRIES = ")
    assert generate(packed, ids, memory, max_new_tokens=4).text == "4821"
    assert generate(packed, ids, None, max_new_tokens=4).text != "4821"


def test_int4_is_near_the_published_weights_in_every_layer(packed):
    """Of each linear layer, on inputs of the size that it sees: a relative error that groups of 32 keep small."""
    pack_weights(packed.model, "int4")
    seen = {}
    layers = {name: module for name, module in packed.model.named_modules() if isinstance(module, PackedLinear)}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.__setitem__(name, args[0][:, -4:]))
        for name, module in layers.items()
    ]
    with exact_weights():
        logits(packed.model, encode(packed.tokenizer, CHUNK))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 24 * 7 + 1
    with torch.inference_mode():
        for name, module in layers.items():
            want = linear(seen[name].float(), module.weight.float())
            got = module(seen[name]).float() - (0 if module.bias is None else module.bias.float())
            error = float((got - want).norm() / want.norm())
            assert error < 0.2, (name, error)
