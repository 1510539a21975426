"""A follow-up question together with what was said before it, as one question to the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TURNS = 2
"""Earlier turns that a question is read with; older ones would only lead search away from it."""
QUESTION_CHARS, ANSWER_CHARS = 200, 300


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str = ""


def with_history(question: str, turns: Sequence[Turn]) -> str:
    """The question first, since search and model weigh all of it. Without earlier turns, it stays as it is."""
    last = [turn for turn in turns if turn.question.strip()][-TURNS:]
    if not last:
        return question
    asked = "; ".join(_clipped(turn.question, QUESTION_CHARS) for turn in last)
    answer = _clipped(last[-1].answer, ANSWER_CHARS)
    said = f'\nThe answer was: "{answer}"' if answer else ""
    return f'{question}\n\nI asked before: "{asked}"{said}'


def _clipped(text: str, most: int) -> str:
    """On one line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most].rpartition(" ")[0] + " …"
