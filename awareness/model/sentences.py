"""Generated text -> whole sentences, the source and the lines of each, and the names that no source has.

The text arrives in pieces while it is generated. Nothing here knows the decoder: attention comes as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from awareness.model.not_said import is_refusal
from awareness.model.reading.evidence_lines import ENOUGH, Lines
from awareness.types import Chunk

UNKNOWN = "(not in the sources)"
"""Follows a name that no source has."""
SENTENCES = 3
"""Limit of a short answer."""

_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "approx.", "resp.", "No.", "Fig.")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*(?:`|\Z)", re.DOTALL)
_END = re.compile(r"[.!?][\"')\]*_]*(?=\s)|\n(?=\s*\n|\s*[-*•]\s|\s*\d+[.)]\s|\s*#)")
_HEADER_ECHO = re.compile(r"^\s*#\s*file:[^\n]*\n?", re.MULTILINE)
# Words that only code has: calls, paths, names with a dot, an underscore or inner capitals.
_NAME = re.compile(
    r"(?<![\w./-])(?:"
    r"(?:[\w.-]+/){2,}[\w.-]*\w|(?:[\w.-]+/)+[\w-]+\.[A-Za-z]\w*"  # a/longer/path, a/file.py
    r"|[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+"  # a.name
    r"|[A-Za-z]\w*_\w+|_\w+"  # a_name
    r"|[a-z]+[a-z0-9]*[A-Z]\w*|[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+|[A-Z]{2,}[a-z]\w*"  # aName, AName, HTTPName
    r"|[A-Za-z_]\w*(?=\(\))"  # a()
    r")"
)
_PARTS = re.compile(r"\w+")
_VALUE = re.compile(r"v?(\d[\d.,_]*\d)", re.IGNORECASE)  # a number or a version of two characters or more
_SEPARATORS = re.compile(r"(?<=\d)[,_](?=\d)")
_DISTINCTIVE = re.compile(r"\d+(?:\.\d+)+|\d\w*|\w*[_A-Z]\w*|\w{4,}")
_ORDINARY = frozenset("e.g i.e URLs APIs IDs JSONs".split())


@dataclass(frozen=True)
class Sentence:
    """source: index in the list of sources, None if nothing was read. unknown: names that no source has.

    lines: the first and the last line of the source's file that the sentence rests on, None if that is uncertain.
    confidence: the probability that it does, None without lines.
    """

    text: str
    source: int | None = None
    unknown: tuple[str, ...] = ()
    lines: tuple[int, int] | None = None
    confidence: float | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether it says no more than that the code does not answer."""
        return is_refusal(self.text)

    @property
    def marked(self) -> str:
        """The text for display: unknown names are marked, and the number of the source follows."""
        text = _marked(self.text, self.unknown)
        if self.source is None:
            return text
        body = text.rstrip()
        number = f"[{self.source + 1}]"
        if body.endswith("```"):
            return f"{body}\n{number}{text[len(body) :]}"
        at = len(body) - 1 if body.endswith((".", "!", "?", ":")) else len(body)
        return f"{body[:at]} {number}{body[at:]}{text[len(body) :]}"


@dataclass
class Sentences:
    """Cuts a text that arrives in pieces into sentences, each with the space after it. List items and paragraphs are
    sentences too. No sentence ends inside backticks."""

    _rest: str = ""

    def add(self, piece: str) -> Iterator[str]:
        """Add a piece; yield the sentences that are complete now."""
        self._rest += piece
        while (end := _sentence_end(self._rest)) is not None:
            sentence, self._rest = self._rest[:end], self._rest[end:]
            if sentence.strip():
                yield sentence

    def rest(self) -> str:
        """The unfinished sentence."""
        return self._rest


def _sentence_end(text: str) -> int | None:
    """The end of the first sentence and the space after it, once the next one has started."""
    if text.count("```") % 2:
        return None
    code = [match.span() for match in _CODE.finditer(text)]
    for match in _END.finditer(text):
        if any(start <= match.start() < stop for start, stop in code):
            continue
        before = text[: match.end()]
        if before.endswith(_ABBREVIATIONS) or re.search(r"(?:^|\n)\s*\d+\.$", before) or not before.strip():
            continue
        end = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
        return end if end < len(text) else None
    return None


def is_whole(text: str) -> bool:
    """Whether the text ends like a sentence."""
    end = text.rstrip()
    return end.count("```") % 2 == 0 and end.endswith((".", "!", "?", "```", ".`", '."', ".)", ":`"))


