"""Doc comments and comments of a chunk in any language, taken out of its text, and their first sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_WORDS = 32  # of a description
MOST_WORDS = 150  # of a whole doc comment
MIN_WORDS = 3
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
_DOCSTRING = re.compile(r'[rRbBuU]?("""|\'\'\')(.*?)\1', re.DOTALL)
COMMENT = re.compile(r"^\s*(?:///?!?|#+|--|\*+(?!/)|/\*+)\s?(.*?)(?:\*+/)?\s*$")
_NOISE = re.compile(
    r"copyright|licen[sc]e|all rights reserved|SPDX|eslint|noqa|type:\s*ignore|pylint|prettier|istanbul|TODO|FIXME|XXX"
    r"|@ts-|region\b|https?://",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"<[^<>]{1,80}>|[`*_{}|]|\\[a-z]+|:[a-z]+:(?=`)|@(?:code|link)\b")
_REST = re.compile(
    r"^\s*(?:@\w+|:\w+[^:]*:|Args?:|Arguments|Parameters?|Returns?:?|Raises:?|Examples?:?|>>>|---|===|\.\. )"
)
_ROLE = re.compile(r":[\w:]+:`~?([^`<]+)(?:\s*<[^>]*>)?`")


def describes(text: str) -> bool:
    """Whether a comment has enough words, and is no licence, no note for a tool and no link."""
    return len(_WORD.findall(text)) >= MIN_WORDS and not _NOISE.search(text)


def doc_comment(text: str) -> tuple[str, str]:
    """(first paragraph of the docstring or of the leading comment of a chunk, the text without it)."""
    lines, rest = _split_doc(text)
    return _first_paragraph(lines), rest


def whole_doc_comment(text: str) -> tuple[str, str]:
    """(the docstring or leading comment of a chunk with its parameters and notes, the text without it)."""
    lines, rest = _split_doc(text)
    words = [word for line in lines for word in _MARKUP.sub(" ", line).split()]
    return " ".join(words[:MOST_WORDS]), rest


def _split_doc(text: str) -> tuple[list[str], str]:
    """The lines of the docstring or of the leading comment, without its signs, and the text without it."""
    lines = text.split("\n")
    stop = 0
    while stop < len(lines) and (COMMENT.match(lines[stop]) or not lines[stop].strip()):
        stop += 1
    if stop:
        return [_uncommented(line) for line in lines[:stop]], "\n".join(lines[stop:])
    docstring = _DOCSTRING.search(text[:2000])
    if docstring and text[: docstring.start()].rstrip().endswith(":"):
        return docstring[2].split("\n"), text[: docstring.start()] + text[docstring.end() :]
    return [], text


def inner_comment(text: str) -> tuple[str, str]:
    """(first paragraph of the longest run of comment lines, the text without that run)."""
    lines = text.split("\n")
    best, start = (0, 0), None
    for at, line in enumerate([*lines, ""]):
        inside = bool(COMMENT.match(line)) and len(line.strip()) > 2
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            best, start = max(best, (at - start, -start)), None
    count, first = best[0], -best[1]
    paragraph = _first_paragraph(map(_uncommented, lines[first : first + count]))
    return paragraph, "\n".join(lines[:first] + lines[first + count :])


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring, on one line and without markup; empty if it cannot be quoted."""
    paragraph = " ".join(doc.strip().split("\n\n")[0].split())
    text = _ROLE.sub(r"`\1`", paragraph).replace("``", "`")
    match = re.match(r"(.{8,110}?[a-z0-9)`'\"])(?:\.(?:\s+(?=[^a-z\d])|$)|[:!](?:\s|$)|$)", text)
    if not match or not text.isprintable() or not 3 <= len(match[1].split()) <= 20 or not describes(match[1]):
        return ""
    return "" if re.search(r">>>|[|{}*]|@\w|:param|\.\.\s|<[a-z/]", match[1]) else match[1]


def _uncommented(line: str) -> str:
    match = COMMENT.match(line)
    return match[1] if match else ""


def _first_paragraph(lines: Iterable[str]) -> str:
    words: list[str] = []
    for line in lines:
        if (not line.strip() and words) or (_REST.match(line) and words):
            break
        if not _REST.match(line):
            words += _MARKUP.sub(" ", line).split()
    return " ".join(words[:MAX_WORDS])
