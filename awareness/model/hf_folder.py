"""A GGUF's metadata -> the files of a Hugging Face folder beside the weights: config, tokenizer, chat template.

The fields are those of the publishers' own folders. What a GGUF does not hold is the same for every supported model.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from awareness.model.gguf_header import Header
from awareness.model.token_offsets import QWEN2_WORDS

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_TOKENIZER_CLASSES = {"qwen2": "Qwen2Tokenizer", "smollm": "PreTrainedTokenizerFast"}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def write_config(header: Header, folder: Path) -> None:
    """Write config.json and generation_config.json. Raises ValueError for an unknown architecture."""
    architecture, value = header.metadata["general.architecture"], header.of_model
    heads, layers = value("attention.head_count"), value("block_count")
    rope_theta = value("rope.freq_base")
    ids = {f"{name}_token_id": header.metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")}
    config: dict[str, Any] = {
        "model_type": architecture,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",  # for older readers
        "hidden_act": "silu",
        "hidden_size": value("embedding_length"),
        "initializer_range": 0.02,
        "intermediate_size": value("feed_forward_length"),
        "max_position_embeddings": value("context_length"),
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": value("attention.head_count_kv"),
        "rms_norm_eps": _shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_theta": rope_theta,
        "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
        "tie_word_embeddings": True,
        "transformers_version": "5.0.0",  # of this layout; some releases misread a tokenizer without it
        "use_cache": True,
        "vocab_size": len(header.metadata["tokenizer.ggml.tokens"]),
        **ids,
    }
    pad = header.metadata.get("tokenizer.ggml.padding_token_id", ids["eos_token_id"])
    if architecture == "qwen2":
        config |= {
            "architectures": ["Qwen2ForCausalLM"],
            "max_window_layers": layers,
            "sliding_window": value("context_length"),
            "use_sliding_window": False,
        }
    elif architecture == "llama":
        config |= {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "head_dim": value("embedding_length") // heads,
            "mlp_bias": False,
            "pad_token_id": pad,
            "pretraining_tp": 1,
        }
    else:
        raise ValueError(f"a GGUF of an unknown architecture: {architecture}")
    _write(folder / "config.json", config)
    # A chat model ends a turn with one token, and a text with another, which is also the padding.
    ends = sorted({ids["eos_token_id"], pad}, reverse=True)
    _write(
        folder / "generation_config.json",
        {**ids, "eos_token_id": ends if len(ends) > 1 else ends[0], "pad_token_id": pad},
    )


def write_tokenizer(header: Header, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, with the chat template. Raises ValueError for an unknown
    tokenizer."""
    data = header.metadata
    tokens: list[str] = data["tokenizer.ggml.tokens"]
    kinds: list[int] = data["tokenizer.ggml.token_type"]
    way = data["tokenizer.ggml.pre"]
    if data["tokenizer.ggml.model"] != "gpt2" or way not in _TOKENIZER_CLASSES:
        raise ValueError(f"a GGUF with an unknown tokenizer: {data['tokenizer.ggml.model']} {way}")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": tokens[i], **plain, "special": kind == _CONTROL}
        for i, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    # llama.cpp fills the vocabulary up to the rows of the embedding; published vocabularies are shorter.
    vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != _UNUSED}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **_PIPELINES[way],
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [merge.split(" ") for merge in data["tokenizer.ggml.merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    named = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    at = {short: data.get(f"tokenizer.ggml.{name}_token_id") for short, name in named.items()}
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": _TOKENIZER_CLASSES[way],
            **{f"{short}_token": None if i is None else tokens[i] for short, i in at.items()},
            "add_bos_token": data.get("tokenizer.ggml.add_bos_token", False),
            "add_prefix_space": False,
            "chat_template": data.get("tokenizer.chat_template"),
            "clean_up_tokenization_spaces": False,
        },
    )


# llama.cpp's name -> how text becomes tokens.
_PIPELINES: dict[str, dict[str, Any]] = {
    "qwen2": {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False},
                _BYTES,
            ],
        },
        "post_processor": _BYTES,
        "decoder": _BYTES,
    },
    # The publisher also splits numbers into digits first. SmolLM2's adapter was trained without that, so it stays out.
    "smollm": {
        "normalizer": None,
        "pre_tokenizer": {**_BYTES, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {**_BYTES, "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    },
}


def _shortest(number: float) -> float:
    """The shortest decimal number that is this float32: 1e-06 for 9.999999974752427e-07."""
    for digits in range(1, 10):
        short = float(f"{number:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", number):
            return short
    return number


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True), encoding="utf-8")
