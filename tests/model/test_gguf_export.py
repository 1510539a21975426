"""A GGUF file holds the decoder bit for bit, transformers loads it, and anything it cannot hold is refused."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import resource
import sys
from pathlib import Path

import pytest
import torch
import transformers
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import StorageFailed, UsageError
from awareness.model import hf
from awareness.model.checkpoint import load_checkpoint, save_checkpoint
from awareness.model.fusion import fuse
from awareness.model.gguf_export import export_gguf
from awareness.model.hf import quiet_transformers
from awareness.model.load import load
from awareness.model.lora import add_lora
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import check_trusted, find
from awareness.model.weights import quantise_weights
from tests.conftest import CHAT_TEMPLATE, GEOMETRY, tiny_model

IDS = torch.tensor([[40, 41, 42, 43, 44, 45]])
CODE = "def login(self, user):\n    return x + 42  # it's über\n<|im_start|>user\ndeep <think>\n"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
LLAMA3_REGEX = PRETOKENIZE_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), behavior="isolated"), BYTES])


def bpe_tokenizer(pre=None, *, ignore_merges=False) -> PreTrainedTokenizerFast:
    """Bytes, a few merges and added tokens: 266 ids for the 300 rows of the tiny decoders."""
    merges = [("d", "e"), ("de", "f"), ("r", "e"), ("Ġ", "x"), ("4", "2"), ("Ġ", "Ġ"), ("Ċ", "Ġ")]
    vocab = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    state = models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, ignore_merges=ignore_merges)
    tokenizer = Tokenizer(state)
    tokenizer.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    fast.add_tokens(["<think>"])
    return fast


def decoder(architecture, *, tied=False, dtype=torch.float32, head_dim=128, hidden_size=48):
    """Of two layers. head_dim: of Qwen3, by default as wide as transformers takes it to be when it reads GGUF."""
    if architecture == "qwen3":
        torch.manual_seed(0)
        size = {"hidden_size": hidden_size, "head_dim": head_dim, "num_attention_heads": 2, "num_key_value_heads": 1}
        model = Qwen3ForCausalLM(Qwen3Config(**{**GEOMETRY, **size})).eval()
        for layer in model.model.layers:
            nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 1.5)
    else:
        model = tiny_model(architecture)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:2]
    nn.init.uniform_(model.model.norm.weight, 0.5, 1.5)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    for parameter in model.parameters():  # and not the frequencies of RoPE, which `.to` would round too
        parameter.data = parameter.data.to(dtype)
    return model


def loaded(path, **options):
    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options).eval()


def greedy(model):
    return model.generate(IDS, max_new_tokens=12, do_sample=False, pad_token_id=0)[0].tolist()


def fields(path):
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


@pytest.mark.parametrize(("dtype", "tied"), [(torch.float32, False), (torch.bfloat16, True), (torch.float16, False)])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_the_loaded_gguf_is_the_same_decoder_bitwise(architecture, dtype, tied, tmp_path):
    model = fuse(decoder(architecture, tied=tied, dtype=dtype))
    export_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf")
    again = loaded(tmp_path / "m.gguf", dtype=dtype)
    want, got = model.state_dict(), again.state_dict()
    assert type(again) is type(model)
    assert list(got) == list(want)
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert again.config.tie_word_embeddings is tied
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert greedy(again) == greedy(model)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_names_shapes_and_types_in_the_gguf(architecture, tmp_path):
    model = decoder(architecture, tied=True, dtype=torch.bfloat16)
    export_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf")
    heads, kv_heads, head_dim = (2, 1, 128) if architecture == "qwen3" else (6, 2, 8)
    want = {"token_embd.weight": ([48, 300], "BF16"), "output_norm.weight": ([48], "F32")}
    for i in range(model.config.num_hidden_layers):
        want |= {
            f"blk.{i}.attn_norm.weight": ([48], "F32"),
            f"blk.{i}.attn_q.weight": ([48, heads * head_dim], "BF16"),
            f"blk.{i}.attn_k.weight": ([48, kv_heads * head_dim], "BF16"),
            f"blk.{i}.attn_v.weight": ([48, kv_heads * head_dim], "BF16"),
            f"blk.{i}.attn_output.weight": ([heads * head_dim, 48], "BF16"),
            f"blk.{i}.ffn_norm.weight": ([48], "F32"),
            f"blk.{i}.ffn_gate.weight": ([48, 64], "BF16"),
            f"blk.{i}.ffn_up.weight": ([48, 64], "BF16"),
            f"blk.{i}.ffn_down.weight": ([64, 48], "BF16"),
        }
        if architecture == "qwen2":
            want |= {f"blk.{i}.attn_q.bias": ([heads * head_dim], "F32")}
            want |= {f"blk.{i}.attn_{side}.bias": ([kv_heads * head_dim], "F32") for side in "kv"}
        if architecture == "qwen3":
            want |= {f"blk.{i}.attn_{side}_norm.weight": ([head_dim], "F32") for side in "qk"}
    tensors = GGUFReader(tmp_path / "m.gguf").tensors
    assert {t.name: (t.shape.tolist(), t.tensor_type.name) for t in tensors} == want


def test_the_settings_of_the_decoder(tmp_path):
    export_gguf(decoder("llama", dtype=torch.float16), bpe_tokenizer(), tmp_path / "m.gguf")
    found = fields(tmp_path / "m.gguf")
    assert found["general.architecture"] == "llama"
    assert found["general.file_type"] == 1  # mostly F16
    eps = found.pop("llama.attention.layer_norm_rms_epsilon")
    assert eps == pytest.approx(1e-6)
    assert {name: value for name, value in found.items() if name.startswith("llama.")} == {
        "llama.vocab_size": 300,
        "llama.context_length": 512,
        "llama.embedding_length": 48,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 6,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10000.0,
    }


@pytest.mark.parametrize("head_dim", [8, 64, 128])
def test_explicit_head_dim(head_dim, tmp_path):
    """transformers takes D of Qwen3 from a field of its own (hf.py), which is there only if D is not 128."""
    model = decoder("qwen3", head_dim=head_dim)
    export_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf")
    found = fields(tmp_path / "m.gguf")
    assert found["qwen3.attention.key_length"] == found["qwen3.attention.value_length"] == head_dim
    assert found.get("qwen3_moe.attention.key_length") == (None if head_dim == 128 else head_dim)
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path / "m.gguf", dtype=torch.float32)(IDS).logits, model(IDS).logits)


def test_llama_rope_halves_are_interleaved(tmp_path):
    """llama.cpp turns rows 2i and 2i + 1 of a head together, transformers i and i + D/2."""
    model = decoder("llama")
    export_gguf(model, bpe_tokenizer(), tmp_path / "m.gguf")
    rows = {t.name: torch.tensor(t.data) for t in GGUFReader(tmp_path / "m.gguf").tensors}
    for side, heads in (("q", 6), ("k", 2)):
        stored = rows[f"blk.1.attn_{side}.weight"]
        weight = model.model.layers[1].self_attn.get_submodule(f"{side}_proj").weight
        for head in range(heads):
            for i in range(4):
                assert torch.equal(stored[head * 8 + 2 * i], weight[head * 8 + i])
                assert torch.equal(stored[head * 8 + 2 * i + 1], weight[head * 8 + i + 4])
    assert torch.equal(rows["blk.1.attn_v.weight"], model.model.layers[1].self_attn.v_proj.weight)


@pytest.mark.parametrize(
    ("name", "pre"),
    [
        ("gpt-2", None),
        ("smollm", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])),
        ("qwen2", split(PRETOKENIZE_REGEX)),
        ("llama-bpe", split(LLAMA3_REGEX)),
    ],
)
def test_the_tokenizer_loaded_back_gives_the_same_ids(name, pre, tmp_path):
    tokenizer = bpe_tokenizer(pre, ignore_merges=name == "llama-bpe")
    export_gguf(decoder("qwen2"), tokenizer, tmp_path / "m.gguf")
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == name
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ids = again(CODE)["input_ids"]
    if name == "smollm":  # transformers knows no such split, so that 42 is one piece to it
        assert 260 in ids
        again.backend_tokenizer.pre_tokenizer = pre
        ids = again(CODE)["input_ids"]
    assert ids == tokenizer(CODE)["input_ids"]
    assert {256, 257, 258, 259, 261, 264, 266} < set(ids)  # merges, a chat token and <think> are there at all
    assert again.decode(ids) == CODE
    assert again.chat_template == CHAT_TEMPLATE
    assert again.special_tokens_map == tokenizer.special_tokens_map


def test_a_token_for_each_row_of_the_embedding(tmp_path):
    export_gguf(decoder("qwen2"), bpe_tokenizer(), tmp_path / "m.gguf")
    found = fields(tmp_path / "m.gguf")
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert tokens[256:269] == [
        *("de", "def", "re", "Ġx", "42", "ĠĠ", "ĊĠ"),
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "[PAD267]", "[PAD268]"),
    ]
    assert tokens[-1] == "[PAD299]"
    assert types == [1] * 263 + [3] * 3 + [4] + [5] * 33
    ids = {name: found[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown", "padding")}
    assert ids == {"bos": 264, "eos": 265, "unknown": 263, "padding": 263}


@pytest.mark.parametrize("adds", [False, True])
def test_a_tokenizer_that_adds_bos(adds, tmp_path):
    tokenizer = bpe_tokenizer()
    if adds:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 264)]
        )
    export_gguf(decoder("qwen2"), tokenizer, tmp_path / "m.gguf")
    found = fields(tmp_path / "m.gguf")
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]) == (adds, False)
    if hf._release(transformers.__version__) >= (5, 23):  # older ones do not read that field
        ids = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")("x")["input_ids"]
        assert ids == tokenizer("x")["input_ids"]
        assert (ids[0] == 264) is adds


def test_nothing_of_this_machine_is_in_the_file(tmp_path):
    model, tokenizer = decoder("llama"), bpe_tokenizer()
    model.config._name_or_path = tokenizer.name_or_path = "/home/somebody/secret"
    export_gguf(model, tokenizer, tmp_path / "a.gguf")
    export_gguf(model, tokenizer, tmp_path / "b.gguf")
    written = (tmp_path / "a.gguf").read_bytes()
    assert b"somebody" not in written and str(tmp_path).encode() not in written
    assert written == (tmp_path / "b.gguf").read_bytes()


@contextlib.contextmanager
def files_limited_to(size):
    """As on a full disk, the system itself refuses to write further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 2000, 60_000])  # in the header, the tokens, the tensors
