"""Numbers as people read and write them: counts, bytes, durations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from awareness.errors import UsageError
from awareness.types import printable

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`, `3 repositories`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


def named_list(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c` on one line; of more than `most` names the first, and how many more there are."""
    shown = ", ".join(map(printable, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def human_bytes(number: float) -> str:
    """`512 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def quantity(number: float, activity: str) -> str:
    """`number` in the unit of the activity, as `Progress` names it."""
    if activity.startswith(("downloading", "converting")):
        return human_bytes(number)
    return f"{number:,.0f} tokens" if activity == "encoding" else f"{number:,.0f}"


def duration(seconds: float) -> str:
    """`45 s`, `2 min 40 s`, `1 h 5 min`; at least `1 s`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    (large, small), units = (
        (divmod(whole, 60), ("min", "s")) if whole < 3600 else (divmod(whole // 60, 60), ("h", "min"))
    )
    return f"{large} {units[0]}" + (f" {small} {units[1]}" if small else "")


def parse_bytes(text: str) -> int:
    """'512MiB' -> 536870912. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _UNITS:
        raise UsageError(f"'{text}' is not a size", hint="a number with a unit, like --budget 512MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])
