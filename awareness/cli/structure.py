"""The options of `awareness search` that ask for callers, callees, tests and similar code, and how these are shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from awareness.cli import hits as hit_lines
from awareness.cli import options, render
from awareness.engine.corpus import CorpusHit, empty_scope
from awareness.engine.engine import Engine
from awareness.engine.structure import LinkedHit
from awareness.engine.units import named_list
from awareness.errors import NothingFound, UsageError
from awareness.types import printable

_NAME = "func, Class.method, module.func or path/to/file.py:func"
CallersOption = Annotated[
    str | None,
    typer.Option("--callers", metavar="NAME", help=f"In place of QUERY: what calls NAME ({_NAME})."),
]
CalleesOption = Annotated[
    str | None,
    typer.Option("--callees", metavar="NAME", help="In place of QUERY: the definitions that NAME calls."),
]
TestsOption = Annotated[
    str | None,
    typer.Option("--tests-of", metavar="NAME", help="In place of QUERY: the tests that call, use or are named NAME."),
]
SimilarOption = Annotated[
    str | None,
    typer.Option("--similar", metavar="FILE:LINE", help="In place of QUERY: the code most like that on this line."),
]
_MOST_LINES = 8  # of one caller that are named


@dataclass(frozen=True)
class Asked:
    """option: without dashes. value: the name or the place."""

    option: str
    value: str


def asked(query: str | None, **given: str | None) -> Asked | None:
    """The one option that was given; None if there is a query. Raises UsageError for several."""
    options_given = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    words = [*(["QUERY"] if query is not None else []), *(f"--{name}" for name in options_given)]
    if len(words) > 1:
        raise UsageError(
            f"{' and '.join(words)} do not go together", hint=f"one of them: awareness search {words[-1]} …"
        )
    for name, value in options_given.items():
        if not value.strip():
            raise UsageError(f"--{name} is empty", hint="awareness search --callers Class.method")
        return Asked(name, value)
    return None


def show(
    engine: Engine,
    question: Asked,
    kinds: Sequence[str] | None,
    scope: Sequence[str] | None,
    top_k: int,
    format: options.ListFormat,
    started: float,
) -> None:
    """Asks and prints. Raises NothingFound where nothing is found."""
    if kinds:
        raise UsageError(f"--kind and --{question.option} do not go together", hint="--scope with a glob of paths")
    ask: dict[str, Callable[..., Sequence[CorpusHit]]] = {
        "callers": engine.callers,
        "callees": engine.callees,
        "tests-of": engine.tests_of,
        "similar": engine.similar,
    }
    hits = ask[question.option](question.value, scope=scope, top_k=top_k)
    stale = [not hit.is_current for hit in hits]
    listed = hit_lines.listed(hits, stale)
    if format is options.ListFormat.json:
        seconds = round(time.perf_counter() - started, 4)
        render.data({"query": question.value, "relation": question.option, "hits": listed, "seconds": seconds})
    elif format is options.ListFormat.jsonl:
        for hit_json in listed:
            render.data(hit_json)
    else:
        for hit, is_stale in zip(hits, stale, strict=True):
            if isinstance(hit, LinkedHit):
                _print(hit, question.option, hit_lines.STALE if is_stale else "")
            else:
                hit_lines.show(hit, is_stale=is_stale)
    if not hits:
        no_match = empty_scope(engine.corpora, scope)
        hint = "another --scope, or none" if scope else f"awareness search '{printable(question.value[:80])}'"
        raise NothingFound(no_match or _nothing(engine, question), hint=hint)


def _print(hit: LinkedHit, option: str, mark: str) -> None:
    link = hit.link
    how = {"value": "  passed on", "names": "  named", "name": "  by its name"}.get(link.how, "")
    unsure = "" if link.is_proven or how == "  by its name" else "  by name only"
    symbol = printable(link.symbol) or "(top of the file)"
    render.text(f"{hit.line_place}  {symbol}  {hit.score:.2f}{how}{unsure}{mark}", style="bold")
    called = f"line {link.lines[0]}: " if option == "callees" else ""
    render.text(f"    {called}{link.text}")
    others = [str(line) for line in (link.lines[1:] if called else link.lines) if called or line != link.line]
    if others:
        label = "line" if len(others) == 1 else "lines"
        render.text(f"    also on {label} {named_list(others, _MOST_LINES)}", style="dim")


def _nothing(engine: Engine, question: Asked) -> str:
    name = printable(question.value[:80])
    return {
        "callers": f"nothing in {engine.searched} calls '{name}'",
        "callees": f"'{name}' calls nothing that {engine.searched} defines",
        "tests-of": f"no test in {engine.searched} is about '{name}'",
        "similar": f"nothing in {engine.searched} is like {name}",
    }[question.option]
