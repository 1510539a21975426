"""The words of a question that tell its language and nothing else: `where`, `is` and `the` in seven languages.

Chinese, Japanese and Korean are known by their script, and their question words are no separate words (terms.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TELLING = {
    "en": """the is are what where how which when why does did can could of to and or for with by from that this these
        it be been should would if into has have its there who whose while between on at not all my you your we
        use using after before each every only""",
    "de": """der das dem ein eine einen einem einer eines wo wie warum wann welche welcher welches welchem welchen wird
        werden wurde worden ist sind und oder nicht von zu zum zur beim bei auf aus für fuer über ueber durch wenn
        dass sich kann können muss soll woher womit wodurch wofür im ich wir nach vor auch nur gibt gegen ohne
        unter zwischen""",
    "fr": """le les un une du est sont où comment pourquoi quand quel quelle quels quelles qui que qu dans avec sur et
        ou ce cette ces cet se il elle sans fait peut sous être au aux ne pas lorsque lorsqu entre depuis vers
        leur leurs ses""",
    "es": """el los las una unos unas dónde donde cómo como qué cuál cuáles cuándo cuando quién está están es se del al
        que por para con y en su sus lo hay puede según sobre desde hasta entre cada más si cuánto""",
    "pt": """onde quando qual quais quem está estão é são uma umas da das dos na nas nos pelo pela pelos pelas não com
        como um sem em ao aos à às num numa seu sua seus suas isso esse essa há pode até entre cada mais quantos
        por para que se""",
    "ru": """где как какой какая какое какие каким какую когда почему зачем кто что это этот эта эти в на и или с со из
        от до для по при к за через между под над без о об ли же бы если чтобы который которая которые которое его
        её их он она они происходит можно нужно у во ко а но то так там тут куда откуда сколько чем""",
}
"""Words that a text in another language rarely has."""

_SILENT = {
    "de": """den des mit man die in an so was am als es er sie um da ob wer wen welch hier dort dieser diese dieses
        diesem diesen jeder jede jedes hat haben war sein seine ihre wieso weshalb wohin werde kannst könnte
        sollte genau eigentlich code codes stelle implementiert implementierung definiert definition geschieht
        passiert gemacht zuständig verantwortlich""",
    "fr": """la de des l d s n j m c t à en y a on par pour son sa chez plusieurs as ont été sera être cela ça tout
        tous toute toutes si dont mais donc code endroit implémenté implémentée implémentation défini définie
        définition passe fonctionne responsable trouve""",
    "es": """la de un o a e u sin me te le les nos son fue ser este esta esto estos estas ese esa eso código lugar
        implementa implementado implementada implementación define definido definida definición hace ocurre sucede
        encargado responsable encuentra parte""",
    "pt": """a o as os e de do no ou eu me te lhe da dos na nos uns foi ser este esta isto deste desta neste nesta dele
        dela código lugar implementado implementada implementação define definido definida definição faz acontece
        ocorre responsável fica parte""",
    "ru": """мы я ты вы было были была быть есть будет весь вся всё все каждый каждая каждой каждого каждом код коде
        кода место реализован реализована реализовано реализация определён определена определено определяется
        находится работает делается отвечает""",
}
"""Further words that say nothing in a question of that language."""

_KANA, _HANGUL, _HAN, _CYRILLIC = (
    "[\u3041-\u30ff]",
    "[\uac00-\ud7a3]",
    "[\u3400-\u4dbf\u4e00-\u9fff]",
    "[\u0400-\u04ff]",
)
_SCRIPTS = {"ja": _KANA, "ko": _HANGUL, "zh": _HAN, "ru": _CYRILLIC}
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»|「[^」]*」")
_NAME = re.compile(r"[A-Z]{2,}|.*[^\W\d_][^\w'’-]+[^\W\d_]|.*[\d_]|.*[^\W\d_A-Z][A-Z]|--?\w")
_PUNCTUATION = re.compile(r"^[^\w-]+|[^\w]+$")
_READ = 4000  # characters of a question


def spaced_words(question: str) -> list[str]:
    """The words of a question in lower case, without names of code and what is quoted; `d'accès` is two words."""
    words: list[str] = []
    for piece in _QUOTED.sub(" ", question[:_READ]).split():
        word = _PUNCTUATION.sub("", piece)
        if word and not _NAME.match(word):
            words += [part for part in re.split("['’-]", word.lower()) if part]
    return words


def languages_of(question: str, words: Sequence[str]) -> dict[str, int]:
    """The languages that a question may be in, other than English -> the words that tell so; empty for English.

    words: `spaced_words` of the question. A script counts as two words. A question without such words may be in any
    language if it has letters that English does not have.
    """
    present = set(words)
    english = len(present & _words("en", _TELLING))
    if not question.isascii() and english < 2:
        text = _QUOTED.sub(" ", question[:_READ])
        for language, script in _SCRIPTS.items():
            if len(re.findall(script, text)) > 1:
                return {language: 2}
    hits = {language: len(present & _words(language, _TELLING)) for language in _SILENT}
    accented = not english and any(not word.isascii() for word in words)
    return {language: count for language, count in hits.items() if count > english or accented}


def silent_words(language: str) -> frozenset[str]:
    """The words of a language that say nothing in a question."""
    return _words(language, _TELLING) | _words(language, _SILENT) if language in _SILENT else frozenset()


_SETS: dict[tuple[str, int], frozenset[str]] = {}


def _words(language: str, lists: dict[str, str]) -> frozenset[str]:
    key = (language, id(lists))
    if key not in _SETS:
        _SETS[key] = frozenset(lists[language].split())
    return _SETS[key]
