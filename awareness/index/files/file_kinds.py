"""The kind of a file, by its path: decides what is encoded first and what is ranked lower."""

from __future__ import annotations

import functools
import re
from enum import IntEnum


class FileKind(IntEnum):
    """In order of their value for questions about code."""

    SOURCE = 0
    TEST = 1
    EXAMPLE = 2
    DOCS = 3
    OTHER = 4


_TEST = re.compile(
    r"(^|/)(tests?|testing|__tests__|specs?|fixtures|testdata)/|(^|/)(test_[^/]*|conftest)\.py$"
    r"|[._-](tests?|spec)\.[a-z]+$|Tests?\.(java|cs|kt|php)$"
)
_EXAMPLE = re.compile(r"(^|/)(examples?|samples?|demos?|benchmarks?|tutorials?)/", re.IGNORECASE)
_DOCS = re.compile(r"(^|/)docs?/|\.(md|markdown|rst|txt|adoc)$", re.IGNORECASE)
_CODE = re.compile(
    r"\.(py|pyi|pyx|js|jsx|mjs|cjs|ts|tsx|mts|cts|vue|svelte|go|rs|java|kt|kts|scala|c|h|cc|cpp|cxx|hh|hpp|hxx|cs|rb|php"
    r"|sh|bash|zsh|swift|m|mm|lua|pl|pm|r|jl|ex|exs|erl|hs|ml|mli|clj|dart|sql|proto|graphql|zig|nim|cu|cuh)$",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=1 << 14)
def kind_of(path: str) -> FileKind:
    if _TEST.search(path):
        return FileKind.TEST
    if _EXAMPLE.search(path):
        return FileKind.EXAMPLE
    if _CODE.search(path):
        return FileKind.SOURCE
    return FileKind.DOCS if _DOCS.search(path) else FileKind.OTHER
