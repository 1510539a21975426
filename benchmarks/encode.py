"""How close indexing comes to the bare model.

    python benchmarks/encode.py [--tokens 40000] [--model smollm2-135m]

Builds a synthetic repository, and in one process measures the bare forward pass of the decoder (no cache, no output
head, 256-token rows) at several batch sizes, and `encode_pending` over the repository with an empty store: hooks,
copies, checksums, shards on disk, SQL. Then both alternate at the best batch size, the bare model before and after
each indexing for as long, so that a noisy machine troubles them alike; the median of the rounds' ratios counts.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import once, source_file, table

from awareness.cli.workspace import DEFAULT_QUANT
from awareness.index import build
from awareness.index.layout import IndexLayout
from awareness.index.lock import writing
from awareness.index.repo import Repository
from awareness.index.store import Store
from awareness.model import sources
from awareness.model.encoder import SelfEncoder
from awareness.model.load import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument("--model", default=sources.DEFAULT_MODEL)
    parser.add_argument("--quant", default=DEFAULT_QUANT, help="how latents are stored")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-index", action="store_true", help="one index run, for its peak memory")
    options = parser.parse_args()
    folder = sources.pull(options.model)
    decoder = load(folder)
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=folder.fingerprint, quant=options.quant)
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(Path(scratch) / "repo", options.tokens, sources.token_starts(folder))
        if options.only_index:
            speed, tokens = index_speed(Path(scratch) / "index", repository, folder, encoder)
            print(f"{tokens} tokens at {speed:.0f} tokens/s, peak memory {peak():.2f} GiB")
            return
        for size in (1, 16):  # warm up
            bare_speed(decoder.model, size)
        tried = [{size: bare_speed(decoder.model, size) for size in (1, 2, 4, 8, 16)} for _ in range(3)]
        bare = {size: statistics.median(speeds[size] for speeds in tried) for size in tried[0]}
        table(("rows of 256 in a batch", "bare forward, tokens/s"), [(k, round(v)) for k, v in bare.items()])
        best = max(bare, key=bare.__getitem__)
        rounds = []
        for i in range(options.rounds):
            before = bare_speed(decoder.model, best, options.tokens // 2)
            speed, tokens = index_speed(Path(scratch) / f"index{i}", repository, folder, encoder)
            between = bare_speed(decoder.model, best, options.tokens // 2)
            alone = encode_speed(Path(scratch) / f"index{i}", encoder)
            after = bare_speed(decoder.model, best, options.tokens // 2)
            rounds.append((speed, (before + between) / 2, alone, (between + after) / 2))
        print()
        table(
            ("indexing, tokens/s", "bare", "ratio", "encoding without the store", "bare", "ratio"),
            [(round(a), round(b), a / b, round(c), round(d), c / d) for a, b, c, d in rounds],
        )
        ratio = statistics.median(a / b for a, b, _, _ in rounds)
        print(f"\nmedian ratio {ratio:.2f} over {tokens} tokens; peak memory {peak():.2f} GiB; {folder.name}")


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


@torch.inference_mode()
def bare_speed(model: torch.nn.Module, rows: int, tokens: int = 4096) -> float:
    """Tokens/s over batches that make `tokens` together."""
    ids = torch.randint(0, 40_000, (rows, 256))
    passes = max(1, tokens // ids.numel())
    return passes * ids.numel() / once(lambda: [model.model(ids, use_cache=False) for _ in range(passes)])


def index_speed(
    root: Path, repository: Repository, folder: sources.ModelFolder, encoder: SelfEncoder
) -> tuple[float, int]:
    layout = IndexLayout(root)
    with writing(layout), Store.create(layout) as store:
        refreshed = build.refresh(
            store,
            repository,
            model=folder.name,
            fingerprint=folder.fingerprint,
            token_starts=lambda: sources.token_starts(folder),
        )
        started = time.perf_counter()
        encoded = build.encode_pending(store, refreshed.snapshot, encoder, budget=64 << 30)
        return encoded.tokens / (time.perf_counter() - started), encoded.tokens


def encode_speed(root: Path, encoder: SelfEncoder) -> float:
    """Tokens/s of the encoder alone, over the chunks of an index that is there, its latents dropped at once."""
    with Store.open(IndexLayout(root)) as store:
        chunks = sorted(store.chunks(1), key=lambda chunk: -chunk.tokens)
    texts = [chunk.chunk.encoded_text for chunk in chunks]
    return sum(chunk.tokens for chunk in chunks) / once(lambda: [None for _ in encoder.encode(texts)])


def peak() -> float:
    """Peak resident memory in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    main()
