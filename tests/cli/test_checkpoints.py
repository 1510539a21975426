"""A trained adapter, asked and deployed from the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.model.checkpoint import save_checkpoint
from awareness.model.load import load
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from tests.conftest import tiny_model, write_tree

QUESTION = "how is the cookie signed by the session"
LORA = {"lora_rank": 2, "lora_targets": ["q_proj", "down_proj"]}


@pytest.fixture
def trained(model_folder, tmp_path):
    """Writes a checkpoint whose tensors are not those of a new one."""

    def write(name: str, **settings):
        torch.manual_seed(0)
        model = ModelConfig(base_model_name=str(model_folder))
        module, base = build_memory_decoder(model, MemoryConfig(**settings), pull=find, dtype=torch.float32)
        with torch.no_grad():
            for tensor in module.trainable().values():
                tensor += 0.3 * torch.randn(tensor.shape)
        save_checkpoint(tmp_path / name, module, base.folder, model)
        return tmp_path / name

    return write


def call(capfd, *arguments):
    code = run([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return code, out, err


def asked(capfd, sample, *options):
    code, out, err = call(capfd, "ask", QUESTION, "--repo", sample, "--format", "json", "-n", "8", *options)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_memory_tokens": 0},
        {"num_memory_tokens": 0, "memory_form": "joint", "gca_start_layer": 3},
        {"num_memory_tokens": 10, "memory_block_variant": "B", "latent_sharing": "every_k_layers"},
        {"num_memory_tokens": 10, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2},
        {"num_memory_tokens": 0, "num_header_tokens": 2, "num_trailer_tokens": 1},
        {"num_memory_tokens": 0, "encoder": "projected"},
        {"num_memory_tokens": 0, "use_both_memory_and_lora": True, **LORA},
        {"num_memory_tokens": 0, "gca_start_layer": 0, "memory_layer_placement": "first_k", "memory_layer_k": 2},
    ],
    ids=lambda settings: ", ".join(map(str, settings.values())),
)
def test_ask_reads_by_the_adapter(capfd, sample, trained, model_folder, settings):
    found = asked(capfd, sample, "--adapter", trained("run", **settings))
    assert found["mode"] == settings.get("memory_form", "tanh")
    assert found["model"] == str(model_folder)
    assert found["memory"]["tokens"] > 0
    assert sum(citation["attention"] for citation in found["citations"]) == pytest.approx(1, abs=1e-3)


def test_the_adapter_answers_otherwise_and_reads_the_latents_that_are_there(
    capfd, sample, trained, model_folder, monkeypatch
):
    assert call(capfd, "index", sample, "--all", "--model", model_folder)[0] == 0
    plain = asked(capfd, sample)
    before = json.loads(call(capfd, "status", "--repo", sample, "--format", "json")[1])
    read = asked(capfd, sample, "--adapter", trained("run", num_memory_tokens=0, gca_start_layer=2))
    assert read["answer"] != plain["answer"]
    assert json.loads(call(capfd, "status", "--repo", sample, "--format", "json")[1])["latents"] == before["latents"]
    soft = trained("soft", num_memory_tokens=0, num_header_tokens=2)
    asked(capfd, sample, "--adapter", soft)  # its latents are others
    after = json.loads(call(capfd, "status", "--repo", sample, "--format", "json")[1])
    with monkeypatch.context() as patch:  # its own latents are all there
        patch.setattr("awareness.engine.indexing.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
        assert call(capfd, "index", sample, "--all", "--model", model_folder)[0] == 0
    assert asked(capfd, sample)["answer"] == plain["answer"]
    assert after["bytes"]["shards"] > before["bytes"]["shards"]


def test_the_adapter_that_ships_reads_for_short_answers_only(capfd, sample, trained, model_folder, monkeypatch):
    """A known fault: it has learned short answers, so an explanation was one short sentence."""
    settings = {"memory_form": "joint", "num_memory_tokens": 0, "gca_start_layer": 0}
    ours = trained("ours", use_both_memory_and_lora=True, **settings, **LORA)
    assert call(capfd, "index", sample, "--lazy", "--model", model_folder)[0] == 0
    plain = asked(capfd, sample, "--long")
    monkeypatch.setattr("awareness.engine.modes.shipped_adapter", lambda folder: ours)
    assert asked(capfd, sample)["adapter"] == str(ours)
    explained = asked(capfd, sample, "--long")
    assert (explained["adapter"], explained["answer"]) == (None, plain["answer"])
    named = asked(capfd, sample, "--long", "--adapter", ours)
    assert named["adapter"] == str(ours) and named["answer"] != plain["answer"]


def test_text_and_none_with_lora(capfd, sample, trained, model_folder):
    lora = trained("lora", use_memory_adapter=False, use_lora=True, **LORA)
    found = asked(capfd, sample, "--adapter", lora)
    assert found["mode"] == "text"
    assert found["answer"] != asked(capfd, sample, "--model", model_folder, "--mode", "text")["answer"]
    memory = trained("run", num_memory_tokens=0)
    alone, base = (asked(capfd, sample, *how, "--mode", "none") for how in (("--adapter", memory), ()))
    assert alone["answer"] == base["answer"]  # no memory is the base model


def test_what_does_not_fit_is_refused(capfd, sample, trained, model_folder, tmp_path):
    run_ = trained("run", num_memory_tokens=0)
    other = tmp_path / "other"
    tiny_model("llama").save_pretrained(other)
    stranger = trained("stranger", num_memory_tokens=0)
    text = (stranger / "config.json").read_text()
    (stranger / "config.json").write_text(text.replace(str(model_folder), "evil/evil"))
    for options, match in (
        (("--mode", "tanh"), "--mode tanh has to be trained"),
        (("--adapter", run_, "--mode", "joint"), "was trained for tanh"),
        (("--adapter", run_, "--model", other), f"was trained for the model {model_folder}, not for {other}"),
        (("--adapter", tmp_path), "is not a checkpoint"),
        (("--adapter", stranger), "it needs the model 'evil/evil'"),
    ):
        code, out, err = call(capfd, "ask", QUESTION, "--repo", sample, *options)
        assert (code, out) == (2, "")
        assert match in " ".join(err.split())


def test_the_default_model_of_the_environment_is_no_model_asked_for(capfd, sample, trained, monkeypatch):
    monkeypatch.setenv("AWARENESS_MODEL", "smollm2-135m")
    assert asked(capfd, sample, "--adapter", trained("run", num_memory_tokens=0))["mode"] == "tanh"


def test_shares_of_two_repositories_with_the_same_file_are_shares(capfd, sample, model_folder, tmp_path):
    shutil.copytree(sample, tmp_path / "twin")
    found = asked(capfd, sample, "--repo", tmp_path / "twin", "--model", model_folder)
    assert len({(c["path"], c["origin"]) for c in found["citations"]}) > len({c["path"] for c in found["citations"]})
    assert sum(citation["attention"] for citation in found["citations"]) == pytest.approx(1, abs=1e-3)


def test_a_pack_has_the_latents_that_it_has(capfd, sample, trained, model_folder, tmp_path):
    assert call(capfd, "pack", tmp_path / "x.awm", "--repo", sample, "--model", model_folder)[0] == 0
    options = (QUESTION, "--memory", tmp_path / "x.awm", "-n", "4")
    fits = trained("fits", num_memory_tokens=0, gca_start_layer=3)
    assert call(capfd, "ask", *options, "--adapter", fits)[0] == 0
    soft = trained("soft", num_memory_tokens=0, num_header_tokens=1)
    code, _, err = call(capfd, "ask", *options, "--adapter", soft)
    assert code == 2 and "are of other encoder than the adapter reads" in " ".join(err.split())


def test_sampling(capfd, sample, model_folder):
    options = ("--model", model_folder, "--temperature", "5")
    first = asked(capfd, sample, *options)
    assert asked(capfd, sample, *options)["answer"] == first["answer"]  # one seed
    assert asked(capfd, sample, *options, "--seed", "1")["answer"] != first["answer"]
    greedy = asked(capfd, sample, "--model", model_folder)["answer"]
    assert first["answer"] != greedy
    for narrow in (("--sampling-top-k", "1"), ("--top-p", "0.000001")):
        assert asked(capfd, sample, *options, *narrow)["answer"] == greedy


def test_weights_in_few_bits(capfd, sample, model_folder):
    found = asked(capfd, sample, "--model", model_folder, "--weights", "int8")
    assert found["memory"]["tokens"] > 0
    code, _, err = call(capfd, "ask", QUESTION, "--repo", sample, "--weights", "nf4")
    assert code == 2 and "need CUDA" in err


def test_show(capfd, trained, model_folder):
    run_ = trained("run", num_memory_tokens=10, memory_layer_placement="last_k", memory_layer_k=1, **LORA)
    code, out, _ = call(capfd, "checkpoints", "show", run_, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["base"] == str(model_folder)
    assert set(found["parameters"]) == {"adapter.blocks", "adapter.bank"}
    attention = 2 * 48 * 48 + 48 + 8 + 6
    assert found["parameters"]["adapter.blocks"] == attention
    assert found["memory"]["num_memory_tokens"] == 10
    code, out, _ = call(capfd, "checkpoints", "show", run_)
    assert code == 0 and "num_memory_tokens" in out and "adapter.bank" in out


def test_merge_and_export_of_lora(capfd, trained, tmp_path):
    lora = trained("lora", use_memory_adapter=False, use_lora=True, **LORA)
    ids = torch.tensor([[40, 41, 42]])
    assert call(capfd, "checkpoints", "merge", lora, tmp_path / "merged")[0] == 0
    assert call(capfd, "checkpoints", "export", lora, tmp_path / "merged.gguf")[0] == 0
    merged = load(find(str(tmp_path / "merged")), dtype=torch.float32)
    want = merged.model.generate(ids, max_new_tokens=8, do_sample=False)
    back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="merged.gguf", config=merged.model.config)
    assert torch.equal(back.generate(ids, max_new_tokens=8, do_sample=False), want)
    code, _, err = call(capfd, "checkpoints", "merge", lora, tmp_path / "merged")
    assert code == 2 and "exists already" in err


def test_export_of_a_memory(capfd, sample, trained, model_folder, tmp_path):
    run_ = trained("run", num_memory_tokens=64, use_both_memory_and_lora=True, quantize_memory=True, **LORA)
    code, _, err = call(capfd, "checkpoints", "export", run_, tmp_path / "no.gguf")
    assert code == 2 and "which GGUF cannot hold" in " ".join(err.split()) and not (tmp_path / "no.gguf").exists()
    assert call(capfd, "checkpoints", "merge", run_, tmp_path / "no")[0] == 2
    assert call(capfd, "checkpoints", "export", run_, tmp_path / "base.gguf", "--drop-memory")[0] == 0
    assert call(capfd, "checkpoints", "export", model_folder, tmp_path / "same.gguf")[0] == 0
    assert (tmp_path / "base.gguf").read_bytes() == (tmp_path / "same.gguf").read_bytes()
    code, _, err = call(capfd, "checkpoints", "export", run_, tmp_path / "deployed")
    assert code == 0 and "--adapter" in err
    parts = json.loads(call(capfd, "checkpoints", "show", tmp_path / "deployed", "--format", "json")[1])
    assert parts["bank_quant"] == "int8"
    assert asked(capfd, sample, "--adapter", tmp_path / "deployed")["mode"] == "tanh"
    code, _, err = call(capfd, "checkpoints", "export", model_folder, tmp_path / "folder")
    assert code == 2 and "export it as GGUF" in err


def test_list_and_prune(tmp_path, capfd):
    from awareness.train.resuming.saved_steps import complete

    for step in (2, 4, 6):
        write_tree(tmp_path / f"checkpoint-{step}", {"weights": "w" * step})
        complete(tmp_path / f"checkpoint-{step}", {})
    (tmp_path / "checkpoint-4/weights").write_text("half")
    (tmp_path / "log.jsonl").write_text('{"step": 2, "loss": 3.0}\n{"step": 2, "eval_loss": 2.5}\n')
    assert run(["checkpoints", "list", str(tmp_path), "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [(one["step"], one["validation"], one["damage"]) for one in found["checkpoints"]] == [
        (6, None, ""),
        (4, None, "weights has changed since it was written"),
        (2, 2.5, ""),
    ]
    assert run(["checkpoints", "list", str(tmp_path)]) == 0
    assert "2.5000" in capfd.readouterr().out
    assert run(["checkpoints", "prune", str(tmp_path), "--dry-run", "--format", "json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["deleted"]) == 2 and (tmp_path / "checkpoint-2").exists()
    assert run(["checkpoints", "prune", str(tmp_path)]) == 0
    assert "2 checkpoints deleted" in capfd.readouterr().out
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert run(["checkpoints", "list", str(tmp_path / "checkpoint-6")]) == 2