def test_a_full_disk_keeps_the_earlier_file(size, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"the one before")
    model, tokenizer = decoder("qwen2"), bpe_tokenizer()
    with files_limited_to(size), pytest.raises(StorageFailed, match=r"m\.gguf can't be written: (File|not all)"):
        export_gguf(model, tokenizer, tmp_path / "m.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == b"the one before"


def test_a_missing_folder(tmp_path):
    with pytest.raises(StorageFailed, match="No such file or directory"):
        export_gguf(decoder("qwen2"), bpe_tokenizer(), tmp_path / "none" / "m.gguf")


class Positions(nn.Module):
    pass


def with_lora():
    model = decoder("llama")
    add_lora(model, rank=2, alpha=2.0, targets=["q_proj"], active=lambda: True)
    return model


def with_positions():
    model = decoder("llama")
    model.model.rotary_emb = Positions()
    return model


def with_layer_norm():
    model = decoder("llama")
    model.model.layers[1].input_layernorm = nn.LayerNorm(48)
    return model


def with_more_inside():
    model = decoder("llama")
    model.model.layers[0].bank = nn.Linear(2, 2)
    return model


REFUSED = {
    "MistralForCausalLM": lambda: MistralForCausalLM(MistralConfig(**GEOMETRY)),
    r"model\.layers\.0\.self_attn\.q_proj, a GatedLinear": with_lora,
    r"model\.rotary_emb, a Positions": with_positions,
    r"model\.layers\.1\.input_layernorm\.bias": with_layer_norm,
    r"model\.layers\.0\.bank\.weight": with_more_inside,
    r"self_attn\.q_proj\.bias": lambda: LlamaForCausalLM(LlamaConfig(**GEOMETRY, attention_bias=True)),
    r"q_proj\.weight: it is a (Float8Tensor|AffineQuantizedTensor)": lambda: quantise_weights(decoder("llama"), "fp8"),
    "torch.float64": lambda: decoder("llama", dtype=torch.float64),
    "rope_type 'linear'": lambda: LlamaForCausalLM(
        LlamaConfig(**GEOMETRY, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0})
    ),
    "hidden_act 'gelu'": lambda: LlamaForCausalLM(LlamaConfig(**GEOMETRY, hidden_act="gelu")),
    "layer_types": lambda: Qwen3ForCausalLM(
        Qwen3Config(**GEOMETRY, use_sliding_window=True, sliding_window=8, max_window_layers=3)
    ),
}


