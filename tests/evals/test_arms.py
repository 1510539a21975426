"""Arms as they are typed: a reader, perhaps another model, and settings of reading."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.evals.arms import Arm, Bounds, parse_arms

SETTINGS = {"share": Bounds(0.0, 0.5), "kind": ("a", "b")}


def parsed(*names: str) -> list[Arm]:
    return parse_arms(names, SETTINGS)


def test_reader_model_and_settings():
    assert parsed("text", "text@m-1.5b", "joint@share=0.25", "joint@kind=b", "joint+lora@org/m@share=0", "text") == [
        Arm("text", "text"),
        Arm("text@m-1.5b", "text", "m-1.5b"),
        Arm("joint@share=0.25", "joint", None, {"share": 0.25}),
        Arm("joint@kind=b", "joint", None, {"kind": "b"}),
        Arm("joint+lora@org/m@share=0", "joint+lora", "org/m", {"share": 0.0}),
    ]


def test_the_name_of_a_checkpoint_stays_whole():
    assert parsed("joint+lora (run 2)") == [Arm("joint+lora (run 2)", "joint+lora (run 2)")]


@pytest.mark.parametrize(
    "name, message, hint",
    [
        ("joint@share=0.6", "share is 0.6, not a number from 0 to 0.5", "--arms joint@share=0.5"),
        ("joint@share=", "share is empty", "--arms joint@share=0.5"),
        ("joint@share=nan", "share is nan", "--arms joint@share=0.5"),
        ("joint@shares=0.1", "unknown setting shares; there are share, kind", "--arms joint"),
        ("joint@kind=c", "kind is c, not one of a, b", "--arms joint@kind=b"),
        ("joint@share=0.1@share=0.2", "has share twice", "--arms joint@share=0.2"),
        ("text@", "has nothing after an @", "--arms text"),
        ("text@a@b", "has two models, a and b", "--arms text@a"),
    ],
)
def test_errors_name_the_value_and_what_to_type(name, message, hint):
    with pytest.raises(UsageError, match=message) as raised:
        parsed(name)
    assert raised.value.hint == hint
    parsed(hint.removeprefix("--arms "))  # works when typed
