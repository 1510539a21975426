"""Answers in whole sentences: streamed, at most three, with sources, within the token limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.model.answering import GRACE, _Writer, answer, prompt_ids
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord, span_shares
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.presets import NEUTRAL, settings_of
from awareness.model.reading.line_attention import LineAttention
from awareness.model.sentences import SENTENCES, Sources
from awareness.types import Chunk

CHUNKS = [
    Chunk("src/auth.py", 1, 2, "sign", "def sign(self):\n    return MAX_AGE"),
    Chunk("src/pool.py", 7, 8, "Pool", "class Pool:\n    max_size = 10"),
]


def written(pieces, *, limit=SENTENCES, is_ended=True):
    sentences, begun = [], []
    writer = _Writer(Sources(CHUNKS), None, None, limit, lambda s: sentences.append(s.marked), begun.append)
    for piece in pieces:
        writer(piece)
    writer.close(is_ended)
    return sentences, begun, writer


def test_sentences_are_passed_on_once_complete():
    sentences, begun, _ = written(["The `max_", "size` is 10.", " It", " is in", " `MAX_AGE`."])
    assert sentences == ["The `max_size` is 10 [2]. ", "It is in `MAX_AGE` [1]."]
    assert begun == ["The `max_", "The `max_size` is 10.", "It", "It is in", "It is in `MAX_AGE`."]


def test_a_short_answer_has_three_sentences():
    text = ["One is. ", "Two is. ", "Three is. ", "Four is. ", "Five"]
    sentences, _, writer = written(text)
    assert len(sentences) == 3 and writer.is_full
    sentences, _, writer = written(text, limit=None)
    assert len(sentences) == 5 and not writer.is_full


def test_a_repeated_sentence_ends_the_answer():
    sentences, _, writer = written(["It is 10. ", "It  is 10. ", "It is 11. ", "x"])
    assert len(sentences) == 1 and writer.is_full


@pytest.mark.parametrize(
    ("pieces", "is_ended", "expected"),
    [
        (["It is 10. ", "And then the"], False, ["It is 10 [2]. "]),  # cut off: left out
        (["It is 10. ", "And `MAX_AGE`"], True, ["It is 10 [2]. ", "And `MAX_AGE` [1]"]),  # ended by itself
        (["It is 10. ", "And so."], False, ["It is 10 [2]. ", "And so [1]."]),
        (["And then the"], False, ["And then the … [1]"]),  # nothing else was said
        (["# file: src/auth.py · sign\n", "It is 10."], True, ["It is 10 [2]."]),
        (["  \n"], True, []),
    ],
)
def test_no_cut_off_sentences_and_no_headers(pieces, is_ended, expected):
    assert written(pieces, is_ended=is_ended)[0] == expected


@pytest.fixture
def memory(decoder):
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    latents = list(encoder.encode([chunk.encoded_text for chunk in reversed(CHUNKS)]))
    return assemble(decoder.model, encoder.spec, encoder.sink, latents, ["1", "0"])


def test_the_attention_of_steps_adds_up_to_that_of_the_answer(decoder, memory):
    record = AttentionRecord(range(6), steps=True)
    generation = generate(decoder, [40, 41, 42], memory, max_new_tokens=7, min_new_tokens=7, record=record)
    assert record.step_count == 6  # the first token comes out of the prompt's own pass
    parts = [record.sum_of_steps(0, 2), record.sum_of_steps(2, 6)]
    assert span_shares(memory, parts[0] + parts[1]) == pytest.approx(generation.attention, abs=1e-5)
    assert record.sum_of_steps(6, 6) is None


def test_chosen_heads_are_kept_apart(decoder, memory):
    record = AttentionRecord(range(6), keep=True, steps=True, heads=[(2, 1), (2, 3), (4, 0)])
    generate(decoder, [40, 41, 42], memory, max_new_tokens=4, min_new_tokens=4, record=record)
    weights = record.memory_attention_weights  # layer -> [B, H, T, M]
    expected = weights[2][0, 1] + weights[2][0, 3] + weights[4][0, 0]
    assert torch.allclose(record.steps_of_heads(0, 3), expected, atol=1e-5)
    assert torch.allclose(record.steps_of_heads(1, 2), expected[1:2], atol=1e-5)
    assert record.steps_of_heads(3, 3) is None
    every = AttentionRecord(range(6), steps=True)
    generate(decoder, [40, 41, 42], memory, max_new_tokens=4, min_new_tokens=4, record=every)
    total = sum(layer[0].sum(dim=0) for layer in weights.values())
    assert torch.allclose(every.steps_of_heads(0, 3), total, atol=1e-4)


def test_the_evidence_of_a_sentence_is_what_its_tokens_looked_at(decoder, memory, monkeypatch):
    monkeypatch.setattr("awareness.model.sentences.ENOUGH", 0.0)  # this model looks everywhere
    settings = replace(NEUTRAL, evidence_heads=((3, 1), (4, 2)))  # the layers of retrieval are 2 to 4
    tokens = iter(range(8))
    reply = answer(decoder, settings, "which size", CHUNKS, memory, is_cancelled=lambda: next(tokens) == 5)
    record = AttentionRecord([3, 4], steps=True, heads=settings.evidence_heads)
    prompt = prompt_ids(decoder, settings, "which size", has_memory=True)
    again = generate(decoder, prompt, memory, max_new_tokens=reply.generation.tokens, record=record)
    assert again.text == reply.generation.text and len(reply.sentences) == 1
    to_lines = LineAttention(decoder.tokenizer, memory, CHUNKS)(record.steps_of_heads(0, record.step_count))
    expected = Sources(CHUNKS, "which size").sentence(reply.sentences[0].text, (), to_lines)
    assert reply.sentences[0] == replace(expected, confidence=reply.sentences[0].confidence)
    assert reply.sentences[0].confidence == pytest.approx(expected.confidence, abs=1e-3)
    assert reply.sentences[0].lines is not None


def test_an_answer_stays_within_its_limit_and_is_read_from_memory(decoder, memory):
    reply = answer(decoder, NEUTRAL, "what", CHUNKS, memory, max_new_tokens=5)
    assert 1 <= reply.generation.tokens <= 5 + GRACE
    assert sum(reply.generation.attention.values()) == pytest.approx(1, abs=1e-4)
    assert all(sentence.source in (0, 1) for sentence in reply.sentences)
    assert "".join(reply.text.split()) == "".join("".join(s.text for s in reply.sentences).split())


def test_recording_changes_no_answer(decoder, memory):
    plain = generate(decoder, [40, 41], memory, max_new_tokens=12)
    recorded = generate(decoder, [40, 41], memory, max_new_tokens=12, record=AttentionRecord([2, 3], steps=True))
    assert plain.text == recorded.text


def test_stop_ends_a_generation(decoder):
    asked = []
    generation = generate(decoder, [40, 41], max_new_tokens=20, stop=lambda: asked.append(1) or len(asked) == 3)
    assert generation.tokens == 3 and not generation.is_ended


def test_settings_of_presets_hub_ids_and_adapters(decoder, memory):
    def trained(form):
        return MemoryConfig(memory_form=form, refuse_above=0.5)

    assert settings_of("/some/folder") is NEUTRAL
    assert NEUTRAL.sharpness == NEUTRAL.repetition_penalty == 1.0
    assert settings_of("Qwen/Qwen2.5-Coder-0.5B-Instruct") is settings_of("qwen2.5-coder-0.5b") is not NEUTRAL
    smollm2 = settings_of("smollm2-135m")
    assert smollm2.sharpness == 1.2 and settings_of("smollm2-135m", trained("joint")).sharpness == 1.0
    adapters = (None, trained("joint"), trained("tanh"))
    assert [settings_of("smollm2-135m", own).system_with_memory for own in adapters] == [False, False, True]
    assert (smollm2.refuse_above, settings_of("smollm2-135m", trained("tanh")).refuse_above) == (0.0, 0.5)
    with attached(decoder.model, memory), torch.inference_mode():
        decoder.model(torch.tensor([[40, 41]]))  # still readable
