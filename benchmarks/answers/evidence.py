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
import contextlib
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
from questions import load_questions

from awareness.engine.answer import NotAnswered
from awareness.engine.engine import Engine
from awareness.engine.models import LoadedModel
from awareness.evals.intervals import wilson
from awareness.evals.short_questions import ShortQuestion, matches
from awareness.index.search.ranking import GATHERED
from awareness.model.answering import prompt_ids
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.fusion import attached
from awareness.model.presets import DEFAULT_MODEL
from awareness.model.prompts import encode
from awareness.model.reading.evidence_lines import ENOUGH, Evidence, Lines
from awareness.model.reading.line_attention import LineAttention
from awareness.types import Chunk, Memory

ARMS = 4
BINS = (0.0, ENOUGH, 0.5, 0.7, 0.9, 1.01)
LEAST = 3  # characters of a string that is no chance in another line


@dataclass(frozen=True)
class Named:
    """The lines that an arm named, judged. rows: how many it named."""

    arm: str
    chunk: bool
    line: bool
    place: bool
    says_so: bool
    rows: int
    confidence: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the checkouts")
    parser.add_argument("--split", choices=("dev", "held_out"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--limit", type=int, help="maximum questions per repository")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--expected", action="store_true", help="read the written answers")
    parser.add_argument("--json", type=Path, help="also write every judgement to this file")
    options = parser.parse_args()
    questions = load_questions(split=options.split)
    only = set(options.repos.split(",")) if options.repos else {question.repo for question in questions}
    rows: list[dict[str, Any]] = []
    for repo in sorted(only):
        own = [question for question in questions if question.repo == repo][: options.limit]
        with Engine([options.folder / repo], model=options.model) as engine:
            engine.refresh()
            for question in own:
                judged = (_expected if options.expected else _generated)(engine, question, options.top_k)
                rows += [{"repo": repo, "question": question.question, **asdict(named)} for named in judged]
        print(f"{repo}: {len(rows) // ARMS} answers so far", file=sys.stderr, flush=True)
    what = "written answers" if options.expected else "right answers"
    print(f"n = {len(rows) // ARMS} {what}, {options.split}, {options.model}, top-k {options.top_k}, {processor()}\n")
    _report(rows)
    if options.json:
        options.json.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=1) + "\n")


def _generated(engine: Engine, question: ShortQuestion, top_k: int) -> list[Named]:
    """Every arm on the first sentence with the answer; none if no sentence has it, or no chunk shows the place."""
    with contextlib.suppress(NotAnswered):
        reply = engine.ask(question.question, top_k=top_k)
        chunks = [hit.chunk for hit in reply.hits]
        sentence = next((s for s in reply.sentences if question.is_right(s.text) and s.source is not None), None)
        if sentence is not None and any(map(question.is_shown, chunks)):
            named = _without_memory(question, chunks, sentence.text)
            first, last = sentence.lines or (0, -1)
            start = chunks[sentence.source].start_line
            evidence = Evidence(sentence.source, first - start, last - start, sentence.confidence or 0.0)
            return [*named, _judged("memory", question, chunks, evidence)]
    return []


def _expected(engine: Engine, question: ShortQuestion, top_k: int) -> list[Named]:
    """Every arm on the written answer, with the attention of one forward pass over it; none if no chunk shows the
    place."""
    hits = engine.search(question.question, top_k=top_k, rules=GATHERED)
    chunks = [hit.chunk for hit in hits]
    if not any(map(question.is_shown, chunks)):
        return []
    loaded, memory = engine.load(), engine.attach(hits)
    steps = _steps(loaded, memory, question)
    to_lines = LineAttention(loaded.decoder.tokenizer, memory, chunks)(steps)
    evidence = Lines(chunks, question.question).best(question.expected, to_lines)
    assert evidence is not None
    return [*_without_memory(question, chunks, question.expected), _judged("memory", question, chunks, evidence)]


def _steps(loaded: LoadedModel, memory: Memory, question: ShortQuestion) -> torch.Tensor:
    """[T, M]: the attention of the heads of evidence, for each token of the written answer."""
    model, settings = loaded.decoder.model, loaded.settings
    prompt = prompt_ids(loaded.decoder, settings, question.question, has_memory=True)
    ids = encode(loaded.decoder.tokenizer, question.expected)
    record = AttentionRecord(retrieval_layers(model, memory), keep=True, every_token=True, last=len(ids))
    adapter = None if loaded.trained is None else loaded.trained.adapter
    with torch.inference_mode(), attached(model, memory, adapter=adapter, record=record):
        model(torch.tensor([prompt + ids], device=model.device), use_cache=False, logits_to_keep=1)
    weights = record.memory_attention_weights
    heads = settings.evidence_heads or [(layer, head) for layer in weights for head in range(weights[layer].shape[1])]
    return torch.stack([weights[layer][0, head] for layer, head in heads]).sum(dim=0)


def _without_memory(question: ShortQuestion, chunks: list[Chunk], text: str) -> list[Named]:
    asked, words = Lines(chunks[:1]).best(question.question), Lines(chunks, question.question).best(text)
    assert asked is not None and words is not None
    return [
        _judged("router", question, chunks, Evidence(0, 0, 0, 1.0)),
        _judged("question", question, chunks, asked),
        _judged("words", question, chunks, words),
    ]


def _judged(arm: str, question: ShortQuestion, chunks: Sequence[Chunk], evidence: Evidence) -> Named:
    chunk = chunks[evidence.source]
    rows, texts = range(evidence.first, evidence.last + 1), chunk.text.split("\n")
    long = [text for text in question.contains if len(text) >= LEAST]
    is_chunk = question.is_shown(chunk)
    place = [row for row in rows if is_chunk and question.first <= chunk.start_line + row <= question.last]
    line = [row for row in place if question.derived or question.is_right(texts[row])]
    says_so = bool(line) or any(matches(texts[row], long) for row in rows)
    return Named(arm, is_chunk, bool(line), bool(place), says_so, len(rows), evidence.confidence)


def _report(rows: list[dict[str, Any]]) -> None:
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        shares = [_share([row[key] for row in own]) for key in ("chunk", "line", "place", "says_so")]
        named = [row for row in own if row["confidence"] >= ENOUGH]
        width = statistics.mean(row["rows"] for row in own)
        right = _share([row["says_so"] for row in named]) if named else ""
        lines.append((arm, *shares, width, f"{len(named)} of {len(own)}", right))
    table(("arm", "chunk", "line", "in the place", "says so", "lines", "sure", "says so, where sure"), lines)
    print()
    bins = []
    for arm in ("words", "memory"):
        own = [row for row in rows if row["arm"] == arm]
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
