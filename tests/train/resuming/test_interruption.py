"""Signals at the end of a step. tests/train/test_trainer.py has those of whole runs in one process."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl

from awareness.train.log import read_log
from awareness.train.resuming import interruption
from awareness.train.resuming.interruption import Interruption
from awareness.train.resuming.saved_steps import saved_step


def at_step_end(stopping):
    control = TrainerControl()
    stopping.on_step_end(SimpleNamespace(device=torch.device("cpu")), None, control)
    return control.should_save, control.should_training_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_stops_at_the_end_of_the_step(number):
    said, usual = [], [signal.getsignal(each) for each in interruption.SIGNALS]
    stopping = Interruption(said.append)
    with stopping.waiting():
        assert at_step_end(stopping) == (False, False)
        signal.raise_signal(number)
        signal.raise_signal(number)  # at the same time: of the terminal and of a launcher
        assert stopping.number == 0 and at_step_end(stopping) == (True, True)
    assert stopping.number == number and len(said) == 1 and "again: it stops at once" in said[0]
    assert [signal.getsignal(each) for each in interruption.SIGNALS] == usual


def test_a_second_signal_ends_it_at_once(monkeypatch):
    monkeypatch.setattr(interruption, "_TWICE_S", -1.0)
    stopping = Interruption(lambda _: None)
    with pytest.raises(KeyboardInterrupt), stopping.waiting():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


def test_without_a_signal_nothing_is_said():
    said = []
    with Interruption(said.append).waiting():
        pass
    assert said == [] and threading.active_count() == 1 + sum(t.daemon for t in threading.enumerate())


def test_the_end_is_that_of_the_signal():
    stopping = Interruption(lambda _: None)
    stopping.number = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        stopping.end()


def test_a_signal_that_is_ignored_stays_ignored_and_another_thread_waits_for_none():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and scripts have it in the background
    try:
        with Interruption(lambda _: None).waiting():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def wait():
        with Interruption(lambda _: None).waiting():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert seen == [before]


def _stops(rank, store, steps):
    """A process that stops: puts (rank, step) of its end. The second process gets a signal in its second step."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    stopping = Interruption(lambda _: None)
    with stopping.waiting():
        for step in range(1, 4):
            if (rank, step) == (1, 2):
                signal.raise_signal(signal.SIGTERM)
            if at_step_end(stopping) == (True, True):
                steps.put((rank, step))
                break
    stopping.end()


def test_processes_stop_after_the_same_step_whichever_got_the_signal(tmp_path):
    fork = multiprocessing.get_context("fork")  # which imports nothing again
    steps = fork.SimpleQueue()
    both = [fork.Process(target=_stops, args=(rank, tmp_path / "store", steps)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert sorted(steps.get() for _ in both) == [(0, 2), (1, 2)]
    assert [process.exitcode for process in both] == [143, 143]


def test_a_launcher_that_is_interrupted_leaves_a_checkpoint_of_all_processes(config_file, tmp_path):
    options = ["--set", "training.max_steps=40", "--set", "training.eval_samples=0", "--set", "training.save_steps=50"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "awareness.cli.app", "train", "--config", str(config_file), *options]
    command += ["--set", "training.num_gpus=2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder, deadline = tmp_path / "trained", time.monotonic() + 120
    while len(read_log(folder)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    step = len(read_log(folder))
    assert 2 <= step < 40 and f"step {step} of 40 is saved; the same command goes on from there" in said
    saved = folder / f"checkpoint-{step}"
    assert not saved_step(saved).damage and "error: interrupted" not in said
    assert {path.name for path in saved.glob("rng_*")} == {"rng_state_0.pth", "rng_state_1.pth"}
