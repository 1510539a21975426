"""Shapes of training needles: the lines that are written into a chunk, and the question about them.

The shapes of held_out_shapes.py must not be made here: hexadecimal strings (other than UUIDs with dashes), error codes
in exceptions, URL routes in decorators, command line flags, SQL columns, lines of INI or YAML style.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from awareness.train.samples.dialects import JAVASCRIPT, PYTHON, RUBY, Dialect, dialect_of
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
from awareness.train.samples.templates import Phrasings, template
from awareness.train.samples.vocabulary import ADJECTIVES, MOMENTS, NOUNS, QUALITIES, VERBS, cased, listed, third_person
from awareness.types import Chunk, printable

MAX_PATH = 70  # characters of a path that is an answer
_UNITS = "seconds milliseconds minutes hours days bytes MiB entries items requests tokens rows pixels percent".split()
_REMARKS = ["defaults", "config", "tuned by hand", "do not change", "see the design notes", "limits", "internal"]


@dataclass(frozen=True)
class Needle:
    """lines: written into a chunk. name: a text that no other chunk may hold. context: code for the model to continue
    with the answer, instead of a question."""

    lines: Sequence[str]
    name: str
    phrasings: Phrasings
    context: str = ""


Make = Callable[[random.Random, Pool, Chunk, str], "Needle | None"]
"""(rng, pool, the host chunk, first word of the name) -> a needle; None if the chunk's language lacks the construct."""


def stem_of(rng: random.Random, pool: Pool) -> str:
    """A first word for a name: of the repository, or of the list."""
    return rng.choice(pool.words) if pool.words and rng.random() < 0.4 else rng.choice(NOUNS)


def _words(rng: random.Random, stem: str, last: Sequence[str] = QUALITIES) -> list[str]:
    middle = [rng.choice(rng.choice([NOUNS, ADJECTIVES]))] if rng.random() < 0.25 else []
    return [stem, *middle, rng.choice(last)]


def _constant_name(rng: random.Random, code: Dialect, words: Sequence[str]) -> str:
    return cased(words, "upper" if rng.random() < 0.8 else code.case)


def _assignment(rng: random.Random, code: Dialect, chunk: Chunk, name: str, literal: str, note: str = "") -> Needle:
    """A constant, with the question for its value."""
    line = code.constant(rng.choice(code.constants), name, literal)
    above = [code.remark(rng.choice(_REMARKS))] if rng.random() < 0.25 else []
    path = printable(chunk.path)
    fields = {"quote": literal[0] if literal[0] in "\"'" else None, "path": path if len(path) < 40 else None}
    phrasings = template("value").fill_literal(literal, name=name, **fields)
    return Needle([*above, f"{line}  {code.remark(note)}" if note else line], name, phrasings)


def _remark(rng: random.Random, code: Dialect, kind: str, answer: str, name: str, **fields: str) -> Needle:
    """A comment that tells the answer in words."""
    phrasings = template(kind).fill(answer, **fields)
    return Needle([code.remark(rng.choice(phrasings.lines))], name, phrasings)


# --- that hold a value ---


