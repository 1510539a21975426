"""Short questions about code, each with the strings that a right answer holds, and the place that has them.

One JSON object a line:

    {"question": "what is the default port", "expected": "5000.", "contains": ["5000"], "place": "src/cli.py:880-890"}

expected: a whole answer, for people; it is written from the code before any model runs. contains: an answer is right if
it holds one of these strings. place: where the code says it. "derived": true, optional: the string is calculated from
these lines (the code has 60 * 60, and `contains` has 3600). "repo", optional: the folder name of the repository;
without it, the file is named after the repository, or there is only one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.types import Chunk

_PLACE = re.compile(r"(?P<path>[^:]+):(?P<first>[1-9]\d*)-(?P<last>[1-9]\d*)")
_REQUIRED = {"question": str, "expected": str, "contains": list, "place": str}
_OPTIONAL = {"derived", "repo"}
_EXAMPLE = '{"question": "…", "expected": "5000.", "contains": ["5000"], "place": "src/a.py:10-12"}'
# Quotes and backticks around a name say nothing about it; typographic hyphens are hyphens.
_CHARACTERS = str.maketrans(dict.fromkeys("`\"'‘’“”«»", "") | dict.fromkeys("‐‑–—", "-"))
_THOUSANDS = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")


@dataclass(frozen=True)
class ShortQuestion:
    """repo: folder name of the repository, or what the file is called. first, last: lines of `path`, counted from 1,
    both included. is_named: the line itself names the repository."""

    repo: str
    question: str
    expected: str
    contains: tuple[str, ...]
    path: str
    first: int
    last: int
    derived: bool = False
    is_named: bool = False

    @property
    def place(self) -> str:
        return f"{self.path}:{self.first}-{self.last}"

    def is_right(self, answer: str) -> bool:
        return matches(answer, self.contains)

    def is_shown(self, chunk: Chunk) -> bool:
        """Whether the chunk shows any line of the place."""
        return chunk.path == self.path and chunk.start_line <= self.last and self.first <= chunk.end_line

    def is_answered_by(self, chunk: Chunk) -> bool:
        """Whether the chunk shows any line of the place, or holds one of the strings."""
        return self.is_shown(chunk) or self.is_right(chunk.text)


def read_short_questions(path: Path) -> list[ShortQuestion]:
    """Raises UsageError, with the file and the line of an invalid question."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--questions {path} can't be read: {error}") from None
    questions = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                questions.append(_question(path.stem, json.loads(line)))
            except ValueError as error:
                raise UsageError(f"{path}:{number}: {error}", hint=f"a line such as {_EXAMPLE}") from None
    if not questions:
        raise UsageError(f"--questions {path} has no questions", hint=f"lines such as {_EXAMPLE}")
    return questions


def _question(stem: str, entry: Any) -> ShortQuestion:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    if unknown := sorted(set(entry) - set(_REQUIRED) - _OPTIONAL):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    for name, kind in _REQUIRED.items():
        if not isinstance(entry.get(name), kind) or not entry[name]:
            raise ValueError(f"{name!r} must be a {kind.__name__} that is not empty")
    if not all(isinstance(text, str) and normal(text) for text in entry["contains"]):
        raise ValueError("'contains' must be a list of strings with more than quotes in them")
    if not isinstance(entry.get("derived", False), bool):
        raise ValueError("'derived' must be true or false")
    repo = entry.get("repo", stem)
    if not isinstance(repo, str) or not repo:
        raise ValueError("'repo' must be the folder name of a repository")
    place = _PLACE.fullmatch(entry["place"])
    if place is None:
        raise ValueError(f"'place' must be PATH:FIRST-LAST, not {entry['place']!r}")
    return ShortQuestion(
        repo,
        entry["question"],
        entry["expected"],
        tuple(entry["contains"]),
        place["path"],
        int(place["first"]),
        int(place["last"]),
        entry.get("derived", False),
        "repo" in entry,
    )


def matches(answer: str, contains: Sequence[str]) -> bool:
    """True if the answer holds one of the strings, and not only inside a longer word or number.

    Case, quotes, backticks, line breaks and thousands separators are ignored: 1,000, 1_000 and 1000 are equal.
    """
    text = normal(answer)
    return any(_pattern(normal(wanted)).search(text) for wanted in contains)


def normal(text: str) -> str:
    """The text as it is compared."""
    return " ".join(_THOUSANDS.sub("", text.translate(_CHARACTERS)).casefold().split())


def _pattern(wanted: str) -> re.Pattern[str]:
    before = r"(?<!\w)" if re.match(r"\w", wanted) else ""
    before += r"(?<!\d\.)" if re.match(r"\d", wanted) else ""  # 5 is not in 2.5
    after = r"(?!\w)" if re.search(r"\w$", wanted) else ""
    after += r"(?!\.\d)" if re.search(r"\d$", wanted) else ""  # nor in 5.2
    return re.compile(before + re.escape(wanted) + after)
