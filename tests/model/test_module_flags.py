"""What the settings change that are about the whole module: encoder, LoRA, deployment, and the decoder (`model:`).

docs/model.md has the test of every setting; tests/test_config.py holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from awareness.model.memory_decoder import MemoryDecoder, build_memory_decoder
from awareness.model.model_files import find
from tests.conftest import tiny_model, tiny_tokenizer
from tests.model.test_flags import shapes
from tests.model.test_forms import PROMPT, logits, memory_of
from tests.model.test_text_embedder import SIZES, word_tokenizer

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


def test_lora_beside_memory_and_alone(build):
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
def test_a_bank_is_exported_in_memory_quant_bits(build, settings, bank, tmp_path, capfd):
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


def test_tokenizer_name_gives_the_vocabulary_of_a_new_decoder(build, model_folder, bert_folder):
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


def test_the_example_of_the_document_runs(model_folder, tmp_path, monkeypatch, capfd):
    document = (Path(__file__).parents[2] / "docs/model.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example.replace('"smollm2-135m"', repr(str(model_folder))), names)
    assert capfd.readouterr().out.startswith("MAX_SIZE is 10")
    assert isinstance(names["module"], MemoryDecoder) and Checkpoint.read(tmp_path / "run").base == str(model_folder)
