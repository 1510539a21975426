"""`awareness eval retrieval`: does attention to the memory find the chunk that answers, layer by layer?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.eval_estimates import as_json, cell
from awareness.cli.eval_routing import route
from awareness.cli.eval_shared import (
    ArmsOption,
    CheckpointsOption,
    ChunkTokensOption,
    EvalModelOption,
    OutOption,
    SeedOption,
    arms_asked,
    chunk_pool,
    model_asked,
    names_in,
    stored_as,
    write_json,
)
from awareness.errors import UsageError
from awareness.evals.question_files import read_questions
from awareness.index.files.repository import Repository
from awareness.model.presets import settings_of
from awareness.types import Sample

if TYPE_CHECKING:
    from awareness.evals.retrieval import Accuracy


def retrieval(
    repo: options.ReposOption = None,
    model: EvalModelOption = None,
    checkpoint: CheckpointsOption = None,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", help="Real questions instead of needles; the format is that of `eval qa`."),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle", help="Chunks of real questions in any order; else as `ask` has them, the best last."),
    ] = False,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Needles, or questions at the most.")] = 40,
    chunks: Annotated[int, typer.Option("--chunks", min=2, help="In memory; of a question the best routed.")] = 16,
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[
        str,
        typer.Option("--shapes", help="Needles, as of `eval needle`, by comma. single: one that training never saw."),
    ] = "single",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=2, help="Of answers to real questions, while which is measured.")
    ] = 32,
    seed: SeedOption = 0,
    quant: options.QuantOption = None,
    arms: ArmsOption = "joint",
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Is the chunk that answers the one that attention looks at most? In which layers, better than routing alone?"""
    folder = model_asked(model, checkpoint)
    repositories = [Repository.open(path) for path in repo or [Path(".")]]
    if questions is not None:
        drawn, worth = _routed(questions, repo, model, chunks, samples, random.Random(seed), shuffle)
    else:
        pool = [chunk for one in repositories for chunk in chunk_pool(one, folder, chunk_tokens)]
        from awareness.evals.needle import make_cases
        from awareness.evals.needle_shapes import shapes_named

        chosen = shapes_named(names_in(shapes))
        cases = make_cases(pool, chunks=chunks, samples=samples, seed=seed, shapes=chosen)
        drawn, worth = [case.sample for case in cases], []
    asked = [arm for arm in arms_asked(names_in(arms), checkpoint, folder, quant) if arm.reads == "memory"]
    if not asked:
        raise UsageError(f"none of the arms {arms} has a memory", hint="--arms joint, or --checkpoint FOLDER")
    from awareness.evals.retrieval import run

    with render.progress() as progress:
        rows = run(
            asked,
            drawn,
            max_new_tokens=max_new_tokens,
            repetition_penalty=settings_of(folder.name).repetition_penalty,
            routing=worth,
            progress=progress,
        )
    result: dict[str, Any] = {
        "retrieval": [
            {"order": row.order, "layer": row.layer, "acc@1": as_json(row.at_1), "acc@5": as_json(row.at_5)}
            for row in rows
        ],
        "retrieval_layers": {arm.name: arm.retrieval_layers for arm in asked},
        "cases": questions.name if questions else shapes,
        "shuffled": shuffle,
        "model": folder.name,
        "quant": stored_as(quant),
        "seed": seed,
        "samples": len(drawn),
        "chunks": chunks,
        "chunk_tokens": None if questions else chunk_tokens,
        "repositories": [one.root.name for one in repositories],
    }
    title = (
        f"{folder.name}, {len(drawn)} {'questions' if questions else f'needles ({shapes})'} in"
        f" {', '.join(result['repositories'])}, {chunks} chunks, quant {result['quant']}, seed {seed}"
    )
    if out:
        from awareness.evals.pictures import retrieval_lines

        write_json(out, "retrieval", result)
        retrieval_lines(rows, asked[0].retrieval_layers, title, out / "retrieval.png")
    if format is options.Format.json:
        render.data(result)
    else:
        _print(rows, title)
    if out:
        render.note(f"{out}: retrieval.json and retrieval.png written")


def _routed(
    path: Path,
    repos: Sequence[Path] | None,
    model: str | None,
    top_k: int,
    samples: int,
    rng: random.Random,
    shuffle: bool,
) -> tuple[list[Sample], list[list[float]]]:
    """Questions whose gold is among the chunks that are attached, and is not all of them; and for each of their chunks
    what routing thinks it worth, the worst 0."""
    from awareness.evals.qa import sample_of

    found: list[tuple[Sample, list[float]]] = []
    for one in route(read_questions(path), repos, model=model, top_k=top_k):
        order = list(reversed(one.chunks))
        if shuffle:
            rng.shuffle(order)
        sample = replace(sample_of(one.question, order), answer="")
        if 0 < len(sample.gold) < len(order):
            found.append((sample, [float(one.chunks[::-1].index(chunk)) for chunk in order]))
    if not found:
        raise UsageError(f"no question of {path} has its gold among the {top_k} chunks that routing finds")
    chosen = rng.sample(found, min(samples, len(found)))
    return [sample for sample, _ in chosen], [worth for _, worth in chosen]


def _print(rows: Sequence[Accuracy], title: str) -> None:
    render.text(f"gold chunk first, and in five (95 % interval), {title}")
    together = [(row.order, cell(row.at_1), cell(row.at_5)) for row in rows if row.layer is None]
    render.table(("order", "Acc@1", "Acc@5"), together)
    by_layer: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row.layer is not None:
            by_layer.setdefault(row.layer, {})[row.order] = row
    arms = list(dict.fromkeys(row.order for row in rows if row.layer is not None))
    render.text("\nby layer, Acc@1 / Acc@5")
    table = [
        (layer, *(f"{own[arm].at_1.mean:.2f} / {own[arm].at_5.mean:.2f}" if arm in own else "" for arm in arms))
        for layer, own in sorted(by_layer.items())
    ]
    render.table(("layer", *arms), table)
