"""Measure decoding with weights in fewer bits: tokens/s, perplexity, and the speed of products by number of rows.

    python benchmarks/weights.py [--model qwen2.5-coder-0.5b] [--weights none,int8,int4] [--memory 1600] [--rounds 5]

One process has one decoder for each kind of weights; they take turns. Decoding: tokens after the first, with a memory
of `--memory` tokens and without. Perplexity: of Python's own library modules, read 32 rows at a time, so that every
product uses the packed weights, as in decoding. Rows: time of one layer's product with packed weights ÷ with its own
weights.
"""

from __future__ import annotations

import argparse
import argparse as library
import json
import math
import statistics
import textwrap as other_library
from pathlib import Path

import torch
from common import processor, seconds, table
from transformers import DynamicCache

from awareness.engine.models import LoadedModel, load_model, pull_model
from awareness.model import hf, presets
from awareness.model.assemble import assemble
from awareness.model.generate import generate
from awareness.model.prompts import encode, question_ids
from awareness.model.weights import MAX_ROWS, PackedLinear, exact_weights
from awareness.types import Memory

QUESTION = "Explain what the parser does with an option that it does not know, in many words."
NEW_TOKENS = 48
PERPLEXITY_TOKENS = 512  # in each module, after a beginning as context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=presets.DEFAULT_MODEL)
    parser.add_argument("--weights", default="none,int8,int4")
    parser.add_argument("--memory", type=int, default=1600, help="tokens of memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = pull_model(options.model)
    kinds = options.weights.split(",")
    loaded = {kind: load_model(folder, weights=kind) for kind in kinds}
    memory = _memory(loaded[kinds[0]], options.memory)
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for kind, model in loaded.items():
            for what, read in (("without memory", None), ("with memory", memory)):
                speeds.setdefault((kind, what), []).append(_speed(model, read))
    print(f"\n{folder.name}, {processor()}, {options.threads} threads, {options.rounds} rounds\n")
    rows = []
    losses = {kind: _perplexity(model) for kind, model in loaded.items()}
    for kind in kinds:
        without, with_memory = (statistics.median(speeds[kind, what]) for what in ("without memory", "with memory"))
        base = statistics.median(
            a / b for a, b in zip(speeds[kind, "with memory"], speeds[kinds[0], "with memory"], strict=True)
        )
        ratio = losses[kind] / losses[kinds[0]]
        rows.append((kind, without, with_memory, with_memory / without, base, losses[kind], f"{ratio:.4f}"))
    header = ("weights", "tokens/s", f"with {memory.tokens} of memory", "with ÷ without", f"÷ {kinds[0]}")
    table((*header, "perplexity", f"÷ {kinds[0]}"), rows)
    for kind in kinds[1:]:
        print(f"\nA product by {kind} ÷ by the layer's own weights, the largest layer of a decoder layer:\n")
        table(("rows", "ratio"), _by_rows(loaded[kind]))


def _memory(model: LoadedModel, tokens: int) -> Memory:
    """About `tokens` tokens of a library module."""
    text = Path(library.__file__).read_text()
    ids = encode(model.decoder.tokenizer, text)[:tokens]
    pieces = [model.decoder.tokenizer.decode(ids[i : i + 200]) for i in range(0, len(ids), 200)]
    encoder = model.encoder
    return assemble(model.decoder.model, encoder.spec, encoder.sink, list(encoder.encode(pieces)))


def _speed(model: LoadedModel, memory: Memory | None) -> float:
    prompt = question_ids(model.decoder.tokenizer, QUESTION, with_system=memory is None)
    said = generate(model.decoder, prompt, memory, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    return said.tokens_per_s


@torch.inference_mode()
def _perplexity(model: LoadedModel) -> float:
    total = count = 0.0
    for module in (library, other_library, json):
        ids = encode(model.decoder.tokenizer, Path(module.__file__ or "").read_text())[:PERPLEXITY_TOKENS]
        cache, logits = DynamicCache(), []
        for start in range(0, len(ids), MAX_ROWS):
            piece = torch.tensor([ids[start : start + MAX_ROWS]])
            out = model.decoder.model(piece, use_cache=True, **{hf._cache_name(model.decoder.model): cache})
            logits.append(out.logits[0].float())
        loss = torch.nn.functional.cross_entropy(torch.cat(logits)[:-1], torch.tensor(ids[1:]), reduction="sum")
        total, count = total + float(loss), count + len(ids) - 1
    return math.exp(total / count)


@torch.inference_mode()
def _by_rows(model: LoadedModel) -> list[tuple[int, float]]:
    layers = [m for n, m in model.decoder.model.named_modules() if isinstance(m, PackedLinear) and "lm_head" not in n]
    largest = max(layers, key=lambda layer: layer.weight.numel())
    found = []
    for rows in (1, 4, 16, MAX_ROWS):
        x = torch.randn(rows, largest.in_features).to(largest.weight.dtype)
        packed = seconds(lambda x=x: largest(x), 20)
        with exact_weights():
            found.append((rows, packed / seconds(lambda x=x: largest(x), 20)))
    return found


if __name__ == "__main__":
    main()
