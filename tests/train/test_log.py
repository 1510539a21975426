"""What is seen of a training: its lines, its log, its trackers and its picture."""

from __future__ import annotations

import json
import math
import re
import sys

import pytest
from transformers import TrainerCallback

from awareness.cli import render
from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.model.model_files import find
from awareness.train import log as module
from awareness.train.log import draw_losses, draw_run, read_log
from awareness.train.preparation import prepare
from awareness.train.run import train_memory
from awareness.train.trainer import learning_rate_factor

TERMS = ["losses.citation_coefficient=0.5", "losses.sparsity_coefficient=0.5"]
STEP = (
    r"step {} of 8: loss \d+\.\d{{4}} \(answer \d+\.\d{{4}}, citation \d+\.\d{{4}}, sparsity \d\.\d{{4}}\), "
    r"lr gate \d\.\de[+-]\d\d lora \d\.\de-\d\d, \d+\.\d\d s a step, [\d,]+\.\d tokens/s, {}\d+\.\d GiB"
)


def trained(path, *settings, resume=None):
    """(configuration, result, lines that were said)."""
    config, said = read_config(path, list(settings)), []
    return config, train_memory(config, pull=find, resume=resume, say=said.append), said


def of_steps(said):
    return [line for line in said if re.match(r"step \d+ of", line)]


# Lines


def test_the_lines_of_a_training_by_the_command(config_file, tmp_path, capfd):
    settings = [part for setting in TERMS for part in ("--set", setting)]
    assert run(["train", "--config", str(config_file), *settings]) == 0
    out, err = capfd.readouterr()
    lines = err.splitlines()
    said = of_steps(lines)
    left = r"\d:\d\d:\d\d left, "
    for line, step in zip(said, (1, 3, 6, 8), strict=True):  # the first, every third, the last
        assert re.fullmatch(STEP.format(step, "" if step == 8 else left), line), line
    parameters = int(re.search(r"([\d,]+) parameters", out)[1].replace(",", ""))
    (summary,) = [line for line in lines if line.startswith("training ") and "parameters of" in line]
    found = re.fullmatch(
        r"training ([\d,]+) parameters of (.+) \(gates (\d+), LoRA ([\d,]+)\): 8 steps, 16 samples, 67 chunks, "
        r"cpu in float32, into (.+)",
        summary,
    )
    gates, lora = int(found[3]), int(found[4].replace(",", ""))
    assert gates + lora == int(found[1].replace(",", "")) == parameters and gates and lora
    assert found[2].endswith("tiny-qwen3") and found[5] == str(tmp_path / "trained")
    assert lines.index(summary) < lines.index(said[0])
    report = json.loads((tmp_path / "trained/data.json").read_text())["sources"]
    assert [source["files"] for source in report] == [2] * 4 and all(source["chunks"] > 20 for source in report)
    assert [re.sub(r"[\d.]+ s$", "", line) for line in lines if ": MIT, " in line] == [
        f"{source['name']}: MIT, 2 files, {source['chunks']} chunks, " for source in report
    ]
    assert f"losses: {tmp_path / 'trained/loss.png'}" in lines
    assert sum("validation loss" in line for line in lines) == 2


def test_quiet_says_nothing_and_a_second_run_cuts_nothing(config_file, tmp_path, capfd):
    short = ["train", "--config", str(config_file), "--set", "training.max_steps=1"]
    try:
        assert run([*short, "--quiet"]) == 0
    finally:
        render.set_volume(quiet=False)
    assert capfd.readouterr().err == ""
    assert run([*short, "--set", f"output_dir={tmp_path / 'second'}"]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if ": MIT, " in line]
    assert len(lines) == 4 and all(line.endswith(" s, from the cache") for line in lines)
    data = [json.loads((tmp_path / name / "data.json").read_text()) for name in ("trained", "second")]
    assert data[0] == data[1]
    assert [line["loss"] for line in read_log(tmp_path / "trained") if "loss" in line] == [
        line["loss"] for line in read_log(tmp_path / "second") if "loss" in line
    ]


