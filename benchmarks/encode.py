"""Compare the speed of indexing with that of the bare model.

    python benchmarks/encode.py [--tokens 12000] [--model smollm2-135m] [--threads N]

Builds a synthetic repository. One process measures the bare forward pass of the decoder (no cache, no output head, rows
of 256 tokens) at several batch sizes, and `encode_pending` over the repository with an empty store: hooks, copies,
checksums, shards on disk, SQL. In each round both take turns at the best batch size, a few seconds each, so that noise
on the machine affects both. Whenever indexing has encoded some tokens, the bare model runs the same number, and its
time is subtracted. Wall time is what a user waits; processor time (of all threads) is not affected by other processes.
The result is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import source_file, table

from awareness.engine.workspace import DEFAULT_QUANT
from awareness.index import build
from awareness.index.files.repository import Repository
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model import model_files, presets, token_offsets
from awareness.model.encoder import SelfEncoder
from awareness.model.load import load

TURN = 1500
"""Tokens that indexing does before the bare model does as many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument("--model", default=presets.DEFAULT_MODEL)
    parser.add_argument("--quant", default=DEFAULT_QUANT, help="how latents are stored")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="threads of torch, by default its own choice")
    parser.add_argument("--only-index", action="store_true", help="run the index once, to measure its peak memory")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = model_files.pull(options.model)
    decoder = load(folder)
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=folder.fingerprint, quant=options.quant)
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(Path(scratch) / "repo", options.tokens, token_offsets.token_starts(folder.path))
        if options.only_index:
            own, tokens = index_cost(Path(scratch) / "index", repository, folder, encoder)
            print(f"{tokens} tokens at {1 / own.wall:.0f} tokens/s, peak memory {peak():.2f} GiB")
            return
        some = min(4096, max(2048, options.tokens // 6))
        bare_cost(decoder.model, 8, some)  # warm up
        tried = [{size: bare_cost(decoder.model, size, some) for size in (1, 2, 4, 8)} for _ in range(2)]
        bare = {size: statistics.median(cost[size].wall for cost in tried) for size in tried[0]}
        table(("rows of 256 in a batch", "bare forward, tokens/s"), [(k, round(1 / v)) for k, v in bare.items()])
        best = min(bare, key=bare.__getitem__)
        rounds = []
        for i in range(options.rounds):
            beside: list[Cost] = []
            own, tokens = index_cost(
                Path(scratch) / f"index{i}",
                repository,
                folder,
                encoder,
                lambda some: beside.append(bare_cost(decoder.model, best, some)),  # noqa: B023 - done in this round
            )
            rounds.append((own, Cost.mean(beside)))
        print()
        table(
            ("indexing, tokens/s", "bare", "ratio", "indexing, CPU ms a token", "bare", "ratio"),
            [
                (round(1 / a.wall), round(1 / b.wall), b.wall / a.wall, a.cpu * 1e3, b.cpu * 1e3, b.cpu / a.cpu)
                for a, b in rounds
            ],
        )
        wall, cpu = (
            statistics.median(getattr(b, kind) / getattr(a, kind) for a, b in rounds) for kind in ("wall", "cpu")
        )
        print(
            f"\nmedian ratio {wall:.2f} by the clock, {cpu:.2f} by processor time, over {tokens} tokens with"
            f" {torch.get_num_threads()} threads, {decoder.model.dtype}; peak memory {peak():.2f} GiB; {folder.name}"
        )


@dataclass(frozen=True)
class Cost:
    """Seconds per token: wall time, and processor time of all threads."""

    wall: float
    cpu: float

    @classmethod
    def mean(cls, costs: Sequence[Cost]) -> Cost:
        return cls(statistics.mean(cost.wall for cost in costs), statistics.mean(cost.cpu for cost in costs))


def make_repository(root: Path, tokens: int, token_starts: build.TokenStarts) -> Repository:
    rng = random.Random(0)
    root.mkdir()
    done = number = 0
    while done < tokens:
        text = source_file(rng, functions=6)
        (root / f"module_{number}.py").write_text(text)
        done += len(token_starts(text))
        number += 1
    return Repository.open(root)


def times() -> tuple[float, float]:
    """(wall, processor), seconds."""
    return time.perf_counter(), time.process_time()


@torch.inference_mode()
def bare_cost(model: torch.nn.Module, rows: int, tokens: int) -> Cost:
    """The cost of forward passes that have about `tokens` tokens together."""
    ids = torch.randint(0, 40_000, (rows, 256))
    passes = max(1, round(tokens / ids.numel()))
    wall, cpu = times()
    for _ in range(passes):
        model.model(ids, use_cache=False)
    now = times()
    return Cost((now[0] - wall) / (passes * ids.numel()), (now[1] - cpu) / (passes * ids.numel()))


def index_cost(
    root: Path,
    repository: Repository,
    folder: model_files.ModelFolder,
    encoder: SelfEncoder,
    beside: Callable[[int], object] | None = None,
) -> tuple[Cost, int]:
    """The cost of `encode_pending` per token, and the number of tokens. beside is called with the number of newly
    encoded tokens; its time does not count."""
    layout = IndexLayout(root)
    with writing(layout), Store.create(layout) as store:
        refreshed = build.refresh(
            store,
            repository,
            model=folder.name,
            fingerprint=folder.fingerprint,
            token_starts=lambda: token_offsets.token_starts(folder.path),
        )
        last, away = 0, (0.0, 0.0)

        def progress(what: str, done: int, total: int | None) -> None:
            nonlocal last, away
            if beside is not None and (done - last >= TURN or done == total):
                wall, cpu = times()
                beside(done - last)
                now = times()
                last, away = done, (away[0] + now[0] - wall, away[1] + now[1] - cpu)

        wall, cpu = times()
        encoded = build.encode_pending(store, refreshed.snapshot, encoder, budget=64 << 30, progress=progress)
        now = times()
    spent = Cost((now[0] - wall - away[0]) / encoded.tokens, (now[1] - cpu - away[1]) / encoded.tokens)
    return spent, encoded.tokens


def peak() -> float:
    """Peak resident memory in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    main()
