"""Kinds of samples whose answer no chunk holds alone: a name in one chunk leads to the value in another.

A constant that is imported under another name, an attribute that a class inherits or overrides, and a constant that a
function returns. Written in Python, since the other dialects have no common way to import. The two lines lie in
different chunks; a third of the samples hold a decoy of the same shape.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from awareness.train.samples.dialects import PYTHON, dialect_of
from awareness.train.samples.literals import a_literal
from awareness.train.samples.needles import Draft
from awareness.train.samples.pool import Kind, Pool, with_question
from awareness.train.samples.templates import template
from awareness.train.samples.vocabulary import NOUNS, QUALITIES, VERBS, cased
from awareness.types import Chunk, Sample

_DECOYS = 0.33  # share of samples with one


class _Names:
    """Invented names that occur neither in the pool nor twice."""

    def __init__(self, rng: random.Random, pool: Pool) -> None:
        self.rng, self.pool, self.given = rng, pool, set[str]()

    def new(self, case: str, first: Sequence[str] = NOUNS, last: Sequence[str] = QUALITIES) -> str:
        while True:
            name = cased([self.rng.choice(first), self.rng.choice(last)], case)
            if name.lower() not in self.given and name.lower() not in self.pool.everything:
                self.given.add(name.lower())
                return name
            last = [*last, *NOUNS]  # a large repository can use up the short list

    def value(self) -> str:
        """A literal that was not given before."""
        while True:
            literal = a_literal(self.rng, PYTHON)
            if literal not in self.given:
                self.given.add(literal)
                return literal


def _module(chunk: Chunk) -> str:
    """`pkg.limits` of the path `src/pkg/limits.py`."""
    path = PurePosixPath(chunk.path)
    parts = [re.sub(r"\W", "_", part) for part in (*path.parts[-2:-1], path.stem)]
    return ".".join(part for part in parts if part != "__init__") or "limits"


def _two_hosts(rng: random.Random, draft: Draft) -> tuple[int, int] | None:
    """Places of two Python chunks."""
    hosts = [place for place, chunk in enumerate(draft.chunks) if dialect_of(chunk.path) is PYTHON]
    if len(hosts) < 2:
        return None
    first, second = rng.sample(hosts, 2)
    return first, second


def _import(names: _Names, source: Chunk) -> tuple[str, str, list[str], list[str]]:
    """(asked name, literal, lines of the chunk with the value, lines of the chunk that leads there)"""
    rng, constant, asked, literal = names.rng, names.new("upper"), names.new("snake"), names.value()
    module = _module(source)
    lead = rng.choice(
        [
            [f"from {module} import {constant}", "", f"{asked} = {constant}"],
            [f"from {module} import {constant} as _{constant}", f"{asked} = _{constant}"],
            [f"import {module}", "", f"settings.{asked} = {module}.{constant}"],
            [f"from {module} import {constant}", f"options.setdefault('{asked}', {constant})"],
        ]
    )
    return asked, literal, [f"{constant} = {literal}"], lead


def _inheritance(names: _Names, source: Chunk) -> tuple[str, str, list[str], list[str]]:
    rng, base, child = names.rng, names.new("pascal"), names.new("pascal")
    attribute, literal = names.new("snake"), names.value()
    own = names.new("snake")
    value = [f"class {base}:", f"    {own} = {names.value()}", f"    {attribute} = {literal}"]
    lead = [f"class {child}({base}):", f'    """{child}, with its own {own}."""', f"    {own} = {names.value()}"]
    if rng.random() < 0.4:  # the subclass has the last word
        literal = names.value()
        lead.append(f"    {attribute} = {literal}")
    return f"{child}.{attribute}", literal, value, lead


def _call(names: _Names, source: Chunk) -> tuple[str, str, list[str], list[str]]:
    rng, constant, literal = names.rng, names.new("upper"), names.value()
    function = names.new("snake", VERBS, NOUNS)
    body = rng.choice(
        [
            [f"def {function}():", f"    return {constant}"],
            [f"def {function}(self):", f'    """The {function.replace("_", " ")} in use."""', f"    return {constant}"],
            [f"def {function}(given=None):", f"    return given if given is not None else {constant}"],
        ]
    )
    return f"{function}()", literal, [f"{constant} = {literal}"], body


def _two_hop(shape: str) -> Kind:
    make = {"import": _import, "class": _inheritance, "call": _call}[shape]

    def kind(rng: random.Random, pool: Pool, count: int) -> Sample | None:
        if count < 2 or len(pool) < 2:
            return None
        draft, names = Draft(rng, pool, count), _Names(rng, pool)
        places = _two_hosts(rng, draft)
        if places is None:
            return None
        golds = set(places)
        asked, literal, value, lead = make(names, draft.chunks[places[0]])
        draft.write(places[0], value)
        draft.write(places[1], lead)
        if rng.random() < _DECOYS and (decoys := _two_hosts(rng, draft)) is not None:
            _, _, other_value, other_lead = make(names, draft.chunks[decoys[0]])
            draft.write(decoys[0], other_value)
            draft.write(decoys[1], other_lead)
        phrasings = template(f"through_{shape}").fill_literal(literal, name=asked)
        return with_question(rng, phrasings, Sample(draft.texts, tuple(sorted(golds)), "", ""))

    return kind


HOPS: dict[str, Kind] = {f"through_{shape}": _two_hop(shape) for shape in ("import", "class", "call")}