@dataclass
class Sources:
    """The attached chunks, best first, and the question."""

    chunks: Sequence[Chunk]
    question: str = ""
    _texts: list[str] = field(init=False)
    _words: list[frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._texts = [chunk.encoded_text for chunk in self.chunks]
        self._words = [frozenset(_PARTS.findall(text)) for text in self._texts]

    @cached_property
    def _without_separators(self) -> list[str]:
        """The texts with 65_536 as 65536."""
        return [_SEPARATORS.sub("", text) for text in self._texts]

    @cached_property
    def lines(self) -> Lines:
        return Lines(self.chunks, self.question)

    def sentence(self, text: str, attention: Sequence[float] = (), to_lines: Sequence[float] = ()) -> Sentence:
        """The text with its source, its lines and unknown names; that the code does not say it rests on no source.

        attention: of the sentence's tokens, a share for each chunk. to_lines: to the header and each line of every
        chunk, in their order. With them the evidence chooses the source; without, it does so where it is sure.
        """
        if not self.chunks:
            return Sentence(text)
        unknown = tuple(self.unknown(text))
        if is_refusal(text):
            return Sentence(text, None, unknown)
        found = self.lines.best(text, to_lines)
        if found is None or (found.confidence < ENOUGH and not any(to_lines)):
            return Sentence(text, self.source(text, attention), unknown)
        chunk = self.chunks[found.source]
        # Rows of a notebook, or of a file whose data is left out, do not follow each other as its lines do.
        is_numbered = chunk.text.count("\n") == chunk.end_line - chunk.start_line
        if found.confidence < ENOUGH or not is_numbered:
            return Sentence(text, found.source, unknown)
        lines = chunk.start_line + found.first, chunk.start_line + found.last
        return Sentence(text, found.source, unknown, lines, found.confidence)

    def unknown(self, text: str) -> list[str]:
        """Names of code, paths, and numbers in backticks that no chunk has, each once."""
        return list(dict.fromkeys(name for name in names_in(text) if not self._knows(name)))

    def _knows(self, name: str) -> bool:
        if value := _VALUE.fullmatch(name):  # as it is, not as a part of another number
            plain = re.escape(_SEPARATORS.sub("", value[1]))
            return any(re.search(rf"(?<!\d){plain}(?!\d)", text) for text in self._without_separators)
        if any(name in text for text in self._texts):
            return True
        parts = [part for part in _PARTS.findall(name) if not part.isdigit()]
        # `self.timeout`, `Client.timeout`: some chunk must have each part.
        return bool(parts) and all(any(part in words for words in self._words) for part in parts)

    def source(self, text: str, attention: Sequence[float] = ()) -> int:
        """The index of the chunk that the sentence rests on: among those that share most of its rare words, the one
        with the most attention."""
        rarity = {word: self._rarity(word) for word in set(_DISTINCTIVE.findall(text)) - set(self.question.split())}
        shared = [
            sum(weight for word, weight in rarity.items() if self._has(place, word))
            for place in range(len(self.chunks))
        ]
        best = max(shared, default=0.0)
        share = list(attention) if attention else [0.0] * len(self.chunks)
        close = [place for place, value in enumerate(shared) if value >= 0.75 * best]
        return max(close, key=lambda place: (share[place], shared[place], -place))

    def _rarity(self, word: str) -> float:
        having = sum(self._has(place, word) for place in range(len(self.chunks)))
        return 1.0 / having**2 if having else 0.0

    def _has(self, place: int, word: str) -> bool:
        return word in self._texts[place] if "." in word else word in self._words[place]


def names_in(text: str) -> list[str]:
    """Names of code and paths, and numbers: text in backticks, and words that do not look like ordinary ones."""
    names = []
    for match in _CODE.finditer(text):
        if match[0].startswith("```"):
            continue
        inner = match[0].strip("`").strip()
        if re.fullmatch(r"[\w./:>\-]+(?:\(.*\))?", inner) and re.search(r"[A-Za-z_]", inner):
            names.append(re.sub(r"\(.*\)$", "", inner))
        elif _VALUE.fullmatch(inner):
            names.append(inner)
    for match in _NAME.finditer(_CODE.sub(" ", text)):
        if match[0] not in _ORDINARY:
            names.append(match[0])
    return names


def _marked(text: str, unknown: Sequence[str]) -> str:
    for name in unknown:
        pattern = rf"(`{re.escape(name)}(?:\([^`\n]*\))?`|(?<![\w./`]){re.escape(name)}(?:\(\))?(?![\w/`]))"
        text = re.sub(pattern, lambda match: f"{match[0]} {UNKNOWN}", text, count=1)
    return text


def without_echo(text: str) -> str:
    """The text without the header line of a chunk, which small models repeat."""
    return _HEADER_ECHO.sub("", text)
