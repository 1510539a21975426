"""What needs real weights: SmolLM2's, and with `pytest -m weights -n 0` Qwen2.5-Coder's."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.load import load
from awareness.model.model_files import pull
from awareness.model.prompts import encode, question_ids, sink_ids
from awareness.model.weights import PackedLinear, exact_weights, pack_weights
from awareness.types import Latent

SMOLLM2, QWEN = "smollm2-135m", "qwen2.5-coder-0.5b"
CHUNK = "# file: a.py\nclass Auth:\n    def login(self, user):\n        return check(user)\nMAX_TRIES = 4821\n"


@functools.cache
def loaded(name: str):
    """The decoder, and transformers' own model of the same folder, in float32."""
    decoder = load(pull(name), dtype=torch.float32)
    return decoder, AutoModelForCausalLM.from_pretrained(decoder.folder.path, dtype=torch.float32).eval()


@pytest.fixture(scope="module", autouse=True)
def _freed():
    yield
    loaded.cache_clear()


@pytest.fixture(params=[SMOLLM2, pytest.param(QWEN, marks=pytest.mark.weights)])
def both(request):
    return loaded(request.param)


@pytest.fixture
def smollm2():
    return loaded(SMOLLM2)


@pytest.fixture(scope="module")
def packed():
    return load(pull(QWEN), dtype=torch.bfloat16)


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def test_without_memory_it_is_the_base_bitwise(both):
    decoder, base = both
    ids = question_ids(decoder.tokenizer, "What does login return?")
    assert torch.equal(logits(decoder.model, ids), logits(base, ids))


def test_one_chunk_in_all_layers_is_the_text_in_the_prompt(both):
    decoder, base = both
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
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if decoder.folder.name == SMOLLM2 else {"atol": 2e-3, "rtol": 1e-3}
    assert torch.allclose(got, want, **tolerance)
    assert torch.equal(got.argmax(-1), want.argmax(-1))


def test_its_weights_in_the_qwen2_class_give_the_same_logits(smollm2):
    decoder, base = smollm2
    config = base.config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += (
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "tie_word_embeddings",
        "max_position_embeddings",
    )
    qwen = Qwen2ForCausalLM(Qwen2Config(**{name: getattr(config, name) for name in names})).eval()
    missing, unexpected = qwen.load_state_dict(base.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[-2:][0] for name in missing} == {"q_proj", "k_proj", "v_proj"}  # the biases alone
    with torch.no_grad():
        for name in missing:
            qwen.get_parameter(name).zero_()
    ids = question_ids(decoder.tokenizer, "What does login return?")
    assert torch.allclose(logits(qwen, ids), logits(base, ids), atol=1e-4)


def test_a_constant_is_read_from_memory(smollm2):
    """The main job in one line: not in the prompt, not in the weights, and yet in the answer."""
    decoder, _ = smollm2
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="x")
    memory = assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode([CHUNK])))
    ids = question_ids(decoder.tokenizer, "What is MAX_TRIES?", with_system=False, answer_prefix="MAX_TRIES = ")
    assert generate(decoder, ids, memory, max_new_tokens=4).text == "4821"
    assert generate(decoder, ids, None, max_new_tokens=4).text != "4821"


def test_the_adapter_that_ships_changes_nothing_without_memory():
    """Bit for bit the base model, LoRA and all."""
    from awareness.engine.modes import shipped_adapter
    from awareness.model.checkpoint import load_checkpoint

    folder = pull("smollm2-135m")
    path = shipped_adapter(folder)
    assert path is not None
    module, base = load_checkpoint(path, pull=lambda name: folder, dtype=torch.float32)
    ids = torch.tensor([base.tokenizer("def add(a, b):\n    return")["input_ids"]])
    plain = load(folder, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(module(ids).logits, plain.model(ids).logits)


@pytest.mark.weights
def test_a_constant_is_read_from_memory_by_packed_weights(packed):
    """Latents by the published weights and in int4, the answer by weights in int4."""
    pack_weights(packed.model, "int4")
    encoder = SelfEncoder(packed.model, packed.tokenizer, fingerprint="x", quant="int4")
    memory = assemble(packed.model, encoder.spec, encoder.sink, list(encoder.encode([CHUNK])))
    ids = question_ids(packed.tokenizer, "What is MAX_TRIES?", with_system=False, answer_prefix="MAX_TRIES = ")
    assert generate(packed, ids, memory, max_new_tokens=4).text == "4821"
    assert generate(packed, ids, None, max_new_tokens=4).text != "4821"


@pytest.mark.weights
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
