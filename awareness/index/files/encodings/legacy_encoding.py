"""Bytes that are neither UTF-8 nor UTF-16 -> the older encoding that they are most likely in.

Each encoding is tried on the lines that are not ASCII. The text that comes out is judged by its characters: in the
right encoding they are common ones of one script, in a wrong one rare ones of several. The judgement needs a few
letters, not a page, as source is mostly ASCII with a line of comment here and there. charset-normalizer, which needs
more text, judges what is left: the alphabets that are not listed here.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator

from awareness.index.files.encodings.frequent_characters import HANGUL, HANZI, HANZI_TRADITIONAL, KANJI

SAMPLE_BYTES = 1 << 16  # of the lines that are not ASCII: more would not change the judgement
LEAST_SCORE, _LEAST_OF_FEW = 0.12, 0.45  # of text; the bytes of a key score less
_BEFORE = 80  # bytes of a line that are kept before its first byte beyond ASCII
_SHORT, _FEW = 64, 3  # bytes, bytes beyond ASCII
_WRONG = -4.0  # the worth of bytes that the encoding does not have
_MOST_WRONG = 0.02  # share of them in a text with a few damaged bytes

_RARE = {"cp866": 0.25, "cp1253": 0.1, "cp874": 0.1, "cp1250": 0.1}  # what their scores lose
CANDIDATES = (
    *("gb18030", "cp950", "cp932", "euc_jis_2004", "cp949", "cp1252"),
    *("cp1251", "koi8_r", "cp866", "cp1253", "cp874", "cp1250"),
)
_OTHERS = ["cp1254", "cp1255", "cp1256", "cp1257", "cp1258"]
_ASCII, _LINE_END = bytes(range(128)), re.compile(rb"[\r\n]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_RUNS = re.compile(r"[^\x00-\x7f]+")


def detect(data: bytes) -> str | None:
    """The name of the codec that makes text of `data`; None if none does."""
    if not _LINE_END.search(data):  # a key, not text
        return None
    sample = _sample(data)
    scores = {name: _score(name, sample) for name in CANDIDATES}
    best = max(CANDIDATES, key=lambda name: scores[name])  # of two that are equal, the first
    beyond = len(sample.translate(None, _ASCII))
    if scores[best] >= (LEAST_SCORE if len(data) >= _SHORT and beyond >= _FEW else _LEAST_OF_FEW):
        return best
    return _of_another_language(sample) if beyond >= _SHORT else None


def _sample(data: bytes) -> bytes:
    """The lines that are not ASCII, `SAMPLE_BYTES` of them at most."""
    taken, size = [], 0
    for line in data.splitlines(keepends=True):
        if size < SAMPLE_BYTES and (beyond := _BEYOND_ASCII.search(line)):
            taken.append(line[max(0, beyond.start() - _BEFORE) :][: SAMPLE_BYTES - size])
            size += len(taken[-1])
    return b"".join(taken)


def _of_another_language(sample: bytes) -> str | None:
    """The judgement of charset-normalizer, for languages that are not judged here."""
    from charset_normalizer import from_bytes

    match = from_bytes(sample, cp_isolation=_OTHERS).best()
    return match.encoding if match else None


def _score(name: str, sample: bytes) -> float:
    """How much the decoded text looks like one of this encoding, at most 1."""
    decoder = codecs.getincrementaldecoder(name)(errors="replace")
    text = decoder.decode(sample)  # the last character may be cut
    worths = list(_worths(name, text))
    if not worths or worths.count(_WRONG) > _MOST_WRONG * len(worths):
        return -1.0
    return sum(worths) / len(worths) - _RARE.get(name, 0.0)


def _worths(name: str, text: str) -> Iterator[float]:
    """The worth of each character that is not ASCII."""
    if name in _FREQUENT:
        worth = functools.partial(_worth_in_east_asia, name)
        for run in _RUNS.findall(text):
            yield from map(worth, run)
        return
    judge = _judge_latin if name in ("cp1252", "cp1250") else functools.partial(_judge_alphabet, _ALPHABET[name])
    for match in _RUNS.finditer(text):
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        yield from judge(name, match.group(), before, after)


# --- Chinese, Japanese, Korean ---------------------------------------------------------------------------------

_FREQUENT = {
    "gb18030": HANZI,
    "cp950": HANZI_TRADITIONAL,
    "cp932": KANJI,
    "euc_jis_2004": KANJI,
    "cp949": HANGUL,
}
_COMMON_LEADS = {  # the first bytes of the characters that the standard calls common
    "gb18030": (0xB0, 0xD7, 0xA1),
    "cp950": (0xA4, 0xC6, 0x40),
    "cp932": (0x88, 0x97, 0x40),
    "euc_jis_2004": (0xB0, 0xCF, 0xA1),
    "cp949": (0xB0, 0xC8, 0xA1),
}
_PUNCTUATION = frozenset("　、。，．：；？！（）「」『』【】《》〈〉“”‘’…—－～〜·・→←↑↓①②③④⑤⑥⑦⑧⑨※○●◎□■△▲▽▼◇◆★☆×÷±")


@functools.lru_cache(maxsize=1 << 14)
def _worth_in_east_asia(name: str, character: str) -> float:
    point = ord(character)
    if character == "\ufffd" or 0xE000 <= point < 0xF900 or 0x80 <= point < 0xA0:
        return _WRONG
    if character in _FREQUENT[name]:
        return 1.0
    if 0x3041 <= point <= 0x30FF and character not in "・":
        return 1.0 if "j" in name or name == "cp932" else -0.3
    if character in _PUNCTUATION or 0xFF01 <= point <= 0xFF5E:
        return 0.6
    if 0x3131 <= point <= 0x318E:
        return 0.7
    if 0xFF61 <= point <= 0xFF9F:
        return -0.4  # half-width kana: one byte each, so most bytes are one
    if 0x4E00 <= point <= 0x9FFF and name == "cp949":
        return -0.5
    if 0x4E00 <= point <= 0x9FFF or 0xAC00 <= point <= 0xD7A3:
        first, last, least = _COMMON_LEADS[name]
        data = character.encode(name)
        return 0.3 if len(data) == 2 and first <= data[0] <= last and data[1] >= least else -0.4
    return -0.4


# --- one byte a character --------------------------------------------------------------------------------------

_CYRILLIC, _GREEK = frozenset("оеаинтсрвлкмдпуяыьгзбчй"), frozenset("αοιετσνηυρπκμλςάόίέή")
_THAI = frozenset("กานรอเมยลวดทสตะปบคหแจพชขใไโผถซธศงิีืุูั่้็์ำ")
_ALPHABET = {"cp1251": _CYRILLIC, "koi8_r": _CYRILLIC, "cp866": _CYRILLIC, "cp1253": _GREEK, "cp874": _THAI}
_OTHER_LETTERS = frozenset(
    "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЁІЇЄҐЎΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΆΈΉΊΌΎΏжхшюцщэфъёіїєґўβγδζθξφχψωύώϊϋΐΰ"
)
_LATIN = {
    "cp1252": frozenset("àâäçèéêëîïôöùûüßñáíóúåæøãõœ"),
    "cp1250": frozenset("ąćęłńóśźżáčďéěíňřšťúůýžőűöüäľôŕăâîşţ"),
}
_ALONE = frozenset("àéèóáíêôü")  # words of one letter
_MARKS = frozenset("©®°±§·«»£€“”‘’„–—…•¡¿½¼¾²³×÷µªº¶™¢¥¬´¨")


def _judge_alphabet(frequent: frozenset[str], name: str, run: str, before: str, after: str) -> Iterator[float]:
    """Whole words of one alphabet, in small letters, capitals, or with a first capital."""
    previous = before
    inside = any(beside.isascii() and beside.isalpha() for beside in (before, after))
    for character in run:
        if character == "\ufffd":
            yield _WRONG
        elif inside and frequent is not _THAI:  # which has no spaces between words
            yield -0.8  # an accent in a Latin word
        elif len(run) == 1:
            yield 0.4 if character in frequent or character == "ё" else 0.25 if character.isalpha() else 0.0
        elif character in frequent:
            yield 1.0
        elif character in _OTHER_LETTERS:
            is_odd = character.isupper() and previous.isalpha() and previous.islower()
            yield -1.0 if is_odd else 0.4
        elif character in _MARKS or character in "№\xa0ёЁ":
            yield 0.0 if len(run) > 1 else -0.2
        else:
            yield -1.0
        previous = character


def _judge_latin(name: str, run: str, before: str, after: str) -> Iterator[float]:
    """Single letters with accents inside words, and marks between them."""
    frequent = _LATIN[name]
    characters = [before, *run, after]
    for place, character in enumerate(run):
        left, right = characters[place], characters[place + 2]
        if character == "\ufffd" or character < "\xa0":
            yield _WRONG
        elif len(run) > 3:
            yield -0.8
        elif character.isalpha() and character not in "ªºµ":
            in_word = (left.isascii() and left.isalpha()) or (right.isascii() and right.isalpha())
            is_odd = character.isupper() and left.isalpha() and left.islower()
            known = 1.0 if character.lower() in frequent else 0.2
            yield -0.6 if is_odd else known if in_word else 0.5 if character in _ALONE else 0.2
        elif character in _MARKS or character == "\xa0":
            yield -0.6 if left.isalpha() and right.isalpha() and character not in "’·´" else 0.6
        else:
            yield -0.6
