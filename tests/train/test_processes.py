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
from awareness.train.preparation import prepare
from awareness.train.processes import to_start, with_processes
from awareness.train.run import train_memory
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


def train_here(path, *settings, resume=None, say=lambda line: None):
    config = read_config(path, list(settings))
    train_memory(config, pull=find, resume=resume, say=say)
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
CLIPPED = ["training.optimizer=sgd", "training.base_model_lr=1.0", "training.max_grad_norm=0.01"]  # of all ranks' norm
VARIANTS = {
    "frozen": (1, [*TERMS, "training.fsdp_sharding_strategy=shard_grad_op"]),
    "soft": (2, [*SOFT, *BANK]),
    "whole": (1, ["model.freeze_base_model=false", "memory.use_both_memory_and_lora=false", *CLIPPED]),
}
"""name -> accumulated batches, and settings. Latents are cached in the first, and differentiable in the others."""


def variant(name, processes, folder, output=None):
    parts, settings = VARIANTS[name]
    own = ["memory.lora_dropout=0.0", "training.max_steps=3", "training.eval_samples=3", "training.eval_steps=2"]
    own.append(ONE_BY_ONE.format(parts if processes == 2 else 2 * parts))
    return [*settings, *own, f"output_dir={folder / (output or name)}"]


def test_fsdp_shards_and_computes_what_one_process_does(config_file, tmp_path, environment, monkeypatch):
    """Ranks encode different numbers of chunks, which must not make one wait for another. Three validation samples do
    not fill two batches of two; each counts once. Then 1 process -> 2 with FSDP, and 2 -> 1: each step learns the same
    samples, and the optimizer knows what it knew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = config_file.read_text("utf-8")
    name = read_config(config_file, []).model.base_model_name
    config_file.write_text(text.replace(f"model: {name}", f"model: {{base_model_name: {name}}}"), "utf-8")
    one, two = tmp_path / "one", tmp_path / "two"
    for name in VARIANTS:
        train_here(config_file, *variant(name, 1, one))
    both = [*TORCHRUN, "-m", "tests.train.test_processes", str(config_file), str(tmp_path)]
    done = subprocess.run(both, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {(m["variant"], m["rank"]) for m in measured} == {(name, rank) for name in VARIANTS for rank in (0, 1)}
    for m in measured:
        assert m["is_fsdp_enabled"] and m["held"] == pytest.approx(m["of"] / 2, rel=0.01)
        assert m["units"] == m["layers"] + 1 and m["teacher_units"] == 0
    for name in VARIANTS:
        must_agree(two / name, one / name, [1, 2, 3])
        alone, together = ([m["eval_loss"] for m in read_log(at / name) if "eval_loss" in m] for at in (one, two))
        assert together == pytest.approx(alone, rel=1e-5) and len(alone) == 2
        for part in ("final", "best", "checkpoint-2"):
            saved, expected = (load_checkpoint(at / name / part, pull=find)[0].trainable() for at in (two, one))
            assert set(saved) == set(expected)
            for tensor, own in saved.items():
                assert torch.allclose(own, expected[tensor], atol=2e-4), (name, part, tensor)
    must_agree(two / "resumed", one / "frozen", [1, 2, 3])
    said = []
    back = train_here(
        config_file, *variant("frozen", 1, one, "back"), resume=str(two / "frozen/checkpoint-2"), say=said.append
    )
    must_agree(back, one / "frozen", [1, 2, 3])
    assert any("resumed with batch x accumulation x processes 2 x 2 x 1, which were 2 x 1 x 2" in line for line in said)
    with pytest.raises(UsageError, match=r"training\.num_gpus was 2, now 1"):
        settings = [*variant("frozen", 1, one, "no"), ONE_BY_ONE.format(1)]
        train_here(config_file, *settings, resume=str(two / "frozen/checkpoint-2"))


def _worker(path: Path, root: Path) -> None:
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
        train_here(path, *FSDP, *variant(name, 2, root / "two"))
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
    AcceleratorState._reset_state()
    GradientState._reset_state()
    settings = [*FSDP, *variant("frozen", 2, root / "two", "resumed")]
    train_here(path, *settings, resume=str(root / "one/frozen/checkpoint-2"))


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


# Launchers, and how they end


def test_ctrl_c_ends_all_processes_and_the_run_goes_on_exactly(config_file, tmp_path, environment):
    """With dropout, whose numbers come from the generator of each process. `accelerate launch` gives the number of
    processes, which the configuration does not."""
    folder = tmp_path / "trained"
    fsdp = sets(FSDP[0], "training.save_steps=3", "training.save_total_limit=9", "training.eval_samples=0")
    train = ["train", "--config", str(config_file), *fsdp]
    command = [sys.executable, "-m", "awareness.cli.app", *train, *sets(FSDP[1])]
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
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "-m", "awareness.cli.app"]
    resumed = [*launch, *train, "--resume", str(folder / "checkpoint-3")]
    done = subprocess.run(resumed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("FSDP: each of 2 processes holds") == 1 and "resumed with" not in done.stderr
    after = losses(folder)
    assert list(after) == list(range(1, 9)) and len(before) >= 5
    for step, line in before.items():
        assert {**line, "seconds": 0} == {**after[step], "seconds": 0}


def test_a_number_that_the_launcher_did_not_start(config_file, environment):
    script = Path(sys.executable).with_name("awareness")
    entry = [str(script)] if script.exists() else ["-m", "awareness.cli.app"]
    wrong = [*TORCHRUN, *entry, "train", "--config", str(config_file)]
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
    monkeypatch.setattr(processes, "asked_of_accelerate", lambda: 3)
    assert to_start(config) == 3
    with pytest.raises(UsageError, match="num_gpus: 2, but accelerate launch was asked for 3 processes"):
        to_start(two)


def test_more_processes_than_gpus(config_file, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="num_gpus: 2, but this machine has 1 GPU"):
        to_start(read_config(config_file, ["training.num_gpus=2"]))


def test_one_of_several_processes_reports(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "_CONSEQUENCE", 0.0)
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)

    def fails(error):
        with processes.one_of_several():
            raise error

    with pytest.raises(UsageError, match="mine"):
        fails(UsageError("mine"))
    for error, code in ((UsageError("mine"), 2), (RuntimeError("connection closed"), 70)):
        with pytest.raises(SystemExit) as ended:
            fails(error)
        assert ended.value.code == code
    with pytest.raises(SystemExit) as ended:  # the launcher reports that it was interrupted
        fails(KeyboardInterrupt())
    assert ended.value.code == 130
    (mark,) = tmp_path.iterdir()
    mark.unlink()
    with pytest.raises(RuntimeError, match="ours"):
        fails(RuntimeError("ours"))


def test_one_of_several_ends_after_its_exit_handlers_with_the_code_of_the_program():
    """A known fault: it aborted while it unloaded its libraries. Whatever it ends with, it is not 0 by that."""
    code = (
        "import atexit, sys\n"
        "from awareness.cli import app\n"
        "from awareness.train import processes\n"
        "def run():\n"
        "    with processes.one_of_several():\n"
        "        atexit.register(print, 'the handler of a library')\n"
        "    return 13\n"
        "app.run = run\n"
        "class Unloaded:\n"
        "    def __del__(self): print('unloaded')\n"
        "kept = Unloaded()\n"
        "app.main()\n"
    )
    for world, unloads in (({"WORLD_SIZE": "1", "RANK": "0"}, False), ({}, True)):
        ran = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | world, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, "the handler of a library\n" in ran.stdout) == (13, True), ran.stderr
        assert ("unloaded" in ran.stdout) == unloads


def test_the_exit_code_is_that_of_the_process_that_reported():
    assert processes._exit_code({0: -15, 1: 2}, 2) == 2
    with pytest.raises(StorageFailed, match="process 1 of 2 was killed"):
        processes._exit_code({0: 70, 1: -9}, 2)
    with pytest.raises(AwarenessError, match="process 1 of 2 was ended by SIGABRT"):
        processes._exit_code({0: -15, 1: -6}, 2)
    with pytest.raises(AwarenessError, match="process 0 of 2 was ended by SIGSEGV"):
        processes._exit_code({0: -11}, 2)


def test_find_lr_of_a_configuration_for_several_processes_takes_one(config_file, capfd):
    from awareness.cli.app import run

    settings = sets(*FSDP, "training.eval_samples=0", "training.warmup_steps=0")
    assert run(["train", "find-lr", "--config", str(config_file), "--steps", "5", *settings]) == 0
    assert prepare(read_config(config_file, [*FSDP]), pull=find).trainer.is_fsdp_enabled is False


if __name__ == "__main__":  # as awareness/cli does
    with processes.one_of_several():
        _worker(Path(sys.argv[1]), Path(sys.argv[2]))
    processes.leave_with(0)
