"""The trainer on a tiny decoder: rates, floor, resuming to the bit, evaluation by tokens, accumulation, processes."""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.config.training import TrainingConfig
from awareness.errors import UsageError
from awareness.model.checkpoint import Checkpoint, load_checkpoint
from awareness.model.model_files import find
from awareness.train.log import read_log
from awareness.train.preparation import prepare
from awareness.train.run import train_memory
from awareness.train.trainer import learning_rate_factor, learning_rate_of


def trained(path, *settings, resume=None, say=lambda _: None):
    config = read_config(path, list(settings))
    return config, train_memory(config, pull=find, resume=resume, say=say)


def losses(folder):
    """step -> its loss, terms and tokens, to the last digit."""
    lines = [line for line in read_log(folder) if "loss" in line]
    return {line["step"]: {name: value for name, value in line.items() if name != "seconds"} for line in lines}


# Rates


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "constant"])
def test_the_rate_rises_falls_and_ends_at_its_floor(scheduler):
    """A known fault: the minimum learning rate was ignored."""
    config = TrainingConfig(max_steps=50, warmup_steps=4, min_lr_ratio=0.2, scheduler=scheduler)
    factors = [learning_rate_factor(step, config) for step in range(60)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    end = 1.0 if scheduler == "constant" else 0.2
    assert factors[49:] == pytest.approx([end] * 11) and min(factors[4:]) == pytest.approx(end)
    middle = factors[4 + 45 // 2 : 4 + 45 // 2 + 2]
    assert sum(middle) / 2 == pytest.approx((1 + end) / 2, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(factors[4:]))


def test_each_part_has_its_rate():
    config = TrainingConfig(memory_lr=1.0, gate_lr=2.0, lora_lr=3.0, base_model_lr=4.0)
    rates = {
        "adapter.blocks.7.attention.q_proj.up": 1.0,
        "adapter.blocks.7.attention.q_proj.bias": 1.0,
        "adapter.blocks.7.attention.gate": 2.0,
        "adapter.blocks.7.mlp.gate": 2.0,
        "adapter.blocks.7.mlp.gate_proj.weight": 1.0,
        "adapter.blocks.7.bias": 2.0,
        "adapter.blocks.7.bank_gate": 2.0,
        "adapter.encoder.header": 1.0,
        "adapter.bank.routers.7.classifier.weight": 1.0,
        "decoder.model.layers.7.self_attn.q_proj.lora_A.default.weight": 3.0,
        "decoder.model.layers.7.self_attn.q_proj.weight": 4.0,
    }
    assert {name: learning_rate_of(name, config) for name in rates} == rates


@pytest.mark.parametrize(
    ("off", "still"),
    [("lora_lr", "lora_"), ("gate_lr", ".bias"), ("memory_lr", "down"), ("base_model_lr", "embed_tokens")],
)
def test_a_rate_of_0_leaves_its_part_as_it_was(config_file, tmp_path, off, still):
    settings = [
        "training.max_steps=2",
        "training.eval_samples=0",
        f"training.{off}=0.0",
        "training.save_precision=fp32",
    ]
    if still == "down":
        settings += ["memory.memory_form=tanh", "memory.use_low_rank_projections=true", "memory.projection_rank=4"]
    if still == "embed_tokens":
        settings += [
            "model.freeze_base_model=false",
            f"model.base_model_name={read_config(config_file, []).model.base_model_name}",
        ]
    config = read_config(config_file, [s for s in settings if not s.startswith("model.")])
    if still == "embed_tokens":
        config = config.model_copy(update={"model": config.model.model_copy(update={"freeze_base_model": False})})
    before = {n: p.detach().clone() for n, p in prepare(config, pull=find).module.trainable().items()}
    done = train_memory(config, pull=find)
    after = load_checkpoint(done.output, pull=find, dtype=torch.float32)[0].trainable()
    assert set(before) == set(after) and any(still in name for name in before)
    for name, tensor in before.items():
        if still in name:
            assert torch.equal(after[name], tensor), name
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())


def test_weight_decay_spares_gates_biases_and_norms(config_file):
    config = read_config(
        config_file, ["training.weight_decay=0.5", "memory.memory_form=tanh", "memory.gca_start_layer=1"]
    )
    run = prepare(config, pull=find)
    names = {id(p): name for name, p in run.module.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in run.trainer.create_optimizer().param_groups
        for p in group["params"]
    }
    assert set(decays) == set(run.module.trainable())
    spared = {name for name, decay in decays.items() if decay == 0.0}
    assert spared == {name for name in decays if name.endswith((".gate", "norm.weight"))} and spared
    assert {decay for name, decay in decays.items() if name not in spared} == {0.5}


# Resuming


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Losses of runs that were not stopped, by the configuration's text."""
    return {}


def uninterrupted(config_file, tmp_path, whole):
    text = config_file.read_text()
    config, _ = trained(config_file, f"output_dir={tmp_path / 'whole'}")
    whole[text] = losses(config.output_dir)
    return whole[text]


def started(config_file, *settings):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "awareness.cli.app", "train", "--config", str(config_file)]
    options = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 120
    while len(losses(folder)) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_run_that_is_killed_and_started_again_has_exactly_the_same_losses(config_file, tmp_path, whole):
    """The same command each time. LoRA's dropout draws numbers in every step, so the state of the generator counts."""
    expected = uninterrupted(config_file, tmp_path, whole)
    assert sorted(expected) == list(range(1, 9))
    folder = tmp_path / "trained"
    for stop in (1, 5):  # before the first checkpoint, and in the middle between two
        process = started(config_file)
        wait_for_step(process, folder, stop)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = []
    _, done = trained(config_file, say=said.append)
    assert losses(folder) == expected
    assert done.steps == 8 and done.validation == pytest.approx(
        min(m["eval_loss"] for m in read_log(folder) if "eval_loss" in m)
    )
    assert any(re.match("continues at step [46] of 8, from ", line) for line in said)
    assert not any("step 3 of" in line for line in said)  # it went on, and did not begin again


