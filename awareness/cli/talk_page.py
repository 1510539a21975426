"""A talk as a Markdown page: each question, its answer, and the sources that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from awareness.engine.answer import Answer
from awareness.types import printable


def page(answers: Sequence[Answer]) -> str:
    """answers: the oldest first."""
    return "\n".join(part for answer in answers for part in _parts(answer))


def _parts(answer: Answer) -> list[str]:
    parts = [f"## {printable(answer.question)}", "", answer.text, ""]
    for place in answer.cited:
        hit, evidence = answer.hits[place], answer.citations[place].evidence
        where = hit.place_of(*evidence[0]) if evidence else hit.place
        symbol = f" {_code(hit.symbol)}" if hit.symbol else ""
        parts.append(f"- [{place + 1}] {_code(where)}{symbol}")
    return [*parts, ""] if answer.cited else parts


def _code(text: str) -> str:
    """The text as code, whatever backticks it has."""
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
