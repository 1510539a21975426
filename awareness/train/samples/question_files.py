"""Questions about repositories with the places that answer them, read from a file.

One JSON object a line, or a JSON list of them:

    {"question": "How is a cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py:5-7"], "repo": "sample"}

gold: the files that answer it, as paths in the repository, with lines where only those do. answer: how a person would
say it, in few words; what has none is not asked for one. repo: the repository's folder name, where a file has questions
for several. `benchmarks/retrieval` calls the same things `query` and `relevant`, with places as {"path", "start_line",
"end_line"}; that is read, too. A question without gold is one that the repository does not answer, and left out.
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
    """Lines of a file, counted from 1, both included; the whole file where they are None."""

    path: str
    start_line: int | None = None
    end_line: int | None = None

    def is_in(self, chunk: Chunk) -> bool:
        """Does the chunk show any line of it?"""
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
        """The places in `chunks` of those that show any line of the gold."""
        return tuple(i for i, chunk in enumerate(chunks) if any(place.is_in(chunk) for place in self.gold))


@dataclass(frozen=True)
class Asked:
    """A question with the chunks that routing found for it, best first, and those that BM25 alone did."""

    question: Question
    chunks: tuple[Chunk, ...]
    bm25: tuple[Chunk, ...]


def read_questions(path: Path) -> list[Question]:
    """Those that have gold. Raises UsageError."""
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
        raise UsageError(f"{path} is not JSON lines, nor a JSON list: {error}") from None
    questions = [_question(path, number, entry) for number, entry in entries]
    if not any(one.gold for one in questions):
        raise UsageError(f"{path} has {len(questions)} questions, and none of them has gold files")
    return [one for one in questions if one.gold]


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
        found = _LINES.fullmatch(entry)
        return Place(found[1], int(found[2]), int(found[3])) if found else Place(entry)
    return Place(entry["path"], entry.get("start_line"), entry.get("end_line"))
