"""Measure how many short questions are answered correctly, and how fast. All arms get the same questions and chunks.

    python benchmarks/retrieval/checkouts.py FOLDER
    python benchmarks/answers/run.py FOLDER [--split dev|held_out|all] [--models qwen2.5-coder-0.5b,…]
        [--arms none,text,latents] [--top-k 8] [--limit N] [--weights int4,none] [--quants int4] [--json FILE]

Each question is routed once, by the index that `ask` makes for the first model. All arms get these chunks: `none`
ignores them, `text` has them in its prompt, `latents` attaches them as they are stored. An answer is right if it holds
one of the strings that were written down before (questions.py). `found`: the place with the answer is among the chunks.
`cited`: the source of the first sentence shows that place, counted where the answer is right and the place was found.
Times are from one warm process. The time to the first token of `latents` includes reading the bytes, assembling and
prefill; of `text`, prefill. tokens/s counts the tokens after the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from common import processor, table
from questions import Question, load_questions, matches

from awareness.engine.engine import Engine
from awareness.engine.models import LoadedModel, load_model, pull_model
from awareness.engine.workspace import DEFAULT_QUANT
from awareness.evals.intervals import bootstrap, wilson
from awareness.index.search.ranking import GATHERED
from awareness.model.answering import answer
from awareness.model.assemble import assemble
from awareness.model.presets import ReadingSettings, settings_of
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import Chunk, Latent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the checkouts")
    parser.add_argument("--split", choices=("dev", "held_out", "all"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--limit", type=int, help="maximum questions per repository")
    parser.add_argument("--models", default="qwen2.5-coder-0.5b")
    parser.add_argument("--arms", default="none,text,latents")
    parser.add_argument(
        "--weights", default="default", help="weights that the decoder decodes with, separated by commas"
    )
    parser.add_argument("--quants", default="default", help="how latents are stored, separated by commas")
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--sharpness", help="instead of the decoder's own, separated by commas")
    parser.add_argument("--first-layer", type=int, help="first layer that reads, by default a sixth of the depth")
    parser.add_argument("--brief", help="instruction after each question, instead of the decoder's own")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write every answer to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    questions = _chosen(options)
    first = options.models.split(",")[0]
    routed = {(q.repo, q.question): chunks for q, chunks in _routed(questions, options.folder, first, options.top_k)}
    rows: list[dict[str, Any]] = []
    for model in options.models.split(","):
        rows += _asked(model, questions, routed, options)
        _report(rows, questions)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"processor": processor(), "threads": options.threads, "split": options.split, "top_k": options.top_k}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def _chosen(options: argparse.Namespace) -> list[Question]:
    found = load_questions(split=None if options.split == "all" else options.split)
    only = set(options.repos.split(",")) if options.repos else None
    found = [q for q in found if only is None or q.repo in only]
    if options.limit:
        kept: dict[str, int] = {}
        for q in found:
            kept[q.repo] = kept.get(q.repo, 0) + 1
        ranks = {q: i for repo in kept for i, q in enumerate(q for q in found if q.repo == repo)}
        found = [q for q in found if ranks[q] < options.limit]
    return found


def _routed(questions: list[Question], folder: Path, model: str, top_k: int) -> Iterator[tuple[Question, list[Chunk]]]:
    """The best chunks of each question, best first, routed as `ask` does. Builds a missing index."""
    for repo in dict.fromkeys(q.repo for q in questions):
        with Engine([folder / repo], model=model) as engine:
            engine.refresh()
            for question in (q for q in questions if q.repo == repo):
                hits = engine.search(question.question, top_k=top_k, rules=GATHERED)
                yield question, [hit.chunk for hit in hits]


@dataclass(frozen=True)
class _Arm:
    """One way to ask. quant and sharpness apply to `latents` only."""

    kind: str
    weights: str
    quant: str = ""
    sharpness: float = 1.0

    def label(self, model: str) -> str:
        parts = [model, self.kind, f"weights {self.weights}"]
        return " ".join([*parts, f"latents {self.quant}", f"sharpness {self.sharpness:g}"][: 5 if self.quant else 3])


def _arms(options: argparse.Namespace, settings: ReadingSettings) -> Iterator[_Arm]:
    sharpnesses = [float(s) for s in options.sharpness.split(",")] if options.sharpness else [settings.sharpness]
    for weights in (settings.weights if w == "default" else w for w in options.weights.split(",")):
        for kind in options.arms.split(","):
            if kind != "latents":
                yield _Arm(kind, weights)
                continue
            for quant in (DEFAULT_QUANT if q == "default" else q for q in options.quants.split(",")):
                yield from (_Arm(kind, weights, quant, sharpness) for sharpness in sharpnesses)


def _asked(
    name: str, questions: list[Question], routed: dict[tuple[str, str], list[Chunk]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each arm and question."""
    folder = pull_model(name)
    settings = settings_of(folder.name)
    if options.brief is not None:
        settings = replace(settings, brief=options.brief)
    rows: list[dict[str, Any]] = []
    raw: dict[str, Latent] = {}
    loaded: LoadedModel | None = None
    for arm in _arms(options, settings):
        if loaded is None or loaded.weights != arm.weights:
            loaded = load_model(folder, weights=arm.weights)
        if arm.kind == "latents" and not raw:
            raw = _encoded(loaded, routed)
        stored: dict[str, Latent] = {}
        if arm.quant:
            spec, encoder = loaded.encoder.spec.raw, loaded.encoder.storing_as(arm.quant)
            stored = {text: to_latent(to_tensor(latent, spec), encoder.spec) for text, latent in raw.items()}
        for question in questions:
            chunks = routed[question.repo, question.question]
            rows.append(_row(loaded, settings, arm, question, chunks, stored, options))
            rows[-1]["arm"] = arm.label(Path(name).name)
        right = sum(row["right"] for row in rows if row["arm"] == arm.label(Path(name).name))
        print(f"{arm.label(Path(name).name)}: {right} of {len(questions)}", file=sys.stderr, flush=True)
    return rows


