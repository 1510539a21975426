"""The joint form: the base model without a memory, and the text in the prompt with one."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.adapter import build_adapter
from awareness.model.assemble import assemble
from awareness.model.attention import (
    LayerMemory,
    Prompt,
    attend_concatenated,
    attend_memory,
    attend_prefixed,
    attend_self,
    fused_cpu,
    merge,
)
from awareness.model.attention_record import AttentionRecord
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse, unfuse
from awareness.types import Latent, Memory, default_layers

SINK = [257, 10, 20, 258]
CHUNK = "def login(self):\n    return 7\n"
PROMPT = torch.tensor([[40, 41, 42, 43, 44, 45]])


def encoder_of(model, tokenizer, **options):
    options.setdefault("layers", range(model.config.num_hidden_layers))
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="test", sink=SINK, **options)
    # fp32 latents, so that the comparison measures the mechanism and not the rounding of bf16
    object.__setattr__(encoder.spec, "dtype", "float32")
    encoder.sink = Latent(4, encoder._project([SINK], encoder.spec)[0].data)
    return encoder


def memory_of(model, encoder, *texts) -> Memory:
    return assemble(model, encoder.spec, encoder.sink, list(encoder.encode(texts)))


def logits(model, ids, **options):
    with torch.no_grad():
        return model(ids, **options).logits


def test_fused_without_memory_is_the_base_bitwise(model, tokenizer):
    base = copy.deepcopy(model)
    assert base.config._attn_implementation == "sdpa"
    fuse(model)
    assert torch.equal(logits(model, PROMPT), logits(base, PROMPT))
    encoder = encoder_of(model, tokenizer)
    empty = assemble(model, encoder.spec, Latent(0, bytearray()), [])
    assert empty.tokens == 0
    with attached(model, empty):
        assert torch.equal(logits(model, PROMPT), logits(base, PROMPT))
    assert torch.equal(logits(unfuse(model), PROMPT), logits(base, PROMPT))
    assert list(model.state_dict()) == list(base.state_dict())


def test_one_chunk_in_all_layers_is_the_text_in_the_prompt(model, tokenizer):
    base = copy.deepcopy(model)
    encoder = encoder_of(model, tokenizer)
    memory = memory_of(model, encoder, CHUNK)
    text = torch.tensor([SINK + tokenizer(CHUNK)["input_ids"] + PROMPT[0].tolist()])
    want = logits(base, text)[:, -PROMPT.shape[1] :]
    with attached(model, memory):
        got = logits(model, PROMPT)
    assert torch.allclose(got, want, atol=1e-4)
    assert not torch.allclose(got, logits(model, PROMPT), atol=1e-2)  # and the memory matters


def test_generate_with_memory_is_generate_with_the_text(model, tokenizer):
    base = copy.deepcopy(model)
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK)
    text = torch.tensor([SINK + tokenizer(CHUNK)["input_ids"] + PROMPT[0].tolist()])
    want = base.generate(text, max_new_tokens=12, do_sample=False)[:, text.shape[1] :]
    with attached(model, memory):
        cached = model.generate(PROMPT, max_new_tokens=12, do_sample=False)[:, PROMPT.shape[1] :]
        uncached = model.generate(PROMPT, max_new_tokens=12, do_sample=False, use_cache=False)[:, PROMPT.shape[1] :]
    assert cached.tolist() == want.tolist() == uncached.tolist()


def test_padding_in_a_batch_changes_nothing(model, tokenizer):
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK, "x = 1\n")
    short, long = [40, 41, 42], [50, 51, 52, 53, 54, 55, 56]
    pad = len(long) - len(short)
    ids = torch.tensor([[258] * pad + short, long])
    mask = torch.tensor([[0] * pad + [1] * len(short), [1] * len(long)])
    with attached(model, memory):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        batch = logits(model, ids, attention_mask=mask, position_ids=positions)
        assert not batch.isnan().any()
        assert torch.allclose(batch[0, pad:], logits(model, torch.tensor([short]))[0], atol=1e-5)
        assert torch.allclose(batch[1], logits(model, torch.tensor([long]))[0], atol=1e-5)
        together = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
        for row, alone in zip(together, (short, long), strict=True):
            single = model.generate(torch.tensor([alone]), max_new_tokens=8, do_sample=False)
            assert row[-8:].tolist()[: single.shape[1] - len(alone)] == single[0, len(alone) :].tolist()


def test_prefixed_equals_concatenated():
    torch.manual_seed(1)
    query, (key, value) = torch.randn(2, 6, 20, 8), torch.randn(2, 2, 2, 20, 8)
    memory = LayerMemory(torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8))
    got = attend_prefixed(Prompt(query, key, value, None), memory, 0.3)
    assert torch.allclose(got, attend_concatenated(Prompt(query, key, value, None), memory, 0.3), atol=1e-5)


def test_rows_with_memories_of_different_length(model, tokenizer):
    """A mask over the memory gives each row its own: equal to reading each alone."""
    encoder = encoder_of(model, tokenizer)
    short = memory_of(model, encoder, "a = 1\n")
    long = memory_of(model, encoder, CHUNK)
    pad = long.tokens - short.tokens

    def both(side):
        padded = {
            i: torch.cat([torch.full_like(getattr(long, side)[i][:, :, :pad], 9.0), t], 2)
            for i, t in getattr(short, side).items()
        }
        return {i: torch.cat([padded[i], getattr(long, side)[i]]) for i in padded}

    mask = torch.ones(2, long.tokens, dtype=torch.bool)
    mask[0, :pad] = False
    with attached(model, Memory(both("keys"), both("values"), mask=mask)):
        got = logits(model, PROMPT.repeat(2, 1))
    for row, memory in zip(got, (short, long), strict=True):
        with attached(model, memory):
            assert torch.allclose(row, logits(model, PROMPT)[0], atol=1e-5)


@pytest.mark.parametrize(("length", "cached"), [(1, 0), (1, 5), (4, 0), (4, 3)])
@pytest.mark.parametrize("padded", [False, True])
def test_merged_equals_concatenated(length, cached, padded):
    torch.manual_seed(1)
    query, width = torch.randn(2, 6, length, 8), length + cached
    key, value = torch.randn(2, 2, 2, width, 8)
    memory = LayerMemory(torch.randn(1, 2, 11, 8), torch.randn(1, 2, 11, 8))
    mask = None
    if padded:  # the first row begins with padding: its first query sees nothing of its own
        mask = torch.ones(length, width, dtype=torch.bool).tril(cached).repeat(2, 1, 1, 1)
        mask[0, ..., : cached + 1] = False
    own = Prompt(query, key, value, mask)
    got = merge(attend_self(own, 0.3, fused_cpu), attend_memory(query, memory, 0.3, fused_cpu))
    want = attend_concatenated(own, memory, 0.3)
    assert not got.isnan().any()
    assert torch.allclose(got, want, atol=1e-5)


def test_several_chunks_are_sharpened_and_the_sink_is_not(model, tokenizer):
    encoder = encoder_of(model, tokenizer)
    latents = list(encoder.encode([CHUNK, "x = 1\n"]))
    plain = assemble(model, encoder.spec, encoder.sink, latents, sharpness=1.0)
    sharp = assemble(model, encoder.spec, encoder.sink, latents, sharpness=1.2)
    for layer, keys in plain.keys.items():
        assert torch.equal(sharp.keys[layer][:, :, : len(SINK)], keys[:, :, : len(SINK)])
        assert torch.allclose(sharp.keys[layer][:, :, len(SINK) :], keys[:, :, len(SINK) :] * 1.2)
        assert torch.equal(sharp.values[layer], plain.values[layer])


def test_a_single_chunk_is_never_sharpened(model, tokenizer):
    encoder = encoder_of(model, tokenizer)
    latents = list(encoder.encode([CHUNK]))
    plain, sharp = (assemble(model, encoder.spec, encoder.sink, latents, sharpness=s) for s in (1.0, 1.2))
    assert all(torch.equal(sharp.keys[layer], keys) for layer, keys in plain.keys.items())


def test_gradient_reaches_memory(model, tokenizer):
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK)
    keys = {i: t.clone().requires_grad_() for i, t in memory.keys.items()}
    with attached(model, Memory(keys, memory.values)):
        model(PROMPT).logits.square().mean().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in keys.values())


def test_attached_always_clears_and_is_per_thread(model, tokenizer):
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK)
    base = logits(model, PROMPT)
    with pytest.raises(RuntimeError, match="boom"), attached(model, memory):
        raise RuntimeError("boom")
    assert torch.equal(logits(model, PROMPT), base)
    elsewhere = []
    with attached(model, memory):
        thread = threading.Thread(target=lambda: elsewhere.append(logits(model, PROMPT)))
        thread.start()
        thread.join()
        assert not torch.equal(logits(model, PROMPT), base)
    assert torch.equal(elsewhere[0], base)


def test_record_is_the_share_of_attention(model, tokenizer):
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK)
    record = AttentionRecord(range(2, 5), keep=True)
    with attached(model, memory, record=record):
        model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert set(record.sums) == {2, 3, 4}
    for layer, weights in record.memory_attention_weights.items():
        # two decoding steps after the prefill, each a probability a head
        assert weights.shape == (1, model.config.num_attention_heads, 2, memory.tokens)
        assert torch.equal(record.sums[layer], weights.sum(dim=2))
        assert (weights.sum(dim=-1) > 0).all() and (weights.sum(dim=-1) < 1).all()


def test_a_latent_does_not_depend_on_its_batch(model, tokenizer):
    encoder = encoder_of(model, tokenizer, batch_tokens=4096)
    texts = ["a\n", CHUNK, "class B: pass\n"]
    together = [torch.frombuffer(x.data, dtype=torch.float32) for x in encoder.encode(texts)]
    alone = [torch.frombuffer(next(encoder.encode([t])).data, dtype=torch.float32) for t in texts]
    for left, right in zip(together, alone, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_default_layers_start_at_a_sixth():
    assert default_layers(30) == tuple(range(5, 30))
    assert default_layers(4) == (0, 1, 2, 3)


def test_other_architectures_are_refused(tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(UsageError, match="GPT2LMHeadModel"):
        fuse(GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=10)))


def test_unfused_model_with_memory_is_refused(model, tokenizer):
    memory = memory_of(model, encoder_of(model, tokenizer), CHUNK)
    with pytest.raises(UsageError, match="cannot read memory"), attached(unfuse(model), memory):
        pass


def test_sharpness_of_all_heads_is_a_factor_on_the_keys(model, tokenizer):
    config = MemoryConfig(memory_form="joint", num_memory_tokens=0, learn_sharpness=True, gca_start_layer=0)
    encoder = encoder_of(model, tokenizer)
    memory, adapter = memory_of(model, encoder, CHUNK), build_adapter(model, config)
    with attached(model, memory, adapter=adapter):
        plain = logits(model, PROMPT)
    for block in adapter.blocks.values():
        block.sharpness.data.fill_(0.5)
    with attached(model, memory, adapter=adapter):
        sharpened = logits(model, PROMPT)
        model(PROMPT).logits.sum().backward()
    by_keys = Memory({layer: 1.5 * key for layer, key in memory.keys.items()}, memory.values, memory.spans)
    with attached(model, by_keys):
        want = logits(model, PROMPT)
    assert torch.allclose(sharpened, want, atol=1e-4)
    assert not torch.allclose(sharpened, plain, atol=1e-2)
    assert all(block.sharpness.grad.abs().sum() > 0 for block in adapter.blocks.values())
