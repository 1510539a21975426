"""The sizes that config.json tells are those of the decoder that is loaded."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from awareness.config.decoder import ModelConfig
from awareness.model import hf
from awareness.model.decoder_shape import DecoderShape
from awareness.model.model_files import ModelFolder
from awareness.model.scratch import build_decoder
from tests.conftest import tiny_model


def sizes(model) -> dict[str, tuple[int, int]]:
    """Of the linear layers in every decoder layer."""
    found = [
        {
            name: (module.in_features, module.out_features)
            for part in (hf.self_attention(layer), hf.mlp(layer))
            for name, module in part.named_children()
            if name in hf.linear_names(model)
        }
        for layer in hf.decoder_layers(model)
    ]
    assert all(one == found[0] for one in found)
    return found[0]


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_sizes_of_a_folder(tmp_path, architecture):
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    shape = DecoderShape.of_folder(ModelFolder("tiny", tmp_path, "f"))
    assert shape == DecoderShape("tiny", 6, 48, sizes(model), 512)
    assert list(shape.linears) == hf.linear_names(model)


def test_what_cannot_read_memory_has_no_sizes(tmp_path):
    folder = ModelFolder("gpt2", tmp_path, "f")
    assert DecoderShape.of_folder(folder) is None
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=20)).save_pretrained(tmp_path)
    assert DecoderShape.of_folder(folder) is None


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 2, "intermediate_dim": 100}])
def test_sizes_of_a_decoder_from_scratch(tokenizer, settings):
    config = ModelConfig(
        base_model_name=None, hidden_dim=48, num_heads=6, num_layers=2, max_seq_len=99, vocab_size=300, **settings
    )
    shape = DecoderShape.of_settings(config)
    model = build_decoder(config, tokenizer)
    assert (shape.num_layers, shape.hidden_size, shape.positions) == (2, 48, 99)
    assert shape.linears == sizes(model)


def test_full_rank():
    shape = DecoderShape("d", 1, 48, {"a": (48, 16), "b": (8, 48)}, 1)
    assert (shape.full_rank("a"), shape.full_rank("b"), shape.full_rank("a", "b")) == (16, 8, 16)