def test_ctrl_c_and_sigterm_save_the_step_and_the_same_command_goes_on_from_it(config_file, tmp_path):
    long = ["training.max_steps=24", "training.save_steps=20", "training.eval_steps=9"]
    config, _ = trained(config_file, *long, f"output_dir={tmp_path / 'whole'}")
    expected, folder = losses(config.output_dir), tmp_path / "trained"
    step = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = started(config_file, *long)
        wait_for_step(process, folder, step + 2)
        process.send_signal(number)
        said = process.communicate()[1]
        assert process.returncode == code, said
        before, step = step, max(losses(folder))
        assert before + 2 <= step < 24 and (folder / f"checkpoint-{step}/complete.json").exists()
        assert f"step {step} of 24 is saved; the same command goes on from there" in said
        assert "it stops at once" in said and "the same command again, which continues from there" in said
        assert not before or f"continues at step {before} of 24, from {folder}/checkpoint-{before}" in said
        assert not (folder / "final").exists()
    said = []
    _, done = trained(config_file, *long, say=said.append)
    assert f"continues at step {step} of 24, from {folder}/checkpoint-{step}" in said
    assert losses(folder) == expected and done.steps == 24
    measured = [[m for m in read_log(f) if "eval_loss" in m] for f in (folder, config.output_dir)]
    assert measured[0] == measured[1] and len(measured[0]) == 3


def test_a_damaged_checkpoint_is_skipped_and_the_losses_are_the_same(config_file, tmp_path, whole):
    expected = uninterrupted(config_file, tmp_path, whole)
    trained(config_file)
    folder = tmp_path / "trained"
    (folder / "checkpoint-8/optimizer.pt").write_bytes(b"half")
    said = []
    trained(config_file, resume="latest", say=said.append)
    assert [line for line in said if "skipped" in line] == [
        f"{folder / 'checkpoint-8'} is skipped: optimizer.pt has changed since it was written"
    ]
    assert losses(folder) == expected


def test_resuming_before_anything_was_saved_or_logged_begins(config_file, tmp_path):
    """A known fault: resuming with no loss yet."""
    said = []
    short = ["training.max_steps=1", "training.logging_steps=50"]
    config, first = trained(config_file, *short, resume="latest", say=said.append)
    assert list(losses(config.output_dir)) == [1]
    assert f"{config.output_dir} has no checkpoint yet: the run starts from the beginning" in said
    _, again = trained(config_file, *short, resume="latest")
    assert list(losses(config.output_dir)) == [1] and again.loss == first.loss


