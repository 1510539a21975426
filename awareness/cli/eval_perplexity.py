"""`awareness eval perplexity`: lines that rest on another file, with and without that file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.eval_estimates import as_json, cell
from awareness.cli.eval_shared import (
    DEFAULT_ARMS,
    ArmsOption,
    CheckpointsOption,
    ChunkTokensOption,
    EvalModelOption,
    OutOption,
    SeedOption,
    arms_asked,
    model_asked,
    names_in,
    stored_as,
    write_json,
)
from awareness.index.files.repository import Repository, SourceFile, decode
from awareness.model import model_files, token_offsets

if TYPE_CHECKING:
    from awareness.evals.next_line_cases import LineCase
    from awareness.evals.perplexity import PerplexityReport


def perplexity(
    repo: options.ReposOption = None,
    model: EvalModelOption = None,
    checkpoint: CheckpointsOption = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Lines of a repository at the most.")] = 50,
    chunks: Annotated[int, typer.Option("--chunks", min=1, help="Chunks to read, the definition's among them.")] = 4,
    chunk_tokens: ChunkTokensOption = 120,
    seed: SeedOption = 0,
    quant: options.QuantOption = None,
    arms: ArmsOption = DEFAULT_ARMS,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """How much less surprising is a line of Python once the file that it rests on can be read?

    Conditions: gold (the chunk with the definition, among others), shuffled (others alone, the control), none.
    """
    folder = model_asked(model, checkpoint)
    repositories = [Repository.open(path) for path in repo or [Path(".")]]
    cases = [case for one in repositories for case in _cases(one, folder, samples, chunks, chunk_tokens, seed)]
    asked = arms_asked(names_in(arms), checkpoint, folder, quant)
    from awareness.evals.perplexity import run

    with render.progress() as progress:
        report = run(asked, cases, seed=seed, progress=progress)
    result = _as_json(report) | {
        "model": folder.name,
        "quant": stored_as(quant),
        "seed": seed,
        "samples": samples,
        "chunks": chunks,
        "chunk_tokens": chunk_tokens,
        "repositories": [one.root.name for one in repositories],
    }
    title = (
        f"{folder.name}, {len(report.cases)} lines of {', '.join(result['repositories'])}, {chunks} chunks of"
        f" {chunk_tokens} tokens, quant {result['quant']}, seed {seed}"
    )
    if out:
        from awareness.evals.pictures import perplexity_bars

        write_json(out, "perplexity", result)
        perplexity_bars(report.rows, title, out / "perplexity.png")
    if format is options.Format.json:
        render.data(result)
    else:
        render.text(f"perplexity (95 % interval), {title}")
        rows = [(row.arm, row.condition, cell(row.line), cell(row.name)) for row in report.rows]
        render.table(("arm", "reads", "line", "name in it"), rows)
    if out:
        render.note(f"{out}: perplexity.json and perplexity.png written")


def _cases(
    repository: Repository, folder: model_files.ModelFolder, samples: int, chunks: int, chunk_tokens: int, seed: int
) -> list[LineCase]:
    from awareness.evals.next_line_cases import make_cases

    files = {file.path: decode(file.data) for file in repository.scan() if isinstance(file, SourceFile)}
    token_starts = token_offsets.token_starts(folder.path)
    return make_cases(files, token_starts, samples=samples, chunks=chunks, chunk_tokens=chunk_tokens, seed=seed)


def _as_json(report: PerplexityReport) -> dict[str, Any]:
    """cases: -log p, in nats, of every line and every name, so that arms can be compared case by case."""
    return {
        "perplexity": [
            {
                "arm": row.arm,
                "condition": row.condition,
                "line": as_json(row.line),
                "name": as_json(row.name),
                "tokens": row.tokens,
            }
            for row in report.rows
        ],
        "cases": [
            {
                "place": case.place,
                "name": case.name,
                "nll": {
                    f"{arm}/{condition}": {"line": round(found[i].line[0], 4), "name": round(found[i].name[0], 4)}
                    for (arm, condition), found in report.likelihoods.items()
                },
            }
            for i, case in enumerate(report.cases)
        ],
    }
