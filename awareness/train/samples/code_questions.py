"""Questions about real code, made from its syntax: what a developer asks, with the answer that stands in the chunk.

Python is read by `ast`, as far as a chunk parses; other languages by their first lines and doc comments. What is asked
is never answered by another chunk of the sample: those that define the same name are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import chain

from awareness.train.samples.descriptions import docstrings, which
from awareness.train.samples.facts import Asked, Find, about, clear
from awareness.train.samples.next_lines import next_line
from awareness.train.samples.pool import Kind, Pool
from awareness.train.samples.python_syntax import definitions_of, trees_of
from awareness.train.samples.vocabulary import Fact, listed, put
from awareness.types import printable

MAX_VALUE = 60  # characters of an answer that is code
_LITERAL = re.compile(r"-?\d[\d_.]*(?:e-?\d+)?|\"[^\"\\\n]+\"|'[^'\\\n]+'|true|false|True|False")
_HEX = re.compile(r"0[xX]|\b(?=\w*\d)[0-9a-fA-F]{6,}\b")
_CONSTANT = re.compile(
    r"^[ \t]*(?:export[ \t]+|pub[ \t]+|private[ \t]+|public[ \t]+|static[ \t]+|final[ \t]+|readonly[ \t]+)*"
    r"(?:const|var|let|#define|int|long|double|float|String|constexpr)[ \t]+(?:\w+[ \t]+)?(\w{4,})"
    rf"(?:[ \t]*:[ \t]*[\w&']+|[ \t]+\w+)?(?:[ \t]*=[ \t]*|[ \t]+)({_LITERAL.pattern})[ \t]*;?[ \t]*$",
    re.MULTILINE,
)
_FUNCTION = re.compile(
    r"^[ \t]*(?:export[ \t]+|default[ \t]+|async[ \t]+|pub[ \t]+|static[ \t]+|public[ \t]+|private[ \t]+)*"
    r"(?:func|function|fn|def)[ \t]+(?:\([^()\n]*\)[ \t]*)?(\w{3,})\(([^()\n]{1,60})\)",
    re.MULTILINE,
)
_BASE = re.compile(
    r"\bclass[ \t]+(\w{3,})(?:<\w+>)?[ \t]*(?:extends|<|:[ \t]*public)[ \t]+([A-Za-z_][\w.:]*)", re.MULTILINE
)


def _code(value: str) -> str | None:
    """A piece of code as an answer: on one line, short, and not of a shape that is held out."""
    value = " ".join(value.split())
    return value if 0 < len(value) <= MAX_VALUE and not _HEX.search(value) else None


def _is(
    name: str, value: str, questions: Sequence[str], prefixes: Sequence[str], says: str, noun: str = "value"
) -> Fact:
    """Sentences made of `says`, what the value is of the name."""
    return Fact(
        value, questions, prefixes, [f"`{name}` {says} `{value}`.", f"It {says} `{value}`.", f"`{value}`."], noun
    )


# --- how it is called, what it is, what it gives ---


@clear
def _signatures(pool: Pool) -> list[Asked]:
    found = []
    for one in pool.once(definitions_of):
        if one.parameters and len(one.parameters) <= 6:
            names = list(one.parameters)
            found.append(
                Asked(one.chunk, one.name, _takes(one.name, ", ".join(names), listed([f"`{n}`" for n in names])))
            )
    for number, chunk in enumerate(pool.chunks):
        if not chunk.path.endswith((".py", ".pyi")):
            for name, parameters in _FUNCTION.findall(chunk.text):
                found.append(Asked(number, name, _takes(name, parameters, f"`{parameters}`")))
    return [asked for asked in found if len(asked.fact.value) <= MAX_VALUE]


def _takes(name: str, parameters: str, these: str) -> Fact:
    questions = [
        f"Which parameters does {name} take?",
        f"What are the arguments of `{name}`?",
        f"What do I pass to {name}?",
        f"What is the signature of `{name}`?",
        f"Which arguments does `{name}` accept?",
    ]
    last = name.rpartition(".")[2]
    sentences = [f"`{name}` takes {these}.", f"It takes {these}.", f"`{last}({parameters})`"]
    return Fact(parameters, questions, [f"{last}(", f"{name}(", "The parameters are "], sentences, "parameters")


@clear
def _defaults(pool: Pool) -> list[Asked]:
    found = []
    for one in pool.once(definitions_of):
        for parameter, written in one.parameters.items():
            value = _code(written or "")
            if value is None:
                continue
            questions = [
                f"What is the default of {parameter} in {one.name}?",
                f"What is the default value of `{parameter}` in `{one.name}`?",
                f"What does the parameter {parameter} of {one.name} default to?",
                f"Which value does {parameter} have in `{one.name}` if I don't pass it?",
            ]
            prefixes = [f"{parameter}=", f"{parameter} = ", "The default is "]
            fact = _is(parameter, value, questions, prefixes, "defaults to")
            found.append(Asked(one.chunk, one.name, fact))
    return [asked for asked in found if asked.fact.value != "None"] or found  # most defaults are None


@clear
def _constants(pool: Pool) -> list[Asked]:
    python = ((number, name, value) for number, tree in pool.once(trees_of) for name, value in tree.constants)
    others = (
        (number, name, value)
        for number, chunk in enumerate(pool.chunks)
        if not chunk.path.endswith((".py", ".pyi"))
        for name, value in _CONSTANT.findall(chunk.text)
    )
    found = []
    for number, name, written in chain(python, others):
        value = _code(written)
        if value is None or len(pool.definitions.get(name.rpartition(".")[2], ())) > 3:
            continue
        bare = value.strip("\"'")
        questions = [
            f"What is the value of {name}?",
            f"What is {name} set to?",
            f"What is `{name}`?",
            f"Which value does `{name}` have in the code?",
            f"Tell me the value of {name}.",
        ]
        sentences = [f"`{name}` is {bare}.", f"{name} = {value}", f"It is `{bare}`.", f"`{name}` is set to {value}."]
        prefixes = [f"{name} = ", f"`{name}` is "]
        found.append(Asked(number, name, Fact(bare, questions, prefixes, sentences, written=value)))
    return found


@clear
def _places(pool: Pool) -> list[Asked]:
    found = []
    for number, chunk in enumerate(pool.chunks):
        path, last = printable(chunk.path), chunk.symbol.rpartition(".")[2]
        if len(last) < 5 or " " in chunk.symbol or pool.definitions[last] != {number} or len(path) > MAX_VALUE:
            continue
        for name in {last, chunk.symbol}:
            questions = [
                f"Where is {name} defined?",
                f"In which file is `{name}` defined?",
                f"Which file defines {name}?",
                f"Where do I find the code of `{name}`?",
                f"Which file should I open to change {name}?",
            ]
            sentences = [f"`{name}` is defined in {path}.", f"In `{path}`.", f"It is defined in {path}."]
            prefixes = [f"`{name}` is defined in ", "In ", "# file: ", "It is in "]
            found.append(Asked(number, name, Fact(path, questions, prefixes, sentences, "path")))
    return sorted(found, key=lambda asked: (asked.gold, asked.name))


@clear
def _bases(pool: Pool) -> list[Asked]:
    python = ((one.chunk, one.name, one.bases) for one in pool.once(definitions_of) if one.bases)
    others = (
        (number, name, [base])
        for number, chunk in enumerate(pool.chunks)
        if not chunk.path.endswith((".py", ".pyi"))
        for name, base in _BASE.findall(chunk.text)
    )
    found = []
    for number, name, bases in chain(python, others):
        value = _code(", ".join(bases))
        if value is None:
            continue
        questions = [
            f"What does {name} inherit from?",
            f"What does the class `{name}` inherit from?",
            f"What is the base class of {name}?",
            f"Which class does `{name}` extend?",
        ]
        these = listed([f"`{base}`" for base in bases])
        sentences = [f"`{name}` inherits from {these}.", f"It inherits from {these}.", f"{these}."]
        prefixes = [f"class {name.rpartition('.')[2]}(", "It inherits from ", f"`{name}` inherits from "]
        found.append(Asked(number, name, Fact(value, questions, prefixes, sentences, "name")))
    return found


@clear
def _raises(pool: Pool) -> list[Asked]:
    found = []
    for one in pool.once(definitions_of):
        if one.noun == "class" or not 1 <= len(one.raises) <= 2:
            continue
        these = listed([f"`{name}`" for name in one.raises])
        questions = [
            f"Which exception does {one.name} raise?",
            f"What does `{one.name}` raise?",
            f"Which error can {one.name} raise?",
            f"What exception do I have to catch when I call {one.name}?",
        ]
        sentences = [f"`{one.name}` raises {these}.", f"It raises {these}.", f"{these}."]
        fact = Fact(" and ".join(one.raises), questions, ["raise ", "It raises ", "`"], sentences, "name")
        if len(one.raises) == 2:
            fact = Fact(fact.value, questions, ["It raises "], sentences, "names")
        found.append(Asked(one.chunk, one.name, fact))
    return found


@clear
def _returns(pool: Pool) -> list[Asked]:
    found = []
    for one in pool.once(definitions_of):
        value = _code(one.returns)
        if value is None:
            continue
        questions = [
            f"What does {one.name} return?",
            f"What is returned by `{one.name}`?",
            f"Which expression does {one.name} return?",
            f"What do I get back from `{one.name}`?",
        ]
        fact = _is(one.name, value, questions, ["return ", "It returns `", "It returns "], "returns", "expression")
        found.append(Asked(one.chunk, one.name, fact))
    return found


@clear
def _imports(pool: Pool) -> list[Asked]:
    found = []
    for number, tree in pool.once(trees_of):
        path = printable(pool.chunks[number].path)
        for name, module in tree.imports:
            questions = [
                f"Which module does {path} import {name} from?",
                f"Where does `{name}` come from in {path}?",
                f"From which module is {name} imported in {path}?",
            ]
            fact = _is(name, module, questions, ["from ", "It is imported from "], "is imported from", "module")
            if len(path) < 60:
                found.append(Asked(number, name, fact, exact=True))
    return found


@clear
def _usages(pool: Pool) -> list[Asked]:
    """Names that are called in one other chunk only."""
    found = []
    for name, numbers in pool.mentions.items():
        users = numbers - pool.definitions.get(name, numbers)
        if len(name) < 6 or len(users) != 1 or len(pool.definitions[name]) != 1:
            continue
        (user,) = users
        chunk, caller = pool.chunks[user], pool.chunks[user].symbol
        if not caller or " " in caller or not re.search(rf"(?<!\w){re.escape(name)}\(", chunk.text):
            continue
        questions = [
            f"Where is {name} called?",
            f"Which code calls `{name}`?",
            f"Who uses {name}?",
            f"What calls `{name}`?",
        ]
        sentences = [f"`{name}` is called in `{caller}`.", f"`{caller}` calls it.", f"In `{caller}`.", f"`{caller}`."]
        prefixes = [f"`{name}` is called in ", "In ", "It is called by "]
        found.append(Asked(user, "", Fact(caller, questions, prefixes, sentences, "name")))
    return found


FACTS: dict[str, Find] = {
    "docstring": docstrings,
    "which": which,
    "real_signature": _signatures,
    "real_default": _defaults,
    "real_constant": _constants,
    "real_where": _places,
    "base_class": _bases,
    "raises": _raises,
    "returns": _returns,
    "imports": _imports,
    "usage": _usages,
}
QUESTIONS: dict[str, Kind] = {**{name: about(find) for name, find in FACTS.items()}, "next_line": next_line}


def unanswerable_question(rng: random.Random, pool: Pool) -> tuple[str, tuple[str, ...]] | None:
    """A question about something real, and the name whose chunks must be left out."""
    found = pool.once(FACTS[rng.choice([name for name in FACTS if name not in ("usage", "imports")])])
    if not found:
        return None
    asked = rng.choice(found)
    return put(rng, asked.fact)[0], (asked.name,)
