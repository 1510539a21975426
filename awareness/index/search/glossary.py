"""Questions in other languages: the developers' words in them, in English.

Code and its names are English, so a question in another language shares no word with it. `glossary.txt` has a line for
each concept: the English words, then those of each language, in the order of `LANGUAGES`. Alternatives are separated
by spaces; the words of a phrase are joined by `_`. It is read when a question needs it.

A Chinese or Japanese question has no borders between words: at each place the longest word of the glossary is taken.
A Korean word is found with any ending. Words of the other languages are compared by their stems (Snowball), and a
German compound by its parts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awareness.index.search.question_languages import languages_of, silent_words, spaced_words
from awareness.index.unicode_forms import plain

LANGUAGES = ("zh", "ja", "ko", "de", "fr", "es", "pt", "ru")
_STEMMERS = {"de": "german", "fr": "french", "es": "spanish", "pt": "portuguese", "ru": "russian"}
_FILE = Path(__file__).with_name("glossary.txt")
_WEIGHT = 0.7  # of an English word for one of the question
_SYNONYM = 0.6  # of a further English word against the first
_ONE_CHARACTER = 0.4  # of a word of one Chinese character, which may be part of another word
_LONGEST_PHRASE = 3  # words
_SHORTEST_PART = 4  # letters of a part of a German compound
_LONG_PART = 6  # letters of a part whose neighbour is not in the glossary
_LINKS = ("", "s", "es", "n", "en", "e")  # between the parts
_ENDINGS = {
    "fr": [("s", ""), ("aux", "al"), ("ent", "er"), ("ees", "e"), ("ant", "er"), ("ive", "if"), ("lle", "l")],
    "es": [("ces", "z"), ("es", ""), ("s", ""), ("as", "o"), ("a", "o"), ("an", "ar"), ("en", "er"), ("en", "ir")],
    "pt": [("oes", "ao"), ("is", "l"), ("ns", "m"), ("es", ""), ("s", ""), ("as", "o"), ("a", "o"), ("am", "ar")],
    "de": [("e", ""), ("en", ""), ("er", ""), ("n", ""), ("es", "")],
}
_RUNS = re.compile("[\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+")
_WHOLE = re.compile("[\u30a1-\u30fe]{2}|[\uac00-\ud7a3]{2}")  # inside of such a word, no other begins
_UNKNOWN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff]{2,}|[\u30a1-\u30fe]{2,}|[\uac00-\ud7a3]{2,}")
_KANA = re.compile("[\u3041-\u30ff]")
_Concepts = dict[str, list[str]]  # a word, a phrase or its stems -> the English of each concept that it may mean


@dataclass(frozen=True)
class Translation:
    """language: of the question, empty for English. words: English word -> its weight, in the order of the question.
    silent: the words of the question that say nothing. known: the words that were translated. unknown: those that were
    not, in a language without borders between words."""

    language: str = ""
    words: Mapping[str, float] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


_ENGLISH = Translation()


@functools.lru_cache(maxsize=64)
def translated(question: str) -> Translation:
    """The developers' words of a question, in English; nothing for a question in English."""
    question = plain(question)
    words = spaced_words(question)
    hits = languages_of(question, words)
    if not hits:
        return _ENGLISH
    most = max(hits.values())
    found = {language: _translated(question, words, language) for language in hits if hits[language] == most}
    language = max(found, key=lambda one: len(found[one].known))
    if most > 1 or any(_is_foreign(word, most) for word in found[language].known):
        return found[language]
    return _ENGLISH


def _is_foreign(word: str, hits: int) -> bool:
    """Does a translated word tell that a question is not in English? hits: the other words that tell it."""
    return not word.isascii() or (hits > 0 and word not in _english())


