"""The questions of the answers benchmark, by the split of their repositories.

`questions/REPO.jsonl` has one question a line. awareness/evals/short_questions.py has their form, and decides if an
answer is right.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval"))

from checkouts import listed

from awareness.evals.short_questions import ShortQuestion, read_short_questions

QUESTIONS = Path(__file__).parent / "questions"


def files_of(split: str | None, folder: Path = QUESTIONS) -> list[Path]:
    """The files of questions in `folder`, or of those whose repository is in the split `dev` or `held_out`."""
    repositories = listed(split)
    return [file for file in sorted(folder.glob("*.jsonl")) if split is None or file.stem in repositories]


def load_questions(folder: Path = QUESTIONS, split: str | None = None) -> list[ShortQuestion]:
    """Read the questions of these files. Raises UsageError with the file and the line of an invalid question."""
    return [question for file in files_of(split, Path(folder)) for question in read_short_questions(file)]
