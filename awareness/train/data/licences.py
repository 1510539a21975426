"""Classify the licence of a source: by well-known phrases of its licence files, else by its metadata.

A licence is an SPDX expression of family names (`MIT`, `BSD`, `MIT OR Apache-2.0`, `GPL`), or `unknown`. This is a
filter for training data, not legal advice: where licence texts contradict each other, all of them must be permitted.
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
# family -> (what metadata calls it, a phrase of its text); the first family whose name matches counts
_FAMILIES = {
    "AGPL": (r"AGPL|.*Affero", r"GNU AFFERO GENERAL PUBLIC LICENSE,? Version|terms of the GNU Affero General Public"),
    "LGPL": (
        r"LGPL|.*Lesser General Public|.*Library or Lesser",
        r"GNU (?:LESSER|LIBRARY) GENERAL PUBLIC LICENSE,? Version|terms of the GNU (?:Lesser|Library) General",
    ),
    "GPL": (
        r"GPL|GNU (?:GPL|General Public)",
        r"GNU GENERAL PUBLIC LICENSE,? Version|terms of the GNU General Public",
    ),
    "MIT": (
        r"(?:The )?(?:MIT|Expat)(?: Licen[cs]e)?$|MIT-0$|X11$",
        r"Permission is hereby granted, free of charge, to any person obtaining a copy",
    ),
    "BSD": (
        r"(?:0|The )?(?:New |Modified |Simplified |Revised |[234]-Clause )?BSD(?:$|[ -])",
        r"Redistribution and use in source and binary forms, with or without modification, are permitted",
    ),
    "Apache-2.0": (
        r"(?:The )?Apache\b.*2|ASL 2|Apache(?: Software)? Licen[cs]e$",
        r"Apache License,? Version 2\.0",
    ),
    "ISC": (r"ISC\b", r"Permission to use, copy, modify,? and(?:/or)? distribute this software for any purpose with"),
    "PSF": (r"PSF\b|Python-2|Python Software Foundation", r"PYTHON SOFTWARE FOUNDATION LICENSE"),
    "Zlib": (r"zlib\b", r"The origin of this software must not be misrepresented"),
    "Unlicense": (
        r"(?:The )?Unlicense\b",
        r"This is free and unencumbered software released into the public domain",
    ),
    "MPL-2.0": (r"MPL[- ]?2|Mozilla Public Licen[cs]e.*2", r"Mozilla Public License,? [Vv]ersion 2\.0"),
}
_NAMES = {family: re.compile(name, re.IGNORECASE) for family, (name, _) in _FAMILIES.items()}
_PHRASES = {family: re.compile(phrase) for family, (_, phrase) in _FAMILIES.items()}
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")


def names_licence(path: str) -> bool:
    """Whether `licence_of` reads this file. path: relative to the top of the source."""
    return bool((_FILE.fullmatch(path) and not _CODE.search(path)) or _METADATA.fullmatch(path))


def licence_of(files: Mapping[str, bytes]) -> str:
    """The licence of a source. If its texts name several licences, the expression that the metadata makes of them
    (`MIT OR Apache-2.0`) counts; without one, all of them apply."""
    families: dict[str, None] = {}
    declared = UNKNOWN
    for path in sorted(filter(names_licence, files)):
        text = files[path].decode("utf-8", "replace")
        if not _METADATA.fullmatch(path):
            families |= dict.fromkeys(_families(text))
        elif declared == UNKNOWN:
            declared = _declared(path.rpartition("/")[2], text)
    if not families or (len(families) > 1 and set(families) <= set(_names(declared))):
        return declared
    return " AND ".join(families)


def is_permitted(licence: str, permitted: Iterable[str]) -> bool:
    """Whether one alternative of a licence consists of permitted names only. An empty `permitted` permits all."""
    families = {family(name) for name in permitted}
    return not families or any(families.issuperset(part.split(" AND ")) for part in licence.split(" OR "))


def family(name: str) -> str:
    """`BSD-3-Clause`, `BSD License` -> `BSD`. An SPDX name without a family is returned as it is."""
    name = name.partition(" WITH ")[0].strip()
    known = next((family for family, pattern in _NAMES.items() if pattern.match(name)), None)
    return known or (name if _SPDX.fullmatch(name) else UNKNOWN)


def _families(text: str) -> list[str]:
    """The licences whose phrase occurs in a text, in the order of their places."""
    text = " ".join(re.sub(r"^[ \t]*(?:[*#;]|//)+", "", text, flags=re.MULTILINE).split())
    matches = [(match.start(), family) for family, phrase in _PHRASES.items() if (match := phrase.search(text))]
    return [family for _, family in sorted(matches)]


def _names(licence: str) -> list[str]:
    return re.split(r" OR | AND ", licence)


def _declared(name: str, text: str) -> str:
    """The licence that a METADATA, PKG-INFO, package.json, pyproject.toml or Cargo.toml declares."""
    if name == "package.json":
        return _expression(_package_json(text))
    if name.endswith(".toml"):
        table = re.search(
            r"^\[(?:project|package|tool\.poetry)\][ \t]*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL
        )
        line = r"""^license[ \t]*=[ \t]*(?:\{[ \t]*text[ \t]*=[ \t]*)?["']([^"'\n]+)["']"""
        match = re.search(line, table[1], re.MULTILINE) if table else None
        return _expression(match[1] if match else "")
    head = text.split("\n\n", 1)[0]
    for line in (
        r"^License-Expression: (.+)$",
        r"^Classifier: License :: (?:OSI Approved :: )?(.+)$",
        r"^License: (.+)$",
    ):
        licences = [_expression(text) for text in re.findall(line, head, re.MULTILINE)]
        if licences and UNKNOWN not in licences:
            return " AND ".join(dict.fromkeys(licences))
    return UNKNOWN


def _package_json(text: str) -> str:
    try:
        licence = json.loads(text)["license"]
        return str(licence["type"] if isinstance(licence, dict) else licence)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _expression(text: str) -> str:
    """An SPDX expression with families for names. In one with inner brackets, all names are joined by AND."""
    text = re.sub(r"^\((.*)\)$", r"\1", text.strip())
    if "(" in text:
        text = " AND ".join(_names(re.sub(r"[()]", "", text)))
    parts = [" AND ".join(dict.fromkeys(map(family, part.split(" AND ")))) for part in text.split(" OR ")]
    return " OR ".join(dict.fromkeys(parts))
