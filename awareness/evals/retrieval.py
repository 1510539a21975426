"""Does attention to the memory find the chunk that answers? Per layer, and against routing alone.

While an answer is read, each memory layer looks at each chunk: its attention, summed over heads and over the positions
that predict the answer. Acc@k (the top-k accuracy of Karpukhin et al. 2020, section 5) is how often a gold chunk is
among the k with most attention; a chunk with as much attention counts as before it. The answer is the gold one (teacher
forcing), or, for a question without one, what the reader generates.

Baselines: `bm25`, the words of the question against those of the chunks; `nearest`, the last chunk first, as it stands
next to the question; and for routed questions `routing`, the order in which search ranked them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import Estimate, wilson
from awareness.evals.needle import make_cases
from awareness.evals.qa import sample_of
from awareness.evals.readers import Bm25, Reader
from awareness.evals.report import Report, Table, as_json
from awareness.evals.routing import route
from awareness.evals.setup import Setup
from awareness.model import hf
from awareness.model.attention_record import AttentionRecord
from awareness.model.fusion import attached
from awareness.model.prompts import BRIEFLY, encode
from awareness.train.samples.held_out_shapes import shapes_named
from awareness.train.samples.question_files import read_questions
from awareness.types import SINK, Memory, Progress, Sample, silent


@dataclass(frozen=True)
class Case:
    """routing: the worth of each of the sample's chunks by search; None if the sample was not routed."""

    sample: Sample
    routing: Sequence[float] | None = None


@dataclass(frozen=True)
class Accuracy:
    """layer: None for a baseline, and for the sum of a reader's retrieval layers, which citations go by."""

    order: str
    layer: int | None
    at_1: Estimate
    at_5: Estimate


def measure(
    setup: Setup,
    *,
    questions: Path | None,
    shuffle: bool,
    samples: int,
    chunks: int,
    chunk_tokens: int,
    shapes: Sequence[str],
    max_new_tokens: int,
) -> Report:
    """questions: a file of real questions, None for needles of `shapes`. shuffle: the chunks of a question come in
    random order, else as `ask` orders them, the best last. samples: at most. max_new_tokens: of answers to questions.
    """
    if questions is None:
        pool, what = setup.chunks(chunk_tokens), f"needles ({','.join(shapes)})"
        options: dict[str, Any] = {"samples": samples, "seed": setup.seed, "shapes": shapes_named(shapes)}
        cases = [Case(case.sample) for case in make_cases(pool, chunks=chunks, **options)]
    else:
        cases, what = _routed(questions, setup, chunks, samples, shuffle), "questions"
    readers = [reader for reader in setup.open_readers() if reader.reads == "memory"]
    if not readers:
        names = ",".join(setup.reader_names)
        raise UsageError(f"none of the arms {names} has a memory", hint="--arms joint, or --checkpoint FOLDER")
    with setup.progress() as progress:
        rows = rank(readers, cases, max_new_tokens=max_new_tokens, progress=progress)
    layers = {reader.name: reader.retrieval_layers for reader in readers}
    title = (
        f"{setup.folder.name}, {len(cases)} {what} in {', '.join(setup.repository_names)}, {chunks} chunks,"
        f" quant {setup.quant}, seed {setup.seed}"
    )
    return Report(
        "retrieval",
        _tables(rows, title),
        {
            "retrieval": [
                as_json({"order": r.order, "layer": r.layer, "acc@1": r.at_1, "acc@5": r.at_5}) for r in rows
            ],
            "retrieval_layers": layers,
            "cases": ",".join(shapes) if questions is None else questions.name,
            "shuffled": shuffle,
            **setup.settings,
            "samples": len(cases),
            "chunks": chunks,
            "chunk_tokens": chunk_tokens if questions is None else None,
            "repositories": setup.repository_names,
        },
        partial(_draw, rows, layers[readers[0].name], title),
    )


def _routed(path: Path, setup: Setup, top_k: int, samples: int, shuffle: bool) -> list[Case]:
    """Questions with some gold, and not only gold, among the chunks that are attached."""
    rng = random.Random(setup.seed)
    cases: list[Case] = []
    for routed in route(read_questions(path), setup, top_k=top_k):
        nearest = routed.chunks[::-1]
        order = list(nearest)
        if shuffle:
            rng.shuffle(order)
        sample = replace(sample_of(routed.question, order), answer="")
        if 0 < len(sample.gold) < len(order):
            cases.append(Case(sample, [float(nearest.index(chunk)) for chunk in order]))
    if not cases:
        raise UsageError(f"no question of {path} has its gold among the {top_k} chunks that routing finds")
    return rng.sample(cases, min(samples, len(cases)))


