"""What the commands of `awareness eval` share: their options, the arms they ask, the hay, and the files they write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.engine.models import pull_known, pull_model
from awareness.engine.workspace import DEFAULT_QUANT
from awareness.errors import UsageError
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.files.repository import Repository, SourceFile, decode
from awareness.model import model_files, presets, token_offsets
from awareness.types import Chunk

if TYPE_CHECKING:
    from awareness.evals.arms import Arm

CheckpointsOption = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", help="A folder that training wrote, asked as an arm of its own; repeatable."),
]
ArmsOption = Annotated[
    str,
    typer.Option(
        "--arms", help="Ways to ask, by comma: none, text, joint (untrained). Those of --checkpoint come too."
    ),
]
ChunksOption = Annotated[str, typer.Option("--chunks", help="Numbers of chunks in memory, by comma.")]
ChunkTokensOption = Annotated[int, typer.Option("--chunk-tokens", min=32, help="Tokens of a chunk at the most.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of all that is drawn.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the JSON and the pictures.")]
EvalModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="AWARENESS_MODEL",
        help="Of the untrained arms. Default: the first checkpoint's, else smollm2-135m.",
    ),
]
DEFAULT_ARMS = "none,text,joint"
NOT_ASKED = "—"


def names_in(text: str) -> list[str]:
    """'none, text' -> none, text"""
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers_in(text: str, option: str = "--chunks") -> list[int]:
    """'1,4,16' -> 1, 4, 16, each once and ascending. Raises UsageError."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise UsageError(f"{option} '{text}' is not a list of positive numbers", hint=f"{option} 1,4,16")
    return numbers


def model_asked(model: str | None, checkpoints: Sequence[Path] | None) -> model_files.ModelFolder:
    """The model of the untrained arms, whose tokens all arms' chunks are counted in."""
    if model is None and checkpoints:
        from awareness.model.checkpoint import Checkpoint

        return pull_known(Checkpoint.read(checkpoints[0]).base)
    return pull_model(model or presets.DEFAULT_MODEL, render.REPORTER)


def arms_asked(
    names: Sequence[str],
    checkpoints: Sequence[Path] | None,
    folder: model_files.ModelFolder,
    quant: options.Quant | None = None,
) -> list[Arm]:
    from awareness.evals.arms import open_arms

    for checkpoint in checkpoints or ():
        render.detail(f"loading {checkpoint}")
    return open_arms(names, checkpoints or (), model=folder, pull=pull_known, quant=stored_as(quant))


def stored_as(quant: options.Quant | None) -> str:
    """How latents are stored, as asked for or as an index has them."""
    return quant.value if quant else DEFAULT_QUANT


def chunk_pool(repository: Repository, folder: model_files.ModelFolder, chunk_tokens: int) -> list[Chunk]:
    """The repository's source chunks that fill at least half of their size: the hay."""
    from awareness.index.chunks.chunking import chunk_file

    token_starts = token_offsets.token_starts(folder.path)
    pool: dict[str, Chunk] = {}
    for file in repository.scan():
        if isinstance(file, SourceFile) and kind_of(file.path) is FileKind.SOURCE:
            for chunk in chunk_file(file.path, decode(file.data), token_starts, max_tokens=chunk_tokens):
                if len(token_starts(chunk.encoded_text)) * 2 >= chunk_tokens:
                    pool[chunk.digest] = chunk
    return list(pool.values())


def write_json(out: Path, name: str, result: dict[str, Any]) -> Path:
    """The file `name`.json in `out`, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return path
