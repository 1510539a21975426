"""Text -> search terms, in the same way for chunks and for questions.

`HTTPConnectionPool` becomes `httpconnectionpool http connection pool`, so that both the name and its words match.
Terms are stemmed (Porter 1980).

A character counts as the same in all its Unicode forms: composed or not, of full or half width (NFKC), in any case. A
run of Chinese or Japanese characters, of Hangul or of Thai has no spaces between its words: it becomes its pairs of
neighbours, so that a word of two characters is found wherever it stands. Single ones are terms of a text too, but of a
question only where nothing stands beside them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from awareness.index.search.glossary import translated
from awareness.index.unicode_forms import fold, plain

TERMS_VERSION = 3  # part of the key of stored chunks: raise it when a text gives other terms

_ASCII_WORD = re.compile(r"\w+")
# Scripts whose words are not separated. A run is of one script: in Japanese, words mostly end where it changes.
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HIRAGANA, _KATAKANA, _HANGUL = "\u3041-\u3096\u309d\u309e", "\u30a1-\u30fa\u30fc-\u30fe", "\uac00-\ud7a3"
_THAI = "\u0e01-\u0e3a\u0e40-\u0e4e"
_UNSPACED = _HAN + _HIRAGANA + _KATAKANA + _HANGUL + _THAI
# Vowels and accents that belong to the letter before them, but are no letters to `re`.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0903"
    "\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u0a01-\u0a03\u0a3c-\u0a4d\u0abc-\u0acd\u0b3c-\u0b4d"
    "\u0bbe-\u0bcd\u0c3e-\u0c4d\u0cbc-\u0ccd\u0d3e-\u0d4d\u0dca-\u0ddf\u0eb1-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3"
)
_SPACED_WORD = f"[^\\W{_UNSPACED}](?:[^\\W{_UNSPACED}]|[{_MARKS}])*"
_RUN = f"[{_HAN}]+|[{_HIRAGANA}]+|[{_KATAKANA}]+|[{_HANGUL}]+|[{_THAI}]+"
_WORD = f"{_SPACED_WORD}|{_RUN}"
_WHOLE = f"[\\w{_MARKS}]+"
# where a name splits into words: foo|Bar, HTTP|Server, sha|256
_BORDER = re.compile(r"_+|(?<=[^\WA-Z_])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_LONGEST = 255  # characters of a word that count
_NAME_LENGTH, _LEAST_PART = 64, 2.5  # a longer word is data, not a name, if its parts are shorter than this on average

# Words that do not tell what a question is about.
_QUESTION_WORDS = frozenset(
    """
    a about all am an and any are as at be been being but by can could did do does doing done each else ever every for
    from get gets give had happen happens has have having here how i if in into is it its itself just kind know let
    like look made make makes many may me might more most much must my need no not of off on one or other our out over
    own part place please same see shall should show so some such tell than that the their them then there these they
    thing this those through to too under up us use used uses using very want was way we were what when where which
    while who whom whose why will with within work works would you your code codebase repo repository
    whether decide decides decided determine determines determined responsible way ways actually really implemented
    implementation handled handle located defined define defines declared declare definition declaration find explain
    describe
    """.split()
)
_ASKING = re.compile(  # the same in languages whose words are not separated
    "是什么|是什麼|为什么|為什麼|什么|什麼|怎么样|怎么|怎麼|怎样|如何|在哪里|哪里|哪裡|在哪|哪些|哪个|哪個|是否|可以|的|了|吗|嗎|呢|请问|代码|代碼"
    "|どこで|どこ|どうやって|どのように|どう|なぜ|何処|ですか|ますか|について|している|されている|される|する|です|ます"
    "|어디서|어디에|어디|어떻게|무엇을|무엇|왜|합니까|하나요|되나요|있나요|인가요|입니까"
)
_PARTICLE = re.compile(
    r"(?<=..)(?:으로|에서|에게|까지|부터|을|를|이|가|은|는|의|에|로|와|과|도)$"
)  # at the end of a Korean word
# What looks like a name in code, not a word: foo_bar, fooBar, HTTPServer, sha256, Foo::bar, foo.bar, foo().
_NAMED = re.compile(
    r"\w*(?:\w_\w|_\w|[^\WA-Z_][A-Z]|[A-Z]{2}[^\WA-Z_]|[^\W\d_]\d)\w*|\w+(?=\()|(?<=::)\w+|(?<=\w\.)\w+"
)
# Words joined by hyphens are a name as an option of a command line, `--dry-run`, or where nothing stands beside them.
_HYPHENED = re.compile(r"(?<![\w-])--?([^\W\d_]\w*(?:-\w+)*)|\A\s*(\w+(?:-\w+)+)\s*\Z")
_TOO_LONG = re.compile(rf"\w{{{_LONGEST + 1},}}")
_IRREGULAR = {  # form -> base, of verbs and nouns that the stemmer leaves apart
    form: base
    for base, forms in (
        line.split(":")
        for line in """
        alias:aliases begin:began,begun bias:biases bind:bound break:broke,broken build:built canvas:canvases
        catch:caught child:children choose:chose,chosen criterion:criteria deal:dealt die:dying draw:drew,drawn
        drive:drove,driven fall:fell,fallen feed:fed fly:flew,flown forget:forgot,forgotten freeze:froze,frozen
        grow:grew,grown hide:hid,hidden hold:held index:indices keep:kept know:knew,known lead:led leaf:leaves
        lie:lying lose:lost matrix:matrices meet:met override:overrode,overridden overwrite:overwrote,overwritten
        pay:paid person:people rebuild:rebuilt resend:resent rethrow:rethrew,rethrown rewrite:rewrote,rewritten
        rise:rose,risen run:ran schema:schemata seek:sought sell:sold send:sent show:shown shrink:shrank,shrunk
        sleep:slept speak:spoke,spoken spend:spent spin:spun stand:stood status:statuses steal:stole,stolen
        stick:stuck strike:struck sweep:swept take:took,taken teach:taught tell:told think:thought
        throw:threw,thrown tie:tying unbind:unbound understand:understood vertex:vertices wake:woke,woken win:won
        wind:wound withhold:withheld write:wrote,written
        """.split()
    )
    for form in forms.split(",")
}
PART_WEIGHT = 0.35  # of the words in a name; the name counts 1
BESIDE_NAME_WEIGHT = 0.3  # of the words around a name, if they are at most `_FEW_WORDS`
_FEW_WORDS = 4


# A question word that is meant as a name: `use()`, "get", or alone beside what it is: "find function".
_CALLED_OR_QUOTED = re.compile(r"\b([^\W\d]\w*)\(|([`'\"])([^\W\d]\w*)\2")
_KINDS_OF_NAMES = frozenset(
    "function func fn def method class struct type interface trait enum macro module constant variable field property"
    " decorator hook operator component package command".split()
)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Large patterns are compiled when a text needs them: most have ASCII only."""
    return re.compile(pattern)


