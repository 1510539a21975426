"""The effect of each setting of `training:` and `losses:` that no other test is about."""

from __future__ import annotations

import importlib.util
import itertools
import json

import pytest
import torch

from awareness.config.read import read_config
from awareness.config.training import TrainingConfig
from awareness.errors import UsageError
from awareness.model.model_files import find
from awareness.train.log import read_log
from awareness.train.preparation import prepare
from awareness.train.run import train_memory
from awareness.train.trainer import arguments


def prepared(path, *settings):
    return prepare(read_config(path, ["training.eval_samples=0", *settings]), pull=find)


def trained(path, *settings, say=lambda _: None):
    config = read_config(path, list(settings))
    return config, train_memory(config, pull=find, say=say)


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "AdamW"), ("adafactor", "Adafactor"), ("sgd", "SGD")])
def test_optimizer(config_file, optimizer, kind):
    made = prepared(config_file, f"training.optimizer={optimizer}").trainer.create_optimizer()
    assert type(made).__name__ == kind
    assert {group["lr"] for group in made.param_groups} == {TrainingConfig().lora_lr, TrainingConfig().gate_lr}


def test_max_grad_norm(config_file, tmp_path):
    """With SGD a step is as long as the gradient may be."""
    moved = []
    for norm in (1e-3, 1e-1):
        settings = ["training.optimizer=sgd", f"training.max_grad_norm={norm}", "training.max_steps=1"]
        settings += ["training.warmup_steps=0", "training.save_precision=fp32", "training.eval_samples=0"]
        settings += ["training.gate_lr=1.0", "training.lora_lr=1.0", f"output_dir={tmp_path / str(norm)}"]
        config = read_config(config_file, settings)
        run = prepare(config, pull=find)
        before = {name: p.detach().clone() for name, p in run.module.trainable().items()}
        run.trainer.train()
        after = run.module.trainable()
        moved.append(torch.cat([(after[n] - before[n]).flatten() for n in before]).norm().item())
    assert moved == pytest.approx([1e-3, 1e-1], rel=1e-3)


def test_gradient_checkpointing(config_file):
    results = []
    for on in ("false", "true"):
        run = prepared(config_file, f"training.gradient_checkpointing={on}", "memory.lora_dropout=0.0")
        assert run.module.decoder.is_gradient_checkpointing is (on == "true")
        step = run.trainer.model.train()
        loss = step(**run.trainer.data_collator([run.trainer.train_dataset[0]]))["loss"]
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in run.module.trainable().values())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32), ("'no'", torch.float32)]
)
def test_mixed_precision(config_file, precision, dtype):
    """The frozen decoder computes in it; what is trained stays in float32."""
    run = prepared(config_file, f"training.mixed_precision={precision}")
    assert run.module.decoder.get_input_embeddings().weight.dtype == dtype
    assert {p.dtype for p in run.module.trainable().values()} == {torch.float32}


def test_a_decoder_that_is_trained_itself_stays_in_float32(config_file):
    name = read_config(config_file, []).model.base_model_name
    run = prepared(config_file, f"model={{base_model_name: {name}, freeze_base_model: false}}")
    assert run.module.decoder.get_input_embeddings().weight.dtype == torch.float32


@pytest.mark.parametrize("tracker", ["wandb", "tensorboard"])
def test_trackers(config_file, tmp_path, tracker):
    flag = {f"log_to_{tracker}": True}
    if importlib.util.find_spec(tracker) is None:
        with pytest.raises(UsageError, match=f"training.log_to_{tracker}: {tracker} is not installed"):
            arguments(TrainingConfig(**flag), tmp_path, validates=False)
        return
    made = arguments(TrainingConfig(**flag, wandb_run_name="mine"), tmp_path, validates=False)
    assert made.report_to == [tracker] and made.run_name == "mine"
    if tracker == "tensorboard":
        config, _ = trained(config_file, "training.log_to_tensorboard=true", "training.max_steps=1")
        assert list(config.output_dir.rglob("events.out.tfevents.*"))


def test_without_trackers_nothing_is_reported(tmp_path):
    assert arguments(TrainingConfig(), tmp_path, validates=False).report_to == []


