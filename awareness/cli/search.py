"""`awareness search`: ranked hits, no decoder, no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.workspace import Workspace, router
from awareness.errors import NothingFound
from awareness.types import Hit


def search(
    query: Annotated[str, typer.Argument(help="Words or identifiers.")],
    repo: options.RepoOption = Path("."),
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = 8,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Find the places that a question is about."""
    started = time.perf_counter()
    store, snapshot = Workspace.open(repo, rev=rev).open_snapshot()
    with store:
        hits = router(store, snapshot, scope).search(query, top_k=top_k)
    seconds = time.perf_counter() - started
    if format is options.Format.json:
        render.data({"query": query, "hits": [_as_json(hit) for hit in hits], "seconds": round(seconds, 4)})
    for hit in hits if format is options.Format.text else ():
        chunk = hit.chunk
        render.text(f"{chunk.place}  {chunk.symbol}  {hit.score:.2f}", style="bold")
        for line in preview(hit).split("\n"):
            render.text(f"    {line}")
    if not hits:
        raise NothingFound(f"nothing found for '{query}'", hint="other words, or a wider --scope")


def preview(hit: Hit, lines: int = 3) -> str:
    """The first lines of a chunk that say something."""
    telling = [line for line in hit.chunk.text.split("\n") if line.strip()]
    return "\n".join(line[:120] for line in telling[:lines])


def _as_json(hit: Hit) -> dict[str, object]:
    chunk = hit.chunk
    return {
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "score": hit.score,
        "preview": preview(hit),
    }
