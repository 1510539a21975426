"""What is measured, of whom and beside what; how long it takes is not tested."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.evals import latency
from awareness.evals.latency import Latency, fill, time_readers
from awareness.evals.readers import Reader
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer

POOL = [Chunk(f"m{i}.py", 1, 2, "", f"a{i} = 1\n" + "#" * (10 * i)) for i in range(8)]


def starts(text: str) -> range:
    return range(len(text))


def measured(readers: list[Reader], sizes: list[int], rounds: int = 1, decode: int = 2) -> list[Latency]:
    filled = fill(POOL, starts, sizes)
    return [row for texts in filled for row in time_readers(readers, texts, rounds=rounds, decode=decode)]


@pytest.fixture
def readers(tmp_path) -> list[Reader]:
    decoder = Decoder(fuse(tiny_model("qwen3")), tiny_tokenizer(), ModelFolder("tiny", tmp_path, "tiny"))
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    return [
        Reader("none", "none", decoder),
        Reader("text", "text", decoder),
        Reader("joint", "memory", decoder, encoder),
    ]


@pytest.fixture
def timed(monkeypatch) -> list[tuple[str, int]]:
    """(reader, chunks) of each measurement; the nth takes n seconds."""
    calls: list[tuple[str, int]] = []

    def measure(reader: Reader, sample, decode: int) -> tuple[float, float]:
        calls.append((reader.name, len(sample.texts)))
        return float(len(calls)), 1 / len(calls)

    monkeypatch.setattr(latency, "_timed", measure)
    return calls


def test_readers_take_turns_and_the_first_round_is_not_counted(readers, timed):
    rows = measured(readers, [60], rounds=3)
    assert timed == [("none", 2), ("text", 2), ("joint", 2)] * 4
    # of the rounds at 4, 7, 10 and so on
    assert [(row.arm, row.first_token_s, row.tokens_per_s) for row in rows] == [
        ("none", 7.0, 1 / 7),
        ("text", 8.0, 1 / 8),
        ("joint", 9.0, 1 / 9),
    ]
    assert [row.ratio for row in rows] == [7 / 8, 1.0, 9 / 8]
    assert {row.tokens for row in rows} == {len(POOL[0].encoded_text) + len(POOL[1].encoded_text)}


def test_a_reader_without_room_is_not_measured(readers, timed):
    rows = measured(readers, [60, 400])
    assert [(row.arm, row.first_token_s is None, row.ratio is None) for row in rows] == [
        ("none", False, False),
        ("text", False, False),
        ("joint", False, False),
        ("none", False, True),  # there is no text to compare with
        ("text", True, True),
        ("joint", False, True),
    ]
    assert ("text", 2) in timed and all(arm != "text" for arm, chunks in timed if chunks != 2)


def test_too_few_chunks():
    held = sum(len(chunk.encoded_text) for chunk in POOL)
    with pytest.raises(UsageError, match=f"--tokens 4000, but the chunks that fit have {held} tokens"):
        fill(POOL, starts, [4000])


def test_more_latents_than_are_held(readers, timed, monkeypatch):
    needed = readers[2].encoder.spec.latent_bytes(len(POOL[0].encoded_text) + len(POOL[1].encoded_text))
    monkeypatch.setattr(latency, "CACHE_BYTES", needed)
    assert len(measured(readers, [60])) == 3
    monkeypatch.setattr(latency, "CACHE_BYTES", needed - 1)
    with pytest.raises(
        UsageError, match=f"tokens of memory are {needed} bytes of latents; the cache holds {needed - 1}"
    ):
        measured(readers, [60])


def test_latents_are_encoded_before_what_counts(readers, monkeypatch):
    joint = readers[2]
    encoded = []
    real = joint.encoder.encode
    monkeypatch.setattr(joint.encoder, "encode", lambda texts: encoded.append(len(texts)) or real(texts))
    (row,) = measured([joint], [60], rounds=2, decode=3)
    assert encoded == [2, 0, 0]
    assert row.first_token_s > 0 and row.tokens_per_s > 0 and row.ratio is None
