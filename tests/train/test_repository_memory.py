"""The memory that a checkpoint was trained with: recorded, made again, compared, written as latents."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from awareness.cli.app import run
from awareness.engine.document_store import LatentMemoryStore
from awareness.errors import UsageError
from awareness.model.context_encoder import ContextEncoder
from awareness.model.memory_record import MemoryRecord
from awareness.model.reasoning_decoder import ReasoningDecoder
from tests.conftest import commit_all, tiny_model, tiny_tokenizer


@pytest.fixture
def call(capfd):
    def call(*arguments, code=0):
        assert run([str(argument) for argument in arguments]) == code
        out, err = capfd.readouterr()
        return out, " ".join(err.split())

    return call


@pytest.fixture
def trained(config_file, sources, tmp_path, call):
    """The output folder of two steps; the source `one` is a git repository."""
    commit_all(sources / "one")
    call("train", "-c", config_file, "--set", "training.max_steps=2")
    return tmp_path / "trained"


def test_every_checkpoint_records_the_memory_and_makes_it_again(trained, sources, config_file, call, monkeypatch):
    record = MemoryRecord.read(trained / "final")
    assert [(s.name, s.split, s.licence) for s in record.sources] == [
        ("one", "train", "MIT"),
        ("three", "train", "MIT"),
        ("two", "train", "MIT"),
        ("four", "validation", "MIT"),
    ]
    assert record.data.sources == [str(sources / name) for name in ("four", "one", "three", "two")]  # no pattern
    assert len(record.sources[0].commit) == 40 and record.sources[1].commit is None
    assert record.spec.encoder == "self" and record.spec.layers == (1, 2, 3, 4, 5) and not record.learned
    for name in ("best", "checkpoint-2"):
        assert MemoryRecord.read(trained / name) == record
    monkeypatch.chdir(sources)  # places are absolute
    out, _ = call("checkpoints", "memory", trained / "checkpoint-2")
    assert f"the sources give the memory that it was trained with: {record.summary}" in " ".join(out.split())
    out, _ = call("checkpoints", "show", trained / "final")
    assert record.summary in " ".join(out.split()) and f"{sources}/one @ {record.sources[0].commit[:12]}" in out
    shown = json.loads(call("checkpoints", "show", trained / "final", "--format", "json")[0])["repository_memory"]
    assert shown["digest"] == record.digest and shown["sources"][0]["place"] == str(sources / "one")


def test_each_source_that_changed_or_is_missing_is_named(trained, sources, call, tmp_path):
    core = sources / "one/one/core.py"
    core.write_text(core.read_text() + "\n\ndef new():\n    return 1\n")
    commit_all(sources / "one")
    shutil.move(sources / "two", tmp_path / "two")
    out, err = call("checkpoints", "memory", trained / "final", code=1)
    (changed, missing) = out.splitlines()
    assert changed.startswith(f"one ({sources}/one) has other files: commit ")
    assert missing == f"two ({sources}/two) is missing"
    assert "was trained with another memory than its sources give now" in err
    shutil.move(tmp_path / "two", sources / "two")
    core.write_text(core.read_text().replace("\n\ndef new():\n    return 1\n", ""))
    found = json.loads(call("checkpoints", "memory", trained / "final", "--format", "json")[0])
    assert found == {"checkpoint": str(trained / "final"), "fits": True, "problems": []}


def test_the_same_files_cut_otherwise_are_another_memory(trained, call):
    path = trained / "final/memory.json"
    record = MemoryRecord.read(trained / "final")
    other = record.model_copy(update={"data": record.data.model_copy(update={"chunk_tokens": 60})})
    path.unlink()
    other.write(trained / "final")
    out, _ = call("checkpoints", "memory", trained / "final", "--out", trained / "store", code=1)
    assert len(out.splitlines()) == 4 and "has the same files, but other chunks (" in out
    assert not (trained / "store").exists()


def test_its_latents_are_written_and_only_its_encoder_reads_them(trained, call, tmp_path, model_folder):
    out, _ = call("checkpoints", "memory", trained / "final", "--keep", "--quant", "int8")
    assert f"{trained / 'final/memory'}: 8 documents" in out
    store = LatentMemoryStore.load(trained / "final")
    assert store.quant == "int8" and store.check().problems == []
    assert [d.id for d in store.documents("one/**")] == ["one/one/core.py", "one/one/limits.py"]
    document = store.get_document("four/four/core.py")
    assert document.metadata == {"source": "four", "licence": "MIT", "split": "validation"}
    record = MemoryRecord.read(trained / "final")
    assert document.spec.raw == record.spec
    assert sum(len(d.pieces) for d in store.documents()) == sum(source.kept for source in record.sources)
    encoder = ContextEncoder(adapter=trained / "final", dtype=torch.float32)
    ids = torch.tensor([[40, 41, 42]])
    keys, values = store.retrieve_by_scope("two/**")
    read = ReasoningDecoder(encoder)(ids, memory_key=keys, memory_value=values)
    assert read.documents == ("two/two/core.py", "two/two/limits.py")
    other = tmp_path / "other"
    tiny_model("llama").save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    with pytest.raises(UsageError, match="tiny-qwen3"):
        ReasoningDecoder(ContextEncoder(str(other)))(ids, memory_key=keys, memory_value=values)
    _, err = call("checkpoints", "memory", trained / "final", "--out", trained, code=2)
    assert f"{trained} exists already" in err
    shown = json.loads(call("checkpoints", "show", trained / "final", "--format", "json")[0])["latents"]
    assert shown["documents"] == 8 and shown["quant"] == "int8" and shown["bytes"] > 0


def test_a_trained_encoder_is_of_its_checkpoint(config_file, tmp_path, call):
    settings = yaml.safe_load(config_file.read_text())
    settings["memory"] |= {"memory_form": "tanh", "num_header_tokens": 2}
    config_file.write_text(yaml.safe_dump(settings))
    call("train", "-c", config_file, "--set", "training.max_steps=2")
    record = MemoryRecord.read(tmp_path / "trained/final")
    assert record.learned and record.spec.encoder == "self+soft"
    call("checkpoints", "memory", tmp_path / "trained/final", "--out", tmp_path / "store")
    spec = LatentMemoryStore(tmp_path / "store").documents()[0].spec
    assert spec == ContextEncoder(adapter=tmp_path / "trained/final").spec
    assert spec.encoder.startswith("self+soft:") and spec != record.spec


def test_another_memory_is_told_when_training_starts_from_a_checkpoint(trained, config_file, call, tmp_path):
    command = ["train", "-c", config_file, "--set", f"start_from={trained / 'final'}", "--set", "training.max_steps=1"]
    _, err = call(*command, "--set", f"output_dir={tmp_path / 'same'}")
    assert "start_from" not in err
    _, err = call(*command, "--set", f"output_dir={tmp_path / 'fewer'}", "--set", "data.chunks_per_source=5")
    assert f"start_from {trained / 'final'} was trained with another memory: one (" in err
    assert "has the same files, but other chunks (22 were used, now 5)" in err and "; and 1 more" in err
    (trained / "final/memory.json").unlink()
    _, err = call(*command, "--set", f"output_dir={tmp_path / 'old'}")
    assert "it is unknown which memory it was trained with" in err
    found = json.loads(
        call("checkpoints", "compare", tmp_path / "same/final", tmp_path / "fewer/final", "--format", "json")[0]
    )
    assert found["settings"] == [{"setting": "data.chunks_per_source", "first": 120, "second": 5}]
    assert len(found["memory"]) == 4 and found["shapes"] == []


def test_a_checkpoint_of_an_earlier_version_has_an_unknown_memory(trained, call):
    (trained / "final/memory.json").unlink()
    assert "repository memory: unknown" in call("checkpoints", "show", trained / "final")[0]
    _, err = call("checkpoints", "memory", trained / "final", code=2)
    assert "is unknown, as an earlier version wrote it" in err
    call("checkpoints", "compare", trained / "final", trained / "best")


def test_a_training_with_text_has_a_memory_without_latents(config_file, tmp_path, call):
    settings = yaml.safe_load(config_file.read_text())
    settings["memory"] = {"use_memory_adapter": False, "use_lora": True, "lora_rank": 2}
    settings["data"]["reads"] = "text"
    config_file.write_text(yaml.safe_dump(settings))
    call("train", "-c", config_file, "--set", "training.max_steps=1")
    assert MemoryRecord.read(tmp_path / "trained/final").spec is None
    call("checkpoints", "memory", tmp_path / "trained/final")
    _, err = call("checkpoints", "memory", tmp_path / "trained/final", "--keep", code=2)
    assert "was trained with the chunks as text, not as latents" in err
