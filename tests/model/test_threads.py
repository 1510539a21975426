"""As many threads as idle cores, unless the user sets them."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch

from awareness.model import threads
from awareness.model.threads import busy_elsewhere, idle_cores


@pytest.mark.parametrize(
    ("cores", "busy", "expected"), [(2, 0, 2), (2, 1, 1), (2, 2, 1), (2, 9.5, 1), (8, 3, 5), (1, 0, 1), (4, 0.4, 4)]
)
def test_only_idle_cores_are_used(cores, busy, expected):
    assert idle_cores(cores, busy) == expected


def _spin(seconds):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        pass


@pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="needs Linux")
def test_busy_programs_are_seen():
    spinning = [multiprocessing.get_context("spawn").Process(target=_spin, args=(20,)) for _ in range(3)]
    for process in spinning:
        process.start()
    try:
        deadline = time.monotonic() + 15
        while busy_elsewhere() < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert busy_elsewhere() >= 1
    finally:
        for process in spinning:
            process.terminate()
            process.join()


def test_environment_variables_decide(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "idle_cores", lambda cores, busy: 7)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert threads.use_idle_cores() == before
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCH_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        assert threads.use_idle_cores() == 7
    finally:
        torch.set_num_threads(before)