def _is_of(characters: str, word: str) -> bool:
    """Does a word begin with one of these characters, none of which is ASCII?"""
    return not word.isascii() and _compiled(f"[{characters}]").match(word) is not None


def words_of(text: str) -> list[str]:
    """The words of a text as written, in their plain form; runs of a script without spaces count as words."""
    return _ASCII_WORD.findall(text) if text.isascii() else _compiled(_WORD).findall(plain(text))


def stems(text: str) -> Iterator[str]:
    """The stem of each word of `text`; after that of an identifier come the stems of its parts."""
    for word in words_of(text):
        yield from _stems(word) if len(word) <= _LONGEST else _stems_of(word)


def is_single(term: str) -> bool:
    """Is a term one character of a script without spaces, as each in its run is beside the pairs?"""
    return len(term) == 1 and not term.isascii()


def is_question_word(word: str) -> bool:
    """Is it a word that does not tell what a question is about?"""
    return fold(word) in _QUESTION_WORDS


def is_unspaced(term: str) -> bool:
    """Is a term of a script whose words are not separated?"""
    return _is_of(_UNSPACED, term)


def query_terms(question: str) -> list[str]:
    """The terms of a question, each once, in order, without question words unless it has no others."""
    return list(dict.fromkeys(term for word in asked_words(question) for term in _terms(word, asked=True)))


def asked_words(question: str) -> list[str]:
    """The words of a question without question words, as written; all of them if it has no others."""
    words = words_of(_without_question_words(question))
    meant = _meant_as_names(question)
    silent = _QUESTION_WORDS | translated(question).silent
    chosen = [word for word in words if fold(word) not in silent or fold(word) in meant]
    telling = [word for word in chosen if not (_is_of(_HIRAGANA, word) or (len(word) == 1 and _is_of(_UNSPACED, word)))]
    return telling or chosen or words_of(question)


def _meant_as_names(question: str) -> set[str]:
    """The question words that stand for a name of code, folded."""
    meant = {fold(call or quoted) for call, _, quoted in _CALLED_OR_QUOTED.findall(question[:10_000])}
    words = [fold(word) for word in words_of(question[:100]) if fold(word) not in ("the", "a", "an")]
    if len(words) == 2 and (words[0] in _KINDS_OF_NAMES) != (words[1] in _KINDS_OF_NAMES):
        meant.update(set(words) - _KINDS_OF_NAMES)
    return meant & _QUESTION_WORDS


