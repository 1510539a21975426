"""The files of tables: a round trip, what is refused, and that latents of two tables are never mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from awareness.errors import UsageError
from awareness.model.encoder import with_quant
from awareness.model.pca import tables as pca_tables
from awareness.model.pca.fit import fit
from awareness.model.presets import DEFAULT_MODEL, KNOWN
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import MemorySpec, default_layers
from tests.model.pca.test_codec import SPEC, numbers

RAW = SPEC.raw


@pytest.fixture(autouse=True)
def models_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def data() -> bytes:
    return pca_tables.to_bytes(fit([numbers(1200)], SPEC.layers, SPEC.pca_bytes)[0])


def keep(data: bytes, fingerprint: str = "m") -> None:
    file = pca_tables.calibrated_file(fingerprint)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)


def test_a_file_holds_all_of_the_codec(data):
    codec = pca_tables.from_bytes(data)
    assert pca_tables.to_bytes(codec) == data
    fitted = fit([numbers(1200)], SPEC.layers, SPEC.pca_bytes)[0]
    assert (codec.layers, codec.counts) == (fitted.layers, fitted.counts)
    for name in ("mean", "decode"):
        assert torch.equal(getattr(codec, name), getattr(fitted, name))


def test_write_replaces_the_file_as_a_whole(data, tmp_path):
    file = tmp_path / "new" / "t.safetensors"
    for _ in range(2):
        pca_tables.write(file, pca_tables.from_bytes(data))
    assert file.read_bytes() == data
    assert [path.name for path in file.parent.iterdir()] == ["t.safetensors"]


def test_latents_go_through_the_tables_of_their_model(data):
    keep(data)
    spec = with_quant(RAW, "pca")
    assert spec == replace(RAW, quant="pca", codec=pca_tables.from_bytes(data).digest)
    assert spec.codec == pca_tables.digest_for("m", "pca")
    assert (spec.raw, MemorySpec.from_json(spec.to_json())) == (RAW, spec)
    tensor = numbers(30, 4)
    latent = to_latent(tensor, spec)
    assert len(latent.data) == spec.latent_bytes(30)
    back = to_tensor(latent, spec)
    assert (back - tensor).norm() < 0.15 * tensor.norm()
    assert to_tensor(to_latent(tensor[:, :, :, :0], spec), spec).shape == spec.shape(0)


def test_latents_of_other_tables_are_refused_and_have_another_key(data):
    keep(data)
    old = with_quant(RAW, "pca")
    latent = to_latent(numbers(5), old)
    keep(pca_tables.to_bytes(fit([numbers(900, 3)], SPEC.layers, SPEC.pca_bytes)[0]))
    new = with_quant(RAW, "pca")
    assert old.latent_key("c") != new.latent_key("c")
    with pytest.raises(UsageError, match=f"made with other tables .*{old.codec}.*{new.codec}"):
        to_tensor(latent, old)


def test_other_quantisations_have_no_codec_and_the_keys_of_before(data):
    keep(data)
    assert pca_tables.digest_for("m", "int4") == ""
    assert with_quant(with_quant(RAW, "pca"), "int4") == replace(RAW, quant="int4")
    assert "codec" not in replace(RAW, quant="int4").to_json()


def test_what_has_no_tables(data):
    for ask in (lambda: with_quant(RAW, "pca"), lambda: pca_tables.digest_for("m", "pca")):
        with pytest.raises(UsageError, match="no tables for this decoder") as caught:
            ask()
        assert "awareness models calibrate" in caught.value.hint
    keep(data)
    with pytest.raises(UsageError, match="have no layer 3"):
        with_quant(replace(RAW, layers=(1, 3)), "pca")
    with pytest.raises(UsageError, match="for other heads"):
        with_quant(replace(RAW, head_dim=8), "pca")
    with pytest.raises(UsageError, match="not of the encoder projected"):
        with_quant(replace(RAW, encoder="projected"), "pca")


def changed(data: bytes, **tensors: torch.Tensor) -> bytes:
    return save({**load(data), **tensors})


@pytest.mark.parametrize("how", ["cut", "empty", "shape", "counts", "sides"])
def test_damaged_tables_are_refused(data, how):
    tensors = load(data)
    damaged = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "shape": changed(data, mean=tensors["mean"][:, :, :-1].contiguous()),
        "counts": changed(data, counts=torch.full_like(tensors["counts"], 255)),
        "sides": changed(data, mean=torch.zeros(0)),
    }[how]
    keep(damaged)
    with pytest.raises(UsageError, match=r"are damaged|for other heads"):
        with_quant(RAW, "pca")


def test_the_default_decoder_has_its_tables():
    fingerprint = KNOWN[DEFAULT_MODEL].fingerprint
    spec = with_quant(MemorySpec(fingerprint, default_layers(24), 2, 64), "pca")
    assert spec.latent_bytes(1) == 1020
    assert pca_tables.find(fingerprint).stat().st_size < 1 << 20
