"""Does attention to the memory find the chunk that answers? Per layer, and against routing alone.

While an answer is read, each memory layer looks at each chunk: its attention, summed over heads and over the positions
that predict the answer. Acc@k (the top-k accuracy of Karpukhin et al. 2020, section 5) is how often a gold chunk is
among the k that got most; one that got as much counts as before it. The answer is the gold one (teacher forcing), or,
of a question without one, what the arm says.

Baselines: `bm25`, the words of the question against those of the same chunks; `nearest`, the order in which they lie,
the last first, next to the question; and of questions that were routed `routing`, its own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from awareness.evals.arms import Arm, Bm25
from awareness.evals.intervals import Estimate, wilson
from awareness.model import hf
from awareness.model.attention_record import AttentionRecord
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.prompts import BRIEFLY, encode
from awareness.types import SINK, Memory, Progress, Sample, silent

BASELINES = ("bm25", "nearest", "routing")


@dataclass(frozen=True)
class Accuracy:
    """layer: None for all of the arm's retrieval layers together, by which `ask` tells what was read, and for a
    baseline. Intervals are Wilson's."""

    order: str
    layer: int | None
    at_1: Estimate
    at_5: Estimate


def run(
    arms: Sequence[Arm],
    samples: Sequence[Sample],
    *,
    max_new_tokens: int,
    repetition_penalty: float,
    routing: Sequence[Sequence[float]] = (),
    progress: Progress = silent,
) -> list[Accuracy]:
    """The baselines, then of each arm that has a memory: its retrieval layers, and every memory layer. max_new_tokens,
    repetition_penalty: of answers that are not given. routing: what it thinks each chunk worth, of each sample."""
    ranks: dict[tuple[str, int | None], list[int]] = {}
    reading = [arm for arm in arms if arm.reads == "memory"]
    for i, sample in enumerate(samples):
        words = Bm25().rank(replace(sample, question=sample.question.removesuffix(BRIEFLY)))
        orders: list[Sequence[float]] = [[-words.index(i) for i in range(len(words))], range(len(words))]
        for name, worth in zip(BASELINES, [*orders, *routing[i : i + 1]], strict=False):
            ranks.setdefault((name, None), []).append(rank_of(sample.gold, worth))
        for j, arm in enumerate(reading):
            by_layer = attention_by_chunk(
                arm, sample, max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty
            )
            together = [sum(own) for own in zip(*(by_layer[i] for i in arm.retrieval_layers), strict=True)]
            for layer, own in ((None, together), *by_layer.items()):
                ranks.setdefault((arm.name, layer), []).append(rank_of(sample.gold, own))
            progress("reading answers", i * len(reading) + j + 1, len(samples) * len(reading))
    return [_accuracy(order, layer, own) for (order, layer), own in ranks.items()]


def rank_of(gold: Sequence[int], worth: Sequence[float]) -> int:
    """From 1: of the best gold chunk, behind all others that are worth as much."""
    best = max(worth[place] for place in gold)
    return 1 + sum(value >= best for place, value in enumerate(worth) if place not in gold)


def attention_by_chunk(
    arm: Arm, sample: Sample, *, max_new_tokens: int, repetition_penalty: float
) -> dict[int, list[float]]:
    """Memory layer -> the attention that each of `sample.texts` got."""
    memory = arm.memory(sample.texts)
    assert memory is not None
    record = AttentionRecord(memory.keys, every_token=bool(sample.answer))
    if sample.answer:
        _read(arm, sample, memory, record)
    else:
        generate(
            arm.decoder,
            arm.prompt(sample),
            memory,
            max_new_tokens=max_new_tokens,
            record=record,
            repetition_penalty=repetition_penalty,
            adapter=arm.adapter,
        )
    return by_span(memory, record)


@torch.inference_mode()
def _read(arm: Arm, sample: Sample, memory: Memory, record: AttentionRecord) -> None:
    """Records what the positions look at that predict the answer: the prompt's last one, and the answer's but for its
    last. What is before them is read without a record."""
    prompt, answer = arm.prompt(sample), encode(arm.decoder.tokenizer, sample.answer)
    model, device = arm.decoder.model, arm.decoder.model.device
    mask = torch.ones(1, len(prompt), dtype=torch.bool, device=device)
    with attached(model, memory, adapter=arm.adapter, prompt=mask) as session:
        _, cache = hf.continued(model, torch.tensor([prompt[:-1]], device=device))
    ids = torch.tensor([[prompt[-1], *answer[:-1]]], device=device)
    with attached(model, memory, adapter=arm.adapter, record=record, prompt=mask, continues=session):
        hf.continued(model, ids, cache)


def by_span(memory: Memory, record: AttentionRecord) -> dict[int, list[float]]:
    """Memory layer -> what was recorded of it for each span but the sink, in order; 0 where it is nothing."""
    spans = [span for span in memory.spans if span.name != SINK]
    found = {}
    for layer in memory.keys:
        weights = record.sums[layer].sum(dim=(0, 1)) if layer in record.sums else torch.zeros(memory.tokens)  # [M]
        found[layer] = [float(weights[span.start : span.stop].sum()) for span in spans]
    return found


def _accuracy(order: str, layer: int | None, ranks: Sequence[int]) -> Accuracy:
    at_1, at_5 = (wilson(sum(rank <= k for rank in ranks), len(ranks)) for k in (1, 5))
    return Accuracy(order, layer, at_1, at_5)