def _without_question_words(question: str) -> str:
    return question if question.isascii() else _ASKING.sub(" ", plain(question))


def names_in(question: str) -> list[str]:
    """The words of a question that look like names in code, in their plain form, sorted."""
    question = _without_question_words(question)
    words = (_ASCII_WORD if question.isascii() else _compiled(_WHOLE)).findall(question)
    question = _TOO_LONG.sub(" ", question)  # or the pattern would try every part of it
    names = {match.group().strip("_") for match in _NAMED.finditer(question)} - {""}
    names.update(match.group(1) or match.group(2) for match in _HYPHENED.finditer(question))
    names = {
        name for name in names if name.isascii() or not _compiled(f"[{_UNSPACED}]").search(name)
    }  # there it may be a sentence
    if len(words) == 1 and len(words[0]) <= _LONGEST:
        names.add(words[0])
    names = {name for name in names if len(name) > 1 and fold(name) not in _QUESTION_WORDS}
    return sorted(names | _meant_as_names(question))


def terms_of_name(name: str) -> set[str]:
    """The stems that every text with this name has: that of the whole name, or those of its runs of characters."""
    words = words_of(name)
    return {stem(term) for word in words for term in _terms(word, asked=True)[: None if _is_of(_UNSPACED, word) else 1]}


def weighted_terms(question: str) -> dict[str, float]:
    """Stemmed term -> its weight in the question.

    A name weighs more than its parts. Next to a name, a few other words weigh little: in "the getUserName method"
    neither `name` nor `method` tells much.
    """
    names = {fold(word) for name in names_in(question) for word in words_of(name)}
    words = asked_words(question)
    counted = [word for word in words if fold(word) in names or fold(word) not in _QUESTION_WORDS]
    beside = BESIDE_NAME_WEIGHT if names and len(counted) - len(names) <= _FEW_WORDS else 1.0
    weights: dict[str, float] = {}
    for word in words:
        if _is_of(_UNSPACED, word):
            weighted = [(term, 1.0) for term in _terms(word, asked=True)]
        else:
            whole, *parts = _terms(word) or [""]
            weight = 1.0 if whole in names else beside
            weighted = [(whole, weight), *((part, weight * PART_WEIGHT) for part in parts)]
        for term, term_weight in weighted:
            if term:
                weights[stem(term)] = max(weights.get(stem(term), 0.0), term_weight)
    return weights


def name_words(name: str) -> list[str]:
    """The words of an identifier: `parseHTTPHeader` -> parse, http, header."""
    return [part.lower() for part in _BORDER.split(name.strip("_")) if part]


@functools.lru_cache(maxsize=1 << 16)
def _stems(word: str) -> tuple[str, ...]:
    return _stems_of(word)


def _stems_of(word: str) -> tuple[str, ...]:
    return tuple(stem(term) for term in _terms(word))


@functools.lru_cache(maxsize=1 << 16)
def stem(term: str) -> str:
    """`signing`, `signed` -> `sign`, and `sent` -> `send`. Only ASCII words are stemmed."""
    if not (term.isascii() and term.isalpha()):
        return term
    return str(_stemmer().stemWord(_IRREGULAR.get(term, term)))


@functools.cache
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("porter")


def _terms(word: str, *, asked: bool = False) -> list[str]:
    """The terms of a word, the whole one first. asked: of a question."""
    if _is_of(_UNSPACED, word):
        return _pairs(word, asked)
    if len(word) <= _NAME_LENGTH and word.isalpha() and word.islower():
        return [fold(word)]
    name = word.strip("_")
    if not name:
        return []
    whole = fold(name[:_LONGEST])
    parts = [fold(part) for part in _BORDER.split(name)]
    if len(name) > _NAME_LENGTH:
        parts = [part for part in parts if part]
        if len(name) < _LEAST_PART * len(parts):  # such as base64
            return [whole]
        parts = [part[:_LONGEST] for part in parts[:_LONGEST]]
    return [whole, *parts] if len(parts) > 1 else [whole]


def _pairs(run: str, asked: bool) -> list[str]:
    if asked and _is_of(_HANGUL, run):
        run = _PARTICLE.sub("", run)
    pairs = [run[start : start + 2] for start in range(len(run) - 1)]
    return pairs or [run] if asked else [*pairs, *run]
