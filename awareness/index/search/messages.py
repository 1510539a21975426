"""A message as it was printed, found in the code that makes it: the same string, with holes for the values."""

from __future__ import annotations

import re
from collections.abc import Iterator

from awareness.index.search.terms import is_question_word, words_of

_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.){2,300})\"|'((?:[^'\\\n]|\\.){2,300})'|`((?:[^`\\]|\\.){2,300})`")
_HOLE = re.compile(
    r"\$?\{[^{}\n]{0,80}\}|%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z@]|%\([^)\n]{1,40}\)[a-z]|\$[A-Za-z_]\w*|#\{[^{}\n]{0,80}\}"
    r"|\\[nrt\"'`]|['\"`]"
)
_JOINED = re.compile(r"\s*(?:\+|\.|\.\.|<<|&|,)?\s*[\w.()\[\]!?>-]{0,60}\s*(?:\+|\.|\.\.|<<|&|,)?\s*")
_JOINED_LONGEST = 64  # characters that the pattern allows, besides spaces
_SPACES = re.compile(r"\s+")
_LEAST = 8  # letters of a message that are in the code
_LONGEST = 300  # characters of a question that may be a message


def is_message(question: str) -> bool:
    """May this be what a program printed, rather than a question of a person?"""
    words = words_of(question[:_LONGEST])
    is_one_line = " " in question.strip() and len(question) <= _LONGEST and "?" not in question[-2:]
    return is_one_line and len(words) >= 2 and not is_question_word(words[0])


def message_share(message: str, text: str) -> float:
    """The share, in [0, 1], of a message's letters that a string in `text` makes, with its holes filled; 0 if any part
    of that string is not in the message, in order. A string without a space is a name and no message."""
    flat = _flat(message)
    letters = sum(map(str.isalnum, flat))
    best = 0
    for parts in _strings(text):
        if not any(" " in part for part in parts):  # a name
            continue
        at, held = 0, 0
        for part in parts:
            found = flat.find(part, at)
            if found < 0:
                break
            at, held = found + len(part), held + sum(map(str.isalnum, part))
        else:
            best = max(best, held)
    return best / letters if best >= _LEAST and letters else 0.0


def _strings(text: str) -> Iterator[list[str]]:
    """The strings of some code, each as the parts between its holes. Neighbours that the code joins are one string."""
    joined: list[str] = []
    end = -1
    for match in _STRING.finditer(text):
        parts = [flat for part in _HOLE.split(next(filter(None, match.groups()), "")) if (flat := _flat(part))]
        yield parts
        if end >= 0 and _is_joined(text[end : match.start()]):
            joined += parts
            yield list(joined)
        else:
            joined = list(parts)
        end = match.end()


def _is_joined(between: str) -> bool:
    """Does the code between two strings make them one?"""
    if len(between) > _JOINED_LONGEST and len("".join(between.split())) > _JOINED_LONGEST:
        return False  # as the pattern would say, after more work
    return _JOINED.fullmatch(between) is not None


def _flat(text: str) -> str:
    return _SPACES.sub(" ", text).strip().lower()
