"""A memory prepared for a question: which tokens are computed again, and what stays bitwise."""

from __future__ import annotations

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.adapter import build_adapter
from awareness.model.answering import answer
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.presets import NEUTRAL
from awareness.model.projected import ProjectedEncoder
from awareness.model.prompts import encode, question_ids, sink_ids
from awareness.model.reading.chunk_choice import chunk_scores
from awareness.model.reading.question_reading import MemoryTokens, attention_to, best_lines, prepared
from awareness.model.reading.recompute import recomputed
from awareness.model.soft_tokens import SoftTokens
from awareness.types import Chunk, QuestionReading

CHUNKS = [
    Chunk("src/auth.py", 1, 2, "sign", "def sign(self):\n    return MAX_AGE"),
    Chunk("src/pool.py", 7, 8, "Pool", "class Pool:\n    max_size = 10"),
]
TEXTS = [chunk.encoded_text for chunk in CHUNKS]


@pytest.fixture
def memory(decoder):
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    return assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)))


@pytest.fixture
def prompt(decoder):
    return question_ids(decoder.tokenizer, "What is the size?", with_system=False)


def test_tokens_and_lines_of_a_memory(decoder, memory):
    tokens = MemoryTokens.of(decoder.tokenizer, memory, TEXTS)
    texts = [token for text in TEXTS for token in encode(decoder.tokenizer, text)]
    assert list(tokens.ids) == sink_ids(decoder.tokenizer) + texts
    decode = decoder.tokenizer.decode
    written = [[decode([tokens.ids[place] for place in line]) for line in lines] for lines in tokens.lines]
    assert written == [text.splitlines(keepends=True) for text in TEXTS]


def test_best_lines_are_whole_with_the_headers_of_their_chunks(decoder, memory):
    tokens = MemoryTokens.of(decoder.tokenizer, memory, TEXTS)
    scores = torch.zeros(memory.tokens)
    header, _, best = tokens.lines[1]
    scores[best[4]], scores[tokens.lines[0][2][0]] = 2.0, 1.0
    assert best_lines(scores, tokens, len(header) + len(best)) == sorted([*header, *best])
    assert best_lines(scores, tokens, len(header) + len(best) - 1) != sorted([*header, *best])
    everything = [place for lines in tokens.lines for line in lines for place in line]
    assert best_lines(scores, tokens, memory.tokens) == everything
    assert best_lines(scores, tokens, 0) == []


def test_share_0_is_the_same_memory(decoder, memory, prompt):
    assert prepared(decoder, memory, TEXTS, prompt, QuestionReading()) is memory


def test_a_share_is_what_the_question_looks_at(decoder, memory, prompt):
    new = prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=0.4))
    assert 0 < new.recomputed <= 0.4 * memory.tokens
    tokens = MemoryTokens.of(decoder.tokenizer, memory, TEXTS)
    places = best_lines(attention_to(decoder, memory, prompt), tokens, round(0.4 * memory.tokens))
    want = recomputed(decoder.model, memory, tokens.ids, places)
    assert all(torch.equal(new.keys[layer], want.keys[layer]) for layer in memory.keys)
    assert new.recomputed == len(places)


def test_share_1_is_everything(decoder, memory, prompt):
    new = prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=1.0))
    assert new.recomputed == memory.tokens - len(sink_ids(decoder.tokenizer))


def test_top_chunks_are_what_the_question_looks_at(decoder, memory, prompt):
    new = prepared(decoder, memory, TEXTS, prompt, QuestionReading(top_chunks=1))
    scores = chunk_scores(memory, attention_to(decoder, memory, prompt))
    best = max((0, 1), key=lambda place: scores[place])
    assert [span.name for span in new.spans] == ["sink", str(best)]
    assert new.recomputed == 0
    assert prepared(decoder, memory, TEXTS, prompt, QuestionReading(top_chunks=2)) is memory
    again = prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=1.0, top_chunks=1))
    assert again.spans == new.spans and again.recomputed == new.tokens - new.spans[0].stop
    with pytest.raises(UsageError, match="top_chunks 0 is not a number of chunks"):
        prepared(decoder, memory, TEXTS, prompt, QuestionReading(top_chunks=0))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(decoder, memory, prompt, share):
    with pytest.raises(UsageError, match="is not a share of the memory"):
        prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=share))


