"""Shapes of needles for evaluations: the lines to hide in real code, and the question that only a reader can answer.

Training sees the shape of `constant`, the known reference. It has no line and no wording of the others. Those that
begin with `multi_` are RULER's (Hsieh et al. 2024, section 3), on hexadecimal strings; `single` is `hex` under RULER's
name. Those that begin with `hop_` need two places: one has three values, the other says which of them is meant; who
reads only the first is right one time in three. Where needles lie is decided in evals/needle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from awareness.errors import UsageError
from awareness.train.samples.templates import template

_FIRST = "session cache retry upload auth queue shard lease page burst token proxy index worker socket batch".split()
_SECOND = "ttl limit budget max window depth count time size rate quota offset weight floor stride margin".split()
_STATES = "frozen stale locked missing empty torn foreign orphaned shadowed revoked".split()
_THINGS = "voucher ledger parcel anchor ribbon beacon cellar orchard lantern meadow harbor quarry saddle timber".split()
LIST_MARK = '", "'
"""Between the values of an answer that has several."""


@dataclass(frozen=True)
class HeldOutNeedle:
    """blocks: lines of code. Each block is hidden in a chunk; the first `golds` blocks hold the answer. answer: several
    values are joined by `LIST_MARK`. is_apart: no two blocks may lie in one chunk."""

    blocks: tuple[tuple[str, ...], ...]
    question: str
    answer_prefix: str
    answer: str
    golds: int = 1
    is_apart: bool = False


Shape = Callable[[Random, str], HeldOutNeedle]
"""(rng, the code it will be hidden in) -> a needle whose names do not occur in that code."""


def _needle(kind: str, answer: str, *, held_out: bool = True, **fields: str) -> HeldOutNeedle:
    """A needle of one block."""
    filled = template(kind, held_out=held_out).fill(answer, **fields)
    return HeldOutNeedle((tuple(filled.lines),), filled.questions[0], filled.prefixes[0], answer)


def constant(rng: Random, code: str) -> HeldOutNeedle:
    name = _constant_name(rng, code)
    return _needle("reference_constant", str(rng.randint(1000, 9999)), name=name, held_out=False)


def hexadecimal(rng: Random, code: str) -> HeldOutNeedle:
    name = _constant_name(rng, code)
    return _needle("hex", _hex(rng), name=name)


def error_code(rng: Random, code: str) -> HeldOutNeedle:
    message = _fresh(lambda: f"{rng.choice(_THINGS)} {rng.choice(_FIRST)} is {rng.choice(_STATES)}", code)
    return _needle("error_code", f"E{rng.randint(1000, 9999)}", message=message, subject=message.split()[1])


def route(rng: Random, code: str) -> HeldOutNeedle:
    name = _fresh(lambda: f"{rng.choice(_THINGS)}_{rng.choice(_SECOND)}", code)
    return _needle("route", f"{_word(rng)}/{_word(rng)}", name=name)


def flag(rng: Random, code: str) -> HeldOutNeedle:
    option = _fresh(lambda: f"--{rng.choice(_FIRST)}-{rng.choice(_SECOND)}", code)
    return _needle("flag", str(rng.randint(1000, 9999)), name=option)


def sql(rng: Random, code: str) -> HeldOutNeedle:
    table = _fresh(lambda: f"{rng.choice(_FIRST)}_{rng.choice(_THINGS)}", code)
    column = f"{rng.choice(_THINGS)}_{rng.choice(_SECOND)}"
    return _needle("sql", str(rng.randint(1000, 9999)), name=table, column=column)


def docstring_function(rng: Random, code: str) -> HeldOutNeedle:
    paraphrases = template("docstring_function", held_out=True).paraphrases
    docstring, paraphrase = rng.choice(sorted(paraphrases.items()))
    things = rng.sample(_THINGS, 2)
    name = _fresh(lambda: f"{_word(rng)}_{_word(rng)}", code)
    return _needle(
        "docstring_function",
        name,
        first=things[0],
        second=things[1],
        docstring=docstring.format(*things),
        paraphrase=paraphrase.format(*things),
    )


def multi_key(rng: Random, code: str) -> HeldOutNeedle:
    """Five needles of one shape; one is asked for."""
    (first, *others) = [_needle("hex", value, name=name) for name, value in _assignments(rng, code, 5).items()]
    blocks = (first.blocks[0], *(other.blocks[0] for other in others))
    return HeldOutNeedle(blocks, first.question, first.answer_prefix, first.answer)


def multi_value(rng: Random, code: str) -> HeldOutNeedle:
    """One key has three values, in three places."""
    name, values = _constant_name(rng, code), [_hex(rng) for _ in range(3)]
    needles = [_needle("multi_value_hex", value, name=name) for value in values]
    blocks = tuple(needle.blocks[0] for needle in needles)
    return HeldOutNeedle(blocks, needles[0].question, needles[0].answer_prefix, LIST_MARK.join(values), golds=3)


def multi_query(rng: Random, code: str) -> HeldOutNeedle:
    """Two keys are asked for at once."""
    values = _assignments(rng, code, 2)
    first, second = values
    filled = template("multi_query_hex", held_out=True).fill(
        LIST_MARK.join(values.values()), both=f"{first} and {second}", first=first, second=second
    )
    blocks = tuple(_needle("hex", value, name=name).blocks[0] for name, value in values.items())
    return HeldOutNeedle(blocks, filled.questions[0], filled.prefixes[0], filled.answer, golds=2)


def hop_import(rng: Random, code: str) -> HeldOutNeedle:
    """A value under the name that another file imports it by: the file that imports does not have the value."""
    values = _assignments(rng, code, 3)
    imported = rng.choice(list(values))
    module = _fresh(lambda: f"{rng.choice(_THINGS)}_{rng.choice(_THINGS)}", code)
    alias = _fresh(lambda: f"{rng.choice(_STATES)}_{rng.choice(_SECOND)}".upper(), code + " ".join(values))
    defined = tuple(f'{name} = "{value}"' for name, value in values.items())
    return _two_hops("hop_import", defined, values[imported], module=module, imported=imported, alias=alias)


def hop_override(rng: Random, code: str) -> HeldOutNeedle:
    """A method of a base class returns an attribute; a subclass sets that attribute, and others."""
    thing, other = rng.sample(_THINGS, 2)
    base = _fresh(lambda: f"{thing}_{rng.choice(_FIRST)}".title().replace("_", ""), code)
    sub = _fresh(lambda: f"{other}_{rng.choice(_FIRST)}".title().replace("_", ""), code + base)
    names, method = rng.sample(_SECOND, 3), _fresh(lambda: f"{rng.choice(_STATES)}_{_word(rng)}", code)
    read, own = rng.choice(names), dict(zip(names, rng.sample(range(1000, 10000), 3), strict=True))
    before = {name: rng.randint(100, 999) for name in names}
    defined = (
        f"class {base}:",
        *(f"    {name} = {value}" for name, value in before.items()),
        "",
        f"    def {method}(self):",
        f"        return self.{read}",
    )
    sets = {f"line_{i}": f"    {name} = {value}" for i, (name, value) in enumerate(own.items())}
    return _two_hops("hop_override", defined, str(own[read]), base=base, sub=sub, method=method, **sets)


def hop_call(rng: Random, code: str) -> HeldOutNeedle:
    """A name is set to what a function returns; the function is in another file, among two others."""
    names: dict[str, int] = {}
    while len(names) < 3:
        name = _fresh(lambda: f"{rng.choice(_STATES)}_{rng.choice(_THINGS)}_{_word(rng)}", code)
        names[name] = rng.randint(1000, 9999)
    function = rng.choice(list(names))
    name = _constant_name(rng, code)
    defined = tuple(line for f, value in names.items() for line in (f"def {f}():", f"    return {value}", ""))[:-1]
    return _two_hops("hop_call", defined, str(names[function]), function=function, name=name)


def _two_hops(kind: str, defined: tuple[str, ...], answer: str, **fields: str) -> HeldOutNeedle:
    """defined: the block with the value among others. The template's lines say which of them is meant."""
    filled = template(kind, held_out=True).fill(answer, **fields)
    blocks = (defined, tuple(filled.lines))
    return HeldOutNeedle(blocks, filled.questions[0], filled.prefixes[0], answer, golds=2, is_apart=True)


