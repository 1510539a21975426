"""Compare two ways to find the chunk an answer comes from: attention to the memory, and the order of routing.

    python benchmarks/retrieval/citations.py FOLDER [--split dev|held_out] [--limit N] [--save FILE] [--fit FILE]
    python benchmarks/retrieval/citations.py --from FILE [--heads FILE]

For each question whose gold chunk is among the eight that `ask` attaches, the default model answers and reads the
chunks as memory. The attention of each head of each layer to each chunk is summed over the answer. The report says how
often the gold chunk comes first, and among the first three. `--fit` chooses heads on the development half (those whose
attention alone finds the gold chunk most often) and writes them; `--heads` measures the held-out half with them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import table
from metrics import Place, Question
from ours import built
from run import HERE, _repositories

from awareness.engine.embedders import embedder_of
from awareness.engine.models import LoadedModel, load_model, pull_model
from awareness.index.search.ranking import GATHERED, HybridRouter
from awareness.model import presets
from awareness.model.assemble import assemble
from awareness.model.attention_record import RETRIEVAL_DEPTH, AttentionRecord
from awareness.model.generate import generate
from awareness.model.presets import settings_of
from awareness.model.prompts import BRIEFLY, question_ids
from awareness.types import Hit

TOP_K = 8
TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--questions", type=Path, default=HERE / "questions")
    parser.add_argument("--split", choices=("dev", "held_out", "all"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--limit", type=int, default=10, help="maximum questions per repository")
    parser.add_argument(
        "--shuffle", action="store_true", help="chunks in random order, not the best next to the question"
    )
    parser.add_argument("--save", type=Path, help="write the attention of the heads to this file, for --from")
    parser.add_argument("--from", dest="saved", type=Path)
    parser.add_argument("--fit", type=Path, help="choose heads on these questions and write them to this file")
    parser.add_argument("--heads", type=Path, help="file of heads that --fit wrote")
    options = parser.parse_args()
    if options.saved:
        with np.load(options.saved) as found:
            shares, gold, scores = found["shares"], found["gold"], found["scores"]
    else:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["AWARENESS_INDEX_DIR"] = scratch
            shares, gold, scores = _collected(options)
        if options.save:
            np.savez_compressed(options.save, shares=shares, gold=gold, scores=scores)
    heads = None
    if options.fit:
        heads = _fitted(shares, gold)
        options.fit.write_text(json.dumps(heads) + "\n")
    elif options.heads:
        heads = json.loads(options.heads.read_text())
    _report(shares, gold, scores, heads)


def _collected(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """shares [n, L, H, 8]: share of a head's memory attention for each chunk, best routed first; gold: bool [n, 8];
    scores [n, 8] of routing."""
    model = load_model(pull_model(presets.DEFAULT_MODEL))
    rows, rng = [], random.Random(0)
    for name, asked in _repositories(options).items():
        store, snapshot, _ = built((options.folder / name).resolve())
        with store:
            router = HybridRouter(store, snapshot.id, embedder=embedder_of(store), rules=GATHERED)
            answerable = [question for question in asked if question.category != "absent"]
            every = max(1, len(answerable) // options.limit)
            for question in answerable[::every][: options.limit]:
                hits = router.search(question.query, top_k=TOP_K)
                gold = [_reaches(hit, question) for hit in hits]
                if len(hits) == TOP_K and any(gold) and not all(gold):
                    order = list(range(TOP_K - 1, -1, -1))  # as `ask` has it: the best last, next to the question
                    if options.shuffle:
                        rng.shuffle(order)
                    rows.append((_shares(model, question.query, hits, order), gold, [hit.score for hit in hits]))
        print(f"{name}: {len(rows)} questions so far", file=sys.stderr, flush=True)
    shares, gold, scores = (np.array(column) for column in zip(*rows, strict=True))
    return shares, gold, scores


def _reaches(hit: Hit, question: Question) -> bool:
    chunk = hit.chunk
    return any(Place(chunk.path, chunk.start_line, chunk.end_line).reaches(target) for target in question.targets)


def _shares(model: LoadedModel, query: str, hits: list[Hit], order: list[int]) -> np.ndarray:
    """[L, H, 8]"""
    decoder, encoder = model.decoder, model.encoder
    latents = list(encoder.encode([hits[i].chunk.encoded_text for i in order]))
    settings = settings_of(decoder.folder.name)
    memory = assemble(decoder.model, encoder.spec, encoder.sink, latents, sharpness=settings.sharpness)
    record = AttentionRecord(list(range(decoder.model.config.num_hidden_layers)))
    prompt = question_ids(decoder.tokenizer, query + BRIEFLY, with_system=False)
    penalty = settings.repetition_penalty
    generate(decoder, prompt, memory, max_new_tokens=TOKENS, record=record, repetition_penalty=penalty)
    nothing = torch.zeros_like(next(iter(record.sums.values())))
    weights = torch.cat([record.sums.get(layer, nothing) for layer in record.layers])  # [L, H, M]
    chunks = [weights[:, :, span.start : span.stop].sum(dim=-1) for span in memory.spans[1:]]
    shares = torch.stack([chunks[order.index(i)] for i in range(len(hits))], dim=-1)
    return (shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-9)).numpy()


def _first(order: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
    """How often a gold chunk has the highest value, and how often one of the three highest. order, gold: [n, 8]."""
    ranked = np.take_along_axis(gold, np.argsort(-order, axis=-1, kind="stable"), axis=-1)
    return ranked[:, 0].mean(), ranked[:, :3].any(axis=-1).mean()


def _fitted(shares: np.ndarray, gold: np.ndarray) -> list[list[int]]:
    """The heads whose own attention most often ranks a gold chunk first: [[layer, head], …], in the best number."""
    count = shares.shape[1] * shares.shape[2]
    flat = shares.reshape(len(shares), count, -1)
    alone = [_first(flat[:, i], gold)[0] if flat[:, i].any() else 0.0 for i in range(count)]  # not all layers read
    best = np.argsort(-np.array(alone), kind="stable")
    size = max((4, 8, 16, 32, 64), key=lambda n: _first(flat[:, best[:n]].mean(axis=1), gold)[0])
    heads = shares.shape[2]
    return [[int(i // heads), int(i % heads)] for i in best[:size]]


def _report(shares: np.ndarray, gold: np.ndarray, scores: np.ndarray, heads: list[list[int]] | None) -> None:
    layers = shares.shape[1]
    low, high = (round(layers * share) for share in RETRIEVAL_DEPTH)
    orders = {
        "routing": scores,
        "attention, all layers": shares.mean(axis=(1, 2)),
        "attention, layers of retrieval": shares[:, low:high].mean(axis=(1, 2)),
    }
    if heads:
        orders["attention, chosen heads"] = np.mean([shares[:, layer, head] for layer, head in heads], axis=0)
        for power in (0.5, 1.0, 2.0):
            orders[f"routing x chosen heads^{power:g}"] = scores * orders["attention, chosen heads"] ** power
    for power in (0.5, 1.0, 2.0):
        orders[f"routing x attention^{power:g}"] = scores * orders["attention, layers of retrieval"] ** power
    rows = []
    for name, order in orders.items():
        first, three = _first(order, gold)
        rows.append((name, f"{first:.3f}", f"{three:.3f}"))
    print(f"{len(gold)} questions; by chance {gold.mean():.3f}")
    table(("order", "gold first", "gold in three"), rows)


if __name__ == "__main__":
    main()