def test_intervals_of_logging_saving_and_evaluation(config_file):
    said = []
    settings = ["training.logging_steps=4", "training.save_steps=3", "training.eval_steps=5", "training.eval_samples=3"]
    config, _ = trained(config_file, *settings, "training.save_total_limit=9", say=said.append)
    assert [line.split(":")[0] for line in said if ": loss" in line] == [*("step 1 of 8", "step 4 of 8", "step 8 of 8")]
    assert {p.name for p in config.output_dir.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6", "checkpoint-8"}
    assert [line["step"] for line in read_log(config.output_dir) if "eval_loss" in line] == [
        5,
        8,
    ]  # the last is measured, too


def test_seed_batch_size_and_eval_samples(config_file):
    run = prepare(read_config(config_file, ["training.eval_samples=3", "training.batch_size=3"]), pull=find)
    assert len(run.trainer.train_dataset) == 8 * 3 and len(run.trainer.eval_dataset) == 3
    other = prepare(read_config(config_file, ["training.seed=1", "training.batch_size=3"]), pull=find)
    assert run.trainer.train_dataset[0] == prepared(config_file, "training.batch_size=3").trainer.train_dataset[0]
    assert run.trainer.train_dataset[0] != other.trainer.train_dataset[0]
    gates = [next(p for n, p in r.module.trainable().items() if "blocks" in n) for r in (run, other)]
    drawn = [next(p for n, p in r.module.trainable().items() if "lora_A" in n) for r in (run, other)]
    assert torch.equal(*gates) and not torch.equal(*drawn)


def test_resume_from_checkpoint_is_resume(config_file):
    config, _ = trained(config_file, "training.max_steps=2")
    trained(config_file, "training.max_steps=2", "training.resume_from_checkpoint=latest")
    assert [line["step"] for line in read_log(config.output_dir) if "loss" in line] == [1, 2]


def test_teacher(config_file, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, _ = trained(config_file, "losses.kl_coefficient=1.0", "losses.kl_top_k=4", "training.max_steps=1")
    (line,) = [line for line in read_log(config.output_dir) if "loss" in line]
    assert line["kl"] > 0 and line["loss"] == pytest.approx(line["kl"] + line["answer"], rel=1e-5)
    named = ["losses.kl_coefficient=1.0", "losses.teacher_model=/no/such/model", f"output_dir={tmp_path / 'other'}"]
    with pytest.raises(Exception, match="/no/such/model"):
        trained(config_file, *named)


# The file


def test_a_model_by_its_name(config_file, model_folder):
    short = read_config(config_file, [f"model={model_folder}"])
    assert short == read_config(config_file, [f"model={{base_model_name: {model_folder}}}"])
    assert short.model.base_model_name == str(model_folder)


def test_one_kind_of_data(config_file):
    for wrong in (["data=null"], ["training.dataset_name=texts.jsonl"]):
        with pytest.raises(UsageError, match=r"either data: .* or training.dataset_name"):
            read_config(config_file, wrong)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.kinds={constant: 0}", "kinds: every weight is 0"),
        ("data.kinds={constants: 1}", "data.kinds.constants: unknown kind"),
        ("data.chunks=[]", "data.chunks"),
        ("data.reads=latents", "data.reads"),
        ("training.optimizer=lion", "training.optimizer"),
        ("training.min_lr_ratio=2", "training.min_lr_ratio"),
        ("training.max_step=2", "training.max_step"),
        ("losses.kl_temperature=0", "losses.kl_temperature"),
    ],
)
def test_an_impossible_setting_is_named(config_file, setting, message):
    with pytest.raises(UsageError, match=message):
        trained(config_file, setting)


def test_a_data_set_is_trained_on(config_file, tmp_path, monkeypatch):
    """A bank learns texts; validation is of another split."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for split in ("train", "test"):
        lines = [json.dumps({"text": f"{split} {i} " * 9}) for i in range(8)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    bank = ["memory={num_memory_tokens: 8, memory_form: tanh}", "data=null", f"training.dataset_name={folder}"]
    settings = [*bank, "training.training_mode=pretraining", "training.max_length=40", "training.eval_split=test"]
    config, done = trained(config_file, *settings, "training.max_steps=4", "training.eval_samples=2")
    assert done.validation is not None and done.steps == 4
    lines = [line for line in read_log(config.output_dir) if "loss" in line]
    assert [line["tokens"] for line in lines] == [2 * 39] * 4  # of 40 tokens the first is predicted by nothing
    with pytest.raises(UsageError, match="need samples from repositories"):
        trained(config_file, *settings, "losses.citation_coefficient=1", f"output_dir={tmp_path / 'no'}")


def test_early_stopping_threshold(config_file, tmp_path):
    """An evaluation that is better by less than the threshold is no better."""
    settings = ["training.early_stopping=true", "training.early_stopping_patience=1", "training.eval_steps=1"]
    _, patient = trained(config_file, *settings, "training.early_stopping_threshold=1000.0")
    assert patient.steps == 2
    rates = ["training.lora_lr=1e-3", "training.gate_lr=0.0", "training.warmup_steps=0"]
    config, done = trained(config_file, *settings, *rates, f"output_dir={tmp_path / 'other'}")
    measured = [line["eval_loss"] for line in read_log(config.output_dir) if "eval_loss" in line]
    assert done.steps == len(measured) and all(a > b for a, b in itertools.pairwise(measured[:-1]))


def test_extends(config_file, tmp_path):
    above = tmp_path / "above.yaml"
    above.write_text(f"extends: {config_file.name}\ntraining: {{max_steps: 3}}\ndata: {{chunks: [7]}}\n")
    below, found = read_config(config_file, []), read_config(above, ["training.seed=5"])
    assert found.training == below.training.model_copy(update={"max_steps": 3, "seed": 5})
    assert found.data == below.data.model_copy(update={"chunks": [7]}) and found.memory == below.memory
    above.write_text("extends: above.yaml\n")
    with pytest.raises(UsageError, match="extends itself"):
        read_config(above, [])
    above.write_text("extends: nowhere.yaml\n")
    with pytest.raises(UsageError, match=r"above\.yaml: extends: nowhere\.yaml does not exist"):
        read_config(above, [])
