"""Check the questions of the answers benchmark against the code that they are about.

    python benchmarks/retrieval/checkouts.py CHECKOUTS
    python benchmarks/answers/check.py CHECKOUTS [--split dev|held_out] [--questions DIR]

Prints the number of questions for each repository and language, then one line for each problem. The exit code is 1 if
there is a problem. A place must exist and hold one of its question's strings, unless the question is marked `derived`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import table
from questions import QUESTIONS, listed, load_questions

from awareness.errors import UsageError
from awareness.evals.short_questions import ShortQuestion, matches, normal

MOST_LINES = 30  # in a place
MOST_DERIVED = 0.1  # share of all questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, help="folder with one checkout per repository")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    parser.add_argument("--split", choices=("dev", "held_out"))
    options = parser.parse_args()
    try:
        questions = load_questions(options.questions, options.split)
    except UsageError as error:
        sys.exit(str(error))
    counts(questions)
    problems = format_problems(questions) + place_problems(questions, options.checkouts)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


def counts(questions: Sequence[ShortQuestion]) -> None:
    """Print the number of questions by repository, then by language."""
    known = listed()
    rows: Counter[tuple[str, str, str]] = Counter()
    for question in questions:
        entry = known.get(question.repo, {"split": "?", "language": "?"})
        rows[entry["split"], entry["language"], question.repo] += 1
    table(("split", "language", "repository", "questions"), [(*row, count) for row, count in sorted(rows.items())])
    print()
    languages: Counter[str] = Counter()
    for (_, language, _), count in rows.items():
        languages[language] += count
    table(("language", "questions"), [*sorted(languages.items()), ("all", len(questions))])


def format_problems(questions: Sequence[ShortQuestion]) -> list[str]:
    """Return one line for each problem that needs no code to be found."""
    problems = [] if questions else ["there are no questions"]
    known = listed()
    seen: set[tuple[str, str]] = set()
    for question in questions:
        name = f"{question.repo}: {question.question!r}"
        if question.repo not in known:
            problems.append(f"{name}: checkouts.json does not list the repository")
        if matches(question.question, question.contains):
            problems.append(f"{name}: the question holds its own answer")
        if not question.derived and not matches(question.expected, question.contains):
            problems.append(f"{name}: what is expected does not hold any of {list(question.contains)}")
        if not 0 <= question.last - question.first < MOST_LINES:
            problems.append(f"{name}: {question.place} has no lines, or more than {MOST_LINES}")
        asked = (question.repo, normal(question.question).rstrip("?"))
        if asked in seen:
            problems.append(f"{name}: asked twice")
        seen.add(asked)
    derived = sum(question.derived for question in questions)
    if derived > MOST_DERIVED * len(questions):
        problems.append(f"{derived} of {len(questions)} questions are derived, more than {MOST_DERIVED:.0%}")
    return problems


def place_problems(questions: Sequence[ShortQuestion], checkouts: Path) -> list[str]:
    """Return one line for each place that is missing or does not hold the answer."""
    problems = []
    for question in questions:
        name = f"{question.repo}: {question.question!r}"
        file = checkouts / question.repo / question.path
        if not file.is_file():
            problems.append(f"{name}: there is no {file}")
            continue
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if question.last > len(lines):
            problems.append(f"{name}: {question.place}, but the file has {len(lines)} lines")
            continue
        place = "\n".join(lines[question.first - 1 : question.last])
        if not question.derived and not matches(place, question.contains):
            problems.append(f"{name}: {question.place} does not hold any of {list(question.contains)}")
    return problems


if __name__ == "__main__":
    main()
