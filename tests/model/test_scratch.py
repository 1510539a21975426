"""A decoder made from scratch: what each setting of `model:` changes, and that memory works in every kind."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from awareness.config.decoder import ModelConfig
from awareness.errors import UsageError
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.model.scratch import build_decoder
from awareness.types import Latent

SINK = [257, 10, 20, 258]
CHUNK = "def login(self):\n    return 7\n"
PROMPT = torch.tensor([[40, 41, 42, 43, 44, 45]])
KINDS = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "no positions": {"use_rope": False},
    "layer norm": {"use_rms_norm": False},
    "neither": {"use_rope": False, "use_rms_norm": False, "num_kv_heads": 1},
}
kinds = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


def section(**settings) -> ModelConfig:
    small = {"hidden_dim": 32, "num_heads": 4, "num_layers": 2, "intermediate_dim": 48, "max_seq_len": 128}
    return ModelConfig(base_model_name=None, **{**small, **settings})


def decoder(tokenizer, **settings):
    """In eval mode, with matrices so large that attention is not uniform and norms that are not 1."""
    torch.manual_seed(0)
    model = build_decoder(section(**settings), tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
            else:
                parameter.add_(torch.rand_like(parameter) - 0.5)
    return model


def logits(model, ids=PROMPT, **options):
    with torch.no_grad():
        return model(ids, **options).logits


def drawn(model, seed, ids=PROMPT):
    """Logits in train mode."""
    torch.manual_seed(seed)
    got = logits(model.train(), ids)
    model.eval()
    return got


def shapes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


# What is built


def test_sizes_are_those_of_the_settings(tokenizer):
    config = section(hidden_dim=40, num_heads=5, num_kv_heads=1, num_layers=3, intermediate_dim=56, vocab_size=270)
    layer = {
        "self_attn.q_proj.weight": (40, 40),
        "self_attn.k_proj.weight": (8, 40),
        "self_attn.v_proj.weight": (8, 40),
        "self_attn.o_proj.weight": (40, 40),
        "self_attn.q_norm.weight": (8,),
        "self_attn.k_norm.weight": (8,),
        "mlp.gate_proj.weight": (56, 40),
        "mlp.up_proj.weight": (56, 40),
        "mlp.down_proj.weight": (40, 56),
        "input_layernorm.weight": (40,),
        "post_attention_layernorm.weight": (40,),
    }
    assert shapes(build_decoder(config, tokenizer)) == {
        "model.embed_tokens.weight": (270, 40),
        **{f"model.layers.{i}.{name}": shape for i in range(3) for name, shape in layer.items()},
        "model.norm.weight": (40,),
        "lm_head.weight": (270, 40),
    }


@pytest.mark.parametrize(("hidden", "want"), [(32, 128), (24, 64), (26, 128), (48, 128), (512, 1408), (768, 2048)])
def test_default_of_intermediate_dim_is_eight_thirds(tokenizer, hidden, want):
    config = section(hidden_dim=hidden, num_heads=1, use_rope=False, num_layers=1, intermediate_dim=None)
    model = build_decoder(config, tokenizer)
    assert model.model.layers[0].mlp.gate_proj.weight.shape == (want, hidden)


def test_default_of_num_kv_heads_is_num_heads(tokenizer):
    assert build_decoder(section(), tokenizer).model.layers[0].self_attn.k_proj.weight.shape == (32, 32)


def test_the_seed_decides_the_weights(tokenizer):
    def built(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in build_decoder(section(), tokenizer).parameters()])

    assert torch.equal(built(1), built(1))
    assert not torch.equal(built(1), built(2))


def test_special_tokens_come_from_the_tokenizer(tokenizer):
    model = build_decoder(section(), tokenizer)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (257, 258, 258)
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    model = build_decoder(section(), bare)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 258


# The vocabulary


def test_the_vocabulary_comes_from_the_tokenizer(tokenizer):
    assert build_decoder(section(), tokenizer).lm_head.weight.shape[0] == len(tokenizer) == 259


def test_vocabulary_reaches_the_highest_id_of_a_tokenizer_with_holes():
    core = Tokenizer(models.BPE(vocab={"a": 0, "b": 7}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert len(tokenizer) == 2
    assert logits(build_decoder(section(), tokenizer), torch.tensor([[0, 7]])).shape == (1, 2, 8)


def test_vocabulary_smaller_than_the_tokenizer_is_refused(tokenizer):
    with pytest.raises(UsageError, match=r"vocab_size 258 .* 259 "):
        build_decoder(section(vocab_size=258), tokenizer)
    assert build_decoder(section(vocab_size=259), tokenizer).config.vocab_size == 259


# Positions


def test_rope_theta_turns_the_keys(tokenizer):
    model, other = decoder(tokenizer, rope_theta=10_000.0), decoder(tokenizer, rope_theta=50.0)
    assert not torch.allclose(logits(model), logits(other), atol=1e-3)
    frequencies = 50.0 ** -(torch.arange(0, 8, 2) / 8)
    angles = (3 * frequencies).repeat(2)
    cos, sin = other.model.rotary_emb(torch.zeros(1), torch.tensor([[3]]))
    assert torch.allclose(cos[0, 0], angles.cos()) and torch.allclose(sin[0, 0], angles.sin())


@pytest.mark.parametrize("use_rope", [True, False])
def test_without_rope_earlier_tokens_have_no_order(tokenizer, use_rope):
    """In one layer the last token sees a set; positions given by hand change nothing in any number of layers."""
    shuffled = PROMPT[:, [3, 0, 4, 2, 1, 5]]
    one = decoder(tokenizer, use_rope=use_rope, num_layers=1)
    assert torch.allclose(logits(one)[:, -1], logits(one, shuffled)[:, -1], atol=1e-4) is not use_rope
    two = decoder(tokenizer, use_rope=use_rope)
    assert not torch.allclose(logits(two)[:, -1], logits(two, shuffled)[:, -1], atol=1e-2)  # the mask tells an order
    stretched = torch.arange(PROMPT.shape[1])[None] * 3
    assert torch.equal(logits(two), logits(two, position_ids=stretched)) is not use_rope


def test_without_rope_the_dtype_is_the_models(tokenizer):
    model = decoder(tokenizer, use_rope=False).bfloat16()
    assert logits(model).dtype == torch.bfloat16
    cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float16), torch.zeros(2, 3, dtype=torch.long))
    assert cos.dtype == sin.dtype == torch.float16
    assert torch.equal(cos, torch.ones(2, 3, 8)) and torch.equal(sin, torch.zeros(2, 3, 8))


def test_longer_than_max_seq_len_is_refused(tokenizer):
    model = decoder(tokenizer, max_seq_len=8)
    assert model.config.max_position_embeddings == 8
    eight, nine = torch.arange(8)[None], torch.arange(9)[None]
    assert logits(model, eight).shape == (1, 8, 259)
    embedded = model.model.embed_tokens(nine)
    for call in (
        lambda: model(nine),
        lambda: model.model(nine),
        lambda: model(inputs_embeds=embedded),
        lambda: model.generate(eight, max_new_tokens=2, min_new_tokens=2, do_sample=False),
    ):
        with torch.no_grad(), pytest.raises(UsageError, match=r"9 tokens .*max_seq_len 8"):
            call()
    assert model.generate(eight[:, 1:], max_new_tokens=2, min_new_tokens=2, do_sample=False).shape == (1, 9)


# Dropout


def test_dropout_has_its_rate_and_scale(tokenizer):
    model = build_decoder(section(dropout=0.3, hidden_dim=64, num_heads=2), tokenizer)
    torch.manual_seed(1)
    ids = torch.randint(0, 257, (2, 100))
    embedded = model.model.embed_tokens(ids)
    states = torch.randn(2, 100, 64)
    table = model.model.rotary_emb(states, torch.arange(100)[None])
    outputs = {
        "embeddings": (embedded, model.model.embed_tokens.weight[ids]),
        "mlp": (model.model.layers[1].mlp(states), model.eval().model.layers[1].mlp(states)),
        "attention": (
            model.train().model.layers[1].self_attn(states, position_embeddings=table, attention_mask=None)[0],
            model.eval().model.layers[1].self_attn(states, position_embeddings=table, attention_mask=None)[0],
        ),
    }
    for name, (got, whole) in outputs.items():
        kept = got != 0
        assert abs(1 - kept.float().mean() - 0.3) < 0.02, name
        assert torch.allclose(got[kept], whole[kept] / 0.7, atol=1e-5), name


@pytest.mark.parametrize("setting", ["dropout", "attention_dropout"])
def test_dropout_is_of_training_only(tokenizer, setting):
    model, without = decoder(tokenizer, **{setting: 0.3}), decoder(tokenizer)
    assert torch.equal(logits(model), logits(without))
    assert not torch.equal(drawn(model, 1), drawn(model, 2))
    assert torch.equal(drawn(model, 1), drawn(model, 1))
    assert torch.equal(drawn(without, 1), drawn(without, 2))
    assert list(model.state_dict()) == list(without.state_dict())


def test_dropout_reaches_every_layer(tokenizer):
    model = build_decoder(section(dropout=0.3), tokenizer)
    inner = model.model
    wanted = [inner.embed_tokens, *(m for layer in inner.layers for m in (layer.self_attn, layer.mlp))]
    assert [m for m in model.modules() if m._forward_hooks] == wanted
    assert not any(m._forward_hooks for m in build_decoder(section(), tokenizer).modules())


def test_attention_dropout_is_of_the_attention_weights(tokenizer):
    """A first token sees itself alone: its weight is dropped, and nothing is left, or scaled up."""
    model = decoder(tokenizer, attention_dropout=0.25)
    attention = model.train().model.layers[0].self_attn
    torch.manual_seed(1)
    states = torch.randn(2000, 1, 32)
    table = model.model.rotary_emb(states, torch.zeros(1, 1, dtype=torch.long))
    mixed = []
    attention.o_proj.register_forward_pre_hook(lambda _, args: mixed.append(args[0].detach()))
    attention(states, position_embeddings=table, attention_mask=None)
    heads, values = (t.reshape(2000, 4, 8) for t in (mixed[0], attention.v_proj(states)))
    kept = (heads != 0).all(-1)
    assert torch.equal((heads == 0).all(-1), ~kept)
    assert abs(1 - kept.float().mean() - 0.25) < 0.02
    assert torch.allclose(heads[kept], values[kept] / 0.75, atol=1e-5)


# Norms


def norms(model):
    layers = model.model.layers
    return [*(n for layer in layers for n in (layer.input_layernorm, layer.post_attention_layernorm)), model.model.norm]


def test_layer_norm_takes_the_mean_away_and_rms_norm_does_not(tokenizer):
    states = torch.randn(2, 3, 32)
    for norm in norms(decoder(tokenizer, use_rms_norm=False)):
        assert torch.allclose(norm(states + 5.0), norm(states), atol=1e-4)
    for norm in norms(decoder(tokenizer)):
        assert not torch.allclose(norm(states + 5.0), norm(states), atol=1e-1)


def test_layer_norm_is_in_the_decoders_norms_alone(tokenizer):
    model = build_decoder(section(use_rms_norm=False), tokenizer)
    assert [m for m in model.modules() if isinstance(m, nn.LayerNorm)] == norms(model)
    plain = shapes(build_decoder(section(), tokenizer))
    biases = {n.removesuffix("weight") + "bias": s for n, s in plain.items() if "layernorm" in n or "model.norm" in n}
    assert shapes(model) == {**plain, **biases}
    for norm in norms(model):
        assert torch.equal(norm.weight, torch.ones(32)) and torch.equal(norm.bias, torch.zeros(32))


@pytest.mark.parametrize("use_rms_norm", [True, False])
def test_norm_eps_is_under_the_root(tokenizer, use_rms_norm):
    config = section(use_rms_norm=use_rms_norm, norm_eps=3.0)
    model = build_decoder(config, tokenizer)
    states = torch.tensor([[1.0, -1.0] * 16])  # mean 0, mean square 1
    for norm in norms(model):
        assert torch.allclose(norm(states), states / 2)
    heads = [n for layer in model.model.layers for n in (layer.self_attn.q_norm, layer.self_attn.k_norm)]
    assert all(torch.allclose(norm(states[:, :8]), states[:, :8] / 2) for norm in heads)


# Kernels


@kinds
def test_matrix_products_give_the_same_numbers(tokenizer, settings):
    model, plain = decoder(tokenizer, **settings), decoder(tokenizer, use_flash_attention=False, **settings)
    rows, mask = PROMPT.repeat(2, 1), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    assert torch.allclose(logits(plain), logits(model), atol=1e-4)
    padded = logits(plain, rows, attention_mask=mask), logits(model, rows, attention_mask=mask)
    assert torch.allclose(*(t[mask.bool()] for t in padded), atol=1e-4)
    tokens = [m.generate(PROMPT, max_new_tokens=6, do_sample=False).tolist() for m in (plain, model)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("use_flash_attention", [True, False])
def test_a_fused_kernel_is_called_unless_told_otherwise(tokenizer, use_flash_attention):
    model = decoder(tokenizer, use_flash_attention=use_flash_attention)
    with torch.profiler.profile() as profile:
        logits(model)
    fused = {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key}
    assert bool(fused) is use_flash_attention


@pytest.mark.parametrize("use_flash_attention", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(tokenizer, use_flash_attention):
    model = decoder(tokenizer, use_flash_attention=use_flash_attention, dropout=0.2, attention_dropout=0.2).train()

    def gradients():
        torch.manual_seed(1)
        model.zero_grad()
        model(PROMPT, labels=PROMPT, use_cache=False).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    want = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients(), want, strict=True))


# Training


@kinds
def test_gradients_reach_every_parameter(tokenizer, settings):
    model = build_decoder(section(**settings), tokenizer)
    model(PROMPT, labels=PROMPT).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_the_padding_token_is_learned_where_it_is_a_token_of_the_text(tokenizer):
    """EOS and padding are often one token: it has an embedding like any other."""
    model = build_decoder(section(), tokenizer)
    ids = torch.tensor([[40, tokenizer.pad_token_id, 41]])
    model(ids, labels=ids).loss.backward()
    weight = model.model.embed_tokens.weight
    assert weight[258].abs().sum() > 0 and weight.grad[258].abs().sum() > 0


@kinds
def test_one_batch_is_learned(tokenizer, settings):
    torch.manual_seed(0)
    model = build_decoder(section(dropout=0.1, attention_dropout=0.1, **settings), tokenizer)
    ids = torch.tensor([tokenizer(CHUNK)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = model(ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] > 5 and losses[-1] < 1.5


# On disk


@kinds
def test_weights_load_into_a_model_of_the_same_settings(tokenizer, settings):
    model = decoder(tokenizer, dropout=0.1, **settings)
    again = build_decoder(section(dropout=0.1, **settings), tokenizer).eval()
    assert not torch.equal(logits(again), logits(model))
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again), logits(model))


# Memory


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
