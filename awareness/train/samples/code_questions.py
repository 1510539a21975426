"""Questions about real code whose answer is in the chunk: signatures, defaults, docstrings, imports and the like.

Python is read by `ast`, as far as a chunk parses; other languages by patterns for definitions, and by doc comments.
Chunks that define the same name are left out of the sample, so that no other chunk answers the question.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from awareness.train.samples.doc_comments import doc_comment, first_sentence
from awareness.train.samples.next_lines import next_line
from awareness.train.samples.pool import Kind, Pool, ask
from awareness.train.samples.python_syntax import PYTHON_SUFFIXES, definitions_of, trees_of
from awareness.train.samples.templates import Phrasings, template
from awareness.train.samples.vocabulary import DOCSTRING_VERBS, VERBS, listed, third_person
from awareness.types import Sample, printable

MAX_ANSWER = 60  # characters of an answer that is code
_LITERAL = r"-?\d[\d_.]*(?:e-?\d+)?|\"[^\"\\\n]+\"|'[^'\\\n]+'|true|false|True|False"
_HEX = re.compile(r"0[xX]|\b(?=\w*\d)[0-9a-fA-F]{6,}\b")
_CONSTANT = re.compile(
    r"^[ \t]*(?:export[ \t]+|pub[ \t]+|private[ \t]+|public[ \t]+|static[ \t]+|final[ \t]+|readonly[ \t]+)*"
    r"(?:const|var|let|#define|int|long|double|float|String|constexpr)[ \t]+(?:\w+[ \t]+)?(\w{4,})"
    rf"(?:[ \t]*:[ \t]*[\w&']+|[ \t]+\w+)?(?:[ \t]*=[ \t]*|[ \t]+)({_LITERAL})[ \t]*;?[ \t]*$",
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
_DEFINED = re.compile(r"\b(class|struct|interface|enum|trait|type|func|function|fn|def)\b")
_IMPERATIVE = frozenset([*VERBS, *DOCSTRING_VERBS])
_THIRD_PERSON = frozenset(third_person(verb) for verb in _IMPERATIVE)


@dataclass(frozen=True)
class CodeQuestion:
    """A question about `name` that the chunk `gold` answers.

    exact: all other chunks that mention the name are left out, not only those that define it. An empty name leaves out
    none.
    """

    gold: int
    name: str
    phrasings: Phrasings
    exact: bool = False


Find = Callable[[Pool], list[CodeQuestion]]


def unambiguous(find: Callable[[Pool], Iterable[CodeQuestion]]) -> Find:
    """Drops questions that a chunk answers in two ways: it defines the name twice."""

    @functools.wraps(find)
    def find_unambiguous(pool: Pool) -> list[CodeQuestion]:
        questions = list(find(pool))
        answers: dict[tuple[int, str], set[str]] = {}
        for question in questions:
            answers.setdefault((question.gold, question.phrasings.questions[0]), set()).add(question.phrasings.answer)
        return [q for q in questions if len(answers[q.gold, q.phrasings.questions[0]]) == 1]

    return find_unambiguous


def asking(find: Find) -> Kind:
    """The kind of sample that asks one of the questions that `find` finds in a pool."""

    def kind(rng: random.Random, pool: Pool, count: int) -> Sample | None:
        questions = pool.once(find)
        if not questions:
            return None
        question = rng.choice(questions)
        last = question.name.rpartition(".")[2]
        without = pool.mentioning(last) if question.exact else pool.definitions.get(last, frozenset())
        return pool.sample(rng, question.phrasings, question.gold, count, without)

    return kind


def _code(text: str) -> str | None:
    """Code as an answer: on one line, short, and without hexadecimal digits, which are held out; else None."""
    text = " ".join(text.split())
    return text if 0 < len(text) <= MAX_ANSWER and not _HEX.search(text) else None


def _in_other_languages(pool: Pool, pattern: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
    """(number of the chunk, both groups of `pattern`) for each match outside Python."""
    for number, chunk in enumerate(pool.chunks):
        if not chunk.path.endswith(PYTHON_SUFFIXES):
            for first, second in pattern.findall(chunk.text):
                yield number, first, second


# --- definitions ---


@unambiguous
def _signatures(pool: Pool) -> Iterator[CodeQuestion]:
    signatures = [
        (d.chunk, d.name, ", ".join(d.parameters), listed(list(d.parameters), "`"))
        for d in pool.once(definitions_of)
        if d.parameters and len(d.parameters) <= 6
    ]
    signatures += [
        (n, name, parameters, f"`{parameters}`") for n, name, parameters in _in_other_languages(pool, _FUNCTION)
    ]
    for number, name, parameters, quoted in signatures:
        if len(parameters) <= MAX_ANSWER:
            fields = {"name": name, "last": name.rpartition(".")[2], "quoted": quoted}
            yield CodeQuestion(number, name, template("real_signature").fill(parameters, **fields))


@unambiguous
def _defaults(pool: Pool) -> list[CodeQuestion]:
    questions = []
    for definition in pool.once(definitions_of):
        for parameter, default in definition.parameters.items():
            if (answer := _code(default or "")) is not None:
                phrasings = template("real_default").fill(answer, name=definition.name, parameter=parameter)
                questions.append(CodeQuestion(definition.chunk, definition.name, phrasings))
    return [question for question in questions if question.phrasings.answer != "None"] or questions  # most are None


@unambiguous
def _constants(pool: Pool) -> Iterator[CodeQuestion]:
    constants = [(number, name, literal) for number, tree in pool.once(trees_of) for name, literal in tree.constants]
    for number, name, source in [*constants, *_in_other_languages(pool, _CONSTANT)]:
        literal = _code(source)
        if literal is not None and len(pool.definitions.get(name.rpartition(".")[2], ())) <= 3:
            yield CodeQuestion(number, name, template("real_constant").fill_literal(literal, name=name))


@unambiguous
def _places(pool: Pool) -> list[CodeQuestion]:
    questions = []
    for number, chunk in enumerate(pool.chunks):
        path, last = printable(chunk.path), chunk.symbol.rpartition(".")[2]
        if len(last) < 5 or " " in chunk.symbol or pool.definitions[last] != {number} or len(path) > MAX_ANSWER:
            continue
        for name in {last, chunk.symbol}:
            questions.append(CodeQuestion(number, name, template("real_where").fill(path, name=name)))
    return sorted(questions, key=lambda question: (question.gold, question.name))


@unambiguous
def _bases(pool: Pool) -> Iterator[CodeQuestion]:
    classes = [(d.chunk, d.name, list(d.bases)) for d in pool.once(definitions_of) if d.bases]
    classes += [(number, name, [base]) for number, name, base in _in_other_languages(pool, _BASE)]
    for number, name, bases in classes:
        if (answer := _code(", ".join(bases))) is not None:
            fields = {"name": name, "last": name.rpartition(".")[2], "quoted": listed(bases, "`")}
            yield CodeQuestion(number, name, template("base_class").fill(answer, **fields))


@unambiguous
def _raises(pool: Pool) -> Iterator[CodeQuestion]:
    for definition in pool.once(definitions_of):
        if definition.noun != "class" and 1 <= len(definition.raises) <= 2:
            wording = template("raises" if len(definition.raises) == 1 else "raises_two")
            quoted = listed(definition.raises, "`")
            phrasings = wording.fill(" and ".join(definition.raises), name=definition.name, quoted=quoted)
            yield CodeQuestion(definition.chunk, definition.name, phrasings)


@unambiguous
def _returns(pool: Pool) -> Iterator[CodeQuestion]:
    for definition in pool.once(definitions_of):
        if (answer := _code(definition.returns)) is not None:
            phrasings = template("returns").fill(answer, name=definition.name)
            yield CodeQuestion(definition.chunk, definition.name, phrasings)


@unambiguous
def _imports(pool: Pool) -> Iterator[CodeQuestion]:
    for number, tree in pool.once(trees_of):
        path = printable(pool.chunks[number].path)
        for name, module in tree.imports if len(path) < 60 else ():
            yield CodeQuestion(number, name, template("imports").fill(module, name=name, path=path), exact=True)


@unambiguous
def _usages(pool: Pool) -> Iterator[CodeQuestion]:
    """Names that one other chunk calls, and no more than one."""
    for name, numbers in pool.mentions.items():
        users = numbers - pool.definitions.get(name, numbers)
        if len(name) < 6 or len(users) != 1 or len(pool.definitions[name]) != 1:
            continue
        (user,) = users
        caller = pool.chunks[user].symbol
        if caller and " " not in caller and re.search(rf"(?<!\w){re.escape(name)}\(", pool.chunks[user].text):
            yield CodeQuestion(user, "", template("usage").fill(caller, name=name))


# --- descriptions ---


@dataclass(frozen=True)
class Described:
    """What the doc comment of a definition says it does. noun: function, method, class or the like."""

    gold: int
    name: str
    noun: str
    sentence: str

    @property
    def does(self) -> str:
        """The sentence as the end of "the function that ...", or empty if it cannot be one."""
        first, _, rest = self.sentence.partition(" ")
        word = first.lower()
        if first == self.name.rpartition(".")[2] and rest.split(" ")[0].endswith("s"):
            return rest
        if word in _IMPERATIVE:
            return f"{third_person(word)} {rest}"
        return f"{word} {rest}" if word in _THIRD_PERSON else ""


def _described(pool: Pool) -> list[Described]:
    described = []
    for definition in pool.once(definitions_of):
        if sentence := first_sentence(definition.doc):
            described.append(Described(definition.chunk, definition.name, definition.noun, sentence))
    for number, chunk in enumerate(pool.chunks):
        if chunk.path.endswith((".py", ".pyi", ".md", ".rst", ".txt")) or not chunk.symbol or " " in chunk.symbol:
            continue
        comment, rest = doc_comment(chunk.text)
        head = next((line for line in rest.split("\n") if line.strip()), "")
        name = chunk.symbol.rpartition(".")[2]
        sentence = first_sentence(comment)
        if sentence and re.search(rf"\b{re.escape(name)}\b", head):
            keyword = _DEFINED.search(head)
            word = keyword[1] if keyword else "function"
            noun = {"func": "function", "fn": "function", "def": "method"}.get(word, word)
            described.append(Described(number, chunk.symbol, noun, sentence))
    return described


@unambiguous
def docstrings(pool: Pool) -> Iterator[CodeQuestion]:
    """What does it do?"""
    for definition in pool.once(_described):
        does, fields = definition.does, {"name": definition.name, "kind": definition.noun}
        text = does or definition.sentence
        capitalized = text[0].upper() + text[1:]
        if does:
            phrasings = template("docstring").fill(f"{does}.", capitalized=capitalized, **fields)
        else:
            phrasings = template("docstring_quoted").fill(f"{capitalized}.", **fields)
        yield CodeQuestion(definition.gold, definition.name, phrasings)


@unambiguous
def which(pool: Pool) -> Iterator[CodeQuestion]:
    """Which definition does it?"""
    described = pool.once(_described)
    sentences = Counter(definition.sentence.lower() for definition in described)
    for definition in described:
        does, name, sentence = definition.does, definition.name, definition.sentence
        if re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", does or sentence):
            continue  # the question would contain its answer
        if sentences[sentence.lower()] > 1:
            continue  # another definition has the same description
        wording = template("which" if does else "which_quoted")
        short = does if len(does) < 60 else None
        phrasings = wording.fill(name, kind=definition.noun, does=does, sentence=sentence, short=short)
        yield CodeQuestion(definition.gold, name, phrasings)


FINDERS: dict[str, Find] = {
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
QUESTIONS: dict[str, Kind] = {**{name: asking(find) for name, find in FINDERS.items()}, "next_line": next_line}


def unanswerable_question(rng: random.Random, pool: Pool) -> tuple[str, tuple[str, ...]] | None:
    """A question about existing code, and the name whose chunks must be left out."""
    questions = pool.once(FINDERS[rng.choice([name for name in FINDERS if name not in ("usage", "imports")])])
    if not questions:
        return None
    question = rng.choice(questions)
    return ask(rng, question.phrasings)[0], (question.name,)
