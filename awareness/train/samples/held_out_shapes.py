"""Needles: what is hidden in real code, and the question that only who has read it can answer.

`constant` is the known reference, which training sees too. All others are held out: training has none of their forms
and none of their wordings. Those that begin with `multi_` are RULER's (Hsieh et al. 2024, section 3), on hexadecimal
strings; RULER's `single` is `hex` under that name. Where needles lie and who is asked is needle.py's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from awareness.errors import UsageError

_FIRST = "session cache retry upload auth queue shard lease page burst token proxy index worker socket batch".split()
_SECOND = "ttl limit budget max window depth count time size rate quota offset weight floor stride margin".split()
_STATES = "frozen stale locked missing empty torn foreign orphaned shadowed revoked".split()
_THINGS = "voucher ledger parcel anchor ribbon beacon cellar orchard lantern meadow harbor quarry saddle timber".split()
# what a docstring says -> what the question says
_DEEDS = {
    "Trim every {} to the length of its {}.": "shortens a {} until it is as long as the {}",
    "Merge each {} into the {} it came from.": "combines a {} with the {} of its origin",
    "Drop any {} without a {}.": "gets rid of a {} that has no {}",
    "Copy the {} before its {} is changed.": "duplicates a {} ahead of an edit of the {}",
    "Swap the {} and the {}.": "lets a {} and a {} trade places",
    "Count how often the {} meets the {}.": "tallies encounters of the {} with the {}",
    "Hide the {} behind a {}.": "conceals a {} with the help of a {}",
    "Pair the oldest {} with the newest {}.": "matches the first {} to the latest {}",
}
LIST_MARK = '", "'
"""Between the values of an answer that has several."""


@dataclass(frozen=True)
class Needle:
    """blocks: lines of code, each block to be hidden in a chunk, the first `golds` of them hold the answer. answer:
    several values with `LIST_MARK` between them."""

    blocks: tuple[tuple[str, ...], ...]
    question: str
    answer_prefix: str
    answer: str
    golds: int = 1


Shape = Callable[[Random, str], Needle]
"""(rng, the code that it will be hidden in) -> a needle whose names are not in that code."""


def constant(rng: Random, code: str) -> Needle:
    name = _constant_name(rng, code)
    value = str(rng.randint(1000, 9999))
    question = f"What is the value of {name} in the code? Answer with the number only."
    return Needle((("# config", f"{name} = {value}"),), question, f"{name} = ", value)


def hexadecimal(rng: Random, code: str) -> Needle:
    name, value = _constant_name(rng, code), _hex(rng)
    return Needle(_assigned({name: value}), f"Which hexadecimal digits does {name} hold?", f'{name} = "', value)


def error_code(rng: Random, code: str) -> Needle:
    message = _fresh(lambda: f"{rng.choice(_THINGS)} {rng.choice(_FIRST)} is {rng.choice(_STATES)}", code)
    value = f"E{rng.randint(1000, 9999)}"
    block = (f"    if not {message.split()[1]}:", f'        raise RuntimeError("{value}: {message}")')
    return Needle((block,), f'Which error code stands before "{message}"?', 'The error says "', value)


def route(rng: Random, code: str) -> Needle:
    thing = _fresh(lambda: f"{rng.choice(_THINGS)}_{rng.choice(_SECOND)}", code)
    path = f"{_word(rng)}/{_word(rng)}"
    block = (f'@app.route("/{path}")', f"def {thing}_view():", f"    return render({thing})")
    return Needle((block,), f"Under which URL path is {thing}_view served?", '@app.route("/', path)


def flag(rng: Random, code: str) -> Needle:
    option = _fresh(lambda: f"--{rng.choice(_FIRST)}-{rng.choice(_SECOND)}", code)
    value = str(rng.randint(1000, 9999))
    block = (f'parser.add_argument("{option}", type=int, metavar="N", default={value})',)
    return Needle(
        (block,), f"Which number applies when the user leaves out {option}?", f"Without {option} it is ", value
    )


def sql(rng: Random, code: str) -> Needle:
    table = _fresh(lambda: f"{rng.choice(_FIRST)}_{rng.choice(_THINGS)}", code)
    column, value = f"{rng.choice(_THINGS)}_{rng.choice(_SECOND)}", str(rng.randint(1000, 9999))
    block = (
        'connection.execute("""',
        f"    CREATE TABLE {table} (id INTEGER PRIMARY KEY, {column} INTEGER NOT NULL DEFAULT {value})",
        '""")',
    )
    question = f"A row of the table {table} is inserted without {column}. What does the database put there?"
    return Needle((block,), question, f"It puts {column} = ", value)


