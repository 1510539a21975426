"""Credentials in source text: on which line, and of which kind.

Each rule is a literal (a text without it is skipped at the speed of memory), a pattern that starts with that literal,
and a minimum randomness of the value. Patterns have no nested repeats and every repeat has a bound, so the time is
linear in the text, however hostile. The rules prefer precision to recall: placeholders, words, names and paths do not
count. The text of a credential is never kept. repository.py skips files that are secret as a whole.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from math import log2
from typing import NamedTuple

MAX_CANDIDATES = 500  # of each rule; a text with more has certainly been reported
COMMON = b"abcdefghilmnorstuy0123456789 \t\r\n"  # most bytes of code; the rest, the "rare" bytes, is searched fast

FILLER = re.compile(
    rb"(?i)example|change.?(?:me|it)|placeholder|your|x{4}|dummy|fake|sample|insert|replace|redact|default|foo.?bar|test|todo"
    rb"|my.?(?:secret|token|pass|key)|123456|abcdef|qwerty|lorem|\.\.\.|\*\*\*|%s|%\(|[<>{}()\[\]\\]|\$[a-z_]|^[./$#%]|://"
)
WORD = re.compile(rb"(?=(?i:[a-z]{0,2}[aeiou]))(?:[A-Z]?[a-z]{3,}|[A-Z]{3,})")
DIGIT_AND_LETTER = re.compile(rb"\d.*[A-Za-z]|[A-Za-z].*\d", re.DOTALL)
HARMLESS_NAME = re.compile(  # the end of a name whose value is no credential: `token_url`
    rb"^i[sz]|(?:^|[_-])(?:id|name|ur[il]|path|file|type|field|header|param|pattern|regex|prefix|suffix|label|class|hash|"
    rb"digest|sha\d+|checksum|version|endpoint|env|help|format|expiry|text|title|message)s?$"
)
HARMLESS_HOST = re.compile(rb"(?i)(?:[\w-]+\.){0,5}example(?:\.\w+)?(?!\w)|localhost|127\.0\.0\.1|0\.0\.0\.0")


@dataclass(frozen=True)
class Secret:
    """A credential in a text. line: from 1. rule: the kind of credential, a constant phrase."""

    line: int
    rule: str


class _Rule(NamedTuple):
    name: str
    literal: bytes  # the start of the pattern
    rare: bytes  # the literal without common bytes
    pattern: re.Pattern[bytes]  # its last group is the value
    ignores_case: bool


ASSIGNED, URL, BLOCK, AWS = "credential in an assignment", "password in a URL", "private key", "AWS access key"
END = r"(?![0-9A-Za-z_+/-])"
NAME_TO_VALUE = (  # the rest of the name (atomic, by a lookahead), a type, a sign, a quoted value
    r"(?=([\w-]{0,24}))\1[\"'\]]{0,2}(?:[ \t]{0,4}:[ \t]{0,2}[\w.]{1,24}(?=[ \t]{0,4}=))?[ \t]{0,8}"
    r"(?::=|=>|={1,3}|:|,)[ \t]{0,8}[rbfu]?[\"'`]([^\s\"'`]{10,200})[\"'`]"
)
AWS_SECRET = r"secret_?(?:access_?)?key[\"']?[ \t]{0,4}(?:=>|:?=|:)[ \t]{0,4}[\"']?([0-9a-z+/]{40})" + END
KEY_OF = "|".join(f"(?<={kind}key)" for kind in "api_ api api- access_ auth_ private_ signing_ encryption_".split())
KEY_BODY = r"(?:\\[nr]|[\s\"'+(),#*]){1,60}([0-9A-Za-z+/]{32,80}|(?:Proc-Type|Version): )"


def _token(literal: str, rest: str, before: str = "") -> tuple[str, str]:
    """A rule whose pattern starts with its literal, which makes it fast, but not in the middle of a word."""
    start = re.escape(literal)
    return literal, f"{start}(?<={before}{start})(?<![0-9A-Za-z_-]{before}{start}){rest}"


_AS_WRITTEN = [
    (AWS, *_token("IA", f"([A-Z2-7]{{16}}){END}", before="A[KS]")),
    ("GitHub token", *_token("gh", f"[opsur]_([0-9A-Za-z]{{36,255}}){END}")),
    ("GitHub token", *_token("github_pat_", r"(\w{50,255})")),
    ("GitLab token", *_token("glpat-", r"([\w-]{20,200})")),
    ("Slack token", *_token("xox", r"[abeoprs]-([0-9A-Za-z-]{20,255})")),
    ("Slack webhook", *_token("hooks.slack.com", r"/[a-z]{5,10}/([\w+/]{40,80})")),
    ("Google API key", *_token("AIza", rf"([\w-]{{35}}){END}")),
    ("Stripe key", *_token("k_live_", r"([0-9A-Za-z]{16,255})", before="[rs]")),
    ("Anthropic key", *_token("sk-ant-", r"([\w-]{24,255})")),
    ("OpenAI key", *_token("sk-", r"(?!ant-)([\w-]{32,255})")),
    ("npm token", *_token("npm_", f"([0-9A-Za-z]{{36}}){END}")),
    ("PyPI token", *_token("pypi-AgEI", r"([\w-]{50,255})")),
    ("SendGrid key", *_token("SG.", rf"([\w-]{{20,24}}\.[\w-]{{40,46}}){END}")),
    ("Twilio key", *_token("SK", f"([0-9a-f]{{32}}){END}")),
    ("Azure storage key", *_token("AccountKey=", "([0-9A-Za-z+/]{86})==")),
    ("JSON web token", *_token("eyJ", r"([\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,2000})")),
    (BLOCK, "PRIVATE KEY", r"PRIVATE KEY(?: BLOCK)?-----" + KEY_BODY),
    (URL, "://", r"://[^\s/:@\"'<>{}()]{1,64}:([^\s/:@\"'<>{}()]{8,100})@(?=[\w.-])"),
]
_IN_LOWER_CASE = [
    ("AWS secret key", "secret", AWS_SECRET),
    *((ASSIGNED, word, word + NAME_TO_VALUE) for word in ("secret", "token", "pwd")),
    (ASSIGNED, "pass", "pass(?:wo?r?d|phrase)" + NAME_TO_VALUE),
    (ASSIGNED, "key", f"key(?:{KEY_OF}){NAME_TO_VALUE}"),
]


@functools.cache
def _rules() -> list[_Rule]:
    """Compiled for the first text, so that commands that only read an index do not wait for it."""
    return [
        _Rule(
            name, key.encode(), b"" if low else key.encode().translate(None, COMMON), re.compile(pattern.encode()), low
        )
        for rules, low in ((_AS_WRITTEN, False), (_IN_LOWER_CASE, True))
        for name, key, pattern in rules
    ]


def find_secrets(text: str) -> list[Secret]:
    """The credentials in `text`, by line: each kind once a line, the two guesses only if no other rule matches."""
    data = text.encode("utf-8", "surrogatepass")
    lower, rare = data.lower(), data.translate(None, COMMON)  # both change ASCII only, so offsets stay
    matched: list[tuple[int, str]] = []
    for rule in _rules():
        searched = lower if rule.ignores_case else data
        if rule.rare in rare and rule.literal in searched:
            matches = islice(rule.pattern.finditer(searched), MAX_CANDIDATES)
            matched += [(match.start(), rule.name) for match in matches if _is_secret(rule.name, match, data)]
    rules: dict[int, set[str]] = {}
    line, before = 1, 0
    for start, name in sorted(matched):
        line, before = line + data.count(b"\n", before, start), start
        rules.setdefault(line, set()).add(name)
    return [Secret(line, name) for line, names in rules.items() for name in sorted(names - {ASSIGNED, URL} or names)]


def _is_secret(rule: str, match: re.Match[bytes], data: bytes) -> bool:
    """Is the value random enough, and neither a placeholder, nor words, nor for a harmless name or host?"""
    value = re.sub(rb"%[0-9A-Fa-f]{2}", b"", data[slice(*match.span(match.re.groups))])
    entropy = -sum(n / len(value) * log2(n / len(value)) for n in Counter(value).values())
    words = sum(map(len, WORD.findall(value))) > 0.65 * len(value) or not DIGIT_AND_LETTER.search(value)
    if entropy < 3.0 or FILLER.search(value) or (words and rule not in (BLOCK, AWS)):
        return False
    if rule == URL:
        return not HARMLESS_HOST.match(data, match.end())
    return rule != ASSIGNED or not HARMLESS_NAME.search(match[1])
