"""The longest sentence in a string of a chunk: an error, a log line, a help text.

An issue quotes such sentences, or says the same in other words.
"""

from __future__ import annotations

import re

MIN_WORDS = 4
_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.){16,300})\"|'((?:[^'\\\n]|\\.){16,300})'|`((?:[^`\\\n]|\\.){16,300})`")
_HOLE = re.compile(r"[$#]?\{[^{}]*\}|%[-#0-9.]*[a-zA-Z]\b|\\[nrt]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
_LETTERS = 0.6  # share of a sentence that is words
_READ = 20_000  # characters


def sentence_in(text: str) -> tuple[str, str]:
    """(the sentence without the holes for values, the text without it); empty if no string of the text is one."""
    best, quoted, most = "", "", MIN_WORDS - 1
    for match in _STRING.finditer(text[:_READ]):
        string = match[match.lastindex or 0]
        sentence = _HOLE.sub(" ", string)
        words = _WORD.findall(sentence) if string.count(" ") >= MIN_WORDS - 1 else []
        if len(words) > most and len(" ".join(words)) > _LETTERS * len(sentence):
            best, quoted, most = sentence, string, len(words)
    return (best, text.replace(quoted, " ")) if best else ("", text)