def constant(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code, words, number, unit = dialect_of(chunk.path), _words(rng, stem), a_number(rng), rng.choice(_UNITS)
    if rng.random() < 0.25:
        phrase = " ".join(words)
        return _remark(rng, code, "phrase", number, phrase, phrase=phrase, unit=unit)
    note = unit if rng.random() < 0.3 else ""
    return _assignment(rng, code, chunk, _constant_name(rng, code, words), number, note)


def _holding(value: Callable[[random.Random], str], last: Sequence[str]) -> Make:
    """A constant that holds a value of some form; its name ends with one of the words `last`."""

    def make(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
        code = dialect_of(chunk.path)
        name, drawn = _constant_name(rng, code, _words(rng, stem, last)), value(rng)
        return _assignment(rng, code, chunk, name, drawn if value is a_number else quoted(rng, code, drawn))

    return make


def path(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code, answer = dialect_of(chunk.path), a_path(rng)
    words = _words(rng, stem, ["cache", "log", "file", "config", "state", "database", "report", "socket", "dump"])
    if rng.random() < 0.5:
        name = _constant_name(rng, code, [*words, "path"])
        return _assignment(rng, code, chunk, name, quoted(rng, code, answer))
    return _remark(rng, code, "path", answer, " ".join(words), phrase=" ".join(words))


def setting(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    words, literal = _words(rng, stem), a_literal(rng, code)
    if code in (PYTHON, JAVASCRIPT) and rng.random() < 0.4:
        answer = literal.strip("\"'")
        name, text = cased(words, "upper"), quoted(rng, code, answer)
        python = [f'{cased(words, "snake")} = os.environ.get("{name}", {text})', f"os.getenv('{name}', {text})"]
        javascript = f"const {cased(words, 'camel')} = process.env.{name} || {text};"
        line = rng.choice(python) if code is PYTHON else javascript
        return Needle([line], name, template("environment").fill(answer, name=name))
    name = cased(words, "snake")
    line = rng.choice(code.settings).format(key=name, value=literal)
    return Needle([line], name, template("setting").fill_literal(literal, name=name))


def enum(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code, name = dialect_of(chunk.path), cased([stem, rng.choice(QUALITIES)], "pascal")
    names = [word.upper() for word in rng.sample([*ADJECTIVES, *NOUNS], rng.randint(2, 4))]
    numbers = [str(number) for number in rng.sample(range(1, 100), len(names))]
    members = [f"{member} = {number}" for member, number in zip(names, numbers, strict=True)]
    if code is PYTHON:
        head = f"class {name}({rng.choice(['Enum', 'IntEnum', 'enum.Enum'])}):"
        lines = [head, *(f"    {member}" for member in members)]
    elif code.comment == "//" and code.suffixes != ".go":
        lines = [f"enum {name} {{ {', '.join(members)} }}"]
    else:
        return None
    at = rng.randrange(len(names))
    if rng.random() < 0.5:
        return Needle(lines, name, template("enum_member").fill(numbers[at], name=name, member=names[at]))
    phrasings = template("enum_members").fill(
        ", ".join(names), name=name, members=listed(names), quoted=listed(names, "`")
    )
    return Needle(lines, name, phrasings)


def mapping(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    last = rng.choice(["map", "table", "limits", "names", "codes", "levels", "ports"])
    name = _constant_name(rng, code, [stem, last])
    draw = a_number if rng.random() < 0.5 else lambda rng: quoted(rng, code, rng.choice(NOUNS))
    entries = {key: draw(rng) for key in rng.sample(NOUNS, rng.randint(2, 4))}
    entry, whole = rng.choice(code.maps)
    line = whole.format(name=name, entries=", ".join(entry.format(key=k, value=v) for k, v in entries.items()))
    key, literal = rng.choice(list(entries.items()))
    return Needle([line], name, template("mapping").fill_literal(literal, name=name, key=key))


def sequence(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if not code.default:
        return None
    last = rng.choice(["steps", "sizes", "names", "hosts", "stages", "levels", "keys"])
    name = _constant_name(rng, code, [stem, last])
    size = rng.randint(2, 4)
    numeric = rng.random() < 0.5
    items = [str(n) for n in rng.sample(range(1, 2000), size)] if numeric else rng.sample(NOUNS, size)
    inside = ", ".join(items if numeric else [f'"{item}"' for item in items])
    opening, closing = rng.choice([("(", ")"), ("[", "]")]) if code is PYTHON else ("[", "]")
    literal = f"{opening}{inside}{closing}"
    phrasings = template("sequence").fill(", ".join(items), name=name, listed=listed(items), code=literal)
    return Needle([code.constant(code.constants[0], name, literal)], name, phrasings)


def date(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A comment about when something is removed, or since which version it exists."""
    code, name = dialect_of(chunk.path), cased(_words(rng, stem, [*NOUNS, *QUALITIES]), "snake")
    answer = a_date(rng) if rng.random() < 0.5 else a_version(rng)
    verb, when = rng.choice(
        [("will be removed", "in"), ("is deprecated", "since"), ("was added", "in"), ("is supported", "until")]
    )
    when = "on" if when == "in" and "-" in answer else when
    version = "" if "-" in answer else rng.choice(["version ", "v", ""])
    when_asked = {"in": "In which version", "since": "Since when", "until": "Until when", "on": "On which day"}[when]
    helper, participle = verb.split(" ", 1)
    fields = {"when_asked": when_asked, "helper": helper, "participle": participle, "when_first": when.capitalize()}
    noun = "version" if version else "value"
    phrasings = template("date").fill(answer, noun=noun, name=name, verb=verb, when=when, version=version, **fields)
    return Needle([code.remark(f"{name} {verb} {when} {version}{answer}")], name, phrasings)


def alias(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if "{type}" in code.constants[0]:
        return None
    name = cased([stem, rng.choice([*NOUNS, *QUALITIES])], rng.choice(["pascal", code.case]))
    target = cased(rng.sample([*NOUNS, *ADJECTIVES], 2), rng.choice(["pascal", code.case]))
    line = code.constants[0].format(name=name, value=target)
    return Needle([line], name, template("alias").fill(target, name=name))


PLAIN: Mapping[str, Make] = {
    "constant": constant,
    "string": _holding(
        a_text, ["name", "label", "key", "prefix", "title", "mode", "suffix", "token", "format", "channel"]
    ),
    "url": _holding(a_url, ["url", "endpoint", "host", "base", "link"]),
    "uuid": _holding(a_uuid, ["id", "uuid", "guid", "tenant", "key"]),
    "version": _holding(a_version, ["version", "release", "schema", "revision", "since"]),
}


def where(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    """Asks for the file, which only the chunk's header tells."""
    needle = _holding(rng.choice([a_number, a_text, a_url, a_uuid]), QUALITIES)(rng, pool, chunk, stem)
    answer = printable(chunk.path)
    if needle is None or len(answer) > MAX_PATH:
        return None
    return replace(needle, phrasings=template("where").fill(answer, name=needle.name))


def assertion(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A constant whose value another file needs: code that compares or repeats it, to be continued."""
    code, words = dialect_of(chunk.path), _words(rng, stem)
    name, literal = cased(words, "upper"), a_literal(rng, code)
    needle = _assignment(rng, code, chunk, name, literal)
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
    phrasings = replace(needle.phrasings, answer=f"{literal}{closing}\n")
    return replace(needle, phrasings=phrasings, context=header + context)


# --- about functions ---


def _function_name(rng: random.Random, pool: Pool, code: Dialect) -> str:
    first = rng.choice(VERBS) if rng.random() < 0.7 else stem_of(rng, pool)
    return code.call([first, *rng.sample(NOUNS, rng.randint(1, 2))])


def _task(rng: random.Random, stem: str) -> tuple[str, str]:
    """What a function does: the verb, and the words after it."""
    adjective = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.5 else ""
    moment = f" {rng.choice(MOMENTS)}" if rng.random() < 0.4 else ""
    return rng.choice(VERBS), f"the {adjective}{stem} {rng.choice(QUALITIES)}{moment}"


def handler(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    key = cased([stem, rng.choice([*NOUNS, *VERBS])], rng.choice(["snake", "snake" if code is RUBY else "kebab"]))
    name = _function_name(rng, pool, code)
    line = rng.choice(code.registers).format(key=key, name=name)
    return Needle([line], key, template("handler").fill(name, key=key))


def howto(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    (verb, task), name = _task(rng, stem), _function_name(rng, pool, code)
    return _remark(rng, code, "task", name, task, verb=verb, task=task, does=third_person(verb))


def method(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    (verb, task), name = _task(rng, stem), _function_name(rng, pool, code)
    does = third_person(verb)
    doc = f"{verb if rng.random() < 0.7 else does} {task}."
    first = "self" if code is PYTHON and rng.random() < 0.6 else code.argument.format(rng.choice(NOUNS))
    lines = code.defined(name, [first], doc[0].upper() + doc[1:], a_literal(rng, code))
    return Needle(lines, task, template("task").fill(name, verb=verb, task=task, does=does))


def default(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if not code.default:
        return None
    name = code.call([rng.choice(VERBS), stem, rng.choice(NOUNS)])
    first, *others = rng.sample([*NOUNS, *QUALITIES], rng.randint(2, 4))
    defaults = {code.call([parameter]): a_literal(rng, code) for parameter in others}
    parameter, literal = rng.choice(list(defaults.items()))
    args = [code.argument.format(first), *(code.default.format(arg, value) for arg, value in defaults.items())]
    phrasings = template("default").fill_literal(literal, name=name, parameter=parameter)
    return Needle(code.defined(name, args, "", a_literal(rng, code)), name, phrasings)


def signature(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    name = code.call([rng.choice(VERBS), stem, rng.choice(NOUNS)])
    args = rng.sample([*NOUNS, *QUALITIES], rng.randint(1, 5))
    doc = f"{rng.choice(VERBS).capitalize()} the {rng.choice(NOUNS)}." if rng.random() < 0.4 else ""
    lines = code.defined(name, [code.argument.format(arg) for arg in args], doc, a_literal(rng, code))
    phrasings = template("signature").fill(", ".join(args), name=name, quoted=listed(args, "`"), listed=listed(args))
    return Needle(lines, name, phrasings)


def result(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A function that returns a literal."""
    code = dialect_of(chunk.path)
    name, literal = code.call([rng.choice(VERBS), stem, rng.choice(QUALITIES)]), a_literal(rng, code)
    return Needle(code.defined(name, [], "", literal), name, template("result").fill_literal(literal, name=name))