def _translated(question: str, words: list[str], language: str) -> Translation:
    concepts = _concepts(language)
    unknown: list[str] = []
    if language in _STEMMERS:
        matches = _in_words(words, concepts, language)
    else:
        matches = _in_runs(question, concepts, language, unknown)
    english: dict[str, float] = {}
    known: set[str] = set()
    for word, meanings, weight in matches:
        for term, share in _weighted(meanings):
            known.add(word)
            english[term] = max(english.get(term, 0.0), round(_WEIGHT * weight * share, 3))
    return Translation(language, english, silent_words(language).intersection(words), frozenset(known), tuple(unknown))


def _weighted(meanings: Iterable[str]) -> Iterable[tuple[str, float]]:
    """The English words of some concepts, each with its weight: the first of a concept has 1."""
    for meaning in meanings:
        for place, phrase in enumerate(meaning.split()):
            for term in phrase.split("_"):
                if term != "-":
                    yield term, _SYNONYM if place else 1.0


def _in_runs(
    question: str, concepts: _Concepts, language: str, unknown: list[str]
) -> Iterable[tuple[str, list[str], float]]:
    """The longest words of the glossary in the runs of a question whose words have no borders. What is left between
    them is added to `unknown`."""
    if language == "zh":
        question = question.translate(_simplified())
    longest = max(map(len, concepts))
    for run in _RUNS.finditer(question):
        at = matched = run.start()
        left = ""
        while at < run.end():
            inside = at > matched and _WHOLE.fullmatch(question, at - 1, at + 1)
            for end in range(min(len(question), at + longest), at, -1) if not inside else ():
                word = question[at:end]
                if word in concepts and (language != "ko" or end - at > 1 or at == run.start()):
                    yield word, concepts[word], 1.0 if end - at > 1 or language == "ko" else _ONE_CHARACTER
                    at = matched = end
                    left += " "
                    break
            else:
                left += question[at]
                at += 1
        if language != "ko" or matched == run.start():  # after a Korean word comes its ending
            unknown += _UNKNOWN.findall(left)


def _in_words(words: list[str], concepts: _Concepts, language: str) -> Iterable[tuple[str, list[str], float]]:
    """The phrases and words of the glossary among the words of a question, the longest at each place."""
    silent = silent_words(language)
    telling = [word for word in words if word not in silent]
    plain_words, stems = [_unaccented(word) for word in telling], _stems(telling, language)
    at = 0
    while at < len(telling):
        for count in range(min(_LONGEST_PHRASE, len(telling) - at), 0, -1):
            phrases = [" ".join(forms[at : at + count]) for forms in (plain_words, stems)]
            if count == 1:
                phrases += _simpler(plain_words[at], language)
            phrase = next((phrase for phrase in phrases if phrase in concepts), None)
            if phrase is not None:
                for word in telling[at : at + count]:
                    yield word, concepts[phrase], 1.0
                at += count
                break
        else:
            for part in _parts(telling[at], concepts) if language == "de" else ():
                yield telling[at], concepts[part], 1.0
            at += 1


def _simpler(word: str, language: str) -> list[str]:
    """Stems of the singular, the masculine and the infinitive that a word may come from, where the stemmer has another
    stem for them: `requisições`, `exécutent`. word: without accents."""
    forms = [
        word[: -len(ending)] + other
        for ending, other in _ENDINGS.get(language, ())
        if word.endswith(ending) and len(word) > len(ending) + 2
    ]
    return [*forms, *_stems(forms, language)] if forms else []


def _parts(word: str, concepts: _Concepts) -> list[str]:
    """The words of the glossary that a German compound is made of, `Verbindungsfehler`: as many of its letters as
    possible, from its end."""
    for start in range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1):
        head = _known(word[start:], concepts)
        if head:
            first = word[:start]
            for link in _LINKS:
                part = _known(first.removesuffix(link), concepts) if first.endswith(link) else ""
                if part:
                    return [part, head]
            if len(head) >= _LONG_PART:
                return [*_parts(first, concepts), head]
    return []


