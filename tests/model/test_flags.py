"""What the settings of `memory:` change that are about the adapter: layers, blocks, banks, chapters.

docs/model.md has the test of every setting; tests/test_config.py holds the two together.
"""

from __future__ import annotations

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.adapter import build_adapter, memory_layers
from awareness.model.fusion import attached, fuse
from tests.conftest import tiny_model
from tests.model.test_forms import FORMS, PROMPT, config_of, learn, logits, memory_of

CHAPTERS = {"num_memory_tokens": 24, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2}


def adapter_of(**settings):
    torch.manual_seed(0)
    return build_adapter(fuse(tiny_model("qwen3")), MemoryConfig(**settings))


def shapes(module, part):
    return {name: tuple(p.shape) for name, p in module.named_parameters() if part in name}


# Which layers


@pytest.mark.parametrize(
    ("num_layers", "settings", "layers"),
    [
        (12, {}, range(2, 12)),
        (6, {}, range(1, 6)),
        (5, {}, range(5)),
        (12, {"gca_start_layer": 0}, range(12)),
        (12, {"gca_start_layer": 9}, [9, 10, 11]),
        (12, {"memory_layer_placement": "first_k", "memory_layer_k": 3}, [0, 1, 2]),
        (12, {"memory_layer_placement": "first_k", "memory_layer_k": 3, "gca_start_layer": 1}, [1, 2]),
        (12, {"memory_layer_placement": "first_k", "memory_layer_k": 13}, range(12)),
        (12, {"memory_layer_placement": "last_k", "memory_layer_k": 3}, [9, 10, 11]),
        (12, {"memory_layer_placement": "last_k", "memory_layer_k": 13}, range(12)),
        (12, {"memory_layer_placement": "every_n", "memory_layer_n": 4}, [3, 7, 11]),
        (12, {"memory_layer_placement": "every_n", "memory_layer_n": 4, "gca_start_layer": 4}, [7, 11]),
        (12, {"memory_layer_placement": "every_n", "memory_layer_n": 1}, range(12)),
        (12, {"memory_layer_placement": "custom", "memory_layer_indices": [10, 3]}, [3, 10]),
        (12, {"memory_layer_placement": "custom", "memory_layer_indices": [3, 10], "gca_start_layer": 4}, [10]),
    ],
)
def test_placement(num_layers, settings, layers):
    assert memory_layers(num_layers, MemoryConfig(**settings)) == tuple(layers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"memory_layer_placement": "custom", "memory_layer_indices": [12, 3]}, "layers 0 to 11, not 12"),
        ({"gca_start_layer": 12}, "placement all of 12 layers, from gca_start_layer 12 up"),
        ({"memory_layer_placement": "every_n", "memory_layer_n": 13}, "placement every_n of 12 layers"),
    ],
)
def test_missing_layers_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        memory_layers(12, MemoryConfig(**settings))


@pytest.mark.parametrize("form", FORMS)
def test_layers_below_the_first_reading_layer_are_the_base(form):
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    placement = {"memory_layer_placement": "custom", "memory_layer_indices": [3, 5]}
    adapter = build_adapter(model, config_of(form, "none", **placement))
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory)
    with torch.no_grad():
        base = model(PROMPT, output_hidden_states=True).hidden_states
        with attached(model, memory, adapter=adapter):
            got = model(PROMPT, output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(got, base, strict=True)] == [True] * 4 + [False] * 3


# How a block and a bank begin


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("wo_init_zero", [None, True, False])
@pytest.mark.parametrize("init", ["copy", "zero"])
def test_init_and_wo_init_zero(init, wo_init_zero, variant):
    """One of gate and W_o is zero, never both: the identity, and it learns."""
    settings = {"memory_init": init, "wo_init_zero": wo_init_zero, "memory_block_variant": variant}
    block = adapter_of(num_memory_tokens=0, **settings).blocks["2"]
    layer = tiny_model("qwen3").model.layers[2]
    zero = init == "zero" if wo_init_zero is None else wo_init_zero
    attention = block.attention
    maps = [(attention.q_proj, layer.self_attn.q_proj, False), (attention.o_proj, layer.self_attn.o_proj, zero)]
    if variant == "B":
        maps += [(block.mlp.up_proj, layer.mlp.up_proj, False), (block.mlp.down_proj, layer.mlp.down_proj, zero)]
        assert block.mlp.gate.item() == float(zero)
    for own, linear, emptied in maps:
        assert bool((own.weight == 0).all()) is emptied
        assert torch.equal(own.weight, linear.weight) is (init == "copy" and not emptied)
    assert attention.gate.tolist() == [float(zero)] * 6


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_memory_init_std(std):
    drawn = {"memory_init": "zero", "memory_init_std": std, **CHAPTERS, "num_memory_tokens": 200, "num_chapters": 100}
    plain = adapter_of(**drawn)
    low = adapter_of(**drawn, use_low_rank_memory=True, memory_rank=8, use_low_rank_projections=True, projection_rank=8)
    for adapter in (plain, low):
        bank, q_proj = adapter.bank, adapter.blocks["1"].attention.q_proj
        whole = q_proj.weight if q_proj.weight is not None else q_proj.up @ q_proj.down
        matrices = [bank.tokens["1"](), bank.router(1).classifier.weight, whole]
        assert [m.std().item() for m in matrices] == pytest.approx([std] * 3, rel=0.15)


