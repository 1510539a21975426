"""GGUF -> Hugging Face folder: tensors, configuration and tokenizer, compared with gguf's and transformers' own."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGUFReader, GGUFWriter
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from awareness.model import gguf_import, token_offsets
from awareness.model.gguf_header import read_header
from tests.model.gguf_models import HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, MERGES, ROWS, TOKENS, tensors, write_gguf

MIXED = {"token_embd.weight": Kind.Q5_0, "output.weight": Kind.Q8_0, "*": Kind.Q5_0, "blk.1.attn_v.weight": Kind.Q8_0}
TEXTS = [
    "def add(a, b):\n    return a + b  # 12345\n",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><tool_call>{}",
    " \t\n\n  x = 'I'LL'  ü 漢字 🎉\r\n",
    "",
]


def converted(gguf: Path, folder: Path, **options: int) -> Path:
    with gguf.open("rb") as stream:
        gguf_import.convert_gguf(stream, gguf.stat().st_size, folder, lambda *_: None, **options)
        assert stream.read() == b""
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        of_file = load_file(path)
        assert not set(of_file) & set(found)
        found |= of_file
    return found


def reference(gguf: Path) -> dict[str, torch.Tensor]:
    """Every tensor by gguf's own reader, in bf16."""
    made = {}
    for tensor in GGUFReader(gguf).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(int(n) for n in tensor.shape[::-1]))
        made[tensor.name] = torch.from_numpy(values.copy()).to(torch.bfloat16)
    return made


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tensors(), MIXED)


@pytest.fixture(scope="module")
def folder(qwen, tmp_path_factory) -> Path:
    return converted(qwen, tmp_path_factory.mktemp("made") / "model")


def test_every_tensor_is_what_gguf_reads(qwen, folder):
    made, expected = weights_of(folder), reference(qwen)
    assert len(made) == len(expected) - 1 == 2 + 12 * LAYERS
    for name in expected:
        if name not in ("token_embd.weight", "output.weight"):
            assert torch.equal(made[gguf_import._hf_name(name)], expected[name]), name


@pytest.mark.parametrize(
    ("embedding", "output", "taken"),
    [
        (Kind.Q5_0, Kind.Q8_0, "output.weight"),
        (Kind.Q8_0, Kind.Q5_0, "token_embd.weight"),
        (Kind.Q8_0, Kind.Q8_0, "token_embd.weight"),
        (Kind.Q8_0, None, "token_embd.weight"),
    ],
)
def test_the_output_layer_is_the_embedding_of_the_more_exact_one(tmp_path, embedding, output, taken):
    weights = tensors()
    if output is None:
        del weights["output.weight"]
    kinds = {"token_embd.weight": embedding, **({"output.weight": output} if output else {})}
    gguf = write_gguf(tmp_path / "tiny.gguf", weights, kinds)
    folder = converted(gguf, tmp_path / "model")
    made, expected = weights_of(folder), reference(gguf)
    assert "lm_head.weight" not in made
    assert torch.equal(made["model.embed_tokens.weight"], expected[taken])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert torch.equal(model.lm_head.weight, expected[taken])


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_it_is_the_model_that_transformers_reads(tmp_path, architecture):
    """Also of Llama, whose queries and keys stand in another order in a GGUF."""
    weights = tensors(architecture)
    del weights["output.weight"]
    gguf = write_gguf(tmp_path / "tiny.gguf", weights, {"*": Kind.Q8_0}, architecture, "qwen2")
    config = GgufConfig(dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tiny.gguf", quantization_config=config, dtype=torch.bfloat16
    )
    ours = AutoModelForCausalLM.from_pretrained(converted(gguf, tmp_path / "model"), dtype=torch.bfloat16)
    expected, made = theirs.state_dict(), ours.state_dict()
    assert set(made) == set(expected)
    assert [name for name in made if not torch.equal(made[name], expected[name])] == []
    ids = torch.arange(12)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q5_0, Kind.Q4_1, Kind.Q4_K, Kind.Q6_K])
def test_pieces_of_any_size_are_dequantised_as_the_whole(monkeypatch, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(3)
    if kind in (Kind.F32, Kind.F16):
        raw = random.normal(size=700).astype(np.float32 if kind is Kind.F32 else np.float16).view(np.uint8)
    else:
        blocks = random.integers(0, 256, (700, size), np.uint8)
        scales = random.normal(size=(700, 2)).astype(np.float16).view(np.uint8)
        if kind is Kind.Q6_K:
            blocks[:, -2:] = scales[:, :2]
        else:
            blocks[:, :4] = scales
        raw = blocks.reshape(-1)
    whole = torch.from_numpy(dequantize(raw.reshape(1, -1), kind).reshape(-1).copy()).to(torch.bfloat16)
    for step in (1, 8 * elements, 1 << 20):
        monkeypatch.setattr(gguf_import, "_STEP_ELEMENTS", step)
        made = gguf_import.dequantised(raw.tobytes(), int(kind))
        assert torch.equal(torch.from_numpy(made.view(np.int16)).view(torch.bfloat16), whole)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])), min_size=1))
