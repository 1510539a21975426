"""Latents that an evaluation keeps: read again, made again where a file is not whole, apart for each spec."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awareness.errors import StorageFailed
from awareness.evals.latent_folder import LatentFolder
from awareness.types import Latent, MemorySpec

SPEC = MemorySpec("model", (0,), 1, 4)


class Encoder:
    """A text's latent is its bytes. Counts what it encodes."""

    def __init__(self, spec: MemorySpec = SPEC) -> None:
        self.spec, self.sink, self.encoded = spec, Latent(0, b""), []

    def encode(self, texts):
        self.encoded += texts
        return (Latent(len(text), text.encode()) for text in texts)


def encoded(folder, texts, spec=SPEC):
    encoder = Encoder(spec)
    latents = list(LatentFolder(folder, spec).keeping(encoder)(list(texts)))
    assert [bytes(latent.data).decode() for latent in latents] == list(texts)
    assert [latent.tokens for latent in latents] == list(map(len, texts))
    return encoder.encoded


def test_a_text_is_encoded_once(tmp_path):
    texts = [f"text {i}" for i in range(100)]  # more than one batch
    assert encoded(tmp_path, texts[:70]) == texts[:70]
    assert encoded(tmp_path, texts) == texts[70:]
    assert encoded(tmp_path, texts[::-1]) == []
    assert encoded(tmp_path, texts[:2], replace(SPEC, quant="int4")) == texts[:2]


@pytest.mark.parametrize("size", [0, 7, 18])
def test_what_is_not_whole_is_made_again(tmp_path, size):
    encoded(tmp_path, ["text"])
    (path,) = (file for file in tmp_path.rglob("*") if file.is_file())
    path.write_bytes(path.read_bytes()[:size])
    assert encoded(tmp_path, ["text"]) == ["text"]
    assert encoded(tmp_path, ["text"]) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageFailed):
        encoded(tmp_path / "f", ["text"])
