"""Read questions about repositories, with the places that answer them, from a file.

One JSON object per line, or a JSON list of them:

    {"question": "How is a cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py:5-7"], "repo": "sample"}

gold: paths in the repository that answer the question, with lines if only those do. answer: a short answer of a person;
optional. repo: the folder name of the repository, for files about several. The form of `benchmarks/retrieval` is read,
too: `query`, `relevant`, and places as {"path", "start_line", "end_line"}. A question without gold, which the
repository does not answer, is left out.
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

_LINES = re.compile(r"(.+):(\d+)-(\d+)")


@dataclass(frozen=True)
class Place:
    """Lines of a file, counted from 1, both included; None: the whole file."""

    path: str
    start_line: int | None = None
    end_line: int | None = None

    def is_in(self, chunk: Chunk) -> bool:
        """Whether the chunk shows any of these lines."""
        if self.path != chunk.path or self.start_line is None or self.end_line is None:
            return self.path == chunk.path
        return chunk.start_line <= self.end_line and self.start_line <= chunk.end_line


@dataclass(frozen=True)
class Question:
    question: str
    gold: tuple[Place, ...]
    answer: str = ""
    repo: str | None = None

    def gold_among(self, chunks: Sequence[Chunk]) -> tuple[int, ...]:
        """Indices of the chunks that show any gold line."""
        return tuple(i for i, chunk in enumerate(chunks) if any(place.is_in(chunk) for place in self.gold))


def read_questions(path: Path) -> list[Question]:
    """The questions that have gold. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--questions {path} can't be read: {error}") from None
    try:
        if text.lstrip().startswith("["):
            entries = list(enumerate(json.loads(text), start=1))
        else:
            entries = [(i, json.loads(line)) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    except ValueError as error:
        raise UsageError(f"{path} is neither JSON lines nor a JSON list: {error}") from None
    questions = [_question(path, number, entry) for number, entry in entries]
    answerable = [question for question in questions if question.gold]
    if not answerable:
        raise UsageError(f"{path} has {len(questions)} questions, and none of them has gold files")
    return answerable


def _question(path: Path, number: int, entry: Any) -> Question:
    try:
        gold = entry["gold"] if "gold" in entry else entry["relevant"]
        question = entry["question"] if "question" in entry else entry["query"]
        answer, repo = entry.get("answer", ""), entry.get("repo")
        texts = (question, answer, "" if repo is None else repo)
        if not all(isinstance(text, str) for text in texts) or not question.strip() or not isinstance(gold, list):
            raise ValueError("question, answer and repo are texts, gold is a list")
        return Question(question, tuple(map(_place, gold)), answer, repo)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{path}, question {number}: {what}",
            hint='{"question": "…", "answer": "…", "gold": ["src/a.py:10-40"]}',
        ) from None


def _place(entry: str | dict[str, Any]) -> Place:
    if isinstance(entry, str):
        lines = _LINES.fullmatch(entry)
        return Place(lines[1], int(lines[2]), int(lines[3])) if lines else Place(entry)
    return Place(entry["path"], entry.get("start_line"), entry.get("end_line"))