SHAPES: dict[str, Shape] = {
    "hex": hexadecimal,
    "error_code": error_code,
    "route": route,
    "flag": flag,
    "sql": sql,
    "docstring_function": docstring_function,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "single": hexadecimal,
    "constant": constant,
    "hop_import": hop_import,
    "hop_override": hop_override,
    "hop_call": hop_call,
}
GROUPS = {
    "held-out": tuple(name for name in SHAPES if name not in ("single", "constant") and not name.startswith("hop_")),
    "ruler": ("single", "multi_key", "multi_value", "multi_query"),
    "two_hop": ("hop_import", "hop_override", "hop_call"),
}


def shapes_named(names: Sequence[str]) -> list[str]:
    """Names of shapes or `GROUPS` -> names of shapes, each once. Raises UsageError."""
    shapes = [shape for name in names for shape in GROUPS.get(name, (name,))]
    if unknown := [name for name in shapes if name not in SHAPES]:
        raise UsageError(
            f"unknown needle shape {', '.join(unknown)}", hint=f"--shapes {' or '.join(GROUPS)}, or {', '.join(SHAPES)}"
        )
    return list(dict.fromkeys(shapes))


def _fresh(make: Callable[[], str], code: str) -> str:
    """The first result of `make` that does not occur in the code."""
    while (made := make()) in code:
        pass
    return made


def _constant_name(rng: Random, code: str) -> str:
    return _fresh(lambda: f"{rng.choice(_FIRST)}_{rng.choice(_SECOND)}".upper(), code)


def _assignments(rng: Random, code: str, count: int) -> dict[str, str]:
    """`count` names that do not occur in the code, each with a value."""
    values: dict[str, str] = {}
    while len(values) < count:
        values[_constant_name(rng, code)] = _hex(rng)
    return values


def _hex(rng: Random) -> str:
    return f"{rng.getrandbits(32):08x}"


def _word(rng: Random) -> str:
    """A word that can be pronounced and has no meaning."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))