@pytest.mark.parametrize("named", REFUSED)
def test_a_decoder_that_gguf_cannot_hold_is_refused_by_name(named, tmp_path):
    with pytest.raises(UsageError, match=named):
        export_gguf(REFUSED[named](), bpe_tokenizer(), tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def normalised():
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def larger():
    tokenizer = bpe_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(40)])
    return tokenizer


REFUSED_TOKENIZERS = {
    "ids up to 306, the embedding of the decoder has 300 rows": larger,
    "it normalises by Lowercase": normalised,
    "it is not plain byte-level BPE": lambda: bpe_tokenizer(pre_tokenizers.Whitespace()),
    "plain byte-level": lambda: bpe_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "has no name there": lambda: bpe_tokenizer(split(r"\w+|\W+")),
    "no name": lambda: bpe_tokenizer(ignore_merges=True),
}


@pytest.mark.parametrize("named", REFUSED_TOKENIZERS)
def test_a_tokenizer_that_gguf_cannot_hold_is_refused(named, tmp_path):
    with pytest.raises(UsageError, match=named):
        export_gguf(decoder("qwen2"), REFUSED_TOKENIZERS[named](), tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def test_qwen_normalises_by_nfc_which_is_left_out(tmp_path):
    tokenizer = bpe_tokenizer(split(PRETOKENIZE_REGEX))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"] == {"type": "NFC"}
    export_gguf(decoder("qwen2"), tokenizer, tmp_path / "m.gguf")
    assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == "qwen2"


# From the command line


@pytest.fixture
def trained(tmp_path):
    """Writes a checkpoint whose tensors are not those of a new one; returns its folder."""

    def write(model, **memory):
        torch.manual_seed(0)
        config = ModelConfig(**model)
        module, base = build_memory_decoder(config, MemoryConfig(**memory), pull=find, dtype="auto")
        with torch.no_grad():
            for tensor in module.trainable().values():
                tensor += 0.2 * torch.randn_like(tensor)
        save_checkpoint(tmp_path / "run", module, base.folder, config)
        return tmp_path / "run"

    return write


def exported(capfd, *arguments):
    code = run(["checkpoints", "export", *map(str, arguments)])
    return code, " ".join(capfd.readouterr().err.split())


def logits_of(checkpoint):
    module, _ = load_checkpoint(checkpoint, pull=find, dtype="auto")
    with torch.no_grad():
        return module.decoder(IDS).logits


SCRATCH = {"base_model_name": None, "hidden_dim": 64, "num_heads": 4, "num_layers": 2, "intermediate_dim": 64}
NO_MEMORY = {"vanilla_mode": True}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_heads": 1},  # head_dim 64
        {"hidden_dim": 128, "num_heads": 1},  # head_dim 128, as transformers takes it to be
        {"num_kv_heads": 2},
        {"rope_theta": 12_345.678},
        {"norm_eps": 3e-5},
        {"vocab_size": 333},
        {"max_seq_len": 77},
        {"dropout": 0.5, "attention_dropout": 0.5},
        {"use_flash_attention": False},
    ],
    ids=str,
)
def test_a_decoder_from_scratch_loads_back(capfd, trained, model_folder, tmp_path, settings):
    run_ = trained({**SCRATCH, "tokenizer_name": str(model_folder), **settings}, **NO_MEMORY)
    code, err = exported(capfd, run_, tmp_path / "m.gguf")
    assert code == 0, err
    again = loaded(tmp_path / "m.gguf", dtype=torch.float32)
    atol = 0 if settings.get("use_flash_attention", True) else 1e-5  # another kernel rounds otherwise
    with torch.no_grad():
        assert torch.allclose(again(IDS).logits, logits_of(run_), rtol=0, atol=atol)
    assert again.config.max_position_embeddings == settings.get("max_seq_len", 2048)


