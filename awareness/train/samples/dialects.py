"""How a constant, a comment and a function are written in the language of a chunk (`dialects.yaml`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from awareness.config.base import Section
from awareness.train.samples.vocabulary import cased


class Dialect(Section):
    """Templates of one language.

    constants: with {name}, {type} and {value}. types: of integers, fractions and texts. function: lines with {name},
    {args}, {doc} and {result}. argument: one of {args}, with {}. case: of a function's name. default: an argument with
    a default, empty where the language has none. settings: with {key} and {value}. registers: with {key} and {name}.
    maps: (entry, whole), with {key}, {value}; {name}, {entries}. quotes: of texts.
    """

    suffixes: str
    comment: str
    constants: tuple[str, ...]
    types: tuple[str, str, str]
    function: tuple[str, ...]
    argument: str
    case: str
    default: str
    settings: tuple[str, ...]
    registers: tuple[str, ...]
    maps: tuple[tuple[str, str], ...]
    quotes: str = '"'

    def remark(self, text: str) -> str:
        return f"{self.comment} {text}"

    def constant(self, template: str, name: str, value: str) -> str:
        kind = 2 if value[:1] in "\"'" else 1 if "." in value or "e" in value else 0
        return template.format(name=name, value=value, type=self.types[kind])

    def defined(self, name: str, args: Sequence[str], doc: str, result: str) -> list[str]:
        """Lines of a function; without a `doc` the line for it is left out."""
        lines = [line for line in self.function if doc or "{doc}" not in line]
        return [line.format(name=name, args=", ".join(args), doc=doc, result=result) for line in lines]

    def call(self, words: Sequence[str]) -> str:
        """The name of a function or a variable, without repeated words."""
        return cased(list(dict.fromkeys(words)), self.case)


_CONTENT = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
_DIALECTS = {name: Dialect(**fields) for name, fields in _CONTENT.items()}
PYTHON, JAVASCRIPT, RUBY = _DIALECTS["python"], _DIALECTS["javascript"], _DIALECTS["ruby"]
_BY_SUFFIX = {suffix: dialect for dialect in _DIALECTS.values() for suffix in dialect.suffixes.split()}


def dialect_of(path: str) -> Dialect:
    """By the suffix of the file name; Python for any other suffix."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix.lower(), PYTHON)