def _known(word: str, concepts: _Concepts) -> str:
    """The form of a German word that is in the glossary; empty if there is none."""
    forms = (_unaccented(word), _stems([word], "de")[0])
    return next((form for form in forms if form in concepts), "")


def _stems(words: Iterable[str], language: str) -> list[str]:
    """Without accents, which many leave out."""
    return [_unaccented(stem) for stem in _stemmer(language).stemWords([*words])]


_ACCENTS = str.maketrans("àáâãçèéêëìíîïñòóôõùúûýё", "aaaaceeeeiiiinoooouuuyе")


def _unaccented(word: str) -> str:
    return word.translate(_ACCENTS)


@functools.cache
def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(_STEMMERS[language])


@functools.cache
def _lines() -> list[list[str]]:
    lines = _FILE.read_text(encoding="utf-8").split("\n")
    return [line.split("|") for line in lines if line and not line.startswith("#")]


@functools.cache
def _english() -> frozenset[str]:
    return frozenset(word for line in _lines() for word in line[0].replace("_", " ").split())


@functools.cache
def _concepts(language: str) -> _Concepts:
    """The words of a language, and the stems of its words and phrases -> the English of what they may mean."""
    concepts: _Concepts = {}
    entries = [(word, line[0]) for line in _lines() for word in line[1 + LANGUAGES.index(language)].split()]
    if language in _STEMMERS:
        return _by_stems(entries, language)
    for word, english in entries:
        concepts.setdefault(word.replace("_", ""), []).append(english)
        if "_" in word:
            concepts.setdefault(word.replace("_", " "), []).append(english)
    if language in ("zh", "ja"):  # a short question in one of them may look like the other
        other = 1 + LANGUAGES.index("ja" if language == "zh" else "zh")
        for line in _lines():
            for word in line[other].split():
                if word not in concepts and len(word) > 1 and not _KANA.search(word):
                    concepts[word] = [line[0]]
    return concepts


def _by_stems(entries: list[tuple[str, str]], language: str) -> _Concepts:
    """The same, for a language whose words have endings. A stem means what the words with this stem mean; a word as it
    is written in the glossary means only what stands there."""
    phrases = [(word.replace("-", "_").split("_"), english) for word, english in entries]
    if language == "de":
        phrases += [([form], english) for (word, *more), english in phrases if not more for form in _conjugated(word)]
    words = list({word for phrase, _ in phrases for word in phrase})
    written = dict(zip(words, _unaccented("\n".join(words)).split("\n"), strict=True))
    stemmed = dict(zip(words, _stems(words, language), strict=True))
    accented = [word for word in words if written[word] != word]
    as_typed = _stems([written[word] for word in accented], language)  # in a question without accents
    bare = dict(zip(accented, as_typed, strict=True))
    concepts: _Concepts = {}
    for phrase, english in phrases:
        _add(concepts, " ".join([written[word] for word in phrase]), english)
    as_written = frozenset(concepts)
    for phrase, english in phrases:
        stems = {" ".join([stemmed[word] for word in phrase])}
        if not bare.keys().isdisjoint(phrase):
            stems.add(" ".join([bare.get(word, stemmed[word]) for word in phrase]))
        for stem in stems - as_written:
            _add(concepts, stem, english)
    return concepts


def _conjugated(word: str) -> list[str]:
    """`prüfen` -> prüft, geprüft."""
    return [f"{word[:-2]}t", f"ge{word[:-2]}t"] if word.endswith("en") and len(word) > 4 else []


def _add(concepts: _Concepts, word: str, english: str) -> None:
    meanings = concepts.setdefault(word, [])
    if english not in meanings:
        meanings.append(english)


@functools.cache
def _simplified() -> dict[int, str]:
    """Traditional -> simplified characters."""
    pairs = _FILE.with_name("simplified.txt").read_text(encoding="utf-8").split()
    return {ord(pair[0]): pair[1] for pair in pairs}
