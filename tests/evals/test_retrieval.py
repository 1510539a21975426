"""Attention as a way to find the chunk that answers: what is summed, over which positions; how ranks are counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from awareness.evals.readers import Reader
from awareness.evals.retrieval import Case, attention_by_chunk, rank, rank_of
from awareness.model.attention_record import AttentionRecord
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.model.presets import SETTINGS, ReadingSettings
from awareness.model.prompts import encode
from awareness.types import Sample
from tests.conftest import tiny_model, tiny_tokenizer

TEXTS = tuple(f"# file: m{i}.py · f{i}\ndef f{i}():\n    return {i}\n" for i in range(6))
SAMPLE = Sample(TEXTS, (2,), "What does f2 return?", "two", "f2 gives ")
PENALTY = 1.15


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Iterator[Reader]:
    decoder = Decoder(
        fuse(tiny_model("qwen3")), tiny_tokenizer(), ModelFolder("tiny", tmp_path_factory.mktemp("m"), "tiny")
    )
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "tiny", ReadingSettings(repetition_penalty=PENALTY))
        yield Reader("joint", "memory", decoder, encoder)


def test_what_predicts_a_given_answer_is_summed(reader):
    memory = reader.memory(TEXTS)
    prompt, answer = reader.prompt(SAMPLE), encode(reader.decoder.tokenizer, "two")
    record = AttentionRecord(memory.keys, keep=True, every_token=True)
    with torch.inference_mode(), attached(reader.decoder.model, memory, record=record):
        reader.decoder.model(torch.tensor([prompt + answer]), use_cache=False)
    found = attention_by_chunk(reader, SAMPLE, max_new_tokens=6)
    assert list(found) == list(memory.keys) == [1, 2, 3, 4, 5]
    for layer, weights in record.memory_attention_weights.items():  # [1, H, T, M]
        predicting = weights[0, :, len(prompt) - 1 : -1].sum(dim=(0, 1))
        assert weights.shape[2] - len(prompt) == len(answer) == 3
        wanted = [float(predicting[span.start : span.stop].sum()) for span in memory.spans[1:]]
        assert found[layer] == pytest.approx(wanted, rel=1e-4)


def test_without_a_given_answer_the_generated_one_is_read(reader):
    asked = replace(SAMPLE, answer="", answer_prefix="")
    record = AttentionRecord(reader.retrieval_layers)
    options = {"max_new_tokens": 6, "repetition_penalty": PENALTY, "record": record}
    answer = generate(reader.decoder, reader.prompt(asked), reader.memory(TEXTS), **options)
    assert answer.tokens > 1
    found = attention_by_chunk(reader, asked, max_new_tokens=6)
    mass = [sum(found[layer][place] for layer in reader.retrieval_layers) for place in range(len(TEXTS))]
    shares = [answer.attention[str(place)] for place in range(len(TEXTS))]
    assert [value / sum(mass) for value in mass] == pytest.approx(shares, rel=1e-4)


def test_an_answer_that_ends_at_once_has_looked_at_nothing(reader):
    found = attention_by_chunk(reader, replace(SAMPLE, answer=""), max_new_tokens=1)
    assert found == {layer: [0.0] * 6 for layer in (1, 2, 3, 4, 5)}


def test_equals_count_as_before_the_gold_chunk():
    assert rank_of([1], [0.1, 0.5, 0.2]) == 1
    assert rank_of([0, 2], [0.1, 0.5, 0.2]) == 2
    assert rank_of([0], [0.0, 0.0, 0.0]) == 3
    assert rank_of([0, 1, 2], [0.0, 0.0, 0.0]) == 1


def test_accuracies_are_of_ranks(reader, monkeypatch):
    golds = (0, 1, 5, 5)
    samples = [replace(SAMPLE, gold=(gold,), question=f"f{gold}") for gold in golds]
    cases = [Case(sample, [2, 9, 3, 1, 1, 4]) for sample in samples]
    by_layer = {layer: [6.0 - place for place in range(6)] for layer in (1, 2, 3, 4, 5)}
    by_layer[4] = [0.0, 9.0, 0.0, 0.0, 0.0, 0.0]
    monkeypatch.setattr("awareness.evals.retrieval.attention_by_chunk", lambda *a, **k: by_layer)
    assert reader.retrieval_layers == [2, 3, 4]
    rows = {(row.order, row.layer): (row.at_1.mean, row.at_5.mean) for row in rank([reader], cases, max_new_tokens=6)}
    assert rows == {
        ("bm25", None): (1.0, 1.0),
        ("nearest", None): (0.5, 0.75),
        ("routing", None): (0.25, 1.0),
        ("joint", None): (0.25, 0.5),  # 12 and 10 at the top, but 10 + 9 with layer 4
        ("joint", 1): (0.25, 0.5),
        ("joint", 2): (0.25, 0.5),
        ("joint", 3): (0.25, 0.5),
        ("joint", 4): (0.25, 0.25),
        ("joint", 5): (0.25, 0.5),
    }


def test_intervals_are_of_as_many_cases(reader):
    rows = rank([reader], [Case(SAMPLE)] * 3, max_new_tokens=6)
    assert len(rows) == 2 + 1 + 5
    assert all(row.at_1.n == row.at_5.n == 3 and row.at_1.low < row.at_1.high for row in rows)
