"""The languages that are cut at their syntax (languages.yaml), the language of a file, and its tree-sitter grammar."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


@dataclass(frozen=True)
class Language:
    """A row of languages.yaml, which explains the fields."""

    module: str
    extensions: frozenset[str]
    definitions: frozenset[str]
    function: str = "language"
    filenames: frozenset[str] = frozenset()
    interpreters: frozenset[str] = frozenset()
    spaces: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    valued: Mapping[str, str] | None = None


def _language(row: Mapping[str, Any]) -> Language:
    plain = ("module", "function", "valued")
    fields: dict[str, Any] = {key: value if key in plain else frozenset(value.split()) for key, value in row.items()}
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
_CPP = re.compile(
    r"^[ \t]*(?:class\s+\w+|namespace\b|template\s*<|using\s+(?:namespace\b|\w+\s*=)|(?:public|private|protected)\s*:)",
    re.MULTILINE,
)


def language_of(path: str, text: str = "") -> str | None:
    """The language of a file by its name, or by the `#!` line of a script without an extension. None if unknown.

    `.h` is C, or C++ if the text has a class, a namespace, a template or the like.
    """
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    language = _FILENAMES.get(name) or _EXTENSIONS.get(suffix)
    if suffix == ".h" and _CPP.search(text):
        return "cpp"
    if language is None and not suffix and text.startswith("#!"):
        shebang = _SHEBANG.match(text.split("\n", 1)[0])
        return _INTERPRETERS[shebang[1]] if shebang else None
    return language


@cache
def grammar_of(language: str) -> Any:
    """The tree-sitter grammar; None if its wheel is not installed or has an ABI that tree-sitter does not read."""
    row = LANGUAGES[language]
    try:
        from tree_sitter import Language as Grammar

        return Grammar(getattr(importlib.import_module(row.module), row.function)())
    except (ImportError, AttributeError, ValueError):
        return None