def test_other_texts_are_refused(decoder, memory, prompt):
    with pytest.raises(UsageError, match="chunk 0 of the memory has"):
        prepared(decoder, memory, TEXTS[::-1], prompt, QuestionReading(recompute=0.5))


def test_an_answer_says_what_was_computed_again(decoder, memory):
    options = {"max_new_tokens": 4, "is_cancelled": lambda: True}
    plain = answer(decoder, NEUTRAL, "What is the size?", CHUNKS, memory, **options)
    assert (plain.recomputed, plain.generation.first_token_s > 0) == (0, True)
    again = answer(decoder, NEUTRAL, "What is the size?", CHUNKS, memory, reading=QuestionReading(0.5), **options)
    assert 0 < again.recomputed <= 0.5 * memory.tokens
    assert (plain.chunks_read, again.chunks_read) == (2, 2)
    one = answer(decoder, NEUTRAL, "What is the size?", CHUNKS, memory, reading=QuestionReading(0, 1), **options)
    assert (one.chunks_read, one.recomputed) == (1, 0)
    assert again.generation.total_s >= again.generation.first_token_s > again.prepare_s > 0


def test_attention_of_the_retrieval_layers(decoder, memory, prompt):
    """As a whole forward pass records it; layers after the last of them are not run."""
    layers = retrieval_layers(decoder.model, memory)
    assert layers == [2, 3, 4]
    record = AttentionRecord(layers, every_token=True, keep=True)
    with torch.inference_mode(), attached(decoder.model, memory, record=record):
        decoder.model(torch.tensor([prompt]))
    ran = []
    hf.mlp(hf.decoder_layers(decoder.model)[5]).register_forward_hook(lambda *_: ran.append(5))
    scores = attention_to(decoder, memory, prompt)
    assert not ran
    weights = torch.stack(list(record.memory_attention_weights.values()))
    torch.testing.assert_close(scores, (weights**2).sum(dim=(0, 1, 2, 3)))


@pytest.fixture
def adapter(decoder):
    def build(**settings):
        config = MemoryConfig(memory_form="joint", num_memory_tokens=0, **settings)
        own = build_adapter(decoder.model, config)
        soft = SoftTokens.from_text(decoder.model, decoder.tokenizer, 2, 1)
        own.encoder = soft if settings.get("num_header_tokens") else None
        return own

    return build


def test_learned_vectors_around_a_chunk_stay(decoder, adapter, prompt):
    own = adapter(num_header_tokens=2, num_trailer_tokens=1)
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny", soft=own.encoder)
    memory = assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)))
    new = prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=1.0), adapter=own)
    sink, *chunks = memory.spans
    learned = [place for span in chunks for place in (span.start, span.start + 1, span.stop - 1)]
    assert new.recomputed == memory.tokens - sink.stop - len(learned)
    changed = (new.values[4] != memory.values[4]).any(dim=-1).all(dim=1)[0]
    assert not changed[learned].any() and changed[chunks[1].start + 2 : chunks[1].stop - 1].all()


def test_latents_of_a_projected_encoder_are_refused(decoder, memory, adapter, prompt):
    own = adapter()
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    own.encoder = ProjectedEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny", layers=encoder.spec.layers)
    with pytest.raises(UsageError, match="the decoder cannot compute them again"):
        prepared(decoder, memory, TEXTS, prompt, QuestionReading(recompute=0.5), adapter=own)
    one = prepared(decoder, memory, TEXTS, prompt, QuestionReading(top_chunks=1), adapter=own)  # needs no text
    assert len(one.spans) == 2
