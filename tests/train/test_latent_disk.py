"""Latents of the sources' chunks that are kept on disk for later trainings."""

from __future__ import annotations

import json

import apsw
import pytest
import torch

from awareness.cli.app import run
from awareness.model.encoder import SelfEncoder
from awareness.train.latent_disk import LatentDisk
from awareness.types import MemorySpec

SPEC = MemorySpec("m", (0, 1), 2, 4, dtype="bfloat16", quant="int4")
ONE, TWO, THREE = "one\n", "two\n", "three\n"


def latent(tokens: int) -> torch.Tensor:
    return torch.randn(SPEC.shape(tokens), generator=torch.Generator().manual_seed(tokens)).bfloat16()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "latents.db"


def test_a_latent_comes_back_bit_for_bit_in_another_process(file):
    LatentDisk(file, SPEC, [ONE], 1 << 20).put(ONE, latent(3))
    assert torch.equal(LatentDisk(file, SPEC, [ONE], 1 << 20).get(ONE), latent(3))
    other = MemorySpec("another", SPEC.layers, 2, 4)
    assert LatentDisk(file, other, [ONE], 1 << 20).get(ONE) is None


def test_only_texts_of_the_sources_are_kept(file):
    disk = LatentDisk(file, SPEC, [ONE], 1 << 20)
    disk.put("a chunk with a needle\n", latent(3))
    assert disk.get("a chunk with a needle\n") is None
    assert apsw.Connection(str(file)).execute("SELECT count(*) FROM latent").get == 0


def test_a_damaged_latent_is_missing(file):
    disk = LatentDisk(file, SPEC, [ONE], 1 << 20)
    disk.put(ONE, latent(3))
    apsw.Connection(str(file)).execute("UPDATE latent SET data = zeroblob(bytes)")
    assert disk.get(ONE) is None
    disk.put(ONE, latent(3))
    assert torch.equal(disk.get(ONE), latent(3))


def test_what_was_used_least_recently_goes_first(file):
    size = latent(3).nbytes
    LatentDisk(file, SPEC, [ONE], 2 * size).put(ONE, latent(3))
    LatentDisk(file, SPEC, [TWO], 2 * size).put(TWO, latent(3))
    again = LatentDisk(file, SPEC, [ONE, THREE], 2 * size)  # a run that uses ONE
    again.put(THREE, latent(3))
    every = LatentDisk(file, SPEC, [ONE, TWO, THREE], 2 * size)
    assert [every.get(text) is None for text in (ONE, TWO, THREE)] == [False, True, False]
    every.put(TWO, latent(7))  # larger than the limit
    assert every.get(TWO) is None


def losses(folder):
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_a_second_training_encodes_no_chunk_of_the_sources_again(config_file, tmp_path, monkeypatch):
    encoded = []
    whole = SelfEncoder.keys_values
    monkeypatch.setattr(SelfEncoder, "keys_values", lambda self, texts: encoded.extend(texts) or whole(self, texts))
    more = [
        "--set",
        "data.latents_on_disk=100000000",
        "--set",
        "data.kinds={real_default: 1}",
        "--set",
        "training.max_steps=2",
    ]
    counts = []
    for name in ("first", "second"):
        encoded.clear()
        assert run(["train", "--config", str(config_file), *more, "--set", f"output_dir={tmp_path / name}"]) == 0
        counts.append(len(encoded))
    assert counts[0] > 0 and counts[1] == 0
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
