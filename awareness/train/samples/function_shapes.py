"""Shapes of needles about functions: what they are called, take, do and give. As shapes.py, whose types they share."""

from __future__ import annotations

import random
from collections.abc import Sequence

from awareness.train.samples.dialects import PYTHON, RUBY, Dialect, dialect_of
from awareness.train.samples.literals import a_literal
from awareness.train.samples.needle_shapes import Needle, stem_of
from awareness.train.samples.pool import Pool
from awareness.train.samples.vocabulary import (
    ADJECTIVES,
    MOMENTS,
    NOUNS,
    QUALITIES,
    VERBS,
    Fact,
    cased,
    listed,
    third_person,
)
from awareness.types import Chunk


def _function_name(rng: random.Random, pool: Pool, code: Dialect) -> str:
    first = rng.choice(VERBS) if rng.random() < 0.7 else stem_of(rng, pool)
    return code.call([first, *rng.sample(NOUNS, rng.randint(1, 2))])


def _named(name: str, questions: Sequence[str], sentences: Sequence[str], prefixes: Sequence[str] = ()) -> Fact:
    """Of a function that is to be found."""
    return Fact(name, questions, ["The function is ", "It is `", "`", *prefixes], [*sentences, f"`{name}`."], "name")


def handler(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    key = cased([stem, rng.choice([*NOUNS, *VERBS])], rng.choice(["snake", "snake" if code is RUBY else "kebab"]))
    name = _function_name(rng, pool, code)
    questions = [
        f'Which function handles "{key}"?',
        f"What is registered for `{key}`?",
        f"Which handler is called for {key}?",
        f'What is the handler of "{key}"?',
        f"Who takes care of `{key}`?",
    ]
    sentences = [f"`{name}` handles `{key}`.", f"{key} is handled by `{name}`.", f"It is `{name}`."]
    line = rng.choice(code.registers)
    return Needle([line.format(key=key, name=name)], key, _named(name, questions, sentences, [f"{key} is handled by "]))


def _task(rng: random.Random, stem: str) -> tuple[str, str]:
    """What something does: its verb, and the words after it."""
    adjective = f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.5 else ""
    moment = f" {rng.choice(MOMENTS)}" if rng.random() < 0.4 else ""
    return rng.choice(VERBS), f"the {adjective}{stem} {rng.choice(QUALITIES)}{moment}"


def _doing(verb: str, rest: str, name: str) -> Fact:
    does = f"{third_person(verb)} {rest}"
    questions = [
        f"Which function {does}?",
        f"What is the name of the function that {does}?",
        f"How do I {verb} {rest}?",
        f"What do I call to {verb} {rest}?",
        f"Where do we {verb} {rest}? Name the function.",
    ]
    sentences = [f"`{name}` {does}.", f"To {verb} {rest}, call `{name}`.", f"Call `{name}`.", f"It is `{name}`."]
    return _named(name, questions, sentences, ["Call "])


def howto(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    (verb, rest), name = _task(rng, stem), _function_name(rng, pool, code)
    line = rng.choice(
        [
            f"To {verb} {rest}, call {name}.",
            f"Use {name}() to {verb} {rest}.",
            f"{name}() {third_person(verb)} {rest}.",
            f"call {name} if you want to {verb} {rest}",
        ]
    )
    return Needle([code.remark(line)], rest, _doing(verb, rest, name))


def method(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    (verb, rest), name = _task(rng, stem), _function_name(rng, pool, code)
    said_by = f"{verb if rng.random() < 0.7 else third_person(verb)} {rest}."
    own = "self" if code is PYTHON and rng.random() < 0.6 else code.argument.format(rng.choice(NOUNS))
    lines = code.defined(name, [own], said_by[0].upper() + said_by[1:], a_literal(rng, code))
    return Needle(lines, rest, _doing(verb, rest, name))


def default(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle | None:
    code = dialect_of(chunk.path)
    if not code.default:
        return None
    name = code.call([rng.choice(VERBS), stem, rng.choice(NOUNS)])
    first, *names = rng.sample([*NOUNS, *QUALITIES], rng.randint(2, 4))
    defaults = {code.call([arg]): a_literal(rng, code) for arg in names}
    asked, written = rng.choice(list(defaults.items()))
    bare = written.strip("\"'")
    args = [code.argument.format(first), *(code.default.format(arg, value) for arg, value in defaults.items())]
    questions = [
        f"What is the default of {asked} in {name}?",
        f"What is the default value of `{asked}` in `{name}`?",
        f"Which {asked} does `{name}` use if none is given?",
        f"What does the parameter {asked} of {name}() default to?",
    ]
    sentences = [f"`{asked}` defaults to {bare}.", f"The default of {asked} is `{bare}`.", f"It is {bare}."]
    prefixes = [f"{asked}=", f"{asked} = ", "The default is "]
    fact = Fact(bare, questions, prefixes, sentences, written=written)
    return Needle(code.defined(name, args, "", a_literal(rng, code)), name, fact)


def signature(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    code = dialect_of(chunk.path)
    name = code.call([rng.choice(VERBS), stem, rng.choice(NOUNS)])
    args = rng.sample([*NOUNS, *QUALITIES], rng.randint(1, 5))
    questions = [
        f"Which arguments does {name} take?",
        f"What are the parameters of `{name}`?",
        f"What do I have to pass to {name}()?",
        f"What is the signature of `{name}`?",
    ]
    these = listed([f"`{arg}`" for arg in args])
    sentences = [f"`{name}({', '.join(args)})`", f"`{name}` takes {these}.", f"It takes {listed(args)}."]
    doc = f"{rng.choice(VERBS).capitalize()} the {rng.choice(NOUNS)}." if rng.random() < 0.4 else ""
    lines = code.defined(name, [code.argument.format(arg) for arg in args], doc, a_literal(rng, code))
    return Needle(lines, name, Fact(", ".join(args), questions, [f"{name}(", f"def {name}("], sentences, "parameters"))


def result(rng: random.Random, pool: Pool, chunk: Chunk, stem: str) -> Needle:
    """A function that returns a literal."""
    code = dialect_of(chunk.path)
    name, written = code.call([rng.choice(VERBS), stem, rng.choice(QUALITIES)]), a_literal(rng, code)
    bare = written.strip("\"'")
    questions = [
        f"What does {name} return?",
        f"What is the return value of `{name}`?",
        f"Which value do I get from {name}()?",
        f"What does calling `{name}` give?",
    ]
    sentences = [f"`{name}` returns {bare}.", f"It returns `{bare}`.", f"return {written}"]
    prefixes = ["return ", f"{name}() == ", "It returns "]
    fact = Fact(bare, questions, prefixes, sentences, written=written)
    return Needle(code.defined(name, [], "", written), name, fact)
