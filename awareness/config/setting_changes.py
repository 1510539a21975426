"""Compare two trees of settings key by key: those of two checkpoints, or of a finished run and of now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
    before, now = dict(_flat("", first)), dict(_flat("", second))
    keys = dict.fromkeys((*before, *now))
    pairs = ((key, before.get(key, ABSENT), now.get(key, ABSENT)) for key in keys)
    return [ChangedSetting(key, was, is_now) for key, was, is_now in pairs if was != is_now]


def first_lines(changed: Sequence[ChangedSetting], count: int = 5) -> str:
    """The first `count` differences in one line, and how many more there are."""
    more = [f"and {len(changed) - count} more"] if len(changed) > count else []
    return "; ".join([*(setting.line for setting in changed[:count]), *more])


def shown(value: Any) -> str:
    """As a YAML file has it, at most 80 characters."""
    text = value if value == ABSENT else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        yield place, value
        return
    for name, inner in value.items():
        yield from _flat(f"{place}.{name}" if place else str(name), inner)
