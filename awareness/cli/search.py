"""`awareness search`: ranked hits, without a decoder and without torch."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from awareness.cli import hits as hit_lines
from awareness.cli import memories, options, render, structure
from awareness.engine.corpus import empty_scope
from awareness.engine.engine import DEFAULT_TOP_K, Engine
from awareness.errors import NothingFound
from awareness.index.search.evidence import WEAK_SCORE
from awareness.types import printable


def search(
    query: Annotated[str | None, typer.Argument(help="Words or identifiers.", show_default=False)] = None,
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    kind: options.KindOption = None,
    callers: structure.CallersOption = None,
    callees: structure.CalleesOption = None,
    tests_of: structure.TestsOption = None,
    similar: structure.SimilarOption = None,
    top_k: options.TopKOption = DEFAULT_TOP_K,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="An embedding model reads the best chunks again: better for questions in words, and a second or more"
            " slower. The model is downloaded once.",
        ),
    ] = False,
    no_refresh: Annotated[
        bool,
        typer.Option(
            "--no-refresh", help="Search the index as it is. Hits whose lines have changed since then are marked."
        ),
    ] = False,
    format: options.ListFormatOption = options.ListFormat.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Find the code that a question is about, without a language model.

    Files that have changed since the last time are indexed first.
    """
    started = time.perf_counter()
    asked = structure.asked(query, callers=callers, callees=callees, tests_of=tests_of, similar=similar)
    packs, stores = memories.split(memory)
    with Engine(repo or (), packs, rev=rev, memories=stores, reporter=render.REPORTER) as engine:
        if not no_refresh:
            engine.refresh(creates=False)
        if asked is not None:
            structure.show(engine, asked, kind, scope, top_k, format, started)
            return
        assert query is not None
        hits = engine.search(query, scope=scope, top_k=top_k, kinds=kind, deep=deep)
        stale = [not hit.is_current for hit in hits]
        listed = hit_lines.listed(hits, stale)
        no_match = None if hits else empty_scope(engine.corpora, scope)
    seconds = round(time.perf_counter() - started, 4)
    is_weak = not hits or hits[0].score < WEAK_SCORE
    if format is options.ListFormat.jsonl:
        for hit_json in () if is_weak else listed:
            render.data(hit_json)
    elif format is options.ListFormat.json:
        results = {"hits": [], "nearest": listed} if is_weak else {"hits": listed}
        render.data({"query": query, **results, "seconds": seconds})
    else:
        if is_weak and hits:
            render.text(f"Not found in {engine.searched}. Nearest:")
        for hit, is_stale in zip(hits, stale, strict=True):
            hit_lines.show(hit, is_stale=is_stale)
    if is_weak:
        engine.note_unsearched()
        if no_match:
            raise NothingFound(no_match, hint="another --scope, or none")
        raise NothingFound(f"nothing found for '{printable(query[:80])}'", hint="other words, or a wider --scope")
