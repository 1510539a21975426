"""What each setting of `memory:` and `model:` changes that no other test shows, and the known faults of the model.

docs/architecture.md has the test of every setting; tests/test_config.py holds the two together.
"""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3ForCausalLM

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.adapter import build_adapter, memory_layers
from awareness.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from awareness.model.fusion import attached, fuse
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.reading import Routed
from awareness.model.sources import ModelFolder, find
from awareness.types import Memory
from tests.conftest import GEOMETRY, tiny_model, tiny_tokenizer
from tests.model.test_embed import SIZES, word_tokenizer
from tests.model.test_forms import FORMS, PROMPT, config_of, learn, logits, memory_of

CHAPTERS = {"num_memory_tokens": 24, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2}
LORA_ALONE = {"use_memory_adapter": False, "use_lora": True}
TEXT = "def login(self):\n    return 7\n"


@pytest.fixture
def build(model_folder):
    """The module, its decoder and section `model:`, in float32."""

    def build(model: ModelConfig | None = None, /, **settings):
        model = model or ModelConfig(base_model_name=str(model_folder))
        torch.manual_seed(0)
        module, base = build_memory_decoder(model, MemoryConfig(**settings), pull=find, dtype=torch.float32)
        return module, base, model

    return build


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=120, max_position_embeddings=48, **SIZES)).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


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
        (12, {"memory_layer_placement": "custom", "memory_layer_indices": [10, 3, 3]}, [3, 10]),
        (12, {"memory_layer_placement": "custom", "memory_layer_indices": [3, 10], "gca_start_layer": 4}, [10]),
    ],
)
def test_placement(num_layers, settings, layers):
    assert memory_layers(num_layers, MemoryConfig(**settings)) == tuple(layers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"memory_layer_placement": "custom", "memory_layer_indices": [12, 3]}, "layers 0 to 11, not 12"),
        ({"memory_layer_placement": "custom", "memory_layer_indices": [-1]}, "layers 0 to 11, not -1"),
        ({"gca_start_layer": 12}, "placement all of 12 layers, from gca_start_layer 12 up"),
        ({"memory_layer_placement": "every_n", "memory_layer_n": 13}, "placement every_n of 12 layers"),
    ],
)
def test_layers_that_are_not_there_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        memory_layers(12, MemoryConfig(**settings))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_below_the_first_layer_that_reads_is_the_base(form):
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


@pytest.mark.parametrize("variant", ["A", "B"])
def test_w_o_zero_survives_every_later_init_pass(build, variant, tmp_path):
    """A known fault: transformers' init pass drew W_o again, and a new adapter was no longer the base."""
    module, base, section = build(wo_init_zero=True, memory_block_variant=variant, num_memory_tokens=8)
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
    """W_q, W_o and the heads of a bank: the nearest of that rank to the layer's own; whole where that is no less."""
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
        left_out = torch.linalg.svdvals(linear.weight)[rank:].norm()
        assert torch.allclose((own.up @ own.down - linear.weight).norm(), left_out, rtol=1e-3)


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
    routed = Routed(prompt=torch.tensor([[1, 1, 1, 1, 0, 0]] * 2, dtype=torch.bool), choices=[])
    with torch.no_grad(), attached(model, None, adapter=adapter, routed=routed):
        model(PROMPT)
    return routed.choices


@pytest.mark.parametrize(("num_chapters", "top_k"), [(4, 2), (4, 1), (6, 2), (24, 24)])
def test_chapters_and_how_many_are_read(num_chapters, top_k):
    """Of the bank only the chosen chapters are read: what the others hold, NaN here, reaches nothing."""
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    settings = {**CHAPTERS, "num_chapters": num_chapters, "top_k_chapters": top_k, "gca_start_layer": 5}
    adapter = adapter_of(**settings, memory_init_std=1.0)
    learn(model, adapter, None)

    def read():
        routed = Routed(choices=[])
        with attached(model, None, adapter=adapter, routed=routed):
            return logits(model, PROMPT[:1]), *routed.choices

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


def test_without_chapters_all_of_a_bank_is_read_and_nothing_decided():
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
    assert torch.equal(six, far) and not torch.allclose(two, six, atol=1e-4)


# The encoder


def latent(module, base, text=TEXT):
    return next(module.encoder(base).encode([text]))