def test_a_resumed_run_and_one_that_stops_early_tell_of_their_first_and_last_step(config_file, tmp_path):
    trained(config_file, "training.max_steps=8", "training.logging_steps=100")
    (tmp_path / "trained/checkpoint-8/complete.json").unlink()
    _, _, said = trained(config_file, "training.logging_steps=100", resume="latest")
    assert any(line.endswith("from checkpoint-6") for line in said)
    assert [line.split(":")[0] for line in of_steps(said)] == ["step 7 of 8", "step 8 of 8"]
    steps = [line["step"] for line in read_log(tmp_path / "trained") if "loss" in line]
    assert steps == list(range(1, 9))
    stop = ["training.early_stopping=true", "training.early_stopping_patience=1", "training.eval_steps=1"]
    other = ["training.early_stopping_threshold=1000", "training.logging_steps=100", f"output_dir={tmp_path / 'early'}"]
    _, done, said = trained(config_file, *stop, *other)
    assert done.steps == 2 and [line.split(":")[0] for line in of_steps(said)] == ["step 1 of 8", "step 2 of 8"]
    assert ", the last one, " in of_steps(said)[1]


# The log


def test_a_line_of_the_log_has_the_rates_of_its_step_by_part(config_file):
    config, _, _ = trained(config_file, *TERMS)
    lines = [line for line in read_log(config.output_dir) if "loss" in line]
    names = {"step", "loss", "answer", "citation", "sparsity", "tokens", "lr", "lr_gate", "lr_lora", "seconds"}
    assert {frozenset(line) for line in lines} == {frozenset(names)}
    for line in lines:
        factor = learning_rate_factor(line["step"] - 1, config.training)
        assert line["lr_gate"] == pytest.approx(factor * config.training.gate_lr)
        assert line["lr_lora"] == pytest.approx(factor * config.training.lora_lr)
        assert line["lr"] == line["lr_gate"]


def test_every_part_has_its_rate_by_name_also_where_two_are_equal(config_file):
    settings = ["memory.memory_form=tanh", "training.memory_lr=0.5", "training.lora_lr=0.5", "training.gate_lr=0.25"]
    trainer = prepare(read_config(config_file, settings), pull=find).trainer
    assert trainer.rates() == {}
    assert len(trainer.create_optimizer().param_groups) == 2
    assert trainer.rates() == {"memory": 0.5, "gate": 0.25, "lora": 0.5}
    name = read_config(config_file, []).model.base_model_name
    whole = read_config(config_file, [*settings, f"model={{base_model_name: {name}, freeze_base_model: false}}"])
    trainer = prepare(whole, pull=find).trainer
    trainer.create_optimizer()
    assert list(trainer.rates()) == ["memory", "gate", "lora", "base"] and trainer.rates()["base"] == 1e-5


# Trackers


def test_progress_is_of_the_training_from_its_begin_with_the_loss_of_late(config_file):
    moved = []
    config = read_config(config_file, ["training.eval_samples=0"])
    train_memory(config, pull=find, progress=lambda *now: moved.append(now))
    whats = [what for what, _, _ in moved]
    assert whats.index("training") > max(i for i, what in enumerate(whats) if what == "comparing chunks")
    losses = [line["loss"] for line in read_log(config.output_dir)]
    shown = [(f"training · loss {sum(losses[:n]) / n:.4f}", n, 8) for n in range(1, 9)]
    assert moved[whats.index("training") :] == [("training", 0, 8), *shown]


def test_trackers_get_every_term_rate_and_evaluation(config_file):
    """By the same call that TensorBoard and W&B get; their own tests need them installed."""
    config = read_config(config_file, TERMS)
    trainer, got = prepare(config, pull=find).trainer, []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            got.append((state.global_step, dict(logs)))

    trainer.add_callback(Tracker())
    trainer.train()
    lines = {line["step"]: line for line in read_log(config.output_dir) if "loss" in line}
    steps = [(step, logs) for step, logs in got if "loss" in logs]
    assert [step for step, _ in steps] == [1, 3, 6, 8]
    before = 0
    for step, logs in steps:
        for term in ("loss", "answer", "citation", "sparsity"):
            own = [lines[number][term] for number in range(before + 1, step + 1)]
            assert logs[term] == pytest.approx(sum(own) / len(own))
        assert {name: logs[name] for name in ("lr", "lr_gate", "lr_lora")} == {
            name: lines[step][name] for name in ("lr", "lr_gate", "lr_lora")
        }
        assert logs["step_seconds"] > 0 and logs["tokens_per_second"] > 0 and 0.05 < logs["memory_gib"] < 64
        before = step
    measured = {line["step"]: line["eval_loss"] for line in read_log(config.output_dir) if "eval_loss" in line}
    assert {step: logs["eval_loss"] for step, logs in got if "eval_loss" in logs} == measured


