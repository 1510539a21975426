"""The wording of questions, answers and hidden lines: `templates.yaml`, loaded, checked and filled in.

A template that is marked `held_out` belongs to evaluations. Training cannot get it, so it never makes its shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

from pydantic import Field, TypeAdapter

from awareness.config.base import Section
from awareness.config.yaml_text import read_yaml

_ENDS_IN_CODE = re.compile(r"(?:=|return) ?$")
_CLOSING = {"`": "`", '"': '"', "'": "'", "(": ")"}


@dataclass(frozen=True)
class Phrasings:
    """The ways to ask for one answer, and to give it.

    prefixes: beginnings of an answer that the bare `answer` completes. sentences: whole answers. noun: what the answer
    is ("value", "path"). literal: the answer as code writes it, where that differs (in quotes). lines: hidden lines.
    """

    answer: str
    questions: Sequence[str]
    prefixes: Sequence[str]
    sentences: Sequence[str]
    noun: str = "value"
    literal: str = ""
    lines: Sequence[str] = ()

    def after(self, prefix: str) -> str:
        """What completes `prefix`: the answer, with a quote or bracket that the prefix opens closed again."""
        answer = self.literal if self.literal and _ENDS_IN_CODE.search(prefix) else self.answer
        return answer + _CLOSING.get(prefix[-1:], "")


class Template(Section):
    """One kind of question. Strings are filled in by `str.format`; one with a field that is None is left out.

    paraphrases: docstring -> the same in other words, as a question says it.
    """

    questions: tuple[str, ...] = Field(min_length=1)
    prefixes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    noun: str = "value"
    held_out: bool = False
    paraphrases: dict[str, str] = Field(default={})

    def fill(
        self, answer: str, *, literal: str | None = "", noun: str | None = None, **fields: str | None
    ) -> Phrasings:
        """Raises KeyError for a field that is not given."""
        given = {"answer": answer, "literal": literal, **fields}
        questions, prefixes, sentences, lines = (
            _filled(texts, given) for texts in (self.questions, self.prefixes, self.sentences, self.lines)
        )
        return Phrasings(answer, questions, prefixes, sentences, noun or self.noun, literal or "", lines)

    def fill_literal(self, literal: str, **fields: str | None) -> Phrasings:
        """The answer is a number, or the text inside the quotes of `literal`."""
        return self.fill(literal.strip("\"'"), literal=literal, **fields)


def template(name: str, *, held_out: bool = False) -> Template:
    """Raises ValueError where training asks for a template of evaluations, or an evaluation for one of training."""
    chosen = templates()[name]
    if chosen.held_out != held_out:
        raise ValueError(f"template '{name}' is {'' if chosen.held_out else 'not '}held out from training")
    return chosen


@cache
def templates() -> Mapping[str, Template]:
    """Every template, by name."""
    content = read_yaml(Path(__file__).with_suffix(".yaml").read_text("utf-8"))  # refuses a name given twice
    return TypeAdapter(dict[str, Template]).validate_python(content)


def _filled(texts: Sequence[str], given: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(text.format_map(given) for text in texts if not any(given[field] is None for field in _fields(text)))


@cache
def _fields(text: str) -> tuple[str, ...]:
    return tuple(field for _, field, _, _ in Formatter().parse(text) if field)
