"""The languages that are cut at their syntax (languages.yaml), the language of a file, and its tree-sitter grammar."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from awareness.errors import UsageError
from awareness.types import printable

Paths = Mapping[str, Sequence[tuple[str, ...]]]
"""Type of a node -> paths from it, each a tuple of steps, as languages.yaml explains."""


@dataclass(frozen=True)
class Language:
    """A row of languages.yaml, which explains the fields."""

    module: str
    extensions: frozenset[str]
    definitions: frozenset[str] = frozenset()
    function: str = "language"
    filenames: frozenset[str] = frozenset()
    interpreters: frozenset[str] = frozenset()
    spaces: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    flat: frozenset[str] = frozenset()
    leads: frozenset[str] = frozenset()
    heads: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    valued: Mapping[str, str] = field(default_factory=dict)
    holding: Paths = field(default_factory=dict)
    names: Paths = field(default_factory=dict)
    calls: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    unnamed: re.Pattern[str] | None = None
    literal: bool = False


def _paths(rows: Mapping[str, str]) -> Paths:
    return {kind: [tuple(path.split("/")) for path in paths.split()] for kind, paths in rows.items()}


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(["module", "function", "valued", "literal"], lambda value: value),
    **dict.fromkeys(["holding", "names"], _paths),
    "unnamed": re.compile,
    "calls": lambda calls: {
        kind: {name: frozenset(words.split()) for name, words in fields.items()} for kind, fields in calls.items()
    },
}


def _language(row: Mapping[str, Any]) -> Language:
    fields: dict[str, Any] = {key: _READERS.get(key, lambda words: frozenset(words.split()))(row[key]) for key in row}
    return Language(**fields)


LANGUAGES: dict[str, Language] = {
    name: _language(row) for name, row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_bytes()).items()
}
PROSE = ("markdown", "rst", "asciidoc", "org")


def _by(field: str) -> dict[str, str]:
    return {key: name for name, language in LANGUAGES.items() for key in getattr(language, field)}


def _any_of(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, names))


_PROSE_EXTENSIONS = {
    **dict.fromkeys([".md", ".markdown", ".mdx", ".rmd", ".qmd"], "markdown"),
    ".rst": "rst",
    **dict.fromkeys([".adoc", ".asciidoc"], "asciidoc"),
    ".org": "org",
}
_EXTENSIONS = _by("extensions") | _PROSE_EXTENSIONS
_FILENAMES = _by("filenames")
_INTERPRETERS = _by("interpreters")
_SHEBANG = re.compile(rf"#!.*\b({_any_of(_INTERPRETERS)})[\d.]*(?:\s|$)")
_NAMED_FIRST = ("dockerfile.", "containerfile.", "makefile.")  # Dockerfile.dev
_OBJC = re.compile(
    r"^[ \t]*(?:@(?:interface|implementation|protocol|class|import|end)\b|#[ \t]*(?:import|include)\b)", re.MULTILINE
)
_OBJC_HEADER = re.compile(r"^@(?:interface|protocol|implementation)\b", re.MULTILINE)
_MATLAB = re.compile(r"^[ \t]*(?:%|function\b|classdef\b|end\b|clc\b|clear\b|close all\b)", re.MULTILINE)
_CPP = re.compile(
    r"^[ \t]*(?:class\s+\w+|namespace\b|template\s*<|using\s+(?:namespace\b|\w+\s*=)|(?:public|private|protected)\s*:)",
    re.MULTILINE,
)


def language_of(path: str, text: str = "") -> str | None:
    """The language of a file by its name, or by the `#!` line of a script without an extension. None if unknown.

    `.h` is C, C++ if the text has a class, a namespace, a template or the like, Objective-C if it has an `@interface`.
    `.m` is Objective-C or MATLAB.
    """
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    language = _FILENAMES.get(name) or _EXTENSIONS.get(suffix)
    if language is None and name.startswith(_NAMED_FIRST):
        return _FILENAMES[name.partition(".")[0]]
    if suffix == ".m":
        return "objc" if _OBJC.search(text) else "matlab" if _MATLAB.search(text) else None
    if suffix == ".h" and _OBJC_HEADER.search(text):
        return "objc"
    if suffix == ".h" and _CPP.search(text):
        return "cpp"
    if language is None and not suffix and text.startswith("#!"):
        shebang = _SHEBANG.match(text.split("\n", 1)[0])
        return _INTERPRETERS[shebang[1]] if shebang else None
    return language


_OTHER_NAMES = {
    "c++": "cpp",
    "c#": "c_sharp",
    "csharp": "c_sharp",
    "golang": "go",
    "objective-c": "objc",
    "shell": "bash",
    "terraform": "hcl",
    "jsx": "javascript",
}


def languages_named(names: Sequence[str]) -> frozenset[str]:
    """The languages that a user names, by their names here, by other usual ones, or by an extension (`py`, `.py`).
    TypeScript includes its dialect with JSX. Raises UsageError."""
    found = set()
    for name in names:
        word = name.strip().lower()
        known = word if word in LANGUAGES or word in PROSE else None
        known = known or _OTHER_NAMES.get(word) or _EXTENSIONS.get(f".{word.removeprefix('.')}")
        if known is None:
            listed = ", ".join(sorted([*LANGUAGES, *PROSE]))
            raise UsageError(f"'{printable(name[:40])}' is not a known language", hint=f"one of {listed}")
        found |= {known, "tsx"} if known == "typescript" else {known}
    return frozenset(found)


@cache
def grammar_of(language: str) -> Any:
    """The tree-sitter grammar; None if its wheel is not installed or has an ABI that tree-sitter does not read."""
    row = LANGUAGES[language]
    try:
        from tree_sitter import Language as Grammar

        return Grammar(getattr(importlib.import_module(row.module), row.function)())
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
