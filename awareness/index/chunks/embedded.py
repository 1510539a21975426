"""Code inside another text (a cell of a notebook, a fenced block, a script of a component) -> parts of that text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from awareness.index.chunks.languages import LANGUAGES, language_of
from awareness.index.chunks.syntax import Part, syntax_parts

_MAX_NAME = 40  # characters of the name of a language
_ALIASES = {
    "c#": "cs",
    "c++": "cpp",
    "golang": "go",
    "haskell": "hs",
    "ipython": "py",
    "ipython3": "py",
    "julia": "jl",
    "node": "js",
    "python3": "py",
    "shell": "sh",
}


def language_named(name: str) -> str | None:
    """The language of this name or file extension, as people write it behind a fence: `py`, `C++`, `Python3`."""
    name = name.strip().lower()[:_MAX_NAME]
    name = _ALIASES.get(name, name)
    if name in LANGUAGES:
        return name
    return language_of(f"x.{name}") if name.replace("+", "").isalnum() else None


def code_parts(language: str | None, rows: Sequence[str], start: int, *, named: bool = True) -> list[Part]:
    """The parts of rows of code that start at row `start` of a text; empty if there is no grammar.

    rows: may be indented. named: keep the names of definitions.
    """
    if language not in LANGUAGES:
        return []
    margin = min((len(row) - len(row.lstrip()) for row in rows if row.strip()), default=0)
    parts = syntax_parts(language, "\n".join(row[margin:] for row in rows)) or []
    return shifted(parts, start, named=named)


def shifted(parts: list[Part], rows: int, *, named: bool = True) -> list[Part]:
    """The parts this many rows further down. Their children are made when they are asked for, as before."""
    return [
        replace(
            part,
            start=part.start + rows,
            stop=part.stop + rows,
            name=part.name if named else "",
            children=partial(_children, part, rows, named),
        )
        for part in parts
    ]


def _children(part: Part, rows: int, named: bool) -> list[Part]:
    return shifted(part.children(), rows, named=named)


def led_by(first: int, parts: list[Part], stop: int) -> list[Part]:
    """The parts of a block with the rows above and below them, such as a fence or a tag: rows `[first, stop)`."""
    if not parts:
        return []
    above = [Part(first, parts[0].start, leads=True)] if first < parts[0].start else []
    return [*above, *parts[:-1], replace(parts[-1], stop=max(parts[-1].stop, stop))]
