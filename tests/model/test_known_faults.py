"""The faults of an earlier attempt that other tests don't show: none of them is here.

The others: test_forms.py (a row with an empty mask), test_lora.py (a bias), test_memory_decoder.py (labels, what is
counted), test_scratch.py (the vocabulary), tests/test_config.py (every_n: 0, unknown variants, unread settings).
"""

from __future__ import annotations

import itertools

import pytest
import torch

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.model.adapter import build_adapter
from awareness.model.checkpoint import load_checkpoint, save_checkpoint
from awareness.model.fusion import attached, fuse
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import ModelFolder, find
from awareness.types import Memory
from tests.conftest import GEOMETRY, tiny_model
from tests.model.test_forms import PROMPT, config_of, learn, logits, memory_of


@pytest.mark.parametrize("variant", ["A", "B"])
def test_w_o_zero_survives_every_later_init_pass(model_folder, variant, tmp_path):
    """Transformers' init pass drew W_o again, and a new adapter was no longer the base."""
    section = ModelConfig(base_model_name=str(model_folder))
    config = MemoryConfig(wo_init_zero=True, memory_block_variant=variant, num_memory_tokens=8)
    module, base = build_memory_decoder(section, config, pull=find, dtype=torch.float32)
    memory = memory_of(module.decoder, module.config, 5, 3)
    want = logits(module.decoder)

    def outputs(of):
        blocks = of.adapter.blocks.values()
        return [b.attention.o_proj.weight for b in blocks] + [b.mlp.down_proj.weight for b in blocks if b.mlp]

    assert len(outputs(module)) == 5 * (1 if variant == "A" else 2)
    module.to(torch.bfloat16).to(torch.float32).train().eval()
    module.apply(module.decoder._init_weights)
    module.decoder.init_weights()
    module.decoder.post_init()
    module.decoder.tie_weights()
    assert not any(weight.any() for weight in outputs(module))
    save_checkpoint(tmp_path / "run", module, base.folder, section)
    again, _ = load_checkpoint(tmp_path / "run", pull=find, dtype=torch.float32)
    assert not any(weight.any() for weight in outputs(again))
    with torch.no_grad():
        assert torch.equal(again(PROMPT, memory=memory).logits, want)


@pytest.mark.parametrize("kernel", ["auto", "plain"])
@pytest.mark.parametrize(("form", "bank"), [("joint", "none"), ("joint", "standard"), ("tanh A", "chapters, token")])
def test_what_a_mask_hides_is_not_read_by_any_kernel(form, bank, kernel):
    """The flash path ignored the mask. Hidden tokens of memory, and padding in the prompt."""
    model = fuse(tiny_model("qwen3"), kernel=kernel).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank, gca_start_layer=4))
    memory = memory_of(model, adapter.config, 7, 3)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "gate" in name:
                parameter.fill_(0.5)
    hidden = ~memory.mask[:, None, :, None]
    assert hidden[1].sum() == 4
    attention_mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    padded = PROMPT.masked_fill(attention_mask == 0, 99)
    for grad in (False, True):
        got = []
        for ids, garbage in ((PROMPT, 0.0), (padded, 50.0)):
            keys, values = (
                {i: t.masked_fill(hidden, garbage) for i, t in side.items()} for side in (memory.keys, memory.values)
            )
            with torch.set_grad_enabled(grad), attached(model, Memory(keys, values, mask=memory.mask), adapter=adapter):
                got.append(model(ids, attention_mask=attention_mask).logits.detach()[attention_mask.bool()])
        assert torch.allclose(*got, atol=1e-5)
        seen = Memory(memory.keys, memory.values, mask=torch.ones_like(memory.mask))
        with torch.set_grad_enabled(grad), attached(model, seen, adapter=adapter):
            other = model(PROMPT, attention_mask=attention_mask).logits.detach()[attention_mask.bool()]
        assert not torch.allclose(other, got[0], atol=1e-3)


def ending(model, *steps):
    """From the given forward pass on, row i of the batch puts EOS first, once."""
    count = itertools.count(1)

    def hook(module, args, output):
        now = next(count)
        for row, step in enumerate(steps):
            if now == step:
                output[row, -1] = -1e4
                output[row, -1, GEOMETRY["eos_token_id"]] = 1e4
        return output

    return model.lm_head.register_forward_hook(hook)


@pytest.mark.parametrize("bank", ["none", "chapters, token"])
def test_no_token_follows_eos(tokenizer, bank):
    """One question through `generate`, and a batch whose rows end at different steps."""
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    adapter = build_adapter(model, config_of("tanh A", bank))
    learn(model, adapter, memory_of(model, adapter.config, 5, 3))
    decoder = Decoder(model, tokenizer, ModelFolder("tiny", None, "test"))

    def ask(limit):
        memory = memory_of(model, adapter.config, 5)
        return generate(decoder, PROMPT[0].tolist(), memory, max_new_tokens=limit, adapter=adapter)

    whole, start = ask(9), ask(3)
    with_eos = ending(model, 4)
    short = ask(9)
    with_eos.remove()
    assert (whole.tokens, short.tokens) == (9, 4)
    assert short.text == start.text != whole.text
    hook = ending(model, 2, 5)
    with attached(model, memory_of(model, adapter.config, 5, 3), adapter=adapter):
        rows = model.generate(PROMPT, max_new_tokens=9, do_sample=False)[:, PROMPT.shape[1] :].tolist()
    hook.remove()
    eos, pad = GEOMETRY["eos_token_id"], GEOMETRY["pad_token_id"]
    assert [row.index(eos) for row in rows] == [1, 4] and len(rows[0]) == 5
    assert rows[0][2:] == [pad] * 3
