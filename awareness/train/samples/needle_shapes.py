"""Shapes of needles that hold a value: the lines that are written into a chunk and what can be asked about them.

Which shapes must not be here, because evaluations measure on them, needles.py says. It also hides what is made here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from awareness.train.samples.dialects import JAVASCRIPT, PYTHON, Dialect, dialect_of
from awareness.train.samples.literals import (
    a_date,
    a_literal,
    a_number,
    a_path,
    a_text,
    a_url,
    a_uuid,
    a_version,
    quoted,
)
from awareness.train.samples.pool import Pool
from awareness.train.samples.vocabulary import ADJECTIVES, NOUNS, QUALITIES, Fact, cased, listed
from awareness.types import Chunk, printable

MAX_PATH = 70  # characters of a path that is an answer
_UNITS = "seconds milliseconds minutes hours days bytes MiB entries items requests tokens rows pixels percent".split()
_REMARKS = ["defaults", "config", "tuned by hand", "do not change", "see the design notes", "limits", "internal"]


@dataclass(frozen=True)
class Needle:
    """lines: what is written into a chunk. name: what no other chunk may hold. context: code that the fact's value is
    to follow, instead of a question."""

    lines: Sequence[str]
    name: str
    fact: Fact
    context: str = ""


Make = Callable[[random.Random, Pool, Chunk, str], "Needle | None"]
"""(rng, pool, the chunk it is written into, first word of its name) -> a needle, None if that language has no such."""


def stem_of(rng: random.Random, pool: Pool) -> str:
    """A first word for a name: from the repository, or from the list."""
    return rng.choice(pool.words) if pool.words and rng.random() < 0.4 else rng.choice(NOUNS)


def _words(rng: random.Random, stem: str, last: Sequence[str] = QUALITIES) -> list[str]:
    middle = [rng.choice(rng.choice([NOUNS, ADJECTIVES]))] if rng.random() < 0.25 else []
    return [stem, *middle, rng.choice(last)]


def _constant_name(rng: random.Random, code: Dialect, words: Sequence[str]) -> str:
    return cased(words, "upper" if rng.random() < 0.8 else code.case)


def _value_fact(chunk: Chunk, name: str, written: str) -> Fact:
    """Of a name that has a value: a number, or a text in quotes."""
    bare = written.strip("\"'")
    path = printable(chunk.path)
    prefixes = [f"{name} = ", f"{name} = ", f"`{name}` is ", "The value is "]
    if bare != written:
        prefixes += [f"{name} = {written[0]}"] * 2
    return Fact(
        bare,
        [
            f"What is the value of {name} in the code?",
            f"What is {name} set to?",
            f"What's the value of `{name}`?",
            f"Which value does {name} have?",
            f"What does `{name}` hold?",
            f"Tell me the value of {name}.",
            f"I need the exact value of `{name}`.",
        ],
        prefixes,
        [
            f"`{name}` is {bare}.",
            f"`{name}` is set to `{bare}`.",
            f"The value of {name} is {bare}.",
            f"{name} = {written}",
            *([f"It is {bare}, set in {path}."] if len(path) < 40 else []),
        ],
        written=written,
    )


def _valued(rng: random.Random, code: Dialect, chunk: Chunk, name: str, written: str, note: str = "") -> Needle:
    line = code.constant(rng.choice(code.constants), name, written)
    above = [code.remark(rng.choice(_REMARKS))] if rng.random() < 0.25 else []
    return Needle([*above, f"{line}  {code.remark(note)}" if note else line], name, _value_fact(chunk, name, written))


def constant(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code, words, value = dialect_of(chunk.path), _words(rng, stem), a_number(rng)
    unit = rng.choice(_UNITS)
    if rng.random() < 0.25:
        phrase = " ".join(words)
        told = rng.choice([f"{phrase} is {value}", f"The {phrase} is {value} {unit}.", f"we use a {phrase} of {value}"])
        fact = Fact(
            value,
            [
                f"What is the {phrase}?",
                f"How large is the {phrase}?",
                f"Which {phrase} is used?",
                f"What value does the {phrase} have?",
            ],
            [f"The {phrase} is ", "It is ", f"{phrase} = "],
            [f"The {phrase} is {value}.", f"It is {value}.", f"A {phrase} of {value} is used."],
            "number",
        )
        return Needle([code.remark(told)], phrase, fact)
    note = unit if rng.random() < 0.3 else ""
    return _valued(rng, code, chunk, _constant_name(rng, code, words), value, note)


def _of(value: Callable[[random.Random], str], last: Sequence[str]) -> Make:
    """A constant that holds a value of some shape; its name ends with one of the words `last`."""

    def make(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
        code = dialect_of(chunk.path)
        name, written = _constant_name(rng, code, _words(rng, stem, last)), value(rng)
        return _valued(rng, code, chunk, name, written if value is a_number else quoted(rng, code, written))

    return make


def path(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code, value = dialect_of(chunk.path), a_path(rng)
    words = _words(rng, stem, ["cache", "log", "file", "config", "state", "database", "report", "socket", "dump"])
    if rng.random() < 0.5:
        return _valued(rng, code, chunk, _constant_name(rng, code, [*words, "path"]), quoted(rng, code, value))
    phrase = " ".join(words)
    fact = Fact(
        value,
        [f"Where is the {phrase} kept?", f"What is the path of the {phrase}?", f"Which file is the {phrase}?"],
        [f"The {phrase} is kept in ", "The path is ", "It is "],
        [f"The {phrase} is kept in `{value}`.", f"It is `{value}`.", f"In {value}."],
        "path",
    )
    line = rng.choice(
        [f"the {phrase} is kept in {value}", f"{value} is the {phrase}", f"The {phrase} lives at {value}"]
    )
    return Needle([code.remark(line)], phrase, fact)


def setting(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    words, written = _words(rng, stem), a_literal(rng, code)
    bare = written.strip("\"'")
    if code in (PYTHON, JAVASCRIPT) and rng.random() < 0.4:
        name, text = cased(words, "upper"), quoted(rng, code, bare)
        python = [f'{cased(words, "snake")} = os.environ.get("{name}", {text})', f"os.getenv('{name}', {text})"]
        line = (
            rng.choice(python) if code is PYTHON else f"const {cased(words, 'camel')} = process.env.{name} || {text};"
        )
        questions = [
            f"What is used if the environment variable {name} is not set?",
            f"What is the default of the environment variable `{name}`?",
            f"What does {name} fall back to?",
        ]
        sentences = [f"`{name}` falls back to `{bare}`.", f"The default of {name} is {bare}.", f"It is {bare}."]
        return Needle([line], name, Fact(bare, questions, [f"{name} is ", "The default is "], sentences))
    name = cased(words, "snake")
    questions = [
        f"What is the setting `{name}` set to?",
        f"What is the value of the setting {name}?",
        f"Which value does {name} get in the configuration?",
        f"How is {name} configured?",
    ]
    sentences = [f"`{name}` is set to {bare}.", f"The setting {name} is `{bare}`.", f"It is {bare}."]
    prefixes = [f"{name} = ", f"`{name}` is set to ", "It is "]
    line = rng.choice(code.settings).format(key=name, value=written)
    return Needle([line], name, Fact(bare, questions, prefixes, sentences, written=written))


def enum(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code, name = dialect_of(chunk.path), cased([stem, rng.choice(QUALITIES)], "pascal")
    names = [word.upper() for word in rng.sample([*ADJECTIVES, *NOUNS], rng.randint(2, 4))]
    values = [str(value) for value in rng.sample(range(1, 100), len(names))]
    if code is PYTHON:
        head = f"class {name}({rng.choice(['Enum', 'IntEnum', 'enum.Enum'])}):"
        lines = [head, *(f"    {member} = {value}" for member, value in zip(names, values, strict=True))]
    elif code.comment == "//" and code.suffixes != ".go":
        members = ", ".join(f"{member} = {value}" for member, value in zip(names, values, strict=True))
        lines = [f"enum {name} {{ {members} }}"]
    else:
        return None
    at = rng.randrange(len(names))
    asked, value = f"{name}.{names[at]}", values[at]
    if rng.random() < 0.5:
        questions = [
            f"What is the value of {asked}?",
            f"Which number does `{asked}` stand for?",
            f"What is {names[at]} in the enum {name}?",
        ]
        sentences = [f"`{asked}` is {value}.", f"{asked} = {value}", f"It is {value}."]
        return Needle(lines, name, Fact(value, questions, [f"{asked} = ", f"{names[at]} = ", "It is "], sentences))
    questions = [f"Which members does {name} have?", f"What are the members of the enum `{name}`?"]
    sentences = [f"`{name}` has {listed(names)}.", f"They are {listed([f'`{member}`' for member in names])}."]
    return Needle(
        lines, name, Fact(", ".join(names), questions, [f"{name}: ", "The members are "], sentences, "members")
    )


def mapping(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    name = _constant_name(
        rng, code, [stem, rng.choice(["map", "table", "limits", "names", "codes", "levels", "ports"])]
    )
    draw = a_number if rng.random() < 0.5 else lambda rng: quoted(rng, code, rng.choice(NOUNS))
    entries = {key: draw(rng) for key in rng.sample(NOUNS, rng.randint(2, 4))}
    entry, whole = rng.choice(code.maps)
    line = whole.format(name=name, entries=", ".join(entry.format(key=k, value=v) for k, v in entries.items()))
    key, written = rng.choice(list(entries.items()))
    bare = written.strip("\"'")
    questions = [
        f"What does {name} map {key} to?",
        f'Which value has the key "{key}" in `{name}`?',
        f'What is {name}["{key}"]?',
        f"What is stored under {key} in {name}?",
    ]
    sentences = [f"`{key}` maps to {bare}.", f'`{name}["{key}"]` is `{bare}`.', f"It is {bare}."]
    prefixes = [f'{name}["{key}"] = ', f"{name}['{key}'] == ", "It is "]
    return Needle([line], name, Fact(bare, questions, prefixes, sentences, written=written))


def sequence(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if not code.default:
        return None
    name = _constant_name(
        rng, code, [stem, rng.choice(["steps", "sizes", "names", "hosts", "stages", "levels", "keys"])]
    )
    size = rng.randint(2, 4)
    numeric = rng.random() < 0.5
    values = [str(n) for n in rng.sample(range(1, 2000), size)] if numeric else rng.sample(NOUNS, size)
    written = ", ".join(values if numeric else [f'"{value}"' for value in values])
    open_, close = rng.choice([("(", ")"), ("[", "]")]) if code is PYTHON else ("[", "]")
    line = code.constant(code.constants[0], name, f"{open_}{written}{close}")
    questions = [
        f"Which values are in {name}?",
        f"What does `{name}` contain?",
        f"What are the elements of {name}?",
        f"List the values of `{name}`.",
    ]
    sentences = [
        f"`{name}` contains {listed(values)}.",
        f"They are {listed(values)}.",
        f"{name} = {open_}{written}{close}",
    ]
    fact = Fact(", ".join(values), questions, [f"{name}: ", "The values are "], sentences, "values")
    return Needle([line], name, fact)


def date(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A remark about when something is removed, or since which version it is there."""
    code, name = dialect_of(chunk.path), cased(_words(rng, stem, [*NOUNS, *QUALITIES]), "snake")
    value = a_date(rng) if rng.random() < 0.5 else a_version(rng)
    verb, when = rng.choice(
        [("will be removed", "in"), ("is deprecated", "since"), ("was added", "in"), ("is supported", "until")]
    )
    when = "on" if when == "in" and "-" in value else when
    version = "" if "-" in value else rng.choice(["version ", "v", ""])
    asked = {"in": "In which version", "since": "Since when", "until": "Until when", "on": "On which day"}[when]
    helper, participle = verb.split(" ", 1)
    questions = [f"{asked} {helper} {name} {participle}?", f"{asked} {helper} `{name}` {participle}?"]
    sentences = [f"`{name}` {verb} {when} {version}{value}.", f"It {verb} {when} {value}."]
    prefixes = [f"{name} {verb} {when} ", f"{when.capitalize()} "]
    line = f"{name} {verb} {when} {version}{value}"
    return Needle(
        [code.remark(line)], name, Fact(value, questions, prefixes, sentences, "version" if version else "value")
    )


