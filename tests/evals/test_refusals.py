"""How the two rates are counted."""

from __future__ import annotations

from awareness.evals.intervals import wilson
from awareness.evals.needle import Case
from awareness.evals.refusals import Asked, Scores, ask, scored
from awareness.types import Sample


class Reply:
    def __init__(self, text: str) -> None:
        self.text = text


class ReaderOf:
    """Answers from the texts that it is given; room for two."""

    def __init__(self, name: str, otherwise: str) -> None:
        self.name, self.otherwise = name, otherwise

    def fits(self, sample: Sample) -> bool:
        return len(sample.texts) < 3

    def answer_about(self, question, texts, *, max_new_tokens):
        held = [text for text in texts if "4821" in text]
        return Reply(f"It is {held[0]}." if held else self.otherwise)


def case(*texts: str) -> Case:
    return Case(Sample(texts, (0,), "which", "4821", kind="hex"), 0.0, ("b", *texts[1:]))


def test_both_rates_and_what_has_no_room():
    readers = [ReaderOf("honest", "The code above does not say."), ReaderOf("bold", "It is 17.")]
    asked = ask(readers, [case("x = 4821"), case("x = 4821", "c"), case("x = 4821", "c", "d")], max_new_tokens=4)
    assert len(asked) == 8
    none, all_ = wilson(0, 1), wilson(1, 1)
    assert scored(asked) == [
        Scores("honest", 1, all_, none, all_),
        Scores("bold", 1, none, none, all_),
        Scores("honest", 2, all_, none, all_),
        Scores("bold", 2, none, none, all_),
    ]


def test_an_answer_with_the_value_is_no_refusal():
    class Both(ReaderOf):
        def answer_about(self, question, texts, *, max_new_tokens):
            return Reply("The code does not say it, but 4821 is likely.")

    (given, without) = ask([Both("both", "")], [case("x = 4821")], max_new_tokens=4)
    assert (given.refused, given.found, without.refused) == (False, 1.0, False)
    refused = Asked("both", 1, "hex", "which", True, "", True, 0.0)
    (scores,) = scored([refused, without])
    assert scores.false_refusals == wilson(1, 1)
