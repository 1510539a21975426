"""`awareness check`: compares what is on disk with its checksums."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.places import only_workspace
from awareness.engine.units import counted, human_bytes
from awareness.index.store.check import check as check_index


def check(
    repo: options.RepoOption = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Also read every latent and compare it with its checksum.")
    ] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> int:
    """Check the index for damage; exit code 1 if there is any. Changes nothing."""
    started = time.perf_counter()
    layout = only_workspace(repo, "awareness check").existing_layout()
    with render.progress() as progress:
        report = check_index(layout, read_data=read_data, progress=progress)
    seconds = time.perf_counter() - started
    if format is options.Format.json:
        counts = asdict(report)
        render.data({"ok": not report.problems, "read_data": read_data, **counts, "seconds": round(seconds, 3)})
    else:
        for problem in report.problems:
            render.text(f"{problem.kind} {problem.where}: {problem.detail}")
        render.text(
            f"{report.files} files, {report.chunks} chunks, {report.latents} latents in {report.shards} shards,"
            f" {human_bytes(report.bytes)}: "
            + (counted(len(report.problems), "problem") if report.problems else "sound")
        )
    if report.orphans:
        render.note(f"{report.orphans} files are not part of the index; awareness gc deletes them")
    if report.problems:
        render.note("awareness repair keeps what is sound and encodes the rest again")
    elif not read_data:
        render.note("the latents themselves were not read; --read-data reads them")
    return 1 if report.problems else 0