def test_a_run_does_not_overwrite_another(config_file, capfd):
    """Through the command line: what differs is named, the finished run too, and the hints work."""
    one = ["train", "--config", str(config_file), "--set", "training.max_steps=1"]
    assert run(one) == 0
    capfd.readouterr()
    assert run(one) == 2
    err = capfd.readouterr().err
    assert "trained is finished: step 1 of 1\n" in err and "--resume latest --set training.max_steps=2, or" in err
    other = ["--set", "data.kinds={constant: 1}", "--set", "losses.citation_coefficient=0.5"]
    for resume in ([], ["--resume", "latest"]):
        assert run([*one, "--set", "training.lora_lr=0.5", *other, *resume]) == 2
        err = capfd.readouterr().err
        assert ("is of another run" if resume else "already holds a run") in err
        assert "\n  losses.citation_coefficient was 0.0, now 0.5\n  training.lora_lr was 0.0003, now 0.5\n" in err
        assert "\n  data.kinds.which was 1.0, now absent\n" in err
        options = shlex.split(err.partition("try: ")[2].partition(", or ")[0])
        assert run([*one, "--set", "training.lora_lr=0.5", *other, *options, "--resume", "latest"]) == 0
        capfd.readouterr()


def test_a_source_that_changed_is_named(config_file, sources, capfd):
    """It has as many lines and chunks as before."""
    command = ["train", "--config", str(config_file), "--set", "training.max_steps=2", "--set"]
    assert run([*command, "training.save_steps=1"]) == 0
    path = sources / "two/two/core.py"
    path.write_text(path.read_text().replace("Alpha", "Omega"))
    assert run([*command, "training.save_steps=2", "--resume", "latest"]) == 2
    err = capfd.readouterr().err
    assert "is of another run, of which this differs:\n  data.sources: two has changed\n" in err


# Evaluation, precision, what is kept


