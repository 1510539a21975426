"""Measure how often the line that a sentence of an answer is said to rest on is the right one.

    python benchmarks/retrieval/checkouts.py FOLDER
    python benchmarks/answers/evidence.py FOLDER [--split dev|held_out] [--expected] [--limit N] [--json FILE]

Asks the questions whose place is among the chunks, with the chunks as memory, and counts the answers that are right, by
the sentence that holds the answer. `--expected` reads the written answers instead, in one forward pass each: that takes
a second, and every question counts.

`place` is the part of the code that was written down with the question (questions.py), `line` a line of it that holds
one of the answer's strings. Code often says a thing twice, so `says so` also counts a line of another chunk, if the
string has at least three characters. The arms that read no memory see the same answer: `router` names the first line of
the best chunk; `question` the line of it with most of the question's words; `words` is what `ask --mode text` names.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from common import processor, table
from questions import Question, matches
from run import _chosen, _encoded, _routed, _shows

from awareness.engine.models import LoadedModel, load_model, pull_model
from awareness.evals.intervals import wilson
from awareness.model.answering import answer, prompt_ids
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.evidence_lines import ENOUGH, Lines
from awareness.model.fusion import attached
from awareness.model.line_attention import LineAttention
from awareness.model.presets import DEFAULT_MODEL
from awareness.model.prompts import encode
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import Chunk, Latent, Memory

QUANT = "int4"
BINS = (0.0, ENOUGH, 0.5, 0.7, 0.9, 1.01)
LEAST = 3  # characters of a string that is no chance in another line


@dataclass(frozen=True)
class Named:
    """The lines that an arm named, judged. confidence: None if the arm has none. is_named: it would be shown."""

    arm: str
    chunk: bool
    line: bool
    place: bool
    says_so: bool
    rows: int
    confidence: float | None = None
    is_named: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the checkouts")
    parser.add_argument("--split", choices=("dev", "held_out", "all"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--limit", type=int, help="maximum questions per repository")
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--expected", action="store_true", help="read the written answers")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write every judgement to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    routed = [
        (question, chunks)
        for question, chunks in _routed(_chosen(options), options.folder, DEFAULT_MODEL, options.top_k)
        if any(_shows(chunk, question) for chunk in chunks)
    ]
    loaded = load_model(pull_model(DEFAULT_MODEL), weights="none" if options.expected else None)
    raw = _encoded(loaded, {(q.repo, q.question): chunks for q, chunks in routed})
    rows: list[dict[str, Any]] = []
    for question, chunks in routed:
        memory = _memory(loaded, chunks, raw)
        judged = (_expected if options.expected else _generated)(loaded, question, chunks, memory, options)
        rows += [{"repo": question.repo, "question": question.question, **asdict(named)} for named in judged]
    found = len(routed)
    what = "written answers" if options.expected else f"right answers of {found}"
    print(f"n = {len(rows) // 4} {what}, {options.split}, top-k {options.top_k}, {processor()}\n")
    _report(rows)
    if options.json:
        options.json.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=1) + "\n")


def _memory(loaded: LoadedModel, chunks: Sequence[Chunk], raw: dict[str, Latent]) -> Memory:
    encoder = loaded.encoder.storing_as(QUANT)
    spec = loaded.encoder.spec.raw
    stored = [to_latent(to_tensor(raw[chunk.encoded_text], spec), encoder.spec) for chunk in reversed(chunks)]
    names = [str(place) for place in reversed(range(len(chunks)))]
    sharpness = loaded.settings.sharpness
    return assemble(loaded.decoder.model, encoder.spec, encoder.sink, stored, names, sharpness=sharpness)


def _generated(
    loaded: LoadedModel, question: Question, chunks: list[Chunk], memory: Memory, options: argparse.Namespace
) -> list[Named]:
    """Every arm on the first sentence with the answer; none if no sentence has it."""
    limit = options.max_new_tokens
    reply = answer(loaded.decoder, loaded.settings, question.question, chunks, memory, max_new_tokens=limit)
    sentence = next((s for s in reply.sentences if matches(s.text, question.contains)), None)
    if sentence is None:
        return []
    place = sentence.source or 0
    lines, start = sentence.lines, chunks[place].start_line
    rows = range(lines[0] - start, lines[1] - start + 1) if lines else range(1)
    read = _judged("memory", question, chunks, place, rows, sentence.confidence, is_named=lines is not None)
    return [*_without_memory(question, chunks, sentence.text), read]


def _expected(
    loaded: LoadedModel, question: Question, chunks: list[Chunk], memory: Memory, options: argparse.Namespace
) -> list[Named]:
    """Every arm on the written answer, with the attention of one forward pass over it."""
    model, settings = loaded.decoder.model, loaded.settings
    prompt = prompt_ids(loaded.decoder, settings, question.question, has_memory=True)
    ids = encode(loaded.decoder.tokenizer, question.expected)
    record = AttentionRecord(retrieval_layers(model, memory), keep=True, every_token=True, last=len(ids))
    with torch.inference_mode(), attached(model, memory, record=record):
        model(torch.tensor([prompt + ids], device=model.device), use_cache=False, logits_to_keep=1)
    weights = record.memory_attention_weights
    heads = settings.evidence_heads or [(layer, head) for layer in weights for head in range(weights[layer].shape[1])]
    steps = torch.stack([weights[layer][0, head] for layer, head in heads]).sum(dim=0)
    evidence = Lines(chunks, question.question).best(
        question.expected, LineAttention(loaded.decoder.tokenizer, memory, chunks)(steps)
    )
    assert evidence is not None
    rows = range(evidence.first, evidence.last + 1)
    is_named = evidence.confidence >= ENOUGH
    read = _judged("memory", question, chunks, evidence.source, rows, evidence.confidence, is_named=is_named)
    return [*_without_memory(question, chunks, question.expected), read]


def _without_memory(question: Question, chunks: list[Chunk], text: str) -> list[Named]:
    asked = Lines(chunks[:1]).best(question.question)
    words = Lines(chunks, question.question).best(text)
    assert asked is not None and words is not None
    named = [_judged("router", question, chunks, 0, range(1))]
    named.append(_judged("question", question, chunks, 0, range(asked.first, asked.last + 1)))
    rows, confidence, source = range(words.first, words.last + 1), words.confidence, words.source
    named.append(_judged("words", question, chunks, source, rows, confidence, is_named=confidence >= ENOUGH))
    return named


def _judged(
    arm: str,
    question: Question,
    chunks: Sequence[Chunk],
    source: int,
    rows: range,
    confidence: float | None = None,
    *,
    is_named: bool = True,
) -> Named:
    chunk = chunks[source]
    texts = chunk.text.split("\n")
    long = [text for text in question.contains if len(text) >= LEAST]
    is_chunk = _shows(chunk, question)
    place = [row for row in rows if is_chunk and question.first <= chunk.start_line + row <= question.last]
    line = [row for row in place if question.derived or matches(texts[row], question.contains)]
    says_so = bool(line) or any(matches(texts[row], long) for row in rows)
    return Named(arm, is_chunk, bool(line), bool(place), says_so, len(rows), confidence, is_named)


def _report(rows: list[dict[str, Any]]) -> None:
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        shares = [_share([row[key] for row in own]) for key in ("chunk", "line", "place", "says_so")]
        named = [row for row in own if row["is_named"]]
        width = statistics.mean(row["rows"] for row in own)
        right = _share([row["says_so"] for row in named]) if named else ""
        lines.append((arm, *shares, width, f"{len(named)} of {len(own)}", right))
    table(("arm", "chunk", "line", "in the place", "says so", "lines named", "sure", "says so, where sure"), lines)
    print()
    bins = []
    for arm in ("words", "memory"):
        own = [row for row in rows if row["arm"] == arm and row["confidence"] is not None]
        for low, high in itertools.pairwise(BINS):
            if inside := [row for row in own if low <= row["confidence"] < high]:
                mean = statistics.mean(row["confidence"] for row in inside)
                bins.append(
                    (arm, f"{low:g}-{min(high, 1):g}", len(inside), mean, _share([r["says_so"] for r in inside]))
                )
    table(("arm", "confidence", "n", "mean", "says so"), bins)


def _share(right: Sequence[bool]) -> str:
    estimate = wilson(sum(right), len(right))
    return f"{estimate.mean:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"


if __name__ == "__main__":
    main()
