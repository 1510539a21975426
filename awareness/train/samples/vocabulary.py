"""Words for names and sentences (`words.yaml`), and how words become names, verb forms and lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

_WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))
NOUNS, QUALITIES, VERBS, ADJECTIVES, DOCSTRING_VERBS = (
    _WORDS[name].split() for name in ("nouns", "qualities", "verbs", "adjectives", "docstring_verbs")
)
MOMENTS: list[str] = _WORDS["moments"]
_SIBILANT = re.compile(r"(?:[sxz]|[cs]h|o)$")
_Y = re.compile(r"(?<=[^aeiou])y$")


def third_person(verb: str) -> str:
    """`flush` -> `flushes`."""
    return f"{verb}es" if _SIBILANT.search(verb) else _Y.sub("ie", verb) + "s"


def cased(words: Sequence[str], case: str) -> str:
    """Words as one name. case: `upper`, `snake`, `camel`, `pascal` or `kebab`."""
    if case in ("upper", "snake", "kebab"):
        name = ("-" if case == "kebab" else "_").join(words)
        return name.upper() if case == "upper" else name
    name = "".join(word.capitalize() for word in words)
    return name if case == "pascal" else name[:1].lower() + name[1:]


def listed(words: Sequence[str], quote: str = "") -> str:
    """`a, b and c`, each between two `quote`s."""
    quoted = [f"{quote}{word}{quote}" for word in words]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
