"""What the comment of a definition says it does: asked for, and asked by."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from awareness.train.samples.facts import Asked, clear
from awareness.train.samples.pairs import _doc_comment, worth_saying
from awareness.train.samples.pool import Pool
from awareness.train.samples.python_syntax import definitions_of
from awareness.train.samples.vocabulary import VERBS, Fact, third_person

_MORE_VERBS = """
add adjust apply ask be begin bring calculate call cast change choose compile compute configure construct decode define
delete describe determine disable display do download draw emit enable encode ensure escape evaluate execute extract
find format generate get give handle hold implement indicate infer initialize invoke iterate join keep let look make
match modify move normalize obtain output override pass perform pop print process produce provide put query raise read
receive record redirect replace represent request require return run save search send serialize serve set show simulate
sleep store take tell test tokenize transform translate traverse try turn unescape use wait walk write yield
""".split()
_IMPERATIVE = frozenset([*VERBS, *_MORE_VERBS])
_THIRD = frozenset(third_person(verb) for verb in _IMPERATIVE)
_ROLE = re.compile(r":[\w:]+:`~?([^`<]+)(?:\s*<[^>]*>)?`")


def sentence_of(doc: str) -> str:
    """The first sentence of a docstring, on one line without markup, or "" where it isn't one that can be quoted."""
    paragraph = " ".join(doc.strip().split("\n\n")[0].split())
    text = _ROLE.sub(r"`\1`", paragraph).replace("``", "`")
    found = re.match(r"(.{8,110}?[a-z0-9)`'\"])(?:\.(?:\s+(?=[^a-z\d])|$)|[:!](?:\s|$)|$)", text)
    if not found or not text.isprintable() or not 3 <= len(found[1].split()) <= 20 or not worth_saying(found[1]):
        return ""
    return "" if re.search(r">>>|[|{}*]|@\w|:param|\.\.\s|<[a-z/]", found[1]) else found[1]


@dataclass(frozen=True)
class Described:
    """What a definition's comment says it does. noun: function, method, class or the like."""

    gold: int
    name: str
    noun: str
    sentence: str

    @property
    def does(self) -> str:
        """The sentence as the end of "the function that ...", or ""."""
        first, _, rest = self.sentence.partition(" ")
        word = first.lower()
        if first == self.name.rpartition(".")[2] and rest.split(" ")[0].endswith("s"):
            return rest
        if word in _IMPERATIVE:
            return f"{third_person(word)} {rest}"
        return f"{word} {rest}" if word in _THIRD else ""


def _described(pool: Pool) -> list[Described]:
    found = []
    for definition in pool.once(definitions_of):
        if sentence := sentence_of(definition.doc):
            found.append(Described(definition.chunk, definition.name, definition.noun, sentence))
    for number, chunk in enumerate(pool.chunks):
        if chunk.path.endswith((".py", ".pyi", ".md", ".rst", ".txt")) or not chunk.symbol or " " in chunk.symbol:
            continue
        said, rest = _doc_comment(chunk.text)
        head = next((line for line in rest.split("\n") if line.strip()), "")
        name = chunk.symbol.rpartition(".")[2]
        sentence = sentence_of(said)
        if sentence and re.search(rf"\b{re.escape(name)}\b", head):
            kind = re.search(r"\b(class|struct|interface|enum|trait|type|func|function|fn|def)\b", head)
            word = kind[1] if kind else "function"
            noun = {"func": "function", "fn": "function", "def": "method"}.get(word, word)
            found.append(Described(number, chunk.symbol, noun, sentence))
    return found


@clear
def docstrings(pool: Pool) -> list[Asked]:
    return [Asked(one.gold, one.name, _what_it_does(one)) for one in pool.once(_described)]


def _what_it_does(one: Described) -> Fact:
    name, sentence = one.name, one.sentence
    questions = [
        f"What does {name} do?",
        f"What does the {one.noun} `{name}` do?",
        f"What is `{name}` for?",
        f"Explain {name}.",
        f"What is the purpose of {name}?",
        f"How is `{name}` documented?",
    ]
    if does := one.does:
        told = [f"{does[0].upper()}{does[1:]}.", f"It {does}.", f"`{name}` {does}."]
        return Fact(f"{does}.", questions, ["It ", f"`{name}` ", f"The {one.noun} "], told, "description")
    quoted = f"{sentence[0].upper()}{sentence[1:]}."
    return Fact(quoted, questions, [f"{name}: "], [quoted], "description")


@clear
def which(pool: Pool) -> list[Asked]:
    found, told = [], Counter(one.sentence.lower() for one in pool.once(_described))
    for one in pool.once(_described):
        does, noun, name = one.does, one.noun, one.name
        quoted = one.sentence
        if re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", does or quoted):
            continue  # it would be in the question
        if told[quoted.lower()] > 1:
            continue  # it could be another one
        questions = [f'Which {noun} is described as "{quoted}"?', f'Whose documentation says "{quoted}"?']
        if does:
            questions = [
                f"Which {noun} {does}?",
                f"What is the name of the {noun} that {does}?",
                f"I am looking for the {noun} that {does}.",
                f"Is there a {noun} that {does}? Name it.",
                questions[0],
            ]
        sentences = [f"`{name}`.", f"It is `{name}`.", f"The {noun} is `{name}`."]
        sentences += [f"`{name}` {does}."] if does and len(does) < 60 else []
        prefixes = [f"The {noun} is ", f"The {noun} is `", "It is `", "`"]
        found.append(Asked(one.gold, name, Fact(name, questions, prefixes, sentences, "name")))
    return found
