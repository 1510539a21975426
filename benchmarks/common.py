"""Parts that the benchmarks share: synthetic source code, medians, a table."""

from __future__ import annotations

import contextlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_WORDS = (
    "session cache retry upload auth queue shard lease page burst token proxy index worker socket batch frame".split()
)


def once(work: Callable[[], object]) -> float:
    """Wall time of `work` in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Median wall time of `work`, after one run that is not counted."""
    work()
    return statistics.median(once(work) for _ in range(repeat))


def source_file(rng: random.Random, functions: int) -> str:
    """Synthetic Python code: functions of some lines, with docstrings, calls and branches."""
    out = ["import os", ""]
    for _ in range(functions):
        a, b, c = rng.sample(_WORDS, 3)
        out += ["", f"def {a}_{b}_{rng.randrange(10**6)}({a}, {b}=None, *, {c}={rng.randrange(1000)}):"]
        out += [f'    """{a.title()} the {b} of a {c}, and the next {rng.choice(_WORDS)}."""']
        for _ in range(rng.randint(3, 18)):
            x, y = rng.sample(_WORDS, 2)
            out.append(f"    if {x}_{rng.randrange(100)} > {y}.{rng.choice(_WORDS)}({rng.randrange(10**4)}):")
            out.append(f"        {x} = {y}[{rng.randrange(50)}] + os.environ.get('{x.upper()}', {a})")
        out.append(f"    return {a}")
    return "\n".join(out) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def processor() -> str:
    """The processor's name and the number formats it multiplies in hardware."""
    model, flags = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
        flags = next((line for line in lines if line.startswith("flags")), "")
    known = [name for name in ("avx2", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if name in flags.split()]
    return f"{model} ({', '.join(known)})" if known else model
