"""Kinds of samples that hide needles: invented lines in a real chunk, in its language, and the question for them.

A needle's name is built from word lists and the repository's own words, and occurs nowhere else. A quarter of the
samples also hold one to three needles of the same shape under other names.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from awareness.train.samples import needle_shapes as shapes
from awareness.train.samples.dialects import dialect_of
from awareness.train.samples.needle_shapes import PLAIN, Make, Needle, stem_of
from awareness.train.samples.pool import Kind, Pool, ask, with_question
from awareness.train.samples.templates import template
from awareness.train.samples.vocabulary import NOUNS, cased, listed
from awareness.types import Chunk, Sample


class Draft:
    """Chunks drawn from a pool, and lines written into them.

    first: a chunk. hosts: the chunks in the language of `first`.
    """

    def __init__(self, rng: random.Random, pool: Pool, count: int) -> None:
        self.rng = rng
        self.chunks = rng.sample(pool.chunks, min(count, len(pool)))
        self.blocks: list[list[str]] = [chunk.text.split("\n") for chunk in self.chunks]

    def draw_host(self) -> None:
        self.first = self.rng.randrange(len(self.chunks))
        self.code = dialect_of(self.chunks[self.first].path)
        self.hosts = [i for i, chunk in enumerate(self.chunks) if dialect_of(chunk.path) is self.code]

    def write(self, place: int, lines: Sequence[str], above: int = 0) -> int:
        """Writes `lines` into the chunk at `place`, at block `above` or below it. Returns the number of the next
        block."""
        blocks = self.blocks[place]
        at = self.rng.randint(above, len(blocks))
        below = next((block for block in blocks[at:] if block.strip()), "")
        indent = below[: len(below) - len(below.lstrip())].split("\n")[0] if self.rng.random() < 0.5 else ""
        blocks.insert(at, "\n".join(indent + line for line in lines))  # one block: nothing is written between its lines
        return at + 1

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(
            f"{chunk.header}\n" + "\n".join(blocks) + "\n"
            for chunk, blocks in zip(self.chunks, self.blocks, strict=True)
        )


def _fresh(
    rng: random.Random, pool: Pool, make: Make, chunk: Chunk, stem: str, others: Sequence[Needle]
) -> Needle | None:
    """A needle whose name occurs neither in the pool nor in `others`, and whose answer differs from theirs."""
    for _ in range(20):
        needle = make(rng, pool, chunk, stem)
        if needle is None:
            return None
        name = needle.name.lower()
        clash = any(name in other.name.lower() or other.name.lower() in name for other in others)
        same = any(needle.phrasings.answer == other.phrasings.answer for other in others)
        if not clash and not same and name not in pool.everything:
            return needle
        stem = stem_of(rng, pool)
    return None


def hidden(make: Make, least: int = 0, most: int = 3, share: float = 0.25) -> Kind:
    """One needle to ask for; a `share` of the samples holds `least` to `most` others like it."""

    def kind(rng: random.Random, pool: Pool, count: int) -> Sample | None:
        draft = Draft(rng, pool, count)
        draft.draw_host()
        gold, stem = draft.first, stem_of(rng, pool)
        needle = _fresh(rng, pool, make, draft.chunks[gold], stem, ())
        if needle is None:
            return None
        needles = [needle]
        draft.write(gold, needle.lines)
        for _ in range(rng.randint(max(least, 1), most) if rng.random() < share else 0):
            host = rng.choice(draft.hosts)
            like = stem if rng.random() < 0.5 else stem_of(rng, pool)
            if decoy := _fresh(rng, pool, make, draft.chunks[host], like, needles):
                needles.append(decoy)
                draft.write(host, decoy.lines)
        sample = Sample(draft.texts, (gold,), "", "", context=needle.context)
        if needle.context:
            return replace(sample, answer=needle.phrasings.answer)
        return with_question(rng, needle.phrasings, sample)

    return kind


def multi_value(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """One name that gets several values, asked for in their order."""
    draft = Draft(rng, pool, count)
    number = rng.randint(2, 4)
    draft.draw_host()
    places = sorted([draft.first, *rng.choices(draft.hosts, k=number - 1)])
    last = "ports limits hosts names sizes labels seeds rules".split()
    name = cased([stem_of(rng, pool), rng.choice(last)], draft.code.case)
    if name.lower() in pool.everything:
        return None
    texts = rng.random() < 0.4
    values = rng.sample(NOUNS, number) if texts else [str(n) for n in rng.sample(range(1, 10000), number)]
    end = ";" if draft.code.comment == "//" and draft.code.suffixes != ".go" else ""
    form = rng.choice(template("multi_value").lines)
    below = {place: 0 for place in places}
    for place, value in zip(places, values, strict=True):
        line = form.format(name=name, value=f'"{value}"' if texts else value) + end
        below[place] = draft.write(place, [line], below[place])
    phrasings = template("multi_value").fill(", ".join(values), name=name, listed=listed(values), value=None)
    return with_question(rng, phrasings, Sample(draft.texts, tuple(sorted(below)), "", ""))


def multi_query(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """Two names, asked for at once; their needles lie in one or two chunks."""
    make = PLAIN[rng.choice(["constant", "string", "version"])]
    draft = Draft(rng, pool, count)
    draft.draw_host()
    places, needles = [draft.first, rng.choice(draft.hosts)], list[Needle]()
    for place in places:
        needle = _fresh(rng, pool, make, draft.chunks[place], stem_of(rng, pool), needles)
        if needle is None:
            return None
        needles.append(needle)
        draft.write(place, needle.lines)
    first_value, second_value = (needle.phrasings.answer for needle in needles)
    first, second = (f"the {needle.name}" if " " in needle.name else needle.name for needle in needles)
    fields = {"first": first, "second": second, "first_value": first_value, "second_value": second_value}
    phrasings = template("multi_query").fill(f"{first_value} and {second_value}", **fields)
    return with_question(rng, phrasings, Sample(draft.texts, tuple(sorted(set(places))), "", ""))


def multi_key(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """Several needles of one shape, one of them asked for."""
    return hidden(rng.choice(list(PLAIN.values())), least=2, most=5, share=1.0)(rng, pool, count)


_OTHER_SHAPES = """
path setting handler howto method default signature enum mapping sequence date alias result where
""".split()
NEEDLES: dict[str, Kind] = {
    **{name: hidden(make) for name, make in PLAIN.items()},
    **{name: hidden(getattr(shapes, name)) for name in _OTHER_SHAPES},
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "assertion": hidden(shapes.assertion),
}
_UNANSWERABLE: list[Make] = [
    *PLAIN.values(),
    *(shapes.setting, shapes.handler, shapes.howto, shapes.method, shapes.mapping, shapes.where, shapes.result),
]


def unanswerable_needle(rng: random.Random, pool: Pool) -> tuple[str, tuple[str, ...]] | None:
    """A question for a name that occurs nowhere in the pool; names to leave out: none."""
    needle = _fresh(rng, pool, rng.choice(_UNANSWERABLE), rng.choice(pool.chunks), stem_of(rng, pool), ())
    return None if needle is None else (ask(rng, needle.phrasings)[0], ())
