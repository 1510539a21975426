"""`awareness search`: ranked hits, without a decoder and without torch."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.engine.engine import DEFAULT_TOP_K, Engine
from awareness.errors import NothingFound
from awareness.index.search.ranking import WEAK_SCORE
from awareness.types import printable


def search(
    query: Annotated[str, typer.Argument(help="Words or identifiers.")],
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = DEFAULT_TOP_K,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Find the code that a question is about, without a language model."""
    started = time.perf_counter()
    with Engine(repo or (), memory or (), rev=rev, reporter=render.REPORTER) as engine:
        hits = engine.search(query, scope=scope, top_k=top_k)
        listed = [hit.to_json() for hit in hits]
    seconds = round(time.perf_counter() - started, 4)
    is_weak = not hits or hits[0].score < WEAK_SCORE
    if format is options.Format.json:
        results = {"hits": [], "nearest": listed} if is_weak else {"hits": listed}
        render.data({"query": query, **results, "seconds": seconds})
    else:
        if is_weak and hits:
            render.text("Not found in this repository. Nearest:")
        for hit in hits:
            render.text(f"{hit.place}  {hit.symbol}  {hit.score:.2f}", style="bold")
            for line in hit.preview().split("\n"):
                render.text(f"    {line}")
    if is_weak:
        raise NothingFound(f"nothing found for '{printable(query[:80])}'", hint="other words, or a wider --scope")
