"""What a hit is, and how much that counts before the question is read."""

from __future__ import annotations

import re
from collections.abc import Set

from awareness.index.files.file_kinds import FileKind

PRIORS = {
    FileKind.SOURCE: 1.0,
    FileKind.TEST: 0.6,
    FileKind.EXAMPLE: 0.7,
    FileKind.DOCS: 0.8,
    FileKind.OTHER: 0.7,
    FileKind.LEGACY: 0.7,
    FileKind.CHANGELOG: 0.5,
    FileKind.GENERATED: 0.5,
    FileKind.VENDORED: 0.5,
    FileKind.TRANSLATION: 0.5,
}
"""The factor for each kind, where the question does not ask for it."""

_ASKS = {
    FileKind.TEST: r"tests?|tested|testing|testcases?|fixtures?|specs?|unittests?",
    FileKind.EXAMPLE: r"examples?|demos?|samples?|benchmarks?|tutorials?",
    FileKind.DOCS: (
        r"docs?|documentation|documented|readme|guides?|tutorials?|manual"
        r"|how (?:to|do i|can i|do you|should i|do we|can we)|getting started|quick ?start|installation"
    ),
    FileKind.CHANGELOG: (
        r"change ?logs?|release notes?|releases?|what'?s new|(?:since|in|as of) (?:which|what) version"
        r"|which (?:version|release)|when (?:was|were|did)"
    ),
    FileKind.LEGACY: r"legacy|deprecated|deprecations?|obsolete|old (?:api|version|implementation)|v\d+",
    FileKind.GENERATED: r"generated|bundled?|dist|compiled|snapshots?",
    FileKind.VENDORED: r"vendored?|bundled|third[- ]party",
    FileKind.TRANSLATION: (
        r"translations?|translated|in (?:chinese|japanese|korean|german|french|spanish|russian|portuguese)"
    ),
    FileKind.OTHER: (
        r"config|configuration|settings?|css|styles?|stylesheets?|themes?|ya?ml|toml|json|ini"
        r"|workflows?|pipeline|dockerfile|makefile"
    ),
}
_PATTERNS = {kind: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for kind, words in _ASKS.items()}


def asked_kinds(question: str) -> frozenset[FileKind]:
    """The kinds of files that a question asks for: `test of`, `in the docs`, `which release`."""
    return frozenset(kind for kind, pattern in _PATTERNS.items() if pattern.search(question))


def prior(kind: FileKind, asked: Set[FileKind]) -> float:
    """The factor for hits of a kind; 1 if the question asks for it."""
    return 1.0 if kind in asked else PRIORS[kind]