def test_encoder_and_encoder_model(build, bert_folder):
    """`self` looks back, `projected` reads both ways; its heads are as wide as what they are put on."""
    longer = TEXT[:-1] + "8"
    changes, specs = [], []
    for settings in ({}, {"encoder": "projected"}, {"encoder": "projected", "encoder_model": str(bert_folder)}):
        module, base, _ = build(num_memory_tokens=0, gca_start_layer=5, **settings)
        encoder = module.encoder(base)
        with torch.no_grad():
            one, other = encoder.keys_values([TEXT, longer])
        changes.append(not torch.allclose(one[..., 0, :], other[..., 0, :], atol=1e-4))
        specs.append(encoder.spec.encoder[:10])
        width = SIZES["hidden_size"] if "encoder_model" in settings else 48
        heads = {"encoder.key_heads.0.weight": (16, width)} if settings else {}
        assert shapes(module.adapter, "key_heads") == heads
    assert changes == [False, True, True] and specs == ["self", "projected:", "projected:"]
    assert SIZES["hidden_size"] != 48


@pytest.mark.parametrize(("header", "trailer"), [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_header_and_trailer_tokens(build, header, trailer):
    module, base, _ = build(num_memory_tokens=0, num_header_tokens=header, num_trailer_tokens=trailer)
    assert latent(module, base).tokens == header + len(TEXT) + trailer
    want = {"encoder.header": (header, 48), "encoder.trailer": (trailer, 48)} if header + trailer else {}
    assert shapes(module.adapter, "encoder.") == want


# LoRA


def test_lora_beside_memory_alone_and_not(build):
    parts = []
    for settings in ({}, LORA_ALONE, {"use_both_memory_and_lora": True}, {"use_memory_adapter": False}):
        module, _, _ = build(num_memory_tokens=0, **settings)
        parts.append({"lora" if "lora_" in name else name.split(".")[0] for name in module.trainable()})
    assert parts == [{"adapter"}, {"lora"}, {"adapter", "lora"}, set()]


@pytest.mark.parametrize(("rank", "alpha"), [(2, 4.0), (2, 8.0), (4, 8.0)])
def test_lora_rank_and_alpha(build, rank, alpha):
    """alpha/rank · B·A·x is what is added."""
    module, _, _ = build(**LORA_ALONE, lora_rank=rank, lora_alpha=alpha)
    layer = module.decoder.model.layers[2].self_attn.q_proj
    down, up = (side["default"].weight for side in (layer.lora_A, layer.lora_B))
    assert down.shape == (rank, 48) and up.shape == (48, rank)
    torch.nn.init.normal_(up)
    x = torch.randn(3, 48)
    with torch.no_grad():
        assert torch.allclose(layer(x) - layer.base_layer(x), alpha / rank * (x @ down.T @ up.T), atol=1e-4)


def test_lora_targets(build):
    default, _, _ = build(**LORA_ALONE)
    chosen, _, _ = build(**LORA_ALONE, lora_targets=["v_proj", "up_proj"])
    wanted = [{f"self_attn.{name}_proj" for name in "qkvo"}, {"self_attn.v_proj", "mlp.up_proj"}]
    for module, names in zip((default, chosen), wanted, strict=True):
        found = {name.split(".lora_")[0].removeprefix("decoder.model.layers.") for name in module.trainable()}
        assert found == {f"{layer}.{name}" for layer in range(6) for name in names}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_lora_dropout(build, dropout):
    module, _, _ = build(**LORA_ALONE, lora_dropout=dropout)
    for name, parameter in module.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert torch.equal(logits(module.decoder), logits(module.decoder))
    module.train()
    assert torch.equal(logits(module.decoder), logits(module.decoder)) is (dropout == 0.0)


# Deployment


@pytest.mark.parametrize(
    ("settings", "bank"),
    [
        ({}, "none"),
        ({"memory_quant_bits": 4}, "none"),
        ({"quantize_memory": True}, "int8"),
        ({"quantize_memory": True, "memory_quant_bits": 4}, "int4"),
    ],
)
def test_a_bank_is_exported_in_as_many_bits_as_the_settings_say(build, settings, bank, tmp_path, capfd):
    module, base, section = build(num_memory_tokens=64, memory_sharing="per_layer", **settings)
    save_checkpoint(tmp_path / "run", module, base.folder, section)
    assert Checkpoint.read(tmp_path / "run").bank == "none"  # a run goes on with what it trains
    assert run(["checkpoints", "export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert capfd.readouterr().out.strip() == str(tmp_path / "out")
    assert Checkpoint.read(tmp_path / "out").bank == bank
    found = {name: t for name, t in load_file(tmp_path / "out/weights.safetensors").items() if "adapter.bank" in name}
    if bank == "none":
        assert set(found) == {name for name in module.trainable() if "adapter.bank" in name}
        return
    assert set(found) == {"adapter.bank.codes"}
    numbers, bits = 2 * 5 * 2 * 64 * 8, {"int8": 8, "int4": 4}[bank]  # K and V, layers, heads, tokens, head_dim
    parameters = 5 * 2 * 4 * (8 + 64)  # a scale and an offset, float16, for each channel of K and each token of V
    assert found["adapter.bank.codes"].numel() == numbers * bits // 8 + parameters
    again, _ = load_checkpoint(tmp_path / "out", pull=find, dtype=torch.float32)
    assert again.adapter.bank.spec.quant == bank


# The decoder


def test_base_model_name_is_the_decoder(build, model_folder, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    tiny_tokenizer().save_pretrained(tmp_path / "llama")
    kinds = []
    for name in (str(model_folder), str(tmp_path / "llama"), None):
        scratch = {"tokenizer_name": str(model_folder), "hidden_dim": 16, "num_heads": 2, "num_layers": 6}
        module, base, _ = build(ModelConfig(base_model_name=name, **({} if name else scratch)), num_memory_tokens=0)
        trained = {part.split(".")[0] for part in module.trainable()}
        kinds.append((type(module.decoder).__name__, base.folder.name, trained))
    assert kinds == [
        ("Qwen3ForCausalLM", str(model_folder), {"adapter"}),
        ("LlamaForCausalLM", str(tmp_path / "llama"), {"adapter"}),
        ("Qwen3ForCausalLM", "from scratch", {"adapter", "decoder"}),
    ]


@pytest.mark.parametrize("freeze", [True, False])
def test_freeze_base_model(build, model_folder, freeze):
    section = ModelConfig(base_model_name=str(model_folder), freeze_base_model=freeze)
    module, _, _ = build(section, num_memory_tokens=0)
    names = {name for name in module.trainable() if name.startswith("decoder.")}
    assert names == (set() if freeze else {f"decoder.{name}" for name, _ in module.decoder.named_parameters()})


def test_tokenizer_name_is_whose_ids_a_decoder_from_scratch_has(build, model_folder, bert_folder):
    sizes = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1}
    rows = []
    for folder in (model_folder, bert_folder):
        section = ModelConfig(base_model_name=None, tokenizer_name=str(folder), **sizes)
        module, base, _ = build(section, vanilla_mode=True)
        rows.append((module.decoder.lm_head.weight.shape[0], base.tokenizer.encode("a", add_special_tokens=False)))
    assert rows[0][0] == 259 != rows[1][0] and rows[0][1] != rows[1][1]


@pytest.mark.parametrize("use_flash_attention", [True, False])
@pytest.mark.parametrize("scratch", [True, False])
def test_use_flash_attention_chooses_the_kernel(build, model_folder, scratch, use_flash_attention):
    """Also of what reads memory: without it no fused kernel is called, and the numbers are the same."""
    own = {"base_model_name": str(model_folder)}
    if scratch:
        sizes = {"hidden_dim": 48, "num_heads": 6, "num_kv_heads": 2, "num_layers": 6}
        own = {"base_model_name": None, "tokenizer_name": str(model_folder), **sizes}
    results = []
    for flash in (use_flash_attention, True):
        module, _, _ = build(ModelConfig(**own, use_flash_attention=flash), num_memory_tokens=0, memory_form="joint")
        memory = memory_of(module.decoder, module.config, 5, 3)
        with torch.profiler.profile() as profile, torch.no_grad():
            results.append((module.eval()(PROMPT, memory=memory).logits, profile))
    (got, profile), (want, _) = results
    fused = {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key}
    assert bool(fused) is use_flash_attention
    assert torch.allclose(got, want, atol=1e-4)


# Known faults


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["auto", "plain", "flex"])
@pytest.mark.parametrize(("form", "bank"), [("joint", "none"), ("joint", "standard"), ("tanh A", "chapters, token")])
def test_what_a_mask_hides_is_not_read_by_any_kernel(form, bank, kernel):
    """A known fault: the flash path ignored the mask. Hidden tokens of memory, and padding in the prompt."""
    model = fuse(tiny_model("qwen3"), kernel=kernel).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
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
    """A known fault. One question through `generate`, and a batch whose rows end at different steps."""
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


def test_a_setting_of_transformers_does_not_undo_the_fusing(tokenizer, tmp_path):
    """`generate()` and saving leave the fused class and its attention; the saved config tells nothing of it."""
    model = fuse(Qwen3ForCausalLM(Qwen3Config(**GEOMETRY)).eval())
    model.save_pretrained(tmp_path)
    assert "awareness" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert model.config._attn_implementation == "awareness"