def test_validation_counts_every_token_once(config_file):
    """A known fault: evaluation that counts unshifted tokens, and means of batches of unlike length."""
    config = read_config(config_file, ["training.eval_samples=5", "training.batch_size=2"])
    run = prepare(config, pull=find)
    measured = run.trainer.evaluate()
    nll, tokens = 0.0, 0
    step = run.trainer.model.eval()
    for sample in (run.trainer.eval_dataset[i] for i in range(5)):
        rows = run.trainer.data_collator([sample])
        ids, labels = rows["input_ids"][0], rows["labels"][0]
        with torch.no_grad(), step.module.attached(step._memory([sample]).memory):
            logits = step.module.decoder(ids[None]).logits[0]
        for t in range(len(ids) - 1):
            if labels[t + 1] != -100:
                assert labels[t + 1] == ids[t + 1]
                nll -= torch.log_softmax(logits[t].float(), -1)[ids[t + 1]].item()
                tokens += 1
    assert measured["eval_loss"] == pytest.approx(nll / tokens, rel=1e-5)
    assert measured["eval_perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_save_precision_is_of_the_result_alone(config_file, tmp_path, precision):
    config, done = trained(config_file, "training.max_steps=2", f"training.save_precision={precision}")
    wanted = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    assert {t.dtype for t in Checkpoint.read(done.output).tensors(done.output).values()} == {wanted}
    step = config.output_dir / "checkpoint-2"
    assert {t.dtype for t in Checkpoint.read(step).tensors(step).values()} == {torch.float32}
    assert Checkpoint.read(done.output).reads == "memory" and Checkpoint.read(done.output).arm == "joint+lora"


def test_the_best_is_kept_and_training_stops_early(config_file):
    """With rates that change nothing, the second evaluation is no better than the first."""
    rates = [f"training.{name}=1e-30" for name in ("memory_lr", "gate_lr", "lora_lr")]
    stop = ["training.early_stopping=true", "training.early_stopping_patience=1", "training.eval_steps=1"]
    config, done = trained(config_file, *rates, *stop)
    assert (done.steps, done.best_step) == (2, 1)
    assert (config.output_dir / "best/weights.safetensors").exists()
    config, done = trained(
        config_file, *rates, *stop[2:], "training.save_best_model=false", f"output_dir={config.output_dir}2"
    )
    assert (done.steps, done.best_step) == (8, None) and not (config.output_dir / "best").exists()


def test_save_total_limit(config_file):
    config, _ = trained(config_file, "training.save_total_limit=3", "training.eval_samples=0")
    assert {path.name for path in config.output_dir.glob("checkpoint-*")} == {
        "checkpoint-4",
        "checkpoint-6",
        "checkpoint-8",
    }


def test_accumulation_is_a_larger_batch(config_file, tmp_path):
    """Of samples whose answers are of like length: the same data in the same steps."""
    one = ["data.kinds={uuid: 1}", "memory.lora_dropout=0.0", "training.max_steps=3", "training.eval_samples=0"]
    results = []
    for batch, parts in ((4, 1), (2, 2)):
        own = [f"training.batch_size={batch}", f"training.gradient_accumulation_steps={parts}"]
        config, _ = trained(config_file, *one, *own, f"output_dir={tmp_path / str(batch)}")
        results.append(losses(config.output_dir))
    assert [line["tokens"] for line in results[0].values()] == [line["tokens"] for line in results[1].values()]
    for step, line in results[0].items():
        assert results[1][step]["loss"] == pytest.approx(line["loss"], rel=0.03)
    assert len(results[1]) == 3


def test_two_processes_do_what_one_does(config_file, tmp_path):
    """A known fault: a wrong number of steps, and a schedule that goes too fast, with more than one process."""
    same = ["--set", "memory.lora_dropout=0.0", "--set", "training.max_steps=3", "--set", "data.kinds={uuid: 1}"]
    same += [
        "--set",
        "training.optimizer=sgd",
        "--set",
        "training.max_grad_norm=1e9",
    ]  # a step is as long as the gradient
    command = [sys.executable, "-m", "awareness.cli.app", "train", "--config", str(config_file), *same]
    alone = [*command, "--set", "training.batch_size=4", "--set", f"output_dir={tmp_path / 'alone'}"]
    both = [*command, "--set", "training.num_gpus=2", "--set", f"output_dir={tmp_path / 'both'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for arguments in (alone, both):
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("3 steps") == 1
    one, two = losses(tmp_path / "alone"), losses(tmp_path / "both")
    assert list(one) == list(two) == [1, 2, 3]
    assert [line["lr"] for line in one.values()] == [line["lr"] for line in two.values()]
    start = prepare(read_config(config_file, [one.removeprefix("--set ") for one in same if "=" in one]), pull=find)
    begun = start.module.trainable()
    moved = []
    for name in ("alone", "both"):
        after = load_checkpoint(tmp_path / name / "checkpoint-2", pull=find)[0].trainable()
        moved.append(torch.cat([(after[n] - begun[n]).flatten() for n in begun]))
    assert torch.cosine_similarity(*moved, dim=0) > 0.98  # answers differ a little in length
    assert 0.9 < moved[0].norm() / moved[1].norm() < 1.1
    measured = [[m["eval_loss"] for m in read_log(tmp_path / name) if "eval_loss" in m] for name in ("alone", "both")]
    assert measured[0] == pytest.approx(measured[1], rel=1e-2)


# What can't be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["memory.vanilla_mode=true", "data.reads=none"], "nothing is trained"),
        (
            ["memory.use_memory_adapter=false", "memory.use_both_memory_and_lora=false", "memory.use_lora=true"],
            "data.reads: there is no memory to read as",
        ),
        (["training.mixed_precision=fp16"], "fp16 needs CUDA"),
    ],
)
def test_settings_that_are_refused_before_training(config_file, settings, message):
    if torch.cuda.is_available() and "CUDA" in message:
        pytest.skip("there is CUDA")
    with pytest.raises(UsageError, match=message):
        trained(config_file, *settings)


def test_the_command(config_file, tmp_path, capfd):
    assert run(["train", "--config", str(config_file), "--set", "training.max_steps=2", "--format", "json"]) == 0
    out, err = capfd.readouterr()
    result = yaml.safe_load(out)
    assert result["task"] == "memory" and result["steps"] == 2 and result["output"] == str(tmp_path / "trained/final")
    assert "67 chunks of 3 sources" in err
    assert (tmp_path / "trained/loss.png").read_bytes().startswith(b"\x89PNG")
    assert run(["train"]) == 2 and run(["train", "--config", str(config_file)]) == 2


def test_start_from(config_file, tmp_path):
    """A run begins with another's tensors; one of another model or other settings is refused."""
    _, first = trained(config_file, "training.max_steps=2", "training.save_precision=fp32")
    own = [f"start_from={first.output}", f"output_dir={tmp_path / 'second'}"]
    module = prepare(read_config(config_file, own), pull=find).module
    for name, tensor in load_checkpoint(first.output, pull=find)[0].trainable().items():
        assert torch.equal(module.trainable()[name], tensor), name
    with pytest.raises(UsageError, match=r"is missing|belongs to no part|is \["):
        prepare(read_config(config_file, [*own, "memory.lora_rank=3"]), pull=find)
    with pytest.raises(UsageError, match="is not a checkpoint"):
        prepare(read_config(config_file, [f"start_from={tmp_path}"]), pull=find)
