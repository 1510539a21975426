"""`awareness eval latency`: time to first token and decoding speed by size, arms side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.eval_shared import (
    DEFAULT_ARMS,
    NOT_ASKED,
    ArmsOption,
    CheckpointsOption,
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
from awareness.model import token_offsets


def latency(
    repo: options.RepoOption = Path("."),
    model: EvalModelOption = None,
    checkpoint: CheckpointsOption = None,
    tokens: Annotated[
        str, typer.Option("--tokens", help="Sizes of what is read, in tokens, by comma.")
    ] = "1024,2048,4096",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of which the median is taken.")] = 5,
    decode: Annotated[int, typer.Option("--decode", min=2, help="Tokens of an answer.")] = 32,
    chunk_tokens: Annotated[int, typer.Option("--chunk-tokens", min=32, help="Tokens of a chunk at the most.")] = 256,
    seed: SeedOption = 0,
    quant: options.QuantOption = None,
    arms: ArmsOption = DEFAULT_ARMS,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """How long does an answer take, by the size of what is read?

    Memory's latents are encoded before and held; attaching them and reading the question is what is measured.
    """
    import random

    sizes = numbers_in(tokens, "--tokens")
    folder = model_asked(model, checkpoint)
    pool = chunk_pool(Repository.open(repo), folder, chunk_tokens)
    random.Random(seed).shuffle(pool)
    asked = arms_asked(names_in(arms), checkpoint, folder, quant)
    from awareness.evals.latency import run

    with render.progress() as progress:
        rows = run(
            asked,
            pool,
            token_offsets.token_starts(folder.path),
            tokens=sizes,
            rounds=rounds,
            decode=decode,
            progress=progress,
        )
    name = repo.resolve().name
    stored = stored_as(quant)
    result = {
        "latency": [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(row).items()}
            for row in rows
        ],
        "model": folder.name,
        "quant": stored,
        "seed": seed,
        "rounds": rounds,
        "decode": decode,
        "chunk_tokens": chunk_tokens,
        "repository": name,
        "latents": "encoded before",
    }
    title = f"{folder.name}, chunks of {name}, quant {stored}, median of {rounds}, latents encoded before"
    if out:
        from awareness.evals.pictures import latency_lines

        write_json(out, "latency", result)
        latency_lines(rows, title, out / "latency.png")
    if format is options.Format.json:
        render.data(result)
    else:
        render.text(title)
        shown = [
            (row.tokens, row.arm, *(NOT_ASKED if value is None else f"{value:.2f}" for value in cells))
            for row in rows
            for cells in [(row.first_token_s, row.ratio, row.tokens_per_s)]
        ]
        render.table(("tokens", "arm", "first token, s", "of text's", "tokens/s"), shown)
        if any(row.first_token_s is None for row in rows):
            render.note(f"{NOT_ASKED}: longer than the context that the model was trained on")
    if out:
        render.note(f"{out}: latency.json and latency.png written")
