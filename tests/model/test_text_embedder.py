"""Embedding models from folders: tiny BERT, Qwen3 and NomicBert, with and without pooling files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, NomicBertConfig, NomicBertModel, PreTrainedTokenizerFast

from awareness.errors import UsageError
from awareness.model.model_files import ModelFolder
from awareness.model.text_embedder import MAX_TOKENS, TextEmbedder, text_of
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CHUNKS = [Chunk("a.py", 1, 2, f"f{n}", "return x\n" * n) for n in (40, 1, 0, 12, 3)]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, between [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: i for i, token in enumerate([*special, *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=120, max_position_embeddings=300, initializer_range=0.3, **SIZES)
    BertModel(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "copy")


def embedder(path) -> TextEmbedder:
    return TextEmbedder(ModelFolder("tiny", path, f"print of {path.name}"), dtype=torch.float32)


def sentence_transformers(path, pooling: dict[str, object], *more: str) -> None:
    parts = ["Transformer", "Pooling", *more]
    kinds = [
        {"type": f"sentence_transformers.models.{p}", "path": f"1_{p}" if p != "Transformer" else ""} for p in parts
    ]
    (path / "modules.json").write_text(json.dumps(kinds))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def test_vectors_are_unit_in_order_and_the_same_alone_or_together(bert):
    found = embedder(bert)
    together = np.stack(list(found.chunks(CHUNKS)))
    assert together.shape == (5, found.dim)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1)
    for chunk, vector in zip(CHUNKS, together, strict=True):
        assert next(found.chunks([chunk])) == pytest.approx(vector, abs=1e-5)
        assert found.question(text_of(chunk)) == pytest.approx(vector, abs=1e-5)
    assert len({vector.tobytes() for vector in together}) == 5
    assert list(found.chunks([])) == []


def test_a_path_that_is_not_utf8_is_read(bert):
    found = embedder(bert)
    (vector,) = found.chunks([Chunk("a\udcff.py", 1, 1, "", "x")])
    assert vector == pytest.approx(found.question("a?.py \nx"), abs=1e-5)


def test_words_are_texts_without_a_prompt(copy):
    (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "ask: "}}))
    found = embedder(copy)
    words = [f"word{n}" for n in range(600)]
    assert found.words(words).shape == (600, found.dim)
    assert found.words([]).shape == (0, found.dim)
    assert found.question("x") == pytest.approx(found.words(["ask: x"])[0], abs=1e-5)
    assert found.question("x") != pytest.approx(found.words(["x"])[0], abs=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("new_style", [False, True])
def test_pooling_is_what_the_folder_says(copy, pooling, new_style):
    names = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    old = {f"pooling_mode_{name}": key == pooling for key, name in names.items()}
    config = {"pooling_mode": pooling} if new_style else old
    sentence_transformers(copy, {"word_embedding_dimension": 24, "include_prompt": True, **config}, "Normalize")
    found = embedder(copy)
    assert found.pooling == pooling
    ids = found.tokenizer("abc", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = found.model(ids).last_hidden_state[0].numpy()
    want = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1]}[pooling]
    got = found.words(["abc", "a longer text beside it"])[0]
    assert got == pytest.approx(want / np.linalg.norm(want), abs=1e-5)


def test_a_decoder_without_pooling_files_uses_the_last_token(model_folder, bert):
    assert embedder(model_folder).pooling == "lasttoken"
    assert embedder(bert).pooling == "mean"


def test_a_decoder_gives_the_same_vectors_in_a_batch(model_folder):
    found = embedder(model_folder)
    together = list(found.chunks(CHUNKS))
    for chunk, vector in zip(CHUNKS, together, strict=True):
        assert next(found.chunks([chunk])) == pytest.approx(vector, abs=1e-5)
    assert found.words([""]).shape == (1, found.dim)


def test_long_texts_are_cut(bert, copy):
    found = embedder(bert)
    assert found.max_tokens == MAX_TOKENS
    long, longer = (Chunk("a", 1, 1, "", "x" * n) for n in (300, 400))
    assert next(found.chunks([long])) == pytest.approx(next(found.chunks([longer])))
    (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert embedder(copy).words(["abcdefg"])[0] == pytest.approx(embedder(copy).words(["abcdexx"])[0])


def test_text_that_looks_like_a_special_token_is_text(bert):
    found = embedder(bert)
    assert found.words(["a[SEP]"])[0] != pytest.approx(found.words(["a"])[0], abs=1e-3)


def test_the_fingerprint_covers_every_setting(bert, copy):
    prints = {embedder(bert).fingerprint}
    sentence_transformers(copy, {"pooling_mode_cls_token": True})
    prints.add(embedder(copy).fingerprint)
    (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "q: "}}))
    prints.add(embedder(copy).fingerprint)
    assert len(prints) == 3
    assert embedder(copy).fingerprint in prints


@pytest.mark.parametrize(
    ("pooling", "more", "says"),
    [
        ({"pooling_mode_max_tokens": True}, (), "pools by max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, (), "pools by mean and cls_token"),
        ({}, (), "pools by nothing"),
        ({"pooling_mode_mean_tokens": True}, ("Dense",), "not supported: Dense"),
    ],
)
def test_unsupported_pooling_is_refused(copy, pooling, more, says):
    sentence_transformers(copy, pooling, *more)
    with pytest.raises(UsageError, match=says):
        embedder(copy)


@pytest.mark.parametrize(
    "config", ["{", "{}", '{"model_type": "no such"}', '{"model_type": "x", "auto_map": {"AutoModel": "evil.Evil"}}']
)
def test_a_folder_without_a_model(copy, config):
    (copy / "config.json").write_text(config)
    (copy / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(UsageError, match="embedding model tiny cannot be loaded") as raised:
        embedder(copy)
    assert raised.value.hint == "awareness models pull all-minilm-l6-v2"


def test_missing_weights(copy):
    # copies: what load_file gives is the file itself, mapped, which is written over below
    tensors = {name: tensor.clone() for name, tensor in load_file(copy / "model.safetensors").items()}
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"has no weights for encoder\.layer\.0\.output\.dense\.weight"):
        embedder(copy)


def test_a_decoder_saved_with_its_head_is_read_without(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert embedder(tmp_path).words(["x"]).shape == (1, 48)


def test_nomic_bert_needs_no_remote_code(tmp_path):
    torch.manual_seed(0)
    NomicBertModel(NomicBertConfig(vocab_size=120, **SIZES)).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = ("modeling_hf_nomic_bert.NomicBertModel", "configuration_hf_nomic_bert.NomicBertConfig")
    config["auto_map"] = dict(zip(("AutoModel", "AutoConfig"), names, strict=True))
    (tmp_path / "config.json").write_text(json.dumps(config))
    sentence_transformers(tmp_path, {"pooling_mode_cls_token": True})
    assert embedder(tmp_path).words(["x"]).shape == (1, 24)
