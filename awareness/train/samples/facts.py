"""A fact that a chunk tells as it is, and the kind of sample that asks for one of those."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

from awareness.train.samples.pool import Kind, Pool
from awareness.train.samples.vocabulary import Fact
from awareness.types import Sample


@dataclass(frozen=True)
class Asked:
    """A fact about `name`, told by the chunk `gold`. exact: all other chunks that mention the name are left out, not
    only those that define it. An empty name leaves none out."""

    gold: int
    name: str
    fact: Fact
    exact: bool = False


Find = Callable[[Pool], "list[Asked]"]


def clear(find: Find) -> Find:
    """Without what a chunk tells in two ways: a name that it defines twice."""

    @functools.wraps(find)
    def clearly(pool: Pool) -> list[Asked]:
        found = find(pool)
        told: dict[tuple[int, str], set[str]] = {}
        for asked in found:
            told.setdefault((asked.gold, asked.fact.questions[0]), set()).add(asked.fact.value)
        return [asked for asked in found if len(told[asked.gold, asked.fact.questions[0]]) == 1]

    return clearly


def about(find: Find) -> Kind:
    """A question about one of the facts that `find` finds in a pool."""

    def kind(rng: random.Random, pool: Pool, count: int) -> Sample | None:
        found = pool.once(find)
        if not found:
            return None
        asked = rng.choice(found)
        last = asked.name.rpartition(".")[2]
        without = pool.mentioning(last) if asked.exact else pool.definitions.get(last, frozenset())
        return pool.asked(rng, asked.fact, asked.gold, count, without)

    return kind
