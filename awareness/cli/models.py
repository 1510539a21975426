"""`awareness models`: which models there are, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.workspace import pull_model
from awareness.errors import ModelNotAvailable
from awareness.model import sources

app = typer.Typer(no_args_is_help=True, help="Presets and where they are.")
NameArgument = Annotated[str, typer.Argument(help="Preset, hub id or folder.")]


@app.command("list")
def list_models(
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """The presets, and which of them are on this machine."""
    rows = []
    for name in (*sources.PRESETS, *sources.EMBEDDERS):
        found = sources.find(name)
        task = "router" if name in sources.EMBEDDERS else "decoder"
        rows.append((name, task, sources.origin(name), str(found.path) if found else ""))
    if format is options.Format.json:
        render.data({"models": [dict(zip(("name", "for", "source", "path"), row, strict=True)) for row in rows]})
    else:
        render.table(("name", "for", "source", "path"), [(n, t, o, p or "not here yet") for n, t, o, p in rows])


@app.command()
def pull(
    name: NameArgument = sources.DEFAULT_MODEL,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fetch a model; nothing to do if it is there."""
    _print(pull_model(name), format)


@app.command()
def path(
    name: NameArgument = sources.DEFAULT_MODEL,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Print the folder of a model that is here."""
    found = sources.find(name)
    if found is None:
        raise ModelNotAvailable(f"{name} is not on this machine", hint=f"awareness models pull {name}")
    _print(found, format)


def _print(folder: sources.ModelFolder, format: options.Format) -> None:
    if format is options.Format.json:
        render.data({"name": folder.name, "path": str(folder.path), "fingerprint": folder.fingerprint})
    else:
        render.text(str(folder.path))
