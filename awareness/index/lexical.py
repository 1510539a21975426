"""Text and identifiers -> search terms, the same way for what is indexed and for what is asked.

`HTTPConnectionPool` becomes itself and `http connection pool`, so that both the name and its words find it.
Terms are stemmed after Porter (1980).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"\w+")
# fooBar, HTTPServer, sha256: where a name falls into words
_BORDER = re.compile(r"_+|(?<=[^\WA-Z_])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_LONGEST = 64  # characters of a word worth keeping: beyond it is data, not a name

# Words that say that a question is asked, not what it is about.
_QUESTION_WORDS = frozenset(
    """
    a about all am an and any are as at be been being but by can could did do does doing done each else ever every for
    from get gets give had happen happens has have having here how i if in into is it its itself just kind know let
    like look made make makes many may me might more most much must my need no not of off on one or other our out over
    own part place please same see shall should show so some such tell than that the their them then there these they
    thing this those through to too under up us use used uses using very want was way we were what when where which
    while who whom whose why will with within work works would you your code codebase repo repository implemented
    implementation handled handle located defined find explain describe
    """.split()
)


def stems(text: str) -> Iterator[str]:
    """The stem of each word of `text`, an identifier's followed by those of its parts."""
    for word in _WORD.findall(text):
        yield from _stems(word)


def query_terms(question: str) -> list[str]:
    """The terms worth looking for, each once, in order. Question words go, unless nothing else is there."""
    words = _WORD.findall(question)
    chosen = [word for word in words if word.lower() not in _QUESTION_WORDS] or words
    return list(dict.fromkeys(term for word in chosen for term in _terms(word)))


@functools.lru_cache(maxsize=1 << 16)
def _stems(word: str) -> tuple[str, ...]:
    return tuple(stem(term) for term in _terms(word))


@functools.lru_cache(maxsize=1 << 16)
def stem(term: str) -> str:
    """`signing`, `signed` -> `sign`. What is not a plain word stays as it is."""
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
