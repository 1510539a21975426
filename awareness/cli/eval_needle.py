"""`awareness eval needle`: hides needles in real code and asks every arm for them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.eval_estimates import cell
from awareness.cli.eval_shared import (
    DEFAULT_ARMS,
    NOT_ASKED,
    CheckpointsOption,
    ChunksOption,
    ChunkTokensOption,
    EvalModelOption,
    OutOption,
    SeedOption,
    arms_asked,
    chunk_pool,
    model_asked,
    names_in,
    numbers_in,
    stored_as,
    write_json,
)
from awareness.index.files.repository import Repository

if TYPE_CHECKING:
    from awareness.evals.intervals import Estimate
    from awareness.evals.needle import NeedleReport

LEXICAL = "bm25"


def needle(
    repo: options.RepoOption = Path("."),
    model: EvalModelOption = None,
    checkpoint: CheckpointsOption = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Needles for each number of chunks.")] = 20,
    chunks: ChunksOption = "1,4,16",
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[
        str,
        typer.Option(
            "--shapes",
            help="What is hidden, by comma: held-out (all that training never shows), ruler (RULER's four forms),"
            " constant (the reference, which training shows), or shapes by name.",
        ),
    ] = "held-out",
    seed: SeedOption = 0,
    quant: options.QuantOption = None,
    arms: Annotated[
        str,
        typer.Option(
            "--arms",
            help="Ways to ask, by comma: none, text, joint (untrained), bm25 (which chunk, by its words)."
            " Those of --checkpoint come too.",
        ),
    ] = DEFAULT_ARMS,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Hide needles in real code and ask for them: the first thing to run when memory seems not to work."""
    numbers, names = numbers_in(chunks), names_in(arms)
    folder = model_asked(model, checkpoint)
    pool = chunk_pool(Repository.open(repo), folder, chunk_tokens)
    from awareness.evals.arms import Bm25
    from awareness.evals.needle import make_cases, run
    from awareness.evals.needle_shapes import shapes_named

    chosen = shapes_named(names_in(shapes))
    make_cases(pool, chunks=numbers[-1], samples=1, seed=seed, shapes=chosen)  # before a model is loaded
    decoders = arms_asked([name for name in names if name != LEXICAL], checkpoint, folder, quant)
    with render.progress() as progress:
        report = run(
            [*decoders, *([Bm25()] if LEXICAL in names else [])],
            pool,
            model=folder.name,
            samples=samples,
            chunks=numbers,
            chunk_tokens=chunk_tokens,
            seed=seed,
            shapes=chosen,
            progress=progress,
        )
    result = as_json(report) | {"quant": stored_as(quant), "repository": repo.resolve().name}
    if out:
        _write(report, result, out)
    if format is options.Format.json:
        render.data(result)
    else:
        _print(report, result)
    if out:
        render.note(f"{out}: needle.json, needle.png and needle_curve.png written")


def as_json(report: NeedleReport) -> dict[str, Any]:
    """arms: the mean over the numbers of chunks at which all arms could be asked. Null where an arm was not."""

    def rows(of_chunk: bool) -> list[dict[str, Any]]:
        return [
            {"arm": arm, "chunks": number, **_estimate(report.accuracy(arm, number, of_chunk=of_chunk))}
            for arm in report.arms
            for number in report.chunks
        ]

    means = {arm: report.accuracy(arm) for arm in report.arms}
    return {
        "arms": {arm: None if mean is None else round(mean.mean, 4) for arm, mean in means.items()},
        "grid": [
            {
                "arm": arm,
                "chunks": number,
                "depth": depth,
                "accuracy": _estimate(report.accuracy(arm, number, depth=depth))["accuracy"],
                "n": n,
            }
            for arm in report.arms
            for number in report.chunks
            for depth, n in sorted(report.cases(number).items())
        ],
        "intervals": rows(of_chunk=False),
        "which_chunk": rows(of_chunk=True),
        "shapes": [
            {"shape": shape, "arm": arm, "chunks": number, **_estimate(report.accuracy(arm, number, shape=shape))}
            for shape in report.shapes
            for arm in report.arms
            for number in report.chunks
        ],
        "model": report.model,
        "seed": report.seed,
        "samples": report.samples,
        "chunk_tokens": report.chunk_tokens,
    }


def _estimate(found: Estimate | None) -> dict[str, Any]:
    if found is None:
        return {"accuracy": None, "low": None, "high": None, "n": 0}
    rounded = {name: round(value, 4) for name, value in asdict(found).items()}
    return {"accuracy": rounded["mean"], "low": rounded["low"], "high": rounded["high"], "n": found.n}


def _print(report: NeedleReport, result: dict[str, Any]) -> None:
    render.text(
        f"needles found (95 % interval), {report.model}, {report.chunk_tokens}-token chunks of {result['repository']},"
        f" quant {result['quant']}, n={report.samples}, seed={report.seed}"
    )
    say = [arm for arm in report.arms if arm != LEXICAL]
    can_tell = [arm for arm in report.arms if any(report.accuracy(arm, n, of_chunk=True) for n in report.chunks)]

    def by_chunks(arms: list[str], of_chunk: bool) -> None:
        rows = [[n, *(_cell(report.accuracy(arm, n, of_chunk=of_chunk)) for arm in arms)] for n in report.chunks]
        render.table(("chunks", *arms), rows)

    if say:
        by_chunks(say, of_chunk=False)
    if say and len(report.shapes) > 1:
        render.text(f"\nby shape, at {', '.join(map(str, report.in_common))} chunks")
        rows = [[shape, *(_cell(report.accuracy(arm, shape=shape)) for arm in say)] for shape in report.shapes]
        render.table(("shape", *say), rows)
    if can_tell:
        render.text("\nthe right chunk gets most attention, or is ranked first")
        by_chunks(can_tell, of_chunk=True)
    if len(report.in_common) < len(report.chunks):
        render.note(f"{NOT_ASKED}: the chunks are longer than the context that the model was trained on")


def _cell(found: Estimate | None) -> str:
    return NOT_ASKED if found is None else cell(found)


def _write(report: NeedleReport, result: dict[str, Any], out: Path) -> None:
    from awareness.evals.report import needle_curve, needle_heat_map

    write_json(out, "needle", result)
    needle_heat_map(report, out / "needle.png")
    needle_curve(report, out / "needle_curve.png")