@pytest.mark.parametrize("setting", ["use_rope", "use_rms_norm"])
def test_a_decoder_that_no_other_program_loads_is_refused(capfd, trained, model_folder, tmp_path, setting):
    run_ = trained({**SCRATCH, "tokenizer_name": str(model_folder), setting: False}, **NO_MEMORY)
    code, err = exported(capfd, run_, tmp_path / "m.gguf")
    assert code == 2 and f"(model.{setting}), which no other program can load" in err and "awareness ask" in err
    assert not (tmp_path / "m.gguf").exists()


LORA = {"use_memory_adapter": False, "use_lora": True, "lora_rank": 2, "lora_targets": ["q_proj", "v_proj", "up_proj"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("freeze_base_model", "memory"), [(True, LORA), (False, NO_MEMORY), (False, LORA)], ids=["lora", "base", "both"]
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_trained_base_loads_back(capfd, trained, tmp_path, architecture, freeze_base_model, memory, dtype):
    """With LoRA merged; the biases of Qwen2, which LoRA stands beside, are kept."""
    folder = tmp_path / "base"
    decoder(architecture, tied=architecture == "llama", dtype=dtype).save_pretrained(folder)
    bpe_tokenizer().save_pretrained(folder)
    run_ = trained({"base_model_name": str(folder), "freeze_base_model": freeze_base_model}, **memory)
    assert exported(capfd, run_, tmp_path / "m.gguf")[0] == 0
    assert run(["checkpoints", "merge", str(run_), str(tmp_path / "merged")]) == 0
    again = loaded(tmp_path / "m.gguf", dtype="auto" if dtype == torch.float32 else dtype)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").eval()
    want, got = merged.state_dict(), again.state_dict()
    assert list(got) == list(want)
    assert all(torch.equal(got[name], want[name]) for name in want)
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, merged(IDS).logits)
        if dtype == torch.float32:  # bfloat16 rounds the merged weights
            assert torch.allclose(again(IDS).logits, logits_of(run_), atol=1e-4)


@pytest.mark.parametrize(("architecture", "quant"), [("llama", "f16"), ("qwen2", "bf16"), ("qwen3", "f32")])
def test_a_gguf_is_a_model(capfd, monkeypatch, tmp_path, architecture, quant):
    """Converted once, to a folder of the models; `models pull`, `ask` and `export` take the file's name."""
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path / "models"))
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[quant]
    model, tokenizer = decoder(architecture, head_dim=64, dtype=dtype), bpe_tokenizer()
    if architecture == "qwen2":  # transformers gives any Qwen2 this split
        tokenizer = bpe_tokenizer(split(PRETOKENIZE_REGEX))
    export_gguf(model, tokenizer, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="it needs the model"):  # by a checkpoint's name alone, nothing is converted
        check_trusted(str(tmp_path / "m.gguf"))
    assert run(["models", "pull", str(tmp_path / "m.gguf")]) == 0
    folder = find(str(tmp_path / "m.gguf"))
    assert folder.path.parent == tmp_path / "models" and folder.fingerprint.startswith("gguf-")
    again = load(folder, dtype="auto")
    want, got = model.state_dict(), again.model.state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)
    with torch.no_grad():
        assert torch.equal(again.model(IDS).logits, fuse(model)(IDS).logits)
    assert again.tokenizer(CODE)["input_ids"] == tokenizer(CODE)["input_ids"]
    assert again.tokenizer.chat_template == CHAT_TEMPLATE
    assert exported(capfd, tmp_path / "m.gguf", tmp_path / "n.gguf")[0] == 0
    assert (tmp_path / "n.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name.startswith(".pull")] == []


def test_a_damaged_gguf_is_no_model(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path / "models"))
    export_gguf(decoder("qwen2"), bpe_tokenizer(), tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    for content in (b"", b"not a GGUF at all", whole[:500], whole[: len(whole) // 2]):
        (tmp_path / "m.gguf").write_bytes(content)
        assert run(["models", "pull", str(tmp_path / "m.gguf")]) == 2
        assert "is no GGUF that can be loaded" in " ".join(capfd.readouterr().err.split())
    assert run(["models", "pull", "models/m.gguf"]) == 2
    assert "there is no file" in capfd.readouterr().err


QUANTS = {"f32": 1e-6, "f16": 2e-3, "bf16": 2e-2, "q8_0": 2e-2, "q4_0": 0.2}
"""Largest change of a weight, as a share of the largest one of its tensor."""


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quant(capfd, tmp_path, quant, dtype):
    """Rows of 48 numbers are no whole blocks, so they become f16."""
    folder = tmp_path / "model"
    model = decoder("qwen2", dtype=dtype)
    model.save_pretrained(folder)
    bpe_tokenizer().save_pretrained(folder)
    code, err = exported(capfd, folder, tmp_path / "m.gguf", "--quant", quant)
    assert code == 0, err
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    in_blocks = quant in ("q8_0", "q4_0")
    assert kinds["blk.0.ffn_down.weight"] == quant.upper()  # rows of 64 numbers
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == ("F16" if in_blocks else quant.upper())
    assert kinds["blk.0.attn_q.bias"] == kinds["output_norm.weight"] == "F32"
    assert fields(tmp_path / "m.gguf").get("general.quantization_version") == (2 if in_blocks else None)
    want, got = model.state_dict(), loaded(tmp_path / "m.gguf", dtype=torch.float32).state_dict()
    for name, tensor in want.items():
        assert (got[name] - tensor).abs().max() <= QUANTS[quant] * tensor.abs().max(), name


def test_the_vocabulary_stays_in_q8_0(tmp_path):
    export_gguf(decoder("qwen3", hidden_size=64), bpe_tokenizer(), tmp_path / "m.gguf", quant="q4_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    assert {kinds[f"blk.{i}.attn_q.weight"] for i in range(2)} == {"Q4_0"}


def test_a_quant_that_does_not_fit(capfd, model_folder, tmp_path):
    with pytest.raises(UsageError, match="quant 'q5_k': not one of none, f32"):
        export_gguf(decoder("llama"), bpe_tokenizer(), tmp_path / "m.gguf", quant="q5_k")
    large = decoder("llama")
    large.model.layers[0].mlp.up_proj.weight.data[3, 5] = 1e5
    with pytest.raises(UsageError, match=r"ffn_up\.weight has numbers that float16 can't hold") as caught:
        export_gguf(large, bpe_tokenizer(), tmp_path / "m.gguf", quant="f16")
    assert caught.value.hint == "--quant bf16" and not list(tmp_path.iterdir())
    code, err = exported(capfd, model_folder, tmp_path / "folder", "--quant", "q8_0")
    assert code == 2 and "--quant q8_0 is for GGUF" in err


def test_a_full_disk_has_its_exit_code(capfd, model_folder, tmp_path):
    with files_limited_to(100_000):
        code, err = exported(capfd, model_folder, tmp_path / "m.gguf")
    assert code == 13 and "can't be written" in err and "free some space" in err
    assert not list(tmp_path.iterdir())


# In llama.cpp itself

has_llama_cpp = any(importlib.util.find_spec(name) for name in ("llama_cpp", "xllamacpp"))
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.skipif(not has_llama_cpp, reason="needs a binding of llama.cpp: pip install xllamacpp")
@pytest.mark.parametrize(
    ("architecture", "options", "quant", "gap"),
    [
        ("llama", {"tied": True}, "f32", 1e-3),
        ("qwen2", {}, "f32", 1e-3),
        ("qwen3", {"head_dim": 64}, "f32", 1e-3),
        ("qwen3", {"hidden_size": 64}, "q8_0", 0.2),
        ("qwen3", {"hidden_size": 64}, "q4_0", 2.0),
    ],
)
def test_llama_cpp_says_the_same_tokens(capfd, monkeypatch, tmp_path, architecture, options, quant, gap):
    """The script compares token ids and greedy tokens; in float32 only a tie of two logits may be decided otherwise."""
    model, tokenizer = decoder(architecture, **options), bpe_tokenizer()
    if architecture == "qwen2":  # transformers gives any Qwen2 this split and NFC
        tokenizer = bpe_tokenizer(split(PRETOKENIZE_REGEX))
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert exported(capfd, tmp_path / "model", tmp_path / "m.gguf", "--quant", quant)[0] == 0
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arguments = [tmp_path / "m.gguf", "--model", tmp_path / "model", "--tokens", 24, "--gap", gap, "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["greedy_tokens.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("greedy_tokens").main()
    out = capfd.readouterr().out
    assert ended.value.code == 0, out
    assert "0 failed" in out and out.count("| yes |") == 10
