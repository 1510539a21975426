"""Scopes of a request: patterns of paths that count from the top folder of the repository.

The library reads a scope as people type it, relative to the working folder. The server's own working folder means
nothing to its clients.
"""

from __future__ import annotations

from collections.abc import Sequence


def anchored(patterns: Sequence[str] | None) -> list[str] | None:
    """The same patterns, spelt so that no working folder changes their meaning: `src/*.py` -> `/src/*.py`, `src` at
    every depth -> `**/src`."""
    return None if patterns is None else [_anchored(pattern) for pattern in patterns]


def _anchored(pattern: str) -> str:
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    while body.startswith("./"):
        body = body[2:]
    if body in ("", "."):
        return f"{sign}/**"
    if body.startswith(("/", "**/", "../")):
        return sign + body
    return f"{sign}/{body}" if "/" in body.rstrip("/") else f"{sign}**/{body}"
