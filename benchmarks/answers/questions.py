"""The questions of the answers benchmark: read a file of them, and decide if an answer is right.

`questions/REPO.jsonl` has one JSON object per line:

    {"question": "what is the default port", "expected": "5000.", "contains": ["5000"], "place": "src/cli.py:880-890"}

`expected` is written from the code before any model runs. An answer is right if it holds one string of `contains`.
`place` is where the code says it. `"derived": true` means that the string is calculated from these lines: the code has
60 * 60, and `contains` has 3600.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval"))

from checkouts import listed

QUESTIONS = Path(__file__).parent / "questions"

_PLACE = re.compile(r"(?P<path>[^:]+):(?P<first>[1-9]\d*)-(?P<last>[1-9]\d*)")
_REQUIRED = {"question": str, "expected": str, "contains": list, "place": str}
# Quotes and backticks around a name say nothing about it; typographic hyphens are hyphens.
_CHARACTERS = str.maketrans(dict.fromkeys("`\"'‘’“”«»", "") | dict.fromkeys("‐‑–—", "-"))
_THOUSANDS = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Question:
    """A question about one repository. `first` and `last` are lines of `path`, counted from 1, both included."""

    repo: str
    question: str
    expected: str
    contains: tuple[str, ...]
    path: str
    first: int
    last: int
    derived: bool = False

    @property
    def place(self) -> str:
        return f"{self.path}:{self.first}-{self.last}"


def load_questions(folder: Path = QUESTIONS, split: str | None = None) -> list[Question]:
    """Read the questions of all files in `folder`, or of those whose repository is in the split `dev` or `held_out`.

    Raises ValueError with the file and the line of an invalid question.
    """
    repositories = listed(split)
    questions = []
    for file in sorted(Path(folder).glob("*.jsonl")):
        if split is not None and file.stem not in repositories:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                questions.append(_question(file.stem, json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{file}:{number}: {error}") from error
    return questions


def _question(repo: str, entry: Any) -> Question:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    if unknown := sorted(set(entry) - set(_REQUIRED) - {"derived"}):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    for name, kind in _REQUIRED.items():
        if not isinstance(entry.get(name), kind) or not entry[name]:
            raise ValueError(f"{name!r} must be a {kind.__name__} that is not empty")
    if not all(isinstance(text, str) and normal(text) for text in entry["contains"]):
        raise ValueError("'contains' must be a list of strings with more than quotes in them")
    if not isinstance(entry.get("derived", False), bool):
        raise ValueError("'derived' must be true or false")
    place = _PLACE.fullmatch(entry["place"])
    if place is None:
        raise ValueError(f"'place' must be PATH:FIRST-LAST, not {entry['place']!r}")
    return Question(
        repo,
        entry["question"],
        entry["expected"],
        tuple(entry["contains"]),
        place["path"],
        int(place["first"]),
        int(place["last"]),
        entry.get("derived", False),
    )


def matches(answer: str, contains: Sequence[str]) -> bool:
    """True if the answer holds one of the strings, and not only inside a longer word or number.

    Case, quotes, backticks, line breaks and thousands separators are ignored: 1,000, 1_000 and 1000 are equal.
    """
    text = normal(answer)
    return any(_pattern(normal(wanted)).search(text) for wanted in contains)


def normal(text: str) -> str:
    """Normalise a text for comparison."""
    return " ".join(_THOUSANDS.sub("", text.translate(_CHARACTERS)).casefold().split())


def _pattern(wanted: str) -> re.Pattern[str]:
    before = r"(?<!\w)" if re.match(r"\w", wanted) else ""
    before += r"(?<!\d\.)" if re.match(r"\d", wanted) else ""  # 5 is not in 2.5
    after = r"(?!\w)" if re.search(r"\w$", wanted) else ""
    after += r"(?!\.\d)" if re.search(r"\d$", wanted) else ""  # nor in 5.2
    return re.compile(before + re.escape(wanted) + after)