def rank(
    readers: Sequence[Reader], cases: Sequence[Case], *, max_new_tokens: int, progress: Progress = silent
) -> list[Accuracy]:
    """The baselines, then for each reader the sum of its retrieval layers, and every memory layer."""
    ranks: dict[tuple[str, int | None], list[int]] = {}
    for i, case in enumerate(cases):
        sample = case.sample
        words = Bm25().rank(replace(sample, question=sample.question.removesuffix(BRIEFLY)))
        orders = {"bm25": [-words.index(place) for place in range(len(words))], "nearest": range(len(words))}
        for name, worth in (orders | ({"routing": case.routing} if case.routing else {})).items():
            ranks.setdefault((name, None), []).append(rank_of(sample.gold, worth))
        for j, reader in enumerate(readers):
            by_layer = attention_by_chunk(reader, sample, max_new_tokens=max_new_tokens)
            together = [sum(column) for column in zip(*(by_layer[i] for i in reader.retrieval_layers), strict=True)]
            for layer, attention in ((None, together), *by_layer.items()):
                ranks.setdefault((reader.name, layer), []).append(rank_of(sample.gold, attention))
            progress("reading answers", i * len(readers) + j + 1, len(cases) * len(readers))
    return [
        Accuracy(order, layer, *(wilson(sum(rank <= k for rank in column), len(column)) for k in (1, 5)))
        for (order, layer), column in ranks.items()
    ]


def rank_of(gold: Sequence[int], worth: Sequence[float]) -> int:
    """Of the best gold chunk, from 1, after all other chunks that are worth as much."""
    best = max(worth[place] for place in gold)
    return 1 + sum(value >= best for place, value in enumerate(worth) if place not in gold)


def attention_by_chunk(reader: Reader, sample: Sample, *, max_new_tokens: int) -> dict[int, list[float]]:
    """Memory layer -> the attention to each of `sample.texts`."""
    memory = reader.memory(sample.texts)
    assert memory is not None
    record = AttentionRecord(memory.keys, every_token=bool(sample.answer))
    if sample.answer:
        _read(reader, sample, memory, record)
    else:
        penalty = reader.settings.repetition_penalty
        reader.generate(sample, max_new_tokens=max_new_tokens, repetition_penalty=penalty, record=record)
    return by_span(memory, record)


@torch.inference_mode()
def _read(reader: Reader, sample: Sample, memory: Memory, record: AttentionRecord) -> None:
    """Records the attention of the positions that predict the answer: the prompt's last one, and the answer's without
    its last. What stands before them is read without a record."""
    prompt, answer = reader.prompt(sample), encode(reader.decoder.tokenizer, sample.answer)
    model, device = reader.decoder.model, reader.decoder.model.device
    mask = torch.ones(1, len(prompt), dtype=torch.bool, device=device)
    with attached(model, memory, adapter=reader.adapter, prompt=mask) as session:
        _, cache = hf.continued(model, torch.tensor([prompt[:-1]], device=device))
    ids = torch.tensor([[prompt[-1], *answer[:-1]]], device=device)
    with attached(model, memory, adapter=reader.adapter, record=record, prompt=mask, continues=session):
        hf.continued(model, ids, cache)


def by_span(memory: Memory, record: AttentionRecord) -> dict[int, list[float]]:
    """Memory layer -> the attention to each span but the sink, in order; 0 where none was recorded."""
    spans = [span for span in memory.spans if span.name != SINK]
    attention = {}
    for layer in memory.keys:
        weights = record.sums[layer].sum(dim=(0, 1)) if layer in record.sums else torch.zeros(memory.tokens)  # [M]
        attention[layer] = [float(weights[span.start : span.stop].sum()) for span in spans]
    return attention


def _by_layer(rows: Sequence[Accuracy]) -> dict[str, dict[int, Accuracy]]:
    """reader -> layer -> accuracy"""
    readers: dict[str, dict[int, Accuracy]] = {}
    for row in rows:
        if row.layer is not None:
            readers.setdefault(row.order, {})[row.layer] = row
    return readers


def _tables(rows: Sequence[Accuracy], title: str) -> list[Table]:
    together = [(row.order, row.at_1, row.at_5) for row in rows if row.layer is None]
    readers = _by_layer(rows)

    def both(row: Accuracy | None) -> str:
        return "" if row is None else f"{row.at_1.mean:.2f} / {row.at_5.mean:.2f}"

    layers = sorted({layer for own in readers.values() for layer in own})
    by_layer = [(layer, *(both(own.get(layer)) for own in readers.values())) for layer in layers]
    heading = f"gold chunk first, and in five (95 % interval), {title}"
    return [
        Table(heading, ("order", "Acc@1", "Acc@5"), together),
        Table("by layer, Acc@1 / Acc@5", ("layer", *readers), by_layer),
    ]


def _draw(rows: Sequence[Accuracy], shaded: Sequence[int], title: str, folder: Path) -> list[str]:
    """Acc@1 over layers, a line a reader, a baseline dashed; the layers that citations go by shaded."""
    figure, (panel,) = pictures.panels(1, width=6)
    readers = _by_layer(rows)
    curves = {reader: {layer: row.at_1 for layer, row in sorted(own.items())} for reader, own in readers.items()}
    pictures.lines(panel, curves, what="Acc@1 of the gold chunk")
    baselines = [row for row in rows if row.order not in readers]
    for row, style in zip(baselines, ("--", ":", "-."), strict=False):
        label = f"{row.order} (no attention)"
        panel.axhline(row.at_1.mean, linestyle=style, color="black", linewidth=1, label=label)
    panel.axvspan(min(shaded) - 0.5, max(shaded) + 0.5, color="grey", alpha=0.1)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("layer (shaded: those that citations go by)", fontsize=8)
    pictures.legend_beside(panel, "order")
    return [pictures.save(figure, title, folder, "retrieval.png")]
