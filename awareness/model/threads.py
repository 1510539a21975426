"""Compute with as many threads as there are idle cores.

Threads that share a core with another program delay all others at the end of every product: on two cores with two busy
programs, one thread is several times as fast as two.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

SAMPLES, PAUSE_S = 3, 0.005
_SET_BY_USERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCH_NUM_THREADS")


def use_idle_cores() -> int:
    """Set torch's threads for this process, unless an environment variable sets them. Returns their number."""
    import torch

    if not any(os.environ.get(name) for name in _SET_BY_USERS):
        torch.set_num_threads(idle_cores(usable_cores(), busy_elsewhere()))
    return torch.get_num_threads()


def idle_cores(cores: int, busy: float) -> int:
    """The cores that are left; at least one."""
    return max(1, min(cores, round(cores - busy)))


def usable_cores() -> int:
    """Physical cores that this process may use: two threads of one core share its arithmetic units."""
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, torch.get_num_threads())


def busy_elsewhere() -> float:
    """Threads of other programs that run or are ready to run. On Linux the minimum of some samples; elsewhere the mean
    of the last minute, which includes this user's last commands, and so only if it is high."""
    samples = []
    for _ in range(SAMPLES):
        try:
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
        except (OSError, IndexError):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            return load if load >= (os.cpu_count() or 1) else 0.0
        samples.append(int(running) - 1)  # without this thread
        time.sleep(PAUSE_S)
    return max(0, min(samples))
