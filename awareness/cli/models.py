"""`awareness models`: lists and downloads models, and fits the tables of `--quant pca` to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.models import pull_model
from awareness.errors import ModelNotAvailable
from awareness.model import model_files, presets
from awareness.model.presets import KNOWN, Preset

app = typer.Typer(no_args_is_help=True, help="List and download models.")
NameArgument = Annotated[str, typer.Argument(help="Preset, hub id or folder.")]


@app.command("list")
def list_models(
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """List the presets: licence, size, speed on two CPU cores, source, and which are on this machine."""
    rows = [(preset, model_files.find(name)) for name, preset in KNOWN.items()]
    if format is options.Format.json:
        render.data({"models": [_described(preset, found) for preset, found in rows]})
    else:
        columns = ("licence", "fetch", "disk", "tok/s", "source", "here")
        for column, names in (("decoder", presets.PRESETS), ("router", presets.EMBEDDERS)):
            shown = [_row(preset, found) for preset, found in rows if preset.name in names]
            render.table((column, *columns), shown)


def _described(preset: Preset, found: model_files.ModelFolder | None) -> dict[str, object]:
    """Sizes in bytes; tokens_per_s on two CPU cores, null where it was not measured."""
    return {
        "name": preset.name,
        "for": preset.task,
        "source": preset.source,
        "path": str(found.path) if found else "",
        "here": found is not None,
        "licence": preset.licence,
        "hub_id": preset.hub_id,
        "download_bytes": preset.download_bytes,
        "disk_bytes": preset.disk_bytes,
        "tokens_per_s": preset.tokens_per_s,
    }


def _row(preset: Preset, found: model_files.ModelFolder | None) -> tuple[str, ...]:
    speed = "" if preset.tokens_per_s is None else f"{preset.tokens_per_s:g}"
    sizes = (_gigabytes(preset.download_bytes), _gigabytes(preset.disk_bytes))
    source = preset.source.rsplit(" ", 1)[0] if preset.wheels else preset.source  # without the version: 100 columns
    return (preset.name, preset.licence, *sizes, speed, source, "yes" if found else "no")


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f}G"


@app.command()
def pull(
    name: NameArgument = presets.DEFAULT_MODEL,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Download a model, unless it is on this machine already."""
    _print(pull_model(name, render.REPORTER), format)


@app.command()
def path(
    name: NameArgument = presets.DEFAULT_MODEL,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Print the folder of a model that is on this machine."""
    folder = model_files.find(name)
    if folder is None:
        raise ModelNotAvailable(f"{name} is not on this machine", hint=f"awareness models pull {name}")
    _print(folder, format)


@app.command("calibrate")
def calibrate_model(
    name: NameArgument = presets.DEFAULT_MODEL,
    repo: Annotated[
        list[Path] | None,
        typer.Option("--repo", "-r", help="A repository with code to fit to; repeatable. Default: the one here."),
    ] = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fit the tables of `--quant pca` to a decoder, which takes some minutes. The default decoder has its tables.

    Latents that were made with the tables of before are encoded again when they are needed.
    """
    from awareness.engine.calibration import calibrate

    done = calibrate(pull_model(name, render.REPORTER), repo or [Path()], render.REPORTER)
    if format is options.Format.json:
        render.data(
            {
                "file": str(done.file),
                "chunks": done.chunks,
                "tokens": done.tokens,
                "token_bytes": done.token_bytes,
                "seconds": round(done.seconds, 3),
            }
        )
        return
    render.text(
        f"{done.file}: fitted to {done.chunks} chunks, {done.tokens:,} tokens, in {done.seconds:.0f} s;"
        f" {done.token_bytes:,} bytes a token with --quant pca"
    )


def _print(folder: model_files.ModelFolder, format: options.Format) -> None:
    if format is options.Format.json:
        render.data({"name": folder.name, "path": str(folder.path), "fingerprint": folder.fingerprint})
    else:
        render.text(str(folder.path))