def _encoded(loaded: LoadedModel, routed: dict[tuple[str, str], list[Chunk]]) -> dict[str, Latent]:
    """The latents of all chunks, made as `index` makes them, not yet quantised."""
    texts = sorted({chunk.encoded_text for chunks in routed.values() for chunk in chunks}, key=len)
    started = time.perf_counter()
    latents = dict(
        zip(texts, loaded.encoder.storing_as("int4").for_many().storing_as("none").encode(texts), strict=True)
    )
    tokens = sum(latent.tokens for latent in latents.values())
    print(f"{tokens} tokens encoded, {tokens / (time.perf_counter() - started):.0f}/s", file=sys.stderr, flush=True)
    return latents


def _row(
    loaded: LoadedModel,
    settings: ReadingSettings,
    arm: _Arm,
    question: Question,
    chunks: list[Chunk],
    stored: dict[str, Latent],
    options: argparse.Namespace,
) -> dict[str, Any]:
    started = time.perf_counter()
    memory = None
    if arm.kind == "latents":
        encoder = loaded.encoder.storing_as(arm.quant)
        memory = assemble(
            loaded.decoder.model,
            encoder.spec,
            encoder.sink,
            [stored[chunk.encoded_text] for chunk in reversed(chunks)],
            [str(place) for place in reversed(range(len(chunks)))],
            sharpness=arm.sharpness,
            reads=None
            if options.first_layer is None
            else {i: i for i in encoder.spec.layers if i >= options.first_layer},
        )
    assembled_s = time.perf_counter() - started
    said = answer(
        loaded.decoder,
        settings,
        question.question,
        () if arm.kind == "none" else chunks,
        memory,
        texts=[chunk.encoded_text for chunk in reversed(chunks)] if arm.kind == "text" else (),
        max_new_tokens=options.max_new_tokens,
    )
    gold = [place for place, chunk in enumerate(chunks) if _shows(chunk, question)]
    return {
        "arm": "",
        "repo": question.repo,
        "question": question.question,
        "answer": said.marked,
        "right": matches(said.text, question.contains),
        "found": bool(gold),
        "cited": bool(said.sentences) and said.sentences[0].source in gold,
        "memory_tokens": memory.tokens if memory else 0,
        "first_token_s": assembled_s + said.generation.first_token_s,
        "tokens": said.generation.tokens,
        "tokens_per_s": said.generation.tokens_per_s,
    }


def _shows(chunk: Chunk, question: Question) -> bool:
    return chunk.path == question.path and chunk.start_line <= question.last and question.first <= chunk.end_line


def _report(rows: list[dict[str, Any]], questions: list[Question]) -> None:
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        right = wilson(sum(row["right"] for row in own), len(own))
        found = [row for row in own if row["found"]]
        cited = [row["cited"] for row in found if row["right"]]
        lines.append(
            (
                arm,
                f"{right.mean:.2f} ({right.low:.2f}-{right.high:.2f})",
                f"{statistics.mean(row['right'] for row in found):.2f}" if found else "",
                f"{statistics.mean(cited):.2f}" if cited and any(cited) else "",
                statistics.median(row["first_token_s"] for row in own),
                round(statistics.median(row["tokens_per_s"] for row in own), 1),
                statistics.mean(row["tokens"] for row in own),
            )
        )
    print(f"\nn = {len(questions)}, {processor()}, {torch.get_num_threads()} threads\n")
    header = ("arm", "right (95 %)", "where found", "cited", "first token, s", "tokens/s", "tokens")
    table(header, lines)
    pairs = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if " text " in f"{arm} "]
    for text in pairs:
        for other in dict.fromkeys(row["arm"] for row in rows):
            if " latents " in other and other.split()[0] == text.split()[0]:
                ours = {(r["repo"], r["question"]): r["right"] for r in rows if r["arm"] == other}
                theirs = {(r["repo"], r["question"]): r["right"] for r in rows if r["arm"] == text}
                e = bootstrap([float(ours[key]) - float(theirs[key]) for key in theirs])
                print(f"\n{other} minus {text}: {e.mean:+.3f} ({e.low:+.3f} to {e.high:+.3f})")


if __name__ == "__main__":
    main()
