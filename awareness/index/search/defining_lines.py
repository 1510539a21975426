"""Does a text define a name? For definitions that are not a chunk's symbol, in most languages."""

from __future__ import annotations

import re

from awareness.index.unicode_forms import folded_text

_KEYWORDS = (
    "class|def|function|func|fn|type|interface|struct|enum|trait|const|let|var|static|define|module|impl|union|typedef"
    "|macro_rules!|public|private|protected|export|abstract|final|void|int|char|bool|val"
)
_KEYWORD = re.compile(rf"\b(?:{_KEYWORDS})\b[^;={{(]*$")
_FIRST_WORDS = (  # of a line; elsewhere they are words of a comment
    "contract|library|error|event|modifier|sub|procedure|subroutine|program|record|object|protocol|extension|actor"
    "|resource|message|service|rpc|table|view|component|entity|defn|defun|defmodule|defp|deftype|newtype|data"
)
_FIRST_WORD = re.compile(rf"\s*(?:{_FIRST_WORDS})\s+$")
_USES = (
    "raise|raises|revert|throw|throws|return|new|emit|await|async|call|yield|import|from|in|not|and|or|if|elif|else|when"
    "|case|assert|delete|del|print|use|using|require|include|extends|implements|with|goto|catch|except|the|a|an|of|is|to"
)
_ANY_WORD = re.compile(rf"\s*(?!(?:{_USES})\s)[a-z]\w*\s+$")
_BODY = re.compile(r"\s*[({:=<]")
_INDENT = 4  # of a constant in a class; deeper, it is a local name
_ASSIGNED = re.compile(r"[ \t]*(?::[^=\n,]{1,80})?:?=(?![=>~])(?![^\n]*,[ \t]*(?:\n|\Z))")  # no argument of a call
_WORD_CHARACTER = re.compile(r"\w")


_PLAINLY = re.compile(
    r"\s*(?:(?:export|default|declare|public|private|protected|internal|static|final|abstract|sealed|async|open|pub"
    r"(?:\([^)\n]*\))?|unsafe|extern|inline|virtual|override|partial|data|case|local)\s+)*"
    r"(?:class|def|function\*?|func|fn|type|interface|struct|enum|trait|const|let|var|val|define|#define|module|union"
    r"|typedef|macro_rules!|object|protocol|record|namespace|contract|sub|defmodule|defp?|defn|defun)\s+"
    r"(?:\([^)\n]*\)\s*)?$"
)


def defines_plainly(text: str, name: str) -> bool:
    """Does a line of `text` begin with the words of a definition and then `name`, in its own case: `class Name`?"""
    at = text.find(name)
    while at >= 0:
        before, after = text[text.rfind("\n", 0, at) + 1 : at], text[at + len(name) : at + len(name) + 1]
        if not _WORD_CHARACTER.match(after) and _PLAINLY.fullmatch(before):
            return True
        at = text.find(name, at + 1)
    return False


def defines(text: str, name: str, *, guess: bool) -> bool:
    """Does a line of `text` define `name` (folded), in most languages?

    Finds a definition that is not the chunk's symbol: one of several small ones, or one made by a macro. guess: the
    language may have no grammar, so that `any_word name(` at the start of a line is enough.
    """
    lowered = folded_text(text)
    at = lowered.find(name)
    while at >= 0:
        stop = at + len(name)
        before, after = lowered[lowered.rfind("\n", 0, at) + 1 : at], lowered[stop : stop + 1]
        if not _WORD_CHARACTER.match(before[-1:]) and not _WORD_CHARACTER.match(after):
            if _KEYWORD.search(before) or _FIRST_WORD.match(before):
                return True
            if len(before) <= _INDENT and not before.strip() and _ASSIGNED.match(lowered, stop):
                return True
            if guess and _ANY_WORD.match(before) and _BODY.match(lowered, stop):
                return True
        at = lowered.find(name, at + 1)
    return False
