"""Text -> search terms, in the same way for chunks and for questions.

`HTTPConnectionPool` becomes `httpconnectionpool http connection pool`, so that both the name and its words match.
Terms are stemmed (Porter 1980).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"\w+")
# where a name splits into words: foo|Bar, HTTP|Server, sha|256
_BORDER = re.compile(r"_+|(?<=[^\WA-Z_])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_LONGEST = 64  # characters of a word; longer ones are data, not names

# Words that do not tell what a question is about.
_QUESTION_WORDS = frozenset(
    """
    a about all am an and any are as at be been being but by can could did do does doing done each else ever every for
    from get gets give had happen happens has have having here how i if in into is it its itself just kind know let
    like look made make makes many may me might more most much must my need no not of off on one or other our out over
    own part place please same see shall should show so some such tell than that the their them then there these they
    thing this those through to too under up us use used uses using very want was way we were what when where which
    while who whom whose why will with within work works would you your code codebase repo repository
    whether decide decides decided determine determines determined responsible way ways actually really implemented
    implementation handled handle located defined define defines declared declare definition declaration find explain
    describe
    """.split()
)
# What looks like a name in code, not a word: foo_bar, fooBar, HTTPServer, sha256, Foo::bar, foo.bar, foo().
_NAMED = re.compile(
    r"\w*(?:\w_\w|_\w|[^\WA-Z_][A-Z]|[A-Z]{2}[^\WA-Z_]|[^\W\d_]\d)\w*|\w+(?=\()|(?<=::)\w+|(?<=\w\.)\w+"
)
_TOO_LONG = re.compile(rf"\w{{{_LONGEST + 1},}}")
PART_WEIGHT = 0.35  # of the words in a name; the name counts 1
BESIDE_NAME_WEIGHT = 0.3  # of the words around a name, if they are at most `_FEW_WORDS`
_FEW_WORDS = 4


def stems(text: str) -> Iterator[str]:
    """The stem of each word of `text`; after that of an identifier come the stems of its parts."""
    for word in _WORD.findall(text):
        yield from _stems(word)


def query_terms(question: str) -> list[str]:
    """The terms of a question, each once, in order, without question words unless it has no others."""
    words = _WORD.findall(question)
    chosen = [word for word in words if word.lower() not in _QUESTION_WORDS] or words
    return list(dict.fromkeys(term for word in chosen for term in _terms(word)))


def names_in(question: str) -> list[str]:
    """The words of a question that look like names in code, as written, sorted."""
    question = _TOO_LONG.sub(" ", question)  # or the pattern would try every part of it
    names = {match.group().strip("_") for match in _NAMED.finditer(question)}
    words = _WORD.findall(question)
    if len(words) == 1:
        names.add(words[0])
    return sorted(name for name in names if len(name) > 1 and name.lower() not in _QUESTION_WORDS)


def weighted_terms(question: str) -> dict[str, float]:
    """Stemmed term -> its weight in the question.

    A name weighs more than its parts. Next to a name, a few other words weigh little: in "the getUserName method"
    neither `name` nor `method` tells much.
    """
    names = {name.lower() for name in names_in(question)}
    words = [word for word in _WORD.findall(question) if word.lower() not in _QUESTION_WORDS]
    beside = BESIDE_NAME_WEIGHT if names and len(words) - len(names) <= _FEW_WORDS else 1.0
    weights: dict[str, float] = {}
    for word in words or _WORD.findall(question):
        whole, *parts = _terms(word) or [""]
        weight = 1.0 if whole in names else beside
        for term, term_weight in [(whole, weight), *((part, weight * PART_WEIGHT) for part in parts)]:
            if term:
                weights[stem(term)] = max(weights.get(stem(term), 0.0), term_weight)
    return weights


def name_words(name: str) -> list[str]:
    """The words of an identifier: `parseHTTPHeader` -> parse, http, header."""
    return [part.lower() for part in _BORDER.split(name.strip("_")) if part]


@functools.lru_cache(maxsize=1 << 16)
def _stems(word: str) -> tuple[str, ...]:
    return tuple(stem(term) for term in _terms(word))


@functools.lru_cache(maxsize=1 << 16)
def stem(term: str) -> str:
    """`signing`, `signed` -> `sign`. Only ASCII words are stemmed."""
    return str(_stemmer().stemWord(term)) if term.isascii() and term.isalpha() else term


@functools.cache
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("porter")


def _terms(word: str) -> list[str]:
    if len(word) > _LONGEST:
        return []
    if word.isalpha() and word.islower():
        return [word]
    name = word.strip("_")
    whole = name.lower()
    if not whole:
        return []
    parts = [part.lower() for part in _BORDER.split(name)]
    return [whole, *parts] if len(parts) > 1 else [whole]
