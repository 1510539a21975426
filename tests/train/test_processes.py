"""Several processes: FSDP really shards, checkpoints fit any number of processes, launchers work as people type them.

Run as a module by a launcher, this file is what each of two processes does in `test_fsdp_shards…`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from awareness.config.read import read_config
from awareness.config.training import TrainingConfig
from awareness.errors import AwarenessError, StorageFailed, UsageError
from awareness.model.checkpoint import load_checkpoint
from awareness.model.model_files import find
from awareness.train import processes
from awareness.train.log import read_log
from awareness.train.processes import changed_split, is_same_batch, to_start, with_processes
from awareness.train.run import prepare, train_memory
from awareness.train.sharding import is_to_be_sharded, parameters_held
from awareness.train.trainer import arguments

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FSDP = ["training.distributed_strategy=fsdp", "training.num_gpus=2"]
ONE_BY_ONE = "training.gradient_accumulation_steps={}"
"""One process that accumulates as many batches computes the same numbers as several processes."""
LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION")


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def environment(tmp_path):
    """Of a process that runs this checkout."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return {**{name: value for name, value in os.environ.items() if name not in LAUNCHED}, **own}


def sets(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def losses(folder):
    return {line["step"]: line for line in read_log(folder) if "loss" in line}


def train_here(path, *settings, resume=None):
    config = read_config(path, list(settings))
    train_memory(config, pull=find, resume=resume)
    return config.output_dir


def must_agree(folder, reference, steps):
    own, other = losses(folder), losses(reference)
    assert list(own) == steps
    for step in steps:
        for name in ("loss", "answer", "tokens", "lr"):
            assert own[step][name] == pytest.approx(other[step][name], rel=1e-5), (step, name)


# Sharding


SOFT = ["memory.num_header_tokens=2", "memory.num_trailer_tokens=1", "training.gradient_checkpointing=true"]
BANK = ["memory.memory_form=tanh", "memory.num_memory_tokens=8", "memory.use_chapters=true", "memory.num_chapters=2"]
BANK += ["memory.top_k_chapters=1", "memory.use_load_balance_loss=true", "memory.memory_gradient_checkpointing=true"]
TERMS = ["losses.kl_coefficient=1.0", "losses.citation_coefficient=0.5", "losses.sparsity_coefficient=0.1"]
VARIANTS = {
    "frozen": (1, [*TERMS, "training.fsdp_sharding_strategy=shard_grad_op", "training.mixed_precision=no"]),
    "soft": (2, [*SOFT, *BANK]),
    "whole": (1, ["model.freeze_base_model=false", "memory.use_both_memory_and_lora=false"]),
}
"""name -> accumulated batches, and settings. Latents are cached in the first, and differentiable in the others."""


def variant(name, processes, folder):
    parts, settings = VARIANTS[name]
    own = ["memory.lora_dropout=0.0", "training.max_steps=2", "training.eval_samples=3", f"output_dir={folder / name}"]
    return [*settings, *own, ONE_BY_ONE.format(parts if processes == 2 else 2 * parts)]


def test_fsdp_shards_and_computes_what_one_process_does(config_file, tmp_path, environment, monkeypatch):
    """Ranks encode different numbers of chunks, which must not make one wait for another. Three validation samples do
    not fill two batches of two; each counts once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = config_file.read_text("utf-8")
    name = read_config(config_file, []).model.base_model_name
    config_file.write_text(text.replace(f"model: {name}", f"model: {{base_model_name: {name}}}"), "utf-8")
    both = [*TORCHRUN, "-m", "tests.train.test_processes", str(config_file), str(tmp_path / "two")]
    done = subprocess.run(both, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {(m["variant"], m["rank"]) for m in measured} == {(name, rank) for name in VARIANTS for rank in (0, 1)}
    for m in measured:
        assert m["is_fsdp_enabled"] and m["held"] == pytest.approx(m["of"] / 2, rel=0.01)
        assert m["units"] == m["layers"] + 1 and m["teacher_units"] == 0
    for name in VARIANTS:
        alone = train_here(config_file, *variant(name, 1, tmp_path / "one"))
        together = tmp_path / "two" / name
        must_agree(together, alone, [1, 2])
        one, two = ([m["eval_loss"] for m in read_log(folder) if "eval_loss" in m] for folder in (alone, together))
        assert two == pytest.approx(one, rel=1e-5)
        for part in ("final", "best", "checkpoint-2"):
            saved, expected = (load_checkpoint(folder / part, pull=find)[0].trainable() for folder in (together, alone))
            assert set(saved) == set(expected)
            for tensor, own in saved.items():
                assert torch.allclose(own, expected[tensor], atol=2e-4), (name, part, tensor)


def _worker(path: Path, folder: Path) -> None:
    """Train each variant in this process, one of two, and print what it holds."""
    from accelerate.state import AcceleratorState, GradientState

    from awareness.model import hf
    from awareness.train import run
    from awareness.train.trainer import MemoryTrainer

    trainers: list[MemoryTrainer] = []
    whole = run.prepare

    def kept(*args, **kwargs):
        prepared = whole(*args, **kwargs)
        trainers.append(prepared.trainer)
        return prepared

    run.prepare = kept
    for name in VARIANTS:
        AcceleratorState._reset_state()
        GradientState._reset_state()
        train_here(path, *FSDP, *variant(name, 2, folder))
        trainer = trainers[-1]
        held, of = parameters_held(trainer.model)
        teacher = trainer.model._teacher
        figures = {
            "variant": name,
            "rank": processes.process_index(),
            "is_fsdp_enabled": trainer.is_fsdp_enabled,
            "held": held,
            "of": of,
            "units": _units(trainer.model),
            "layers": len(hf.decoder_layers(trainer.model.module.decoder)),
            "teacher_units": 0 if teacher is None else _units(teacher.decoder.model),
        }
        sys.stdout.write(json.dumps(figures) + "\n")


def _units(module) -> int:
    from torch.distributed.fsdp import FSDPModule

    return sum(isinstance(part, FSDPModule) for part in module.modules())


@pytest.mark.parametrize("strategy", ["full_shard", "shard_grad_op", "no_shard"])
def test_fsdp_sharding_strategy(tmp_path, monkeypatch, strategy):
    settings = {"num_gpus": 2, "distributed_strategy": "fsdp", "fsdp_sharding_strategy": strategy}
    config = TrainingConfig(**settings)
    assert not is_to_be_sharded(config)  # one process has nothing to share
    assert not arguments(config, tmp_path, validates=False).fsdp
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert is_to_be_sharded(config) is (strategy != "no_shard")  # which is DDP
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr("awareness.train.trainer.is_to_be_sharded", lambda config: strategy != "no_shard")
    made = arguments(config, tmp_path, validates=False, units=["Qwen3DecoderLayer"])
    assert bool(made.fsdp) is (strategy != "no_shard")
    if made.fsdp:
        assert made.fsdp_plugin_args["fsdp_version"] == 2
        assert made.fsdp_plugin_args["reshard_after_forward"] is (strategy == "full_shard")
        assert made.fsdp_plugin_args["transformer_cls_names_to_wrap"] == "Qwen3DecoderLayer"
        with pytest.raises(UsageError, match="adafactor cannot be sharded by FSDP"):
            arguments(TrainingConfig(**settings, optimizer="adafactor"), tmp_path, validates=False)


# Another number of processes


def test_a_run_resumes_with_another_number_of_processes(config_file, tmp_path, environment):
    """1 -> 2 with FSDP -> 1: the same samples in each step, and what the optimizer knows."""
    same = ["memory.lora_dropout=0.0", "training.max_steps=6", "training.save_total_limit=9", "training.eval_samples=0"]
    alone = train_here(config_file, *same, ONE_BY_ONE.format(2), f"output_dir={tmp_path / 'alone'}")
    two = tmp_path / "two"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "-m", "awareness.cli.app"]
    resume = ["train", "--config", str(config_file), "--resume", str(alone / "checkpoint-2")]
    command = [*launch, *resume, *sets(*same, FSDP[0], f"output_dir={two}")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumed with batch x accumulation x processes 2 x 1 x 2, which were 2 x 2 x 1" in done.stderr
    assert done.stderr.count("FSDP: each of 2 processes holds") == 1
    must_agree(two, alone, [3, 4, 5, 6])
    again = f"output_dir={tmp_path / 'again'}"
    back = train_here(config_file, *same, ONE_BY_ONE.format(2), again, resume=str(two / "checkpoint-4"))
    must_agree(back, alone, [5, 6])
    with pytest.raises(UsageError, match="batch"):
        train_here(config_file, *same, f"output_dir={tmp_path / 'no'}", resume=str(two / "checkpoint-4"))


def test_what_counts_as_the_same_batch(tmp_path):
    assert is_same_batch([4, 1, 1], [2, 1, 2]) and is_same_batch([4, 1, 1], [1, 4, 1])
    assert not is_same_batch([4, 1, 1], [4, 1, 2]) and not is_same_batch(None, [4, 1, 2])
    (tmp_path / "complete.json").write_text(json.dumps({"about": {"batch": [4, 1, 1]}}))
    assert changed_split(tmp_path, [4, 1, 1]) is None
    assert "2 x 1 x 2, which were 4 x 1 x 1" in (changed_split(tmp_path, [2, 1, 2]) or "")


# Launchers, and how they end


def test_ctrl_c_ends_all_processes_and_the_run_goes_on_exactly(config_file, tmp_path, environment):
    """With dropout, whose numbers come from the generator of each process."""
    folder = tmp_path / "trained"
    fsdp = sets(*FSDP, "training.save_steps=3", "training.save_total_limit=9", "training.eval_samples=0")
    train = ["train", "--config", str(config_file), *fsdp]
    command = [sys.executable, "-m", "awareness.cli.app", *train]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    deadline = time.monotonic() + 120
    while len(losses(folder)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.count("interrupted") == 1 and "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    before = losses(folder)
    script = Path(sys.executable).with_name("awareness")
    entry = [str(script)] if script.exists() else ["-m", "awareness.cli.app"]
    resumed = [*TORCHRUN, *entry, *train, "--resume", str(folder / "checkpoint-3")]
    done = subprocess.run(resumed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = losses(folder)
    assert list(after) == list(range(1, 9)) and len(before) >= 5 and "resumed with" not in done.stderr
    for step, line in before.items():
        assert {**line, "seconds": 0} == {**after[step], "seconds": 0}

    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2  # the ranks find it, and one of them says it
    assert done.stderr.count("already holds a run") == 1 and "Traceback" not in done.stderr


def test_a_number_that_the_launcher_did_not_start(config_file, environment):
    wrong = [*TORCHRUN, "-m", "awareness.cli.app", "train", "--config", str(config_file)]
    done = subprocess.run([*wrong, *sets("training.num_gpus=3")], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("training.num_gpus: 3, but the launcher started 2 processes") == 1


def test_the_number_of_the_launcher_counts_unless_it_is_set(config_file, monkeypatch):
    config = read_config(config_file, [])
    assert with_processes(config) is config and to_start(config) == 0
    three = read_config(config_file, ["training.num_gpus=3"])
    if not torch.cuda.is_available():
        assert to_start(three) == 3
    with pytest.raises(UsageError, match="num_gpus: 3, but this is one process"):
        with_processes(three)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert with_processes(config).training.num_gpus == 2 and to_start(three) == 0
    assert processes.process_index() == 1
    with pytest.raises(UsageError, match="num_gpus: 3, but the launcher started 2 processes") as raised:
        with_processes(three)
    assert "--set training.num_gpus=2" in (raised.value.hint or "")


def test_accelerate_starts_one_process_without_gpus(config_file, monkeypatch):
    config, two = read_config(config_file, []), read_config(config_file, ["training.num_gpus=2"])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert to_start(config) == 0
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="started one process only"):
        to_start(config)  # the parent is pytest, whose command line names no number
    assert to_start(two) == 2
    monkeypatch.setattr(processes, "_asked_of_accelerate", lambda: 3)
    assert to_start(config) == 3
    with pytest.raises(UsageError, match="num_gpus: 2, but accelerate launch was asked for 3 processes"):
        to_start(two)


def test_more_processes_than_gpus(config_file, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="num_gpus: 2, but this machine has 1 GPU"):
        to_start(read_config(config_file, ["training.num_gpus=2"]))


def test_the_exit_code_is_that_of_the_process_that_reported():
    assert processes._exit_code({0: -15, 1: 2}, 2) == 2
    with pytest.raises(StorageFailed, match="process 1 of 2 was killed"):
        processes._exit_code({0: 70, 1: -9}, 2)
    with pytest.raises(AwarenessError, match="process 0 of 2 was ended by SIGSEGV"):
        processes._exit_code({0: -11}, 2)


def test_find_lr_of_a_configuration_for_several_processes_takes_one(config_file, capfd):
    from awareness.cli.app import run

    settings = sets(*FSDP, "training.eval_samples=0", "training.warmup_steps=0")
    assert run(["train", "find-lr", "--config", str(config_file), "--steps", "5", *settings]) == 0
    assert prepare(read_config(config_file, [*FSDP]), pull=find).trainer.is_fsdp_enabled is False


if __name__ == "__main__":
    _worker(Path(sys.argv[1]), Path(sys.argv[2]))
