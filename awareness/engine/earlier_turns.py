"""`EarlierTurns`: what was asked and answered before, for a question that follows.

It makes the query that the follow-up is searched with, and the turns that stand before it in the prompt. It knows
neither an index nor a model: a front end makes it from the pairs that its client sends, `Talk` (talk.py) from its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awareness.index.search.terms import asked_words, names_in
from awareness.model.sentences import names_in as code_in

MOST_CHARACTERS = 4000
"""Of all earlier turns in a prompt: about 1,000 tokens."""
_OF_A_QUESTION, _OF_AN_ANSWER = 500, 1000  # characters of one turn that are kept
_SHARE = 4  # of the decoder's positions, a quarter is for earlier turns at most
_NAMES = 6  # of an earlier turn in a query
_FEW_WORDS = 2  # a question of so few telling words without a name of code takes its subject from before
_OWN_SUBJECT = 4  # telling words before a pronoun, to which it then refers; before a possessive one 2
_LONG = 240  # characters: a longer question tells its subject

_GOES_ON = re.compile(
    r"^\W*(?:(?:and|but|or|so|then|also|plus|ok|okay|else|again)\b|(?:what|how) about\b|what (?:if|else)\b"
    r"|why(?: not| so)?\W*$)",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:it|they|them|those|these|both|former|latter|above|previous|earlier|aforementioned)\b"
    r"|\b(?P<possessive>its|itself|their|theirs)\b"
    r"|\bsame\s+(?:\w+|\W*$)|\bother\s+(?:one|way|case|place)s?\b"
    r"|\b(?:of|for|with|in|about|to|by|from|after|before|like|does|do|is|are|was|did|can|on|into|why|and|or|uses?"
    r"|calls?|reads?|sets?|raises?|tests?|when|where|how)\s+(?:that|this|there|here)\b"
    r"(?!\s+(?:repo|project|package|library|code ?base|program|a|an|any|no|some)\b)"
    r"|\b(?:that|this|there|here)\s*(?:\W*$|[,;])"
    r"|\b(?:that|this) (?:one|function|method|class|file|value|option|case|error|exception|default|test|module|name"
    r"|parameter|argument|variable|setting|call|line|check)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Turn:
    """named: paths and symbols of the sources that the answer rests on."""

    question: str
    answer: str
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlierTurns:
    """turns: the oldest first."""

    turns: tuple[Turn, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> EarlierTurns:
        """pairs: (question, answer), the oldest first."""
        return cls(tuple(Turn(question, answer) for question, answer in pairs))

    def and_then(self, turn: Turn) -> EarlierTurns:
        return EarlierTurns((*self.turns, turn))

    def query(self, question: str) -> str:
        """What a follow-up is searched with: the question itself if it stands alone, else with what the turns before
        it are about, back to the last question that stood alone."""
        if not self.turns or stands_alone(question):
            return question
        about: list[str] = []
        for turn in reversed(self.turns):
            about.append(turn.question[:_OF_A_QUESTION])
            if stands_alone(turn.question):
                break
        names = [name for name in _named(self.turns[-1]) if name not in question]
        return " ".join([question, *reversed(about), *names[:_NAMES]])

    def prompt(self, positions: int) -> list[tuple[str, str]]:
        """The (question, answer) pairs that stand in the prompt: the last ones, shortened, so that they take at most a
        quarter of the decoder's positions."""
        room = min(MOST_CHARACTERS, positions // _SHARE)
        pairs: list[tuple[str, str]] = []
        for turn in reversed(self.turns):
            pair = turn.question[:_OF_A_QUESTION], turn.answer[:_OF_AN_ANSWER]
            room -= most_tokens([pair])
            if room < 0:
                break
            pairs.insert(0, pair)
        return pairs


def most_tokens(pairs: Sequence[tuple[str, str]]) -> int:
    """A bound of the tokens of (question, answer) pairs: a token has at least one byte."""
    return sum(len(text.encode("utf-8", "replace")) for pair in pairs for text in pair)


NO_TURNS = EarlierTurns()


def stands_alone(question: str) -> bool:
    """Whether a question says itself what it is about: it points at nothing before it (but at words of its own), and
    has a name of code or more than a few telling words."""
    if len(question) > _LONG or "\n" in question.strip():
        return True
    if _GOES_ON.match(question):
        return False
    if (back := _POINTS_BACK.search(question)) is not None:
        before = question[: back.start()]
        needed = _FEW_WORDS if back["possessive"] else _OWN_SUBJECT
        return bool(names_in(before)) or (bool(before.strip()) and len(asked_words(before)) >= needed)
    return bool(names_in(question)) or len(asked_words(question)) > _FEW_WORDS


def _named(turn: Turn) -> Sequence[str]:
    """The names of code in a question and its answer, each once, and those of its sources."""
    return list(dict.fromkeys([*code_in(turn.question), *code_in(turn.answer), *turn.named]))
