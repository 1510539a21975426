"""A run that goes on: with more steps, in another folder, with other intervals, without its best model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import TrainerState

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.model.checkpoint import Checkpoint
from awareness.model.model_files import find
from awareness.train.log import read_log
from awareness.train.preparation import prepare
from awareness.train.resuming.going_on import bring_best, has_best, last_loss, note_best
from awareness.train.resuming.saved_steps import saved_step
from awareness.train.run import train_memory
from awareness.train.trainer import learning_rate_factor
from tests.conftest import write_tree


def trained(path, *settings, resume=None, say=lambda _: None):
    config = read_config(path, list(settings))
    return config, train_memory(config, pull=find, resume=resume, say=say)


def of_steps(folder, name="loss"):
    return {line["step"]: line[name] for line in read_log(folder) if "loss" in line}


def of_evaluations(folder):
    return {line["step"]: line["eval_loss"] for line in read_log(folder) if "eval_loss" in line}


@pytest.fixture
def command(config_file, capfd):
    """Runs `awareness train` with these options: (exit code, result, stderr)."""

    def train(*settings, resume=None):
        options = [word for setting in settings for word in ("--set", setting)]
        options += ["--resume", str(resume)] if resume else []
        capfd.readouterr()
        code = run(["train", "--config", str(config_file), "--format", "json", *options])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else None, err

    return train


def test_a_finished_run_goes_on_with_more_steps(command, config_file, tmp_path):
    """Step i has the sample i and the learning rate that the longer schedule gives it."""
    folder = tmp_path / "trained"
    first = command()
    before = of_steps(folder)
    code, result, err = command("training.max_steps=12", resume="latest")
    assert first[0] == code == 0 and result["steps"] == 12
    assert f"continues at step 8 of 12, from {folder}/checkpoint-8" in err
    assert "training.max_steps was 8: from here on the learning rates and the stages of data.chunks follow 12" in err
    after = of_steps(folder)
    assert list(after) == list(range(1, 13)) and {step: after[step] for step in before} == before
    assert result["loss"] == pytest.approx(sum(after[step] for step in (10, 11, 12)) / 3)
    config = read_config(config_file, ["training.max_steps=12"])
    expected = [config.training.gate_lr * learning_rate_factor(step, config.training) for step in range(8, 12)]
    assert list(of_steps(folder, "lr").values())[8:] == pytest.approx(expected, rel=1e-12)
    state = json.loads((folder / "checkpoint-12/trainer_state.json").read_text())
    assert (state["max_steps"], state["num_train_epochs"], state["epoch"]) == (12, 1, 1.0)
    assert json.loads((folder / "result.json").read_text())["steps"] == 12
    assert min(of_evaluations(folder).values()) == result["validation"]


def test_the_first_step_after_it_has_its_rate_and_its_samples(config_file):
    """SGD with clipped gradients: a step is as long as its rate. Also, `save_steps` is that of now."""
    own = ["training.optimizer=sgd", "training.max_grad_norm=1e-3", "training.eval_samples=0"]
    own += ["training.lora_lr=1.0", "training.gate_lr=1.0", "training.warmup_steps=0"]
    trained(config_file, *own, "training.max_steps=4")
    longer = [*own, "training.max_steps=9", "training.save_steps=1", "training.save_total_limit=9"]
    config, _ = trained(config_file, *longer, resume="latest")
    folders = [config.output_dir / f"checkpoint-{step}" for step in (4, 5)]
    before, after = (Checkpoint.read(folder).tensors(folder) for folder in folders)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm().item()
    assert moved == pytest.approx(1e-3 * learning_rate_factor(4, config.training), rel=1e-2)
    trainer = prepare(config, pull=find).trainer
    for step, tokens in of_steps(config.output_dir, "tokens").items():
        if step > 4:
            rows = trainer.data_collator([trainer.train_dataset[i] for i in (2 * step - 2, 2 * step - 1)])
            assert (rows["labels"][:, 1:] != -100).sum() == tokens


def test_a_finished_checkpoint_of_another_folder_gives_its_result(command, tmp_path):
    """A known fault: a loss of 0, from the empty log of the new folder, and no best model."""
    _, first, _ = command("training.max_steps=6", "training.save_total_limit=9")  # evaluated at 4 and 6
    old, new = tmp_path / "trained", tmp_path / "new"
    code, result, err = command("training.max_steps=6", f"output_dir={new}", resume=old / "checkpoint-6")
    assert code == 0, err
    assert f"{old}/checkpoint-6: step 6 of 6; {new}/final is written from it" in err and "step 1 of" not in err
    same = ("parameters", "steps", "loss", "validation", "best_step")
    assert {name: result[name] for name in same} == {name: first[name] for name in same}
    assert (new / "final/weights.safetensors").read_bytes() == (old / "final/weights.safetensors").read_bytes()
    assert (new / "best/weights.safetensors").read_bytes() == (old / "best/weights.safetensors").read_bytes()
    assert read_log(new) == read_log(old) and (new / "loss.png").exists()
    shutil.copytree(old / "checkpoint-6", tmp_path / "alone/kept")  # without its log: as transformers noted it
    code, result, err = command("training.max_steps=6", f"output_dir={new}2", resume=tmp_path / "alone/kept")
    noted = json.loads((old / "checkpoint-6/trainer_state.json").read_text())["log_history"]
    assert code == 0 and result["loss"] == next(entry["loss"] for entry in noted[::-1] if "loss" in entry)
    assert result["validation"] is None and "new2/best is not the best model that 6 steps had" in err


def test_a_run_goes_on_in_another_folder_with_its_log_and_its_best_model(command, tmp_path):
    _, first, _ = command("training.save_total_limit=9")
    old, new = tmp_path / "trained", tmp_path / "new"
    code, result, err = command(f"output_dir={new}", resume=old / "checkpoint-6")
    assert code == 0 and f"continues at step 6 of 8, from {old}/checkpoint-6" in err
    assert of_steps(new) == of_steps(old) and of_evaluations(new) == of_evaluations(old)
    assert result["validation"] == first["validation"] and result["best_step"] == first["best_step"]


def test_a_result_that_was_not_written_is_written_by_the_same_command(command, tmp_path):
    """Killed between the end of training and `final/`."""
    _, first, _ = command("training.max_steps=2")
    folder = tmp_path / "trained"
    weights = (folder / "final/weights.safetensors").read_bytes()
    shutil.rmtree(folder / "final")
    (folder / "result.json").unlink()
    code, result, err = command("training.max_steps=2")
    assert code == 0 and f"checkpoint-2: step 2 of 2; {folder}/final is written from it" in err
    assert (folder / "final/weights.safetensors").read_bytes() == weights
    assert {**result, "seconds": 0} == {**first, "seconds": 0}
    assert command("training.max_steps=2")[0] == 2


def test_early_stopping_ends_a_run_until_it_has_more_patience(command, tmp_path):
    own = ["training.early_stopping=true", "training.eval_steps=1", "training.save_steps=5"]
    own += ["training.early_stopping_threshold=1000.0"]  # no evaluation is that much better
    code, result, _ = command(*own, "training.early_stopping_patience=2")
    assert (code, result["steps"]) == (0, 3) and (tmp_path / "trained/checkpoint-3/complete.json").exists()
    code, _, err = command(*own, "training.early_stopping_patience=2")
    assert code == 2 and "trained is finished: step 3 of 8, by early stopping" in err
    code, result, err = command(*own, "training.early_stopping_patience=4")
    assert (code, result["steps"]) == (0, 5) and "continues at step 3 of 8" in err


def test_a_checkpoint_of_an_earlier_version_goes_on(command, tmp_path):
    """It has fewer groups of settings, fewer settings, and a best model that does not say of which step it is."""
    _, whole, _ = command(f"output_dir={tmp_path / 'whole'}")
    command("training.max_steps=4")
    folder = tmp_path / "trained"
    path = folder / "checkpoint-4/complete.json"
    content = json.loads(path.read_text())
    about = content["about"]
    about["steps"] = 8
    del about["precision"], about["texts"], about["reading"], about["sources"], about["samples"]["written_by"]
    assert set(about) == {"base", "memory", "data", "settings", "samples", "rates", "batch", "steps", "seed"}
    path.write_text(json.dumps(content))
    for name in ("result.json", "best/evaluation.json"):
        (folder / name).unlink()
    code, result, err = command()
    assert code == 0 and "continues at step 4 of 8" in err
    assert (result["steps"], result["best_step"]) == (8, whole["best_step"])


def test_the_best_model_is_that_of_the_state(tmp_path):
    """It may be of a later step than the checkpoint, of another folder, or gone."""
    state = json.dumps({"global_step": 6, "best_global_step": 4, "log_history": []})
    write_tree(tmp_path / "old/checkpoint-6", {"trainer_state.json": state})
    saved, new = saved_step(tmp_path / "old/checkpoint-6"), tmp_path / "new"
    bring_best(saved, new)
    assert not has_best(saved, new)
    write_tree(tmp_path / "old/best", {"config.json": "{}", "weights.safetensors": "of step 8"})
    note_best(tmp_path / "old/best", 8)
    bring_best(saved, new)
    assert not has_best(saved, new) and not has_best(saved, tmp_path / "old")
    write_tree(tmp_path / "old/checkpoint-4", {"config.json": "{}", "weights.safetensors": "of step 4"})
    for folder in (new, tmp_path / "old"):
        bring_best(saved, folder)
        assert has_best(saved, folder) and (folder / "best/weights.safetensors").read_text() == "of step 4"
    write_tree(tmp_path / "older/best", {"config.json": "{}", "weights.safetensors": "of an earlier version"})
    assert has_best(saved, tmp_path / "older")


def test_a_loss_that_nothing_knows_is_none(tmp_path, command):
    assert last_loss(tmp_path, TrainerState(global_step=3), 10) is None
    assert last_loss(tmp_path, TrainerState(global_step=3, log_history=[{"loss": 2.0}, {"eval_loss": 1.0}]), 10) == 2.0
    write_tree(tmp_path, {"log.jsonl": '{"step": 1, "loss": 3}\n{"step": 2, "loss": 5}\n{"step": 3, "loss": 9}\n'})
    assert (
        last_loss(tmp_path, TrainerState(global_step=2), 1) == 5
        and last_loss(tmp_path, TrainerState(global_step=2), 9) == 4
    )
