"""The names of a repository that a question means without writing them so: their words apart, or with a typo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from awareness.index.search.definitions import Definitions
from awareness.index.search.postings import Postings
from awareness.index.search.terms import stem
from awareness.index.unicode_forms import fold

_MOST_WORDS = 5  # of a name that is written as separate words
_WORDS_READ = 40  # of a question
_SHORTEST = 6  # characters of a name that may have a typo
_CLOSEST = 3  # names for one with a typo


def joined_names(words: Sequence[str], postings: Postings) -> list[str]:
    """The names that neighbouring words of a question make together, folded: `flag comp error` is `flagcomperror` and
    `flag_comp_error`."""
    lowered = [fold(word) for word in words[:_WORDS_READ]]
    made: dict[str, None] = {}
    for start in range(len(lowered)):
        for count in range(2, min(_MOST_WORDS, len(lowered) - start) + 1):
            part = lowered[start : start + count]
            if all(word.isascii() and word.isalnum() for word in part):
                made.update({"".join(part): None, "_".join(part): None})
    terms = {stem(name): name for name in made}
    return [terms[term] for term in postings.frequencies(terms)]


def near_names(names: Iterable[str], definitions: Definitions) -> dict[str, list[str]]:
    """name -> defined names (folded) that differ from it by one edit: a letter too many, missing, wrong, or swapped."""
    found: dict[str, list[str]] = {}
    for name in names:
        if len(name) < _SHORTEST:
            continue
        near = {fold(other) for other in definitions.of_length(len(name) - 1, len(name) + 1)}
        alike = sorted(other for other in near if _is_one_edit(name, other))
        if alike:
            found[name] = alike[:_CLOSEST]
    return found


def _is_one_edit(a: str, b: str) -> bool:
    """One insertion, deletion, substitution or swap of neighbours (Damerau 1964)."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    return a[start + 1 :] == b[start + 1 :] or (
        a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    )
