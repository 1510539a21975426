"""`awareness eval`: measurements, each a table on stdout, JSON and a picture in --out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.workspace import DEFAULT_QUANT, load_model, pull_model
from awareness.errors import UsageError
from awareness.index.kinds import FileKind, kind_of
from awareness.index.repo import Repository, SourceFile, decode
from awareness.model import sources
from awareness.types import Chunk

if TYPE_CHECKING:
    from awareness.evals.needle import NeedleReport

app = typer.Typer(no_args_is_help=True, help="Measure whether the memory is read, and how well.")


@app.callback()
def _group() -> None:
    """Measure whether the memory is read, and how well."""


@app.command()
def needle(
    repo: options.RepoOption = Path("."),
    model: options.ModelOption = sources.DEFAULT_MODEL,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Needles for each number of chunks.")] = 20,
    chunks: Annotated[str, typer.Option("--chunks", help="Numbers of chunks in memory, by comma.")] = "1,4,16",
    chunk_tokens: Annotated[int, typer.Option("--chunk-tokens", min=32, help="Tokens of a chunk at the most.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="Of names, values, places and chunks.")] = 0,
    quant: options.QuantOption = None,
    arms: Annotated[str, typer.Option("--arms", help="Which ways to ask, by comma.")] = "none,text,joint",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for needle.json and needle.png.")] = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Hide constants in real code and ask for them: the first thing to run when memory seems not to work."""
    numbers = _numbers(chunks)
    folder = pull_model(model or sources.DEFAULT_MODEL)
    pool = chunk_pool(Repository.open(repo), folder, chunk_tokens)
    loaded = load_model(folder, quant.value if quant else DEFAULT_QUANT)
    from awareness.evals import needle as needles

    with render.progress() as progress:
        report = needles.run(
            loaded.decoder,
            loaded.encoder,
            pool,
            samples=samples,
            chunks=numbers,
            chunk_tokens=chunk_tokens,
            seed=seed,
            arms=[arm.strip() for arm in arms.split(",")],
            progress=progress,
        )
    result = _as_json(report, repo, loaded.quant)
    if out:
        _write(report, result, out)
    if format is options.Format.json:
        render.data(result)
        return
    names = list(result["arms"])
    rows = [(number, *(report.accuracy(arm, number) for arm in names)) for number in numbers]
    render.text(
        f"needles found, {report.model}, {chunk_tokens}-token chunks of {repo.resolve().name},"
        f" quant {loaded.quant}, n={samples}, seed={seed}"
    )
    render.table(("chunks", *names), rows)
    if out:
        render.note(f"{out / 'needle.json'} and {out / 'needle.png'} written")


def chunk_pool(repository: Repository, folder: sources.ModelFolder, chunk_tokens: int) -> list[Chunk]:
    """The repository's source chunks that fill at least half of their size: the hay."""
    from awareness.index.chunking import chunk_file

    token_starts = sources.token_starts(folder)
    pool: dict[str, Chunk] = {}
    for file in repository.scan():
        if isinstance(file, SourceFile) and kind_of(file.path) is FileKind.SOURCE:
            for chunk in chunk_file(file.path, decode(file.data), token_starts, max_tokens=chunk_tokens):
                if len(token_starts(chunk.encoded_text)) * 2 >= chunk_tokens:
                    pool[chunk.digest] = chunk
    return list(pool.values())


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError(f"--chunks '{text}' is not a list of positive numbers", hint="--chunks 1,4,16")
    return numbers


def _as_json(report: NeedleReport, repo: Path, quant: str) -> dict[str, Any]:
    arms = list(dict.fromkeys(cell.arm for cell in report.grid))
    return {
        "arms": {arm: round(report.accuracy(arm), 4) for arm in arms},
        "grid": [asdict(cell) for cell in report.grid],
        "model": report.model,
        "quant": quant,
        "seed": report.seed,
        "samples": report.samples,
        "chunk_tokens": report.chunk_tokens,
        "repository": repo.resolve().name,
    }


def _write(report: NeedleReport, result: dict[str, Any], out: Path) -> None:
    from awareness.evals.report import needle_heat_map

    out.mkdir(parents=True, exist_ok=True)
    (out / "needle.json").write_text(json.dumps(result, indent=2) + "\n")
    needle_heat_map(report, out / "needle.png")
