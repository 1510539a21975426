"""A question as the search reads it: a few words, or a text as people write it into an issue.

An issue has a title and a body with code, output and stack traces. Its title tells most, its body repeats what matters,
and code of the user's own says little about where the fault is.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from awareness.index.files.file_kinds import FileKind
from awareness.index.search.glossary import Translation, translated
from awareness.index.search.mentions import Mention, mentions_in
from awareness.index.search.priors import asked_kinds
from awareness.index.search.terms import (
    asked_words,
    is_single,
    is_unspaced,
    names_in,
    query_terms,
    stem,
    weighted_terms,
    words_of,
)
from awareness.index.unicode_forms import fold

_LONG = 240  # characters: a longer question is read as an issue
_MOST_READ = 20_000  # characters of an issue
_BODY_WEIGHT = 0.5  # of a term that is in the body only, where a term of the title weighs 1
_TITLE = 200  # characters at most
_UNTRANSLATED = 0.7  # of a word in another language that no glossary has
_ABOUT_DEFINITIONS = frozenset(
    "class function func fn def method struct type interface trait enum macro module constant variable field property"
    " decorator hook operator component package command object error exception middleware handler helper util signature"
    " definition source file test tests const static".split()
)
_QUOTED = re.compile(
    r"`([^`\n]{2,200})`|\"([^\"\n]{2,200})\"|(?<!\w)'([^'\n]{2,200})'(?!\w)|“([^”\n]{2,200})”|「([^」\n]{2,200})」"
)
_NAME = re.compile(r"[\w$]+(?:(?:\.|::|#|->)[\w$]+)*(?:\(\))?")
_SURROGATE = re.compile("[\ud800-\udfff]")  # of bytes that are not UTF-8, which no text in the index has
_QUALIFIED = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::|#|->)[A-Za-z_$][\w$]*)+")


@dataclass(frozen=True)
class Question:
    """text: as it was asked."""

    text: str

    @cached_property
    def is_issue(self) -> bool:
        """Is it a text with a body, not a question of one sentence?"""
        stripped = self.text.strip()
        return len(stripped) > _LONG or stripped.count("\n") >= 2

    @cached_property
    def title(self) -> str:
        """The first line of an issue; the whole of any other question."""
        if not self.is_issue:
            return self.text
        first = self.text.strip().split("\n", 1)[0]
        return first[:_TITLE]

    @cached_property
    def body(self) -> str:
        return self.text.strip()[len(self.title) : _MOST_READ] if self.is_issue else ""

    @cached_property
    def words(self) -> frozenset[str]:
        """Its terms, not stemmed; of an issue, those of the title."""
        return frozenset(query_terms(self.title))

    @cached_property
    def original_names(self) -> tuple[str, ...]:
        """The names of code in it, as written; of an issue, those of the title."""
        return tuple(dict.fromkeys([*names_in(self.title), *(name.rpartition(".")[2] for name in self.qualified)]))

    @cached_property
    def names(self) -> frozenset[str]:
        """The same, folded."""
        return frozenset(fold(name) for name in self.original_names)

    @cached_property
    def body_names(self) -> frozenset[str]:
        """The names of code in the body of an issue, folded, and the functions of its stack frames."""
        names = {fold(name) for name in names_in(self.body)} if self.body else set()
        return frozenset(names | {fold(mention.function) for mention in self.mentions if mention.function})

    @cached_property
    def qualified(self) -> tuple[str, ...]:
        """Names with the name of what they belong to, with dots: `Session.get` for `Session::get`."""
        return tuple(re.sub(r"::|#|->", ".", name) for name in _QUALIFIED.findall(self.title))

    @cached_property
    def mentions(self) -> tuple[Mention, ...]:
        """The files and stack frames in it."""
        return tuple(mentions_in(self.text[:_MOST_READ]))

    @cached_property
    def quoted(self) -> tuple[str, ...]:
        """What stands in quotation marks, as written; the whole of a question that has a word with other signs."""
        return tuple(next(filter(None, match)) for match in _QUOTED.findall(self.text[:_MOST_READ]))

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """What has to stand in the code exactly so: what is quoted, and a question without a space that has other signs
        than letters, `--dry-run`, `a.b-c`, `??=`; of a path in it, the last part too."""
        found = list(self.quoted) if not self.is_issue else []
        whole = self.title.strip().strip("`'\"")
        if not re.search(r"\s", whole):
            found += [whole, re.split(r"[./:]", whole)[-1]]
        return tuple(dict.fromkeys(t for t in found if t and not _NAME.fullmatch(t) and not _SURROGATE.search(t)))

    @cached_property
    def weights(self) -> dict[str, float]:
        """Stemmed term -> its weight, in English as far as it was translated. In an issue, a term of the title weighs
        more than one of the body, and in the body one that is there often more than one that is there once."""
        weights = self._title_weights
        for name in self.qualified:  # whose last part may be a question word: `Session.get`
            weights.setdefault(stem(fold(name.rpartition(".")[2])), 1.0)
        if not self.body:
            return weights
        counts = Counter(words_of(self.body))
        most = max(counts.values(), default=1)
        body: dict[str, float] = {}
        for word, count in counts.items():
            often = (1 + math.log(count)) / (1 + math.log(most))
            for term, weight in _terms_of(word).items():
                body[term] = max(body.get(term, 0.0), _BODY_WEIGHT * weight * (0.5 + 0.5 * often))
        return body | {term: max(weight, body.get(term, 0.0)) for term, weight in weights.items()}

    @cached_property
    def translation(self) -> Translation:
        """The developers' words of its title in English, if it is in another language."""
        return translated(self.title)

    @cached_property
    def _title_weights(self) -> dict[str, float]:
        weights = weighted_terms(self.title)
        if not self.translation.words:
            return weights
        english = {stem(word): weight for word, weight in self.translation.words.items()}
        known = {stem(word) for word in self.translation.known}
        for term, weight in weights.items():
            if not is_unspaced(term) and term not in known:
                english[term] = max(weight if term.isascii() else _UNTRANSLATED * weight, english.get(term, 0.0))
        return dict.fromkeys(self.translation.unknown, _UNTRANSLATED) | english

    @cached_property
    def as_asked(self) -> dict[str, float]:
        """The terms in the question's own language, with their weights, if it was translated: comments may be in it."""
        return weighted_terms(self.title) if self.translation.words else {}

    @cached_property
    def size(self) -> int:
        """The number of its terms; of a translated question, without further English words for one of its words."""
        return (
            len(self.weights)
            - len(self.translation.words)
            + min(len(self.translation.known), len(self.translation.words))
        )

    @cached_property
    def in_english(self) -> str:
        """As it was asked, or its names and its translated words."""
        if not self.translation.words:
            return self.text
        return " ".join([*self.original_names, *self.translation.words])

    @cached_property
    def kinds(self) -> frozenset[FileKind]:
        """The kinds of files that it asks for, besides code."""
        return asked_kinds(" ".join([self.title, *self.translation.words]))

    @cached_property
    def is_lookup(self) -> bool:
        """Does it ask for a name and nothing else: `HTTPException`, `where is parse_flags defined`?"""
        if self.is_issue or not self.names:
            return False
        parts = {fold(word) for name in (*self.original_names, *self.qualified) for word in words_of(name)}
        others = [fold(word) for word in asked_words(self.title)]
        return not [
            word for word in others if word not in parts and word not in _ABOUT_DEFINITIONS and not is_single(word)
        ]


@functools.lru_cache(maxsize=1 << 14)
def _terms_of(word: str) -> Mapping[str, float]:
    """`weighted_terms` of a single word: the bodies of issues share most of theirs."""
    return weighted_terms(word)
