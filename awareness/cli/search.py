"""`awareness search`: ranked hits, no decoder, no torch."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.cli.origin import Found, opened, search_all, workspaces_asked
from awareness.errors import NothingFound
from awareness.index.search.ranking import WEAK_SCORE
from awareness.types import Hit, printable


def search(
    query: Annotated[str, typer.Argument(help="Words or identifiers.")],
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = 8,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Find the places that a question is about."""
    started = time.perf_counter()
    with opened(workspaces_asked(repo, memory, rev), memory) as origins:
        found = search_all(origins, query, scope, top_k)
    seconds = round(time.perf_counter() - started, 4)
    weak = not found or found[0].hit.score < WEAK_SCORE
    if format is options.Format.json:
        listed = [as_json(one) for one in found]
        told = {"hits": [], "nearest": listed} if weak else {"hits": listed}
        render.data({"query": query, **told, "seconds": seconds})
    else:
        if weak and found:
            render.text("Not found in this repository. Nearest:")
        for one in found:
            render.text(f"{one.place}  {printable(one.hit.chunk.symbol)}  {one.hit.score:.2f}", style="bold")
            for line in preview(one.hit).split("\n"):
                render.text(f"    {line}")
    if weak:
        raise NothingFound(f"nothing found for '{printable(query[:80])}'", hint="other words, or a wider --scope")


def preview(hit: Hit, lines: int = 3) -> str:
    """The first lines of a chunk that say something."""
    telling = [line for line in hit.chunk.text.split("\n") if line.strip()]
    return "\n".join(line[:120] for line in telling[:lines])


def as_json(found: Found, *, with_preview: bool = True) -> dict[str, object]:
    chunk = found.hit.chunk
    shown = {"preview": preview(found.hit)} if with_preview else {}
    return {
        "path": chunk.path,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "symbol": chunk.symbol,
        "score": found.hit.score,
        "rev": found.origin.rev,
        "origin": found.origin.name,
        **shown,
    }
