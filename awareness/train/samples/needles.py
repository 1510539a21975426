"""Synthetic needles: a made-up fact written into a real chunk of code, in the chunk's language, and asked for.

Names are put together from word lists and from the repository's own words and occur nowhere else; a quarter of the
samples hold one to three needles of the same shape under other names as well.

Evaluations measure on shapes that training has never seen, so no kind may make any of these: hexadecimal strings
(other than UUIDs with dashes), error codes in exceptions (`raise X("E1234: ...")`), URL routes in decorators
(`@app.route`), command line flags (`add_argument`), SQL columns, lines of `.ini` or YAML style (`key: value`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from awareness.train.samples import function_shapes as functions
from awareness.train.samples import needle_shapes as shapes
from awareness.train.samples.dialects import dialect_of
from awareness.train.samples.needle_shapes import PLAIN, Make, Needle, stem_of
from awareness.train.samples.pool import Kind, Pool, said
from awareness.train.samples.vocabulary import NOUNS, Fact, cased, listed, put
from awareness.types import Chunk, Sample


class _Draft:
    """Chunks drawn from a pool, that lines can be written into."""

    def __init__(self, rng: random.Random, pool: Pool, count: int) -> None:
        self.rng = rng
        self.chunks = rng.sample(pool.chunks, min(count, len(pool)))
        self.blocks: list[list[str]] = [chunk.text.split("\n") for chunk in self.chunks]

    def write(self, place: int, lines: Sequence[str], above: int = 0) -> int:
        """Puts `lines` somewhere into the chunk at `place`, not above its block `above`; the block right below them."""
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
    """A needle whose name occurs neither in the pool nor in the `others`, with a value of its own."""
    for _ in range(20):
        needle = make(rng, pool, chunk, stem)
        if needle is None:
            return None
        name = needle.name.lower()
        clash = any(name in other.name.lower() or other.name.lower() in name for other in others)
        same = any(needle.fact.value == other.fact.value for other in others)
        if not clash and not same and name not in pool.everything:
            return needle
        stem = stem_of(rng, pool)
    return None


def hidden(make: Make, least: int = 0, most: int = 3, share: float = 0.25) -> Kind:
    """One needle that is asked for, and in a `share` of the samples `least` to `most` others like it."""

    def kind(rng: random.Random, pool: Pool, count: int) -> Sample | None:
        draft = _Draft(rng, pool, count)
        gold = rng.randrange(len(draft.chunks))
        code = dialect_of(draft.chunks[gold].path)
        stem = stem_of(rng, pool)
        needle = _fresh(rng, pool, make, draft.chunks[gold], stem, ())
        if needle is None:
            return None
        written = [needle]
        draft.write(gold, needle.lines)
        hosts = [place for place, chunk in enumerate(draft.chunks) if dialect_of(chunk.path) is code]
        for _ in range(rng.randint(max(least, 1), most) if rng.random() < share else 0):
            host = rng.choice(hosts)
            like = stem if rng.random() < 0.5 else stem_of(rng, pool)
            if decoy := _fresh(rng, pool, make, draft.chunks[host], like, written):
                written.append(decoy)
                draft.write(host, decoy.lines)
        sample = Sample(draft.texts, (gold,), "", "", context=needle.context)
        return replace(sample, answer=needle.fact.value) if needle.context else said(rng, needle.fact, sample)

    return kind


def multi_value(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """One name that gets several values, asked for in their order."""
    draft = _Draft(rng, pool, count)
    wanted = rng.randint(2, 4)
    first = rng.randrange(len(draft.chunks))
    code = dialect_of(draft.chunks[first].path)
    hosts = [place for place, chunk in enumerate(draft.chunks) if dialect_of(chunk.path) is code]
    places = sorted([first, *rng.choices(hosts, k=wanted - 1)])
    name = cased(
        [stem_of(rng, pool), rng.choice("ports limits hosts names sizes labels seeds rules".split())], code.case
    )
    if name.lower() in pool.everything:
        return None
    texts = rng.random() < 0.4
    values = rng.sample(NOUNS, wanted) if texts else [str(n) for n in rng.sample(range(1, 10000), wanted)]
    end = ";" if code.comment == "//" and code.suffixes != ".go" else ""
    form = rng.choice(["{name}.append({value})", "add_to({name}, {value})", "{name}.push({value})", "{name} = {value}"])
    below = {place: 0 for place in places}
    for place, value in zip(places, values, strict=True):
        line = form.format(name=name, value=f'"{value}"' if texts else value) + end
        below[place] = draft.write(place, [line], below[place])
    questions = [
        f"What are all the values of {name}?",
        f"Which values does `{name}` get?",
        f"List all values that {name} is given, in order.",
        f"What is put into `{name}` over the whole code?",
    ]
    sentences = [f"`{name}` gets {listed(values)}.", f"They are {listed(values)}.", f"{listed(values)}."]
    fact = Fact(", ".join(values), questions, [f"{name}: ", "The values are "], sentences, "values")
    return said(rng, fact, Sample(draft.texts, tuple(sorted(below)), "", ""))


def _pair(rng: random.Random, pool: Pool, count: int, make: Make) -> tuple[_Draft, list[int], list[Needle]] | None:
    """Two needles of one shape, written into one or two chunks."""
    draft = _Draft(rng, pool, count)
    first = rng.randrange(len(draft.chunks))
    code = dialect_of(draft.chunks[first].path)
    hosts = [place for place, chunk in enumerate(draft.chunks) if dialect_of(chunk.path) is code]
    places, written = [first, rng.choice(hosts)], list[Needle]()
    for place in places:
        needle = _fresh(rng, pool, make, draft.chunks[place], stem_of(rng, pool), written)
        if needle is None:
            return None
        written.append(needle)
        draft.write(place, needle.lines)
    return draft, places, written


def multi_query(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """Two names, asked for at once."""
    pair = _pair(rng, pool, count, PLAIN[rng.choice(["constant", "string", "version"])])
    if pair is None:
        return None
    draft, places, needles = pair
    one, two = (needle.fact.value for needle in needles)
    a, b = (f"the {needle.name}" if " " in needle.name else needle.name for needle in needles)
    questions = [
        f"What are {a} and {b}?",
        f"What are the values of {a} and {b}?",
        f"Which values do {a} and {b} have?",
        f"Tell me {a} and {b}.",
    ]
    sentences = [f"{a} is {one} and {b} is {two}.", f"{a} = {one}, {b} = {two}", f"They are {one} and {two}."]
    fact = Fact(f"{one} and {two}", questions, ["They are ", "The values are "], sentences, "values")
    return said(rng, fact, Sample(draft.texts, tuple(sorted(set(places))), "", ""))


def multi_key(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """Several needles of one shape, one of them asked for."""
    return hidden(rng.choice(list(PLAIN.values())), least=2, most=5, share=1.0)(rng, pool, count)


NEEDLES: dict[str, Kind] = {
    **{name: hidden(make) for name, make in PLAIN.items()},
    "path": hidden(shapes.path),
    "setting": hidden(shapes.setting),
    "handler": hidden(functions.handler),
    "howto": hidden(functions.howto),
    "method": hidden(functions.method),
    "default": hidden(functions.default),
    "signature": hidden(functions.signature),
    "enum": hidden(shapes.enum),
    "mapping": hidden(shapes.mapping),
    "sequence": hidden(shapes.sequence),
    "date": hidden(shapes.date),
    "alias": hidden(shapes.alias),
    "result": hidden(functions.result),
    "where": hidden(shapes.where),
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "assertion": hidden(shapes.assertion),
}


def unanswerable_needle(rng: random.Random, pool: Pool) -> tuple[str, tuple[str, ...]] | None:
    """A question about a name that is nowhere in the pool, and that name."""
    make = rng.choice(
        [
            *PLAIN.values(),
            shapes.setting,
            functions.handler,
            functions.howto,
            functions.method,
            shapes.mapping,
            shapes.where,
            functions.result,
        ]
    )
    needle = _fresh(rng, pool, make, rng.choice(pool.chunks), stem_of(rng, pool), ())
    return None if needle is None else (put(rng, needle.fact)[0], ())
