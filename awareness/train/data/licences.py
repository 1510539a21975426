"""What a source may be used under: its licence files by their well-known phrases, else what its metadata declares.

A licence is an SPDX expression of family names (`MIT`, `BSD`, `MIT OR Apache-2.0`, `GPL`), or `unknown`. It is a filter
for training data and no legal advice: where texts contradict each other, all of them have to be permitted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

UNKNOWN = "unknown"
_FILE = re.compile(
    r"(?:[^/]+\.dist-info/(?:licenses/)?)?(?:UN)?(?:LICEN[CS]ES?|COPYING|COPYRIGHT)(?:[-._][^/]*)?", re.IGNORECASE
)
_METADATA = re.compile(r"(?:[^/]+\.dist-info/)?(?:METADATA|PKG-INFO)|package\.json|pyproject\.toml|Cargo\.toml")
_CODE = re.compile(r"\.(?:py|js|ts|go|rs|java|c|h|rb|php|sh)$")
_PHRASES = {
    family: re.compile(phrase)
    for family, phrase in {
        "MIT": r"Permission is hereby granted, free of charge, to any person obtaining a copy",
        "BSD": r"Redistribution and use in source and binary forms, with or without modification, are permitted",
        "Apache-2.0": r"Apache License,? Version 2\.0",
        "ISC": r"Permission to use, copy, modify,? and(?:/or)? distribute this software for any purpose with",
        "PSF": r"PYTHON SOFTWARE FOUNDATION LICENSE",
        "Zlib": r"The origin of this software must not be misrepresented",
        "Unlicense": r"This is free and unencumbered software released into the public domain",
        "MPL-2.0": r"Mozilla Public License,? [Vv]ersion 2\.0",
        "AGPL": r"GNU AFFERO GENERAL PUBLIC LICENSE,? Version|terms of the GNU Affero General Public",
        "LGPL": r"GNU (?:LESSER|LIBRARY) GENERAL PUBLIC LICENSE,? Version|terms of the GNU (?:Lesser|Library) General",
        "GPL": r"GNU GENERAL PUBLIC LICENSE,? Version|terms of the GNU General Public",
    }.items()
}
_NAMES = {
    family: re.compile(name, re.IGNORECASE)
    for family, name in {
        "AGPL": r"AGPL|.*Affero",
        "LGPL": r"LGPL|.*Lesser General Public|.*Library or Lesser",
        "GPL": r"GPL|GNU (?:GPL|General Public)",
        "MIT": r"(?:The )?(?:MIT|Expat)(?: Licen[cs]e)?$|MIT-0$|X11$",
        "BSD": r"(?:0|The )?(?:New |Modified |Simplified |Revised |[234]-Clause )?BSD(?:$|[ -])",
        "Apache-2.0": r"(?:The )?Apache\b.*2|ASL 2|Apache(?: Software)? Licen[cs]e$",
        "ISC": r"ISC\b",
        "PSF": r"PSF\b|Python-2|Python Software Foundation",
        "Zlib": r"zlib\b",
        "Unlicense": r"(?:The )?Unlicense\b",
        "MPL-2.0": r"MPL[- ]?2|Mozilla Public Licen[cs]e.*2",
    }.items()
}
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")


def says_licence(path: str) -> bool:
    """Whether `licence_of` reads a file; `path` is relative to the top of the source."""
    return bool((_FILE.fullmatch(path) and not _CODE.search(path)) or _METADATA.fullmatch(path))


def licence_of(files: Mapping[str, bytes]) -> str:
    """The licence of a source, from those of its files that say it. More than one text: what the metadata declares
    of them (`MIT OR Apache-2.0`), else all of them."""
    texts = {path: data.decode("utf-8", "replace") for path, data in sorted(files.items()) if says_licence(path)}
    found: dict[str, None] = {}
    declared = UNKNOWN
    for path, text in texts.items():
        if _METADATA.fullmatch(path):
            declared = _declared(path.rpartition("/")[2], text) if declared == UNKNOWN else declared
        else:
            found |= dict.fromkeys(_families(text))
    if not found or (len(found) > 1 and set(found) <= set(_names(declared))):
        return declared
    return " AND ".join(found)


def is_permitted(licence: str, permitted: Iterable[str]) -> bool:
    """Whether one of the alternatives of a licence is made of permitted names only; any is, if none is named."""
    families = {family(name) for name in permitted}
    return not families or any(families.issuperset(part.split(" AND ")) for part in licence.split(" OR "))


def family(name: str) -> str:
    """`BSD-3-Clause`, `BSD License` -> `BSD`; an SPDX name without a family is its own."""
    name = name.partition(" WITH ")[0].strip()
    known = next((family for family, pattern in _NAMES.items() if pattern.match(name)), None)
    return known or (name if _SPDX.fullmatch(name) else UNKNOWN)


def _families(text: str) -> list[str]:
    """The licences that a text has a phrase of, in the order in which they come."""
    text = " ".join(re.sub(r"^[ \t]*(?:[*#;]|//)+", "", text, flags=re.MULTILINE).split())
    found = [(match.start(), family) for family, phrase in _PHRASES.items() if (match := phrase.search(text))]
    return [family for _, family in sorted(found)]


def _names(licence: str) -> list[str]:
    return re.split(r" OR | AND ", licence)


def _declared(name: str, text: str) -> str:
    """What a METADATA, PKG-INFO, package.json, pyproject.toml or Cargo.toml declares."""
    if name == "package.json":
        return _expression(_package_json(text))
    if name.endswith(".toml"):
        table = re.search(
            r"^\[(?:project|package|tool\.poetry)\][ \t]*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL
        )
        line = r"""^license[ \t]*=[ \t]*(?:\{[ \t]*text[ \t]*=[ \t]*)?["']([^"'\n]+)["']"""
        found = re.search(line, table[1], re.MULTILINE) if table else None
        return _expression(found[1] if found else "")
    head = text.split("\n\n", 1)[0]
    for line in (
        r"^License-Expression: (.+)$",
        r"^Classifier: License :: (?:OSI Approved :: )?(.+)$",
        r"^License: (.+)$",
    ):
        said = [_expression(found) for found in re.findall(line, head, re.MULTILINE)]
        if said and UNKNOWN not in said:
            return " AND ".join(dict.fromkeys(said))
    return UNKNOWN


def _package_json(text: str) -> str:
    try:
        licence = json.loads(text)["license"]
        return str(licence["type"] if isinstance(licence, dict) else licence)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _expression(said: str) -> str:
    """An SPDX expression by families. One with inner brackets is read as if all of its names were asked for."""
    said = re.sub(r"^\((.*)\)$", r"\1", said.strip())
    if "(" in said:
        said = " AND ".join(_names(re.sub(r"[()]", "", said)))
    parts = [" AND ".join(dict.fromkeys(map(family, part.split(" AND ")))) for part in said.split(" OR ")]
    return " OR ".join(dict.fromkeys(parts))