def test_bf16_is_rounded_as_torch_rounds(halves):
    """Also where a number lies just between two."""
    values = np.array([upper << 16 | lower for upper, lower in halves], np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy()
    assert np.array_equal(gguf_import._bf16(values).view(np.int16), expected)


def test_large_models_are_cut_in_shards(qwen, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_import, "_TASK_ELEMENTS", 512)  # a tensor in several pieces
    cut = converted(qwen, tmp_path / "model", shard_bytes=40_000)
    index = json.loads((cut / "model.safetensors.index.json").read_text())
    made, whole = weights_of(cut), weights_of(folder)
    assert made.keys() == whole.keys() == index["weight_map"].keys()
    assert all(torch.equal(made[name], whole[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in whole.values())
    shards = sorted(path.name for path in cut.glob("*.safetensors"))
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    assert len(shards) > 2
    for shard in shards:
        assert set(load_file(cut / shard)) == {name for name, place in index["weight_map"].items() if place == shard}
    assert not (folder / "model.safetensors.index.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(cut, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)


def test_the_configuration_has_what_the_publisher_has(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": TOKENS.index("<|endoftext|>"),
        "dtype": "bfloat16",
        "eos_token_id": TOKENS.index("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
        "rope_theta": 1_000_000.0,
        "sliding_window": 512,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "5.0.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": ROWS,
    }
    end, turn = TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": end, "eos_token_id": [turn, end], "pad_token_id": end}


def test_the_tokenizer_is_the_one_that_transformers_reads(qwen, folder):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(qwen.parent, gguf_file=qwen.name)
    for text in TEXTS:
        ids = ours(text).input_ids
        assert ids == theirs(text).input_ids
        assert ours.decode(ids) == text
    assert ours("def  return").input_ids[0] == TOKENS.index("def")  # merges are in use
    assert len(ours) == len(TOKENS) == 256 + len(MERGES) + 4  # without the padding of the embedding
    assert not hasattr(ours, "fix_mistral_regex")  # nor is it taken for one of Mistral's, with a warning
    assert (ours.eos_token, ours.pad_token, ours.bos_token) == ("<|im_end|>", "<|endoftext|>", "<|endoftext|>")
    assert ours.all_special_tokens == theirs.all_special_tokens
    turn = [{"role": "user", "content": "hi"}]
    assert ours.apply_chat_template(turn, tokenize=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_text_is_normalised_as_published_and_words_are_cached(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("e\u0301").input_ids == tokenizer("\u00e9").input_ids
    assert token_offsets._words_of(tokenizer.backend_tokenizer) is not None
    starts = token_offsets.token_starts(folder)
    assert list(starts("def f(): return")) == [0, 3, 4, 5, 6, 7, 8, 9]


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown architecture: gemma"):
        converted(write_gguf(tmp_path / "g.gguf", tensors(), {}, "gemma"), tmp_path / "a")
    with pytest.raises(ValueError, match="unknown tokenizer: gpt2 llama-bpe"):
        converted(write_gguf(tmp_path / "t.gguf", tensors(), {}, pre="llama-bpe"), tmp_path / "b")
    with pytest.raises(ValueError, match=r"unknown GGUF tensor: blk\.0\.attn_sinks"):
        more = {**tensors(), "blk.0.attn_sinks.weight": np.zeros(4, np.float32)}
        converted(write_gguf(tmp_path / "n.gguf", more, {}), tmp_path / "c")


def test_a_file_that_is_cut_off_or_no_gguf(qwen, tmp_path):
    data = qwen.read_bytes()
    for n, length in enumerate((10, 2_000, len(data) // 2, len(data) - 1)):
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        with pytest.raises(EOFError, match="cut off"):
            converted(tmp_path / "cut.gguf", tmp_path / f"model-{n}")
    with pytest.raises(ValueError, match="does not start with 'GGUF'"):
        read_header(io.BytesIO(b"GGML" + data[4:]))
    with pytest.raises(ValueError, match="version 1"):
        read_header(io.BytesIO(data[:4] + struct.pack("<I", 1) + data[8:]))


def test_a_header_is_read_as_it_was_written(tmp_path):
    writer = GGUFWriter(tmp_path / "h.gguf", "qwen2")
    values = {
        "uint8": 200, "int8": -3, "uint16": 60_000, "int16": -300, "uint32": 1 << 31, "int32": -5,
        "uint64": 1 << 63, "int64": -(1 << 40), "float32": 0.5, "float64": 0.1, "bool": True, "string": "ü→",
    }  # fmt: skip
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"one.{kind}", value)
    arrays = {"numbers": [1, 2, 3], "words": ["a", "", "漢"], "nested": [[1, 2], [3]]}
    for name, items in arrays.items():
        writer.add_array(name, items)
    writer.add_custom_alignment(64)
    writer.add_tensor("b", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("a", np.arange(4, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with (tmp_path / "h.gguf").open("rb") as stream:
        header = read_header(stream)
        assert stream.tell() + header.padding == header.size
    assert {kind: header.metadata[f"one.{kind}"] for kind in values} == values
    assert {name: header.metadata[name] for name in arrays} == arrays
    assert header.size % 64 == 0
    reader = GGUFReader(tmp_path / "h.gguf")
    assert header.size == reader.data_offset
    assert [(t.name, t.shape, t.kind) for t in header.tensors] == [("b", (2, 3), Kind.F32), ("a", (4,), Kind.F16)]
    assert [t.offset + header.size for t in header.tensors] == [t.data_offset for t in reader.tensors]
