"""`awareness pack`: writes a snapshot with its latents into one file, which answers without the sources."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.models import load_model, pull_model
from awareness.engine.places import only_workspace
from awareness.engine.units import human_bytes
from awareness.engine.workspace import quant_of
from awareness.errors import UsageError
from awareness.index import build
from awareness.index.store.lock import writing
from awareness.index.store.pack import About, write_pack
from awareness.index.store.store import Store


def pack(
    file: Annotated[Path, typer.Argument(help="The file to write, like repo.awm.")],
    repo: options.RepoOption = None,
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    quant: options.QuantOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Write a repository's memory into one file, as in `awareness pack repo.awm --repo ./repo`.

    `awareness ask --memory repo.awm` answers from it without the sources.
    """
    started = time.perf_counter()
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file.absolute().parent} is not a folder", hint="a file in an existing folder")
    if file.is_dir():
        raise UsageError(f"{file} is a folder, not a file to write", hint=f"awareness pack FILE --repo {file}")
    if file.exists() and not (force and file.is_file()):
        raise UsageError(f"{file} exists already", hint="--force replaces it, or name another file")
    workspace = only_workspace(repo, f"awareness pack {file}", rev)
    in_scope = workspace.build_scope(workspace.scope(scope or ())) or (lambda path: True)
    folder = pull_model(workspace.model_name(model), render.REPORTER)
    with writing(workspace.layout), Store.create(workspace.layout) as store:
        snapshot = workspace.refresh(store, folder, reporter=render.REPORTER).snapshot
        stored_as = quant.value if quant else quant_of(store)
        encoder = load_model(folder, stored_as, reporter=render.REPORTER).encoder
        # Only the last part of a model folder's path: the rest would tell strangers about this machine.
        name = Path(folder.name).name if Path(folder.name).is_dir() else folder.name
        about = About(name, workspace.repository.root.name, workspace.rev, store.chunking_of(snapshot) or "")
        with render.progress() as progress:
            written = write_pack(
                file.absolute(),
                store,
                snapshot,
                encoder.spec,
                encoder.sink,
                lambda chunks: build.encode_chunks(encoder, chunks),
                about,
                in_scope=in_scope,
                progress=progress,
            )
    seconds = time.perf_counter() - started
    if format is options.Format.json:
        render.data(
            {
                "file": str(file),
                "repository": about.repository,
                "rev": workspace.rev,
                "model": folder.name,
                "quant": stored_as,
                "files": written.files,
                "chunks": written.chunks,
                "tokens": written.tokens,
                "bytes": written.bytes,
                "seconds": round(seconds, 3),
            }
        )
        return
    render.text(
        f"{file}: {written.files} files, {written.chunks} chunks, {written.tokens:,} tokens,"
        f" {human_bytes(written.bytes)}, in {seconds:.1f} s"
    )