def alias(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if "{type}" in code.constants[0]:
        return None
    name = cased([stem, rng.choice([*NOUNS, *QUALITIES])], rng.choice(["pascal", code.case]))
    target = cased(rng.sample([*NOUNS, *ADJECTIVES], 2), rng.choice(["pascal", code.case]))
    line = code.constants[0].format(name=name, value=target)
    questions = [
        f"What is {name} an alias of?",
        f"What does `{name}` stand for?",
        f"Which object is bound to {name}?",
        f"{name} is another name for what?",
    ]
    sentences = [f"`{name}` is an alias of `{target}`.", f"{name} stands for {target}.", f"It is `{target}`."]
    return Needle([line], name, Fact(target, questions, [f"{name} = ", "It is `", f"{name} is "], sentences, "name"))


PLAIN: Mapping[str, Make] = {
    "constant": constant,
    "string": _of(a_text, ["name", "label", "key", "prefix", "title", "mode", "suffix", "token", "format", "channel"]),
    "url": _of(a_url, ["url", "endpoint", "host", "base", "link"]),
    "uuid": _of(a_uuid, ["id", "uuid", "guid", "tenant", "key"]),
    "version": _of(a_version, ["version", "release", "schema", "revision", "since"]),
}


def where(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    """Asks for the file, which only the chunk's first line tells."""
    needle = _of(rng.choice([a_number, a_text, a_url, a_uuid]), QUALITIES)(rng, pool, chunk, stem)
    name, value = (needle.name if needle else ""), printable(chunk.path)
    if needle is None or len(value) > MAX_PATH:
        return None
    questions = [
        f"In which file is {name} set?",
        f"Where is `{name}` defined?",
        f"Which file holds {name}?",
        f"Where do I find {name}?",
        f"Which file do I have to edit to change `{name}`?",
    ]
    sentences = [f"`{name}` is set in `{value}`.", f"In `{value}`.", f"It is defined in {value}.", f"`{value}`"]
    prefixes = ["It is in ", "In `", "# file: ", f"`{name}` is in "]
    return replace(needle, fact=Fact(value, questions, prefixes, sentences, "path"))


def assertion(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A constant whose value is needed to write on: another file compares it, or repeats it."""
    code, words = dialect_of(chunk.path), _words(rng, stem)
    name, written = cased(words, "upper"), a_literal(rng, code)
    needle = _valued(rng, code, chunk, name, written)
    end = "" if code.comment == "#" else ";"
    forms = [
        (f"assertEqual({name}, ", f"){end}"),
        (f"expect({name}).toBe(", f"){end}"),
        (code.remark(f"{name} is "), ""),
    ]
    if code is PYTHON:
        forms += [(f"assert {name} == ", ""), (f"if {name} != ", ":"), (f"    return {name} or ", "")]
    context, closing = rng.choice(forms)
    folder = rng.choice(["tests/test_", "test/", "src/", "examples/", f"{rng.choice(NOUNS)}/"])
    header = f"# file: {folder}{stem}{code.suffixes.split()[0]}\n"
    value = f"{written}{closing}\n"
    return replace(needle, fact=replace(needle.fact, value=value), context=header + context)