def docstring_function(rng: Random, code: str) -> Needle:
    said, asked = rng.choice(sorted(_DEEDS.items()))
    one, other = rng.sample(_THINGS, 2)
    name = _fresh(lambda: f"{_word(rng)}_{_word(rng)}", code)
    block = (f"def {name}({one}, {other}):", f'    """{said.format(one, other)}"""', f"    return {one}, {other}")
    question = f"Name the function that {asked.format(one, other)}."
    return Needle((block,), question, "The function is called `", name)


def multi_key(rng: Random, code: str) -> Needle:
    """Four more of the same shape lie around; one is asked for."""
    held = _assignments(rng, code, 5)
    name, value = next(iter(held.items()))
    return Needle(_assigned(held), f"Which hexadecimal digits does {name} hold?", f'{name} = "', value)


def multi_value(rng: Random, code: str) -> Needle:
    """One key has three values, in as many places."""
    name, values = _constant_name(rng, code), [_hex(rng) for _ in range(3)]
    blocks = tuple((f'{name}.add("{value}")',) for value in values)
    question = f"Which three hexadecimal strings are added to {name}? Separate them by commas."
    return Needle(blocks, question, f'{name} = {{"', LIST_MARK.join(values), golds=3)


def multi_query(rng: Random, code: str) -> Needle:
    """Two keys are asked for at once."""
    held = _assignments(rng, code, 2)
    question = f"Which hexadecimal digits do {' and '.join(held)} hold? Separate them by commas."
    return Needle(_assigned(held), question, f'[{", ".join(held)}] = ["', LIST_MARK.join(held.values()), golds=2)


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
}
GROUPS = {
    "held-out": tuple(name for name in SHAPES if name not in ("single", "constant")),
    "ruler": ("single", "multi_key", "multi_value", "multi_query"),
}


def shapes_named(names: Sequence[str]) -> list[str]:
    """Names of shapes or `GROUPS` -> those of the shapes, each once. Raises UsageError."""
    found = [shape for name in names for shape in GROUPS.get(name, (name,))]
    if unknown := [name for name in found if name not in SHAPES]:
        raise UsageError(
            f"unknown needle shape {', '.join(unknown)}", hint=f"--shapes {' or '.join(GROUPS)}, or {', '.join(SHAPES)}"
        )
    return list(dict.fromkeys(found))


def _fresh(make: Callable[[], str], code: str) -> str:
    """The first that `make` gives which is not in the code."""
    while (made := make()) in code:
        pass
    return made


def _constant_name(rng: Random, code: str) -> str:
    return _fresh(lambda: f"{rng.choice(_FIRST)}_{rng.choice(_SECOND)}".upper(), code)


def _assignments(rng: Random, code: str, count: int) -> dict[str, str]:
    """So many names that are not in the code, with their values."""
    held: dict[str, str] = {}
    while len(held) < count:
        held[_constant_name(rng, code)] = _hex(rng)
    return held


def _assigned(held: dict[str, str]) -> tuple[tuple[str], ...]:
    return tuple((f'{name} = "{value}"',) for name, value in held.items())


def _hex(rng: Random) -> str:
    return f"{rng.getrandbits(32):08x}"


def _word(rng: Random) -> str:
    """Letters that can be said, and mean nothing."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))
