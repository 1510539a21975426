"""`awareness map`: the most important files and definitions of a repository, in a number of tokens."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from awareness.cli import memories, options, render
from awareness.engine.corpus import empty_scope
from awareness.engine.engine import Engine
from awareness.engine.structure import DEFAULT_MAP_TOKENS, CorpusMap
from awareness.engine.units import counted
from awareness.errors import NothingFound


def map(
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    tokens: Annotated[
        int, typer.Option("--tokens", "-t", min=1, max=1_000_000, help="Maximum number of tokens of the map.")
    ] = DEFAULT_MAP_TOKENS,
    no_refresh: Annotated[bool, typer.Option("--no-refresh", help="Read the index as it is.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Show the most important files and definitions of a repository, in a number of tokens.

    A file is important if important files use what it defines. Files that have changed since the last time are indexed
    first.
    """
    started = time.perf_counter()
    packs, stores = memories.split(memory)
    with Engine(repo or (), packs, rev=rev, memories=stores, reporter=render.REPORTER) as engine:
        if not no_refresh:
            engine.refresh(creates=False)
        maps = engine.map(scope=scope, tokens=tokens)
        is_empty = not any(each.map.files for each in maps)
        no_match = empty_scope(engine.corpora, scope) if is_empty else None
    seconds = round(time.perf_counter() - started, 4)
    if format is options.Format.json:
        render.data({"maps": [each.to_json() for each in maps], "seconds": seconds})
    else:
        for each in maps:
            _print(each)
    if is_empty:
        if no_match:
            raise NothingFound(no_match, hint="another --scope, or none")
        is_small = any(each.map.total_files for each in maps)
        hint = f"--tokens {4 * tokens}" if is_small else "awareness status --files"
        message = f"nothing fits into {counted(tokens, 'token')}" if is_small else "there is no code to show"
        raise NothingFound(message, hint=hint)


def _print(made: CorpusMap) -> None:
    if made.corpus.name:
        render.text(made.corpus.name, style="bold")
    for file in made.map.files:
        path, *lines = file.render().split("\n")
        render.text(path, style="bold")
        for line in lines:
            render.text(line)
    what = f"of {made.tokenizer}" if made.tokenizer else "(estimated)"
    shown, total = len(made.map.files), counted(made.map.total_files, "file")
    render.note(f"{shown} of {total} with definitions, {made.map.tokens} of {made.budget} tokens {what}")