@pytest.mark.parametrize("rank", [2, 4, 47, 48])
def test_projection_rank(rank):
    """W_q, W_o and the heads of a bank: the layer's own, which is not trained, and a product that is 0 at first; whole
    where that is no less."""
    adapter = adapter_of(num_memory_tokens=8, use_low_rank_projections=True, projection_rank=rank)
    layer = tiny_model("qwen3").model.layers[2].self_attn
    attention, heads = adapter.blocks["2"].attention, adapter.bank.heads["2"]
    for own, linear in (
        (attention.q_proj, layer.q_proj),
        (attention.o_proj, layer.o_proj),
        (heads.k_proj, layer.k_proj),
    ):
        if rank >= min(linear.weight.shape):
            assert own.down is None and torch.equal(own.weight, linear.weight)
            continue
        assert own.down.shape == (rank, 48) and own.up.shape == (linear.weight.shape[0], rank)
        assert torch.equal(own.base, linear.weight) and own.up.eq(0).all() and own.down.std() > 0.05
        assert {name for name, _ in own.named_parameters()} >= {"up", "down"} and "base" not in own.state_dict()
        x = torch.randn(3, 48)
        bias = 0.0 if own.bias is None else own.bias
        assert torch.allclose(own(x), x @ linear.weight.T + bias, atol=1e-5)
        with torch.no_grad():
            own.up.normal_()
        assert torch.allclose(own(x), x @ (linear.weight + own.up @ own.down).T + bias, atol=1e-4)


def test_variants_read_at_different_places():
    """With the same weights of attention: A reads what self-attention left, B what the whole layer did."""
    results = []
    for variant in "AB":
        model = fuse(tiny_model("qwen3"))
        adapter = adapter_of(num_memory_tokens=0, memory_block_variant=variant, gca_start_layer=5)
        seen = []
        adapter.blocks["5"].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with attached(model, memory_of(model, adapter.config, 5), adapter=adapter), torch.no_grad():
            out = model(PROMPT, output_hidden_states=True)
        layer, x = model.model.layers[5], out.hidden_states[5]
        table = model.model.rotary_emb(x, torch.arange(x.shape[1])[None])
        with torch.no_grad():
            attended = x + layer.self_attn(layer.input_layernorm(x), position_embeddings=table, attention_mask=None)[0]
            whole = attended + layer.mlp(layer.post_attention_layernorm(attended))
        results.append([torch.allclose(seen[0], want, atol=1e-4) for want in (attended, whole)])
    assert results == [[True, False], [False, True]]


# What a bank holds

BANK_SHAPES = [
    ({"num_memory_tokens": 8}, {"weight": (8, 48)}, 48),
    ({"num_memory_tokens": 9}, {"weight": (9, 48)}, 48),
    ({"num_memory_tokens": 8, "memory_dim": 20}, {"weight": (8, 20)}, 20),
    ({"use_low_rank_memory": True, "memory_rank": 3}, {"left": (1024, 3), "right": (3, 48)}, 48),
    ({"use_low_rank_memory": True, "memory_rank": 5}, {"left": (1024, 5), "right": (5, 48)}, 48),
    (
        {"use_low_rank_memory": True, "memory_rank": 5, "memory_dim": 20},
        {"left": (1024, 5), "right": (5, 20)},
        20,
    ),
    ({"use_low_rank_memory": True, "memory_rank": 5, "low_rank_mode": "reduced_dim"}, {"weight": (1024, 5)}, 5),
    ({"memory_rank": 5}, {"weight": (1024, 48)}, 48),
]


@pytest.mark.parametrize(("settings", "tokens", "width"), BANK_SHAPES, ids=lambda value: str(value))
def test_shapes_of_a_bank(settings, tokens, width):
    adapter = adapter_of(gca_start_layer=5, **settings)
    assert shapes(adapter, "bank.tokens") == {f"bank.tokens.5.{name}": shape for name, shape in tokens.items()}
    assert shapes(adapter, "k_proj") == {"bank.heads.5.k_proj.weight": (16, width)}
    assert adapter.bank.keys_values(5)[0].shape == (1, 2, settings.get("num_memory_tokens", 1024), 8)


def test_no_memory_tokens_is_no_bank():
    assert adapter_of(num_memory_tokens=0).bank is None


