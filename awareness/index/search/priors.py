"""What a hit is, and how much that counts before the question is read."""

from __future__ import annotations

from collections.abc import Set

from awareness.index.files.file_kinds import FileKind

_KIND_WEIGHT = {
    FileKind.SOURCE: 1.0,
    FileKind.TEST: 0.6,
    FileKind.EXAMPLE: 0.7,
    FileKind.DOCS: 0.8,
    FileKind.OTHER: 0.7,
}
_ASKS_FOR = {
    FileKind.TEST: {"test", "tests", "tested", "testing", "fixture"},
    FileKind.EXAMPLE: {"example", "examples", "demo", "sample", "benchmark", "benchmarks"},
    FileKind.DOCS: {"docs", "documentation", "documented", "readme", "changelog", "release", "guide"},
}


def prior(kind: FileKind, words: Set[str]) -> float:
    """The factor for hits of this kind; 1 if the question asks for them. words: the question's terms."""
    return 1.0 if words & _ASKS_FOR.get(kind, set()) else _KIND_WEIGHT[kind]
