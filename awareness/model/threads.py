"""How many threads to compute with: as many as there are cores that nobody else uses now.

Threads that share a core with another program wait for each other at the end of every product: on two cores with two
busy programs, one thread is several times faster than two.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

SAMPLES, PAUSE_S = 3, 0.005
_SET_BY_USERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCH_NUM_THREADS")


def use_idle_cores() -> int:
    """Sets torch's threads for this process, unless the user's environment says how many. Returns their number."""
    import torch

    if not any(os.environ.get(name) for name in _SET_BY_USERS):
        torch.set_num_threads(idle_cores(usable_cores(), busy_elsewhere()))
    return torch.get_num_threads()


def idle_cores(cores: int, busy: float) -> int:
    """At least one."""
    return max(1, min(cores, round(cores - busy)))


def usable_cores() -> int:
    """Physical cores of those that this process may use: two threads of one core share its arithmetic."""
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, torch.get_num_threads())


def busy_elsewhere() -> float:
    """Threads of other programs that are running or ready to run. On Linux now, the least of some looks; elsewhere the
    mean of the last minute, which counts what this program's user did just before, and so only if it is high."""
    looks = []
    for _ in range(SAMPLES):
        try:
            running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
        except (OSError, IndexError):
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
            return load if load >= (os.cpu_count() or 1) else 0.0
        looks.append(int(running) - 1)  # this one
        time.sleep(PAUSE_S)
    return max(0, min(looks))
