"""How an arm is written: a reader, and after each `@` another model for it or a setting of its reading.

    text                            the default model
    text@qwen2.5-coder-1.5b         another model
    joint@recompute=0.15            a setting of reading: this share of the memory is computed again for the question
    joint@top=8                     only the 8 chunks that the question looks at most are read
    joint@quant=pca                 latents that are stored in another way
    joint@qwen2.5-coder-1.5b@recompute=0.15

readers.py opens what is written here. `SETTINGS` has the settings that there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from awareness.errors import UsageError
from awareness.types import QUANTS

_SETTING = re.compile(r"(?P<key>[a-z_]+)=(?P<value>.*)")


@dataclass(frozen=True)
class Bounds:
    """Of a number, both included."""

    low: float
    high: float
    is_whole: bool = False


Allowed = Bounds | Sequence[str]
"""Numbers, or words."""
SETTINGS: dict[str, Allowed] = {
    "recompute": Bounds(0.0, 1.0),
    "top": Bounds(1, 256, is_whole=True),
    "sharpness": Bounds(0.1, 10.0),
    "quant": QUANTS,
}
"""Setting of reading -> what it may be."""


@dataclass(frozen=True)
class Arm:
    """name: as it was typed, and as reports name it. reader: `none`, `text`, `joint` or that of a checkpoint. model: by
    name, None for that of the evaluation. settings: of reading; those that are not named are as in `ask`."""

    name: str
    reader: str
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def parse_arms(names: Sequence[str], settings: Mapping[str, Allowed] = SETTINGS) -> list[Arm]:
    """Raises UsageError. settings: those that may be named."""
    return [_parsed(name, settings) for name in dict.fromkeys(names)]


def _parsed(name: str, known: Mapping[str, Allowed]) -> Arm:
    reader, *parts = name.split("@")
    model: str | None = None
    settings: dict[str, float | str] = {}
    for part in parts:
        if setting := _SETTING.fullmatch(part):
            key = setting["key"]
            if key in settings:
                raise UsageError(f"arm {name} has {key} twice", hint=f"--arms {reader}@{key}={setting['value']}")
            settings[key] = _value(name, key, setting["value"], known)
        elif not part or model is not None:
            what = "nothing after an @" if not part else f"two models, {model} and {part}"
            raise UsageError(f"arm {name} has {what}", hint=f"--arms {'@'.join(filter(None, (reader, model)))}")
        else:
            model = part
    return Arm(name, reader, model, settings)


def _value(name: str, key: str, value: str, known: Mapping[str, Allowed]) -> float | str:
    if key not in known:
        there_are = f"there are {', '.join(known)}" if known else "there are none"
        raise UsageError(f"arm {name}: unknown setting {key}; {there_are}", hint=f"--arms {name.split('@')[0]}")
    bounds = known[key]
    if not isinstance(bounds, Bounds):
        if value not in bounds:
            raise UsageError(
                f"arm {name}: {key} is {value or 'empty'}, not one of {', '.join(bounds)}",
                hint=f"--arms {name.split('@')[0]}@{key}={bounds[-1]}",
            )
        return value
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    is_allowed = bounds.low <= number <= bounds.high and (not bounds.is_whole or number.is_integer())
    if not is_allowed:  # as what is no number
        what = "whole number" if bounds.is_whole else "number"
        raise UsageError(
            f"arm {name}: {key} is {value or 'empty'}, not a {what} from {bounds.low:g} to {bounds.high:g}",
            hint=f"--arms {name.split('@')[0]}@{key}={bounds.high:g}",
        )
    return number
