"""Numbers as people read them: counts, bytes, durations."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
