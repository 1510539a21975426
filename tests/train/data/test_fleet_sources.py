from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from awareness.config.training import DataConfig
from awareness.engine.models import load_model, pull_known
from awareness.errors import IndexCorrupt, NoIndex
from awareness.model.token_offsets import token_starts
from awareness.train.data.data_sources import find_sources
from awareness.train.data.fleet_sources import FleetLatents, read_chunks, repositories_of
from awareness.train.data.repostack import read_stack


def test_each_repository_of_a_fleet_is_a_source(store, tmp_path):
    assert [source.name for source in find_sources([str(store)])] == ["billing", "mail", "sample"]
    with pytest.raises(NoIndex):
        repositories_of(str(tmp_path / "none"))


def test_its_chunks_are_those_of_the_fleet(store, model_folder):
    data = DataConfig(sources=[str(store)], licences=[], validation=["mail"], chunk_tokens=64, kinds={"next_line": 1})
    said: list[str] = []
    stack = read_stack(data, seed=1, token_starts=token_starts(model_folder), say=said.append)
    assert {each.name for each in stack.train} <= {"billing", "sample"} and stack.train
    held = {chunk.digest for place in repositories_of(str(store)) for chunk, _ in read_chunks(place)}
    kept = [chunk for side in (stack.train, stack.validation) for each in side for chunk in each.chunks]
    assert kept and {chunk.digest for chunk in kept} <= held
    assert not any(chunk.path.startswith(("tests/", "docs/")) for chunk in kept)
    assert all("unknown" in line for line in said[:3])


def test_its_latents_are_read_and_not_made(store, model_folder):
    encoder = load_model(pull_known(str(model_folder)), "int4").encoder
    places = repositories_of(str(store))
    latents = FleetLatents(places, encoder.spec)
    chunk, tokens = next(sized for place in places for sized in read_chunks(place))
    latent = latents.get(chunk.encoded_text)
    made = encoder.keys_values([chunk.encoded_text])[0]
    assert latent is not None and latent.shape == made.shape and latent.shape[3] == tokens
    assert torch.nn.functional.cosine_similarity(latent.float().flatten(), made.float().flatten(), dim=0) > 0.95
    assert latents.get("a text that no repository has") is None


def test_latents_of_another_model_are_not_read(store, model_folder):
    from dataclasses import replace

    spec = replace(load_model(pull_known(str(model_folder)), "int4").encoder.spec, model="another")
    assert len(FleetLatents(repositories_of(str(store)), spec)) == 0


def test_a_damaged_latent_is_refused(store, model_folder):
    encoder = load_model(pull_known(str(model_folder)), "int4").encoder
    places = repositories_of(str(store))
    latents = FleetLatents(places, encoder.spec)
    copy = Path(shutil.copytree(store / "shards", store / "copy"))
    for path in copy.iterdir():
        data = bytearray(path.read_bytes())
        header = 8 + int.from_bytes(data[:8], "little")
        data[header:] = bytes(len(data) - header)
        (store / "shards" / path.name).write_bytes(data)
    chunk, _ = read_chunks(places[0])[0]
    with pytest.raises(IndexCorrupt, match="damaged"):
        latents.get(chunk.encoded_text)