@pytest.mark.parametrize(
    ("settings", "sets"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"memory_sharing": "per_layer"}, [1, 2, 3, 4, 5]),
        ({"memory_sharing": "every_k_layers"}, [1, 1, 3, 3, 5]),
        ({"memory_sharing": "every_k_layers", "memory_sharing_k": 3}, [1, 1, 1, 4, 4]),
    ],
)
def test_tokens_of_a_bank_are_shared_by_layers(settings, sets):
    bank = adapter_of(num_memory_tokens=8, **settings).bank
    assert set(bank.tokens) == {str(name) for name in sets}
    before = {layer: bank.keys_values(layer)[0] for layer in range(1, 6)}
    with torch.no_grad():
        bank.tokens[str(sets[-1])].weight += torch.randn(8, 48)
    moved = [not torch.equal(bank.keys_values(layer)[0], key) for layer, key in before.items()]
    assert moved == [name == sets[-1] for name in sets]


# Chapters


def choices_of(adapter):
    """What the routers decide about PROMPT, whose first four tokens are the prompt."""
    model = fuse(tiny_model("qwen3"))
    prompt = torch.tensor([[1, 1, 1, 1, 0, 0]] * 2, dtype=torch.bool)
    with torch.no_grad(), attached(model, None, adapter=adapter, prompt=prompt, keep_choices=True) as session:
        model(PROMPT)
    return session.choices


@pytest.mark.parametrize(("num_chapters", "top_k"), [(4, 2), (4, 1), (6, 2), (24, 24)])
def test_num_chapters_and_top_k(num_chapters, top_k):
    """Of the bank only the chosen chapters are read: what the others hold, NaN here, reaches nothing."""
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    settings = {**CHAPTERS, "num_chapters": num_chapters, "top_k_chapters": top_k, "gca_start_layer": 5}
    adapter = adapter_of(**settings, memory_init_std=1.0)
    learn(model, adapter, None)

    def read():
        with attached(model, None, adapter=adapter, keep_choices=True) as session:
            return logits(model, PROMPT[:1]), *session.choices

    want, choice = read()
    assert choice.logits.shape == (1, 1, num_chapters) and choice.chapters.shape == (1, 1, top_k)
    size, chosen = 24 // num_chapters, choice.chapters.flatten().tolist()
    others = [n for n in range(24) if n // size not in chosen]
    assert len(others) == 24 - top_k * size
    with torch.no_grad():
        adapter.bank.tokens["5"].weight[others] = torch.nan
    assert torch.equal(read()[0], want)
    with torch.no_grad():
        adapter.bank.tokens["5"].weight[chosen[0] * size] += 1.0
    assert not torch.equal(read()[0], want)


def test_without_chapters_the_whole_bank_is_read():
    adapter = adapter_of(num_memory_tokens=24, num_chapters=4, top_k_chapters=2)
    assert not adapter.bank.routers and choices_of(adapter) == []


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strategy", ["sequence", "rolling", "token", "hybrid"])
def test_strategies_of_training_and_inference(strategy, training):
    """One decision a row, or one a token; hybrid is the mean of sequence and rolling."""
    other = "token" if strategy == "sequence" else "sequence"
    train, inference = (strategy, other) if training else (other, strategy)
    settings = {
        **CHAPTERS,
        "gca_start_layer": 5,
        "routing_strategy_train": train,
        "routing_strategy_inference": inference,
    }
    (choice,) = choices_of(adapter_of(**settings).train(training))
    assert choice.logits.shape == (2, 1 if strategy == "sequence" else 6, 4)
    by = {}
    for name in ("sequence", "rolling", "token"):
        key = "routing_strategy_train" if training else "routing_strategy_inference"
        (by[name],) = choices_of(adapter_of(**{**settings, key: name}).train(training))
    want = (by["sequence"].logits + by["rolling"].logits) / 2 if strategy == "hybrid" else by[strategy].logits
    assert torch.allclose(choice.logits, want, atol=1e-6)
    assert not torch.allclose(by["rolling"].logits, by["token"].logits, atol=1e-4)


def test_routing_window_size():
    """A window of one token is that token; the last of a window of all is the mean of all."""
    settings = {**CHAPTERS, "gca_start_layer": 5, "routing_strategy_inference": "rolling"}
    one, two, six, far = (
        choices_of(adapter_of(**settings, routing_window_size=n).eval())[0].logits for n in (1, 2, 6, 99)
    )
    (token,) = choices_of(adapter_of(**{**settings, "routing_strategy_inference": "token"}).eval())
    assert torch.allclose(one, token.logits, atol=1e-6)
    assert torch.allclose(two[:, 1:], (token.logits[:, 1:] + token.logits[:, :-1]) / 2, atol=1e-6)
    assert torch.allclose(six[:, -1], token.logits.mean(dim=1), atol=1e-6)
    assert torch.allclose(six, far, atol=1e-6) and not torch.allclose(two, six, atol=1e-4)
