"""Measure the cost of reading memory, by form and size of memory, and compare it with the cost by arithmetic.

    python benchmarks/gca.py [--sizes 1024,4096,16384] [--threads 1]

In one process, for each form and size, single decoding steps after a short prompt alternate with steps of the bare
model on a cache of the same length; prefills alternate too. The result is the median of the differences. The floor of a
form is the time that its additional work needs at the speed of this machine, measured between the steps. It is the
larger of bytes over bandwidth (the fastest of a copy, a sum and a matrix-vector product over more than a cache holds)
and FLOPs over the FLOP/s of a square matrix product in the model's dtype. The work is attention (K and V of each layer
read once per forward pass; 4·H·D FLOPs per layer, query and visible token) and the form's own weights (read once per
forward pass; 2 FLOPs per weight and query). Peak memory is measured in a fresh process: how much more is resident than
when the bare model does the same.

Memory is random latents in the layers that read by default, and the adapters are untrained. Neither changes the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from common import table
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from awareness.config.memory import MemoryConfig
from awareness.model import hf, model_files, presets
from awareness.model.adapter import MemoryAdapter, build_adapter
from awareness.model.assemble import joined
from awareness.model.fusion import attached
from awareness.model.load import load
from awareness.types import Memory, default_layers

T = TypeVar("T")

CHAPTERS: dict[str, Any] = {"memory_form": "tanh", "use_chapters": True, "num_chapters": 100, "top_k_chapters": 20}
FORMS: dict[str, dict[str, Any] | None] = {
    "joint": None,
    "tanh A": {"memory_form": "tanh", "memory_block_variant": "A"},
    "tanh B": {"memory_form": "tanh", "memory_block_variant": "B"},
    "bank": {"memory_form": "tanh"},
    "bank, chapters by sequence": {**CHAPTERS, "routing_strategy_inference": "sequence"},
    "bank, chapters by token": {**CHAPTERS, "routing_strategy_inference": "token"},
}
"""Settings of the adapter; joint is untrained, as `ask` reads, without one. A bank is read in the form tanh A."""


@dataclass(frozen=True)
class Read:
    """A form with `tokens` of memory (latents or a bank), and what one forward pass over it moves and computes."""

    tokens: int
    memory: Memory | None
    adapter: MemoryAdapter | None
    layers: int
    kv_size: int
    """Bytes of K and V of a token in a layer."""
    flops: int
    """Of attention for a query, a token of memory and a layer."""
    itemsize: int

    @property
    def weights(self) -> int:
        """Number of weights that each forward pass reads in addition to K and V: blocks and routers."""
        if self.adapter is None:
            return 0
        bank = self.adapter.bank
        modules = [self.adapter.blocks, *([] if bank is None else [bank.routers])]
        return sum(p.numel() for module in modules for p in module.parameters())

    @property
    def nbytes(self) -> int:
        """Bytes of K and V and of the adapter."""
        adapter = 0 if self.adapter is None else sum(p.numel() * p.element_size() for p in self.adapter.parameters())
        return self.layers * self.tokens * self.kv_size + adapter

    def floor(self, queries: int, bandwidth: float, throughput: float) -> float:
        """Seconds that a forward pass over `queries` tokens adds, at these bytes and FLOPs per second."""
        seen, fetched = float(self.tokens), float(self.tokens)
        if self.adapter is not None and self.adapter.config.use_chapters:
            config = self.adapter.config
            seen *= config.top_k_chapters / config.num_chapters
            by_token = config.routing_strategy_inference == "token"
            fetched = min(fetched, seen * queries) if by_token else seen
        attention = (self.layers * fetched * self.kv_size, self.layers * seen * self.flops * queries)
        own = (self.weights * self.itemsize, 2 * self.weights * queries)
        return sum(max(moved / bandwidth, computed / throughput) for moved, computed in (attention, own))


def build(model: PreTrainedModel, form: str, tokens: int) -> Read:
    settings, config = FORMS[form], model.config
    layers = default_layers(config.num_hidden_layers)
    heads, head_dim = config.num_key_value_heads, hf.head_dim(config)
    memory = adapter = None
    if settings is not None:
        size = tokens if form.startswith("bank") else 0
        adapter = build_adapter(model, MemoryConfig(**settings, num_memory_tokens=size)).to(model.dtype).eval()
        assert adapter.layers == layers
    if not form.startswith("bank"):
        latents = torch.randn(2, len(layers), heads, tokens, head_dim, dtype=model.dtype, device=model.device)
        memory = joined(model, layers, [latents], ["chunk"])
    itemsize = model.dtype.itemsize
    flops = 4 * config.num_attention_heads * head_dim
    return Read(tokens, memory, adapter, len(layers), 2 * heads * head_dim * itemsize, flops, itemsize)


class Probe:
    """Measures the current speed of the machine."""

    def __init__(self, model: PreTrainedModel, mebibytes: int, width: int) -> None:
        self.buffer = torch.ones(mebibytes << 20 >> 2, device=model.device)
        self.numbers = self.buffer.view(model.dtype)
        self.other = torch.empty_like(self.numbers)
        self.square = torch.randn(width, width, device=model.device).to(model.dtype)

    def bandwidth(self) -> float:
        """Bytes/s of the fastest way to move them."""
        rows = self.buffer.view(-1, 4096)
        ways: tuple[tuple[int, Callable[[], object]], ...] = (
            (2, lambda: self.other.copy_(self.numbers)),
            (1, lambda: self.numbers.sum()),
            (1, lambda: rows @ rows[0]),
        )
        return max(times * self.buffer.nbytes / timed(way) for times, way in ways)

    def throughput(self) -> float:
        """FLOPs/s."""
        return 2 * self.square.shape[0] ** 3 / min(timed(lambda: self.square @ self.square) for _ in range(3))


def timed(work: Callable[[], object]) -> float:
    """Seconds until the device is done. On one CPU thread: the time it ran, without its waits for a core."""
    on_cuda = torch.cuda.is_available()
    clock = time.thread_time if torch.get_num_threads() == 1 and not on_cuda else time.perf_counter
    started = clock()
    work()
    if on_cuda:
        torch.cuda.synchronize()
    return clock() - started


def bare(work: Callable[[], T]) -> T:
    """Run `work` with nothing attached, in a new context: what is attached is bound to the context."""
    return Context().run(work)


def prefill(model: PreTrainedModel, ids: Tensor) -> Cache:
    return hf.continued(model, ids, DynamicCache(config=model.config))[1]


def step(model: PreTrainedModel, ids: Tensor, cache: Cache) -> None:
    """Decode one token."""
    hf.continued(model, ids[:, -1:], cache)


def measure(
    model: PreTrainedModel, read: Read, probe: Probe, ids: Tensor, options: argparse.Namespace
) -> tuple[list[float], list[float], float, float]:
    """For decoding and prefill: ms per token of the bare model, overhead, overhead over bare, floor, overhead over
    floor; and the probes."""
    context, length = ids[:, : options.context], ids.shape[1]
    pairs: dict[str, list[tuple[float, float]]] = {"decode": [], "prefill": []}
    speeds: list[tuple[float, float]] = []
    with attached(model, read.memory, adapter=read.adapter):
        own, others = prefill(model, context), bare(lambda: prefill(model, context))
        for _ in range(options.rounds):
            for _ in range(options.steps):
                one = timed(lambda: bare(lambda: step(model, ids, others)))
                pairs["decode"].append((one, timed(lambda: step(model, ids, own))))
                for cache in (own, others):
                    cache.crop(-1)
            speeds.append((probe.bandwidth(), probe.throughput()))
            one = timed(lambda: bare(lambda: prefill(model, ids)))
            pairs["prefill"].append((one, timed(lambda: prefill(model, ids))))
    bandwidth, throughput = (statistics.median(side) for side in zip(*speeds, strict=True))
    rows = []
    for name, queries in (("decode", 1), ("prefill", length)):
        base = statistics.median(one for one, _ in pairs[name]) / queries
        overhead = statistics.median(with_ - one for one, with_ in pairs[name]) / queries
        floor = read.floor(queries, bandwidth, throughput) / queries
        rows.append([1e3 * base, 1e3 * overhead, overhead / base, 1e3 * floor, overhead / floor])
    return rows[0], rows[1], bandwidth, throughput


def peak(model: PreTrainedModel, ids: Tensor, form: str, tokens: int) -> tuple[int, int]:
    """Bytes by which the memory raises the peak of a prefill and a step, and bytes that it needs by arithmetic."""

    def highest(memory: Memory | None = None, adapter: MemoryAdapter | None = None) -> int:
        on_cuda = model.device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        with attached(model, memory, adapter=adapter):
            step(model, ids, prefill(model, ids))
        if on_cuda:
            return torch.cuda.max_memory_allocated()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) << 10

    highest()
    without = highest()
    read = build(model, form, tokens)
    return highest(read.memory, read.adapter) - without, read.nbytes


def in_fresh_process(form: str) -> tuple[int, int]:
    """`peak` in a new process, with an allocator that returns freed blocks, so resident memory is used memory."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", form]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    grown, needed = json.loads(done.stdout)
    return grown, needed


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1024,4096,16384")
    parser.add_argument("--forms", default=";".join(FORMS), help="forms, separated by semicolons")
    parser.add_argument("--model", default=presets.DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="decoding steps per round")
    parser.add_argument("--context", type=int, default=64, help="tokens in the cache where decoding is measured")
    parser.add_argument("--prompt", type=int, default=256, help="tokens in a prefill")
    parser.add_argument("--peak-tokens", type=int, default=4096, help="tokens of memory where peak memory is measured")
    parser.add_argument("--peak-of", choices=FORMS, help="print the peak memory of this form only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = load(model_files.pull(options.model)).model
    ids = torch.randint(0, model.config.vocab_size, (1, options.prompt), device=model.device)
    if options.peak_of:
        print(json.dumps(peak(model, ids, options.peak_of, options.peak_tokens)))
        return
    probe = Probe(model, 512 if model.device.type == "cpu" else 4096, 1024 if model.device.type == "cpu" else 8192)
    decodes, prefills, peaks, speeds = [], [], [], []
    for form in options.forms.split(";"):
        for tokens in map(int, options.sizes.split(",")):
            decode, fill, *speed = measure(model, build(model, form, tokens), probe, ids, options)
            decodes.append((form, tokens, *decode))
            prefills.append((form, tokens, *fill))
            speeds.append(speed)
            print(*decodes[-1], *fill, file=sys.stderr, flush=True)
        grown, needed = in_fresh_process(form)
        peaks.append((form, options.peak_tokens, needed / 2**20, grown / 2**20))
    columns = ("form", "memory tokens", "bare, ms", "overhead, ms", "overhead/bare", "floor, ms", "overhead/floor")
    for title, rows in (("Decoding", decodes), (f"Prefill of {options.prompt} tokens", prefills)):
        print(f"\n{title}, a token:\n")
        table(columns, rows)
    print("\nMemory:\n")
    table(("form", "memory tokens", "has to be there, MiB", "peak grows by, MiB"), peaks)
    bandwidth, throughput = ([side[i] / 1e9 for side in speeds] for i in (0, 1))
    print(f"\nthreads: {options.threads}, {model.device.type}, {model.dtype}", end="; ")
    print(f"{statistics.median(bandwidth):.1f} GB/s ({min(bandwidth):.1f} to {max(bandwidth):.1f})", end=" and ")
    print(f"{statistics.median(throughput):.0f} GFLOP/s ({min(throughput):.0f} to {max(throughput):.0f}), by row")


if __name__ == "__main__":
    main()
