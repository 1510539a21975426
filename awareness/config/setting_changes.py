"""Compare two trees of settings key by key: those of two checkpoints, or of a finished run and of now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"


@dataclass(frozen=True)
class ChangedSetting:
    """key: full name, `training.max_steps`. first, second: its values; `ABSENT` where one tree does not have it."""

    key: str
    first: Any
    second: Any

    @property
    def line(self) -> str:
        return f"{self.key} was {shown(self.first)}, now {shown(self.second)}"


def changed_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[ChangedSetting]:
    """first, second: sections of sections of JSON values. A list counts as one value."""
    before, now = flat(first), flat(second)
    keys = dict.fromkeys((*before, *now))
    pairs = ((key, before.get(key, ABSENT), now.get(key, ABSENT)) for key in keys)
    return [ChangedSetting(key, was, is_now) for key, was, is_now in pairs if was != is_now]


def first_lines(changed: Sequence[ChangedSetting], count: int = 5) -> str:
    """The first `count` differences in one line, and how many more there are."""
    return few([setting.line for setting in changed], count)


def few(lines: Sequence[str], count: int) -> str:
    """The first `count` lines in one, and how many more there are."""
    more = [f"and {len(lines) - count} more"] if len(lines) > count else []
    return "; ".join([*lines[:count], *more])


def shown(value: Any) -> str:
    """As a YAML file has it, at most 80 characters."""
    text = value if value == ABSENT else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def flat(section: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Full key -> value, of the settings below `place`. A list is one value, and so is a mapping with nothing in it."""
    settings: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{place}.{name}" if place else name
        settings |= flat(value, key) if isinstance(value, Mapping) and value else {key: value}
    return settings