def test_tensorboard_has_them(config_file):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, _, _ = trained(config_file, *TERMS, "training.log_to_tensorboard=true")
    (events,) = config.output_dir.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events))
    read.Reload()
    by_name = {name: {event.step: event.value for event in read.Scalars(name)} for name in read.Tags()["scalars"]}
    terms = {f"train/{name}" for name in ("loss", "answer", "citation", "sparsity")}
    rates = {f"train/{name}" for name in ("lr", "lr_gate", "lr_lora")}
    machine = {f"train/{name}" for name in ("step_seconds", "tokens_per_second", "memory_gib")}
    assert terms | rates | machine | {"eval/loss", "eval/perplexity"} <= set(by_name)
    assert {tuple(by_name[name]) for name in terms | rates | machine} == {(1, 3, 6, 8)}
    lines = {line["step"]: line for line in read_log(config.output_dir) if "loss" in line}
    assert by_name["train/citation"][1] == pytest.approx(lines[1]["citation"])
    assert list(by_name["eval/loss"]) == [4, 8]


def test_wandb_has_them(config_file, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    config, _, _ = trained(config_file, *TERMS, "training.log_to_wandb=true", "training.wandb_run_name=mine")
    import wandb

    found, name = dict(wandb.run.summary), wandb.run.name
    wandb.finish()
    assert name == "mine" and list(tmp_path.rglob("*.wandb"))
    last = [line for line in read_log(config.output_dir) if "loss" in line][-1]
    for name in ("lr", "lr_gate", "lr_lora"):
        assert found[f"train/{name}"] == pytest.approx(last[name])
    assert {f"train/{name}" for name in ("loss", "answer", "citation", "sparsity", "memory_gib")} <= set(found)
    assert found["eval/loss"] > 0


# The picture


def png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def written(folder, *lines):
    folder.mkdir(exist_ok=True)
    (folder / module.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "eval_loss": 2.0}],
        [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": 1.0}],
        [{"step": 1, "loss": 0.0}, {"step": 2, "loss": -1.0}],
        [{"step": 1, "loss": 3.0, "answer": 3.0}, {"step": 2, "loss": 1.0, "answer": 0.5, "kl": 0.01}],
    ],
)
def test_any_log_is_drawn(tmp_path, lines, recwarn):
    folder, said = written(tmp_path / "run", *lines), []
    assert draw_run(folder, said.append) == folder / "loss.png" and png(folder / "loss.png") and said == []
    assert {path.name for path in folder.iterdir()} == {"loss.png", "log.jsonl"} and not list(recwarn)
    draw_losses([folder, tmp_path / "nowhere"], tmp_path / "both.png")
    assert png(tmp_path / "both.png")


def test_what_cannot_be_drawn_is_said_and_nothing_fails(config_file, tmp_path, monkeypatch):
    said = []
    assert draw_run(tmp_path / "nowhere", said.append) is None
    assert said[0].startswith(f"{tmp_path / 'nowhere/loss.png'} is not drawn: ")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    config, done, said = trained(config_file, "training.max_steps=1")
    assert done.steps == 1 and not (config.output_dir / "loss.png").exists()
    assert any("loss.png is not drawn: " in line for line in said) and not any("losses: " in line for line in said)


def test_the_picture_is_drawn_at_checkpoints_but_not_all_the_time(config_file, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "draw_run", lambda folder, say: drawn.append(len(read_log(folder))))
    config = read_config(config_file, ["training.eval_samples=0"])
    prepare(config, pull=find).trainer.train()
    assert drawn == []  # all checkpoints came within DRAWN_S
    monkeypatch.setattr(module, "DRAWN_S", 0.0)
    prepare(config, pull=find).trainer.train()
    assert drawn == [2, 4, 6, 8]


def test_the_title_is_the_folder_and_the_model(config_file, tmp_path):
    config, _, _ = trained(config_file, "training.max_steps=1")
    assert module._title([config.output_dir]) == "trained · tiny-qwen3"
    assert module._title([tmp_path / "nowhere"]) == "nowhere" and module._title([tmp_path, tmp_path]) == "2 trainings"
