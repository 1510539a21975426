"""Random literals of many forms, for needles to hold. None of a form that is held out (needle_shapes.py)."""

from __future__ import annotations

import random
import string
import uuid

from awareness.train.samples.dialects import Dialect
from awareness.train.samples.vocabulary import ADJECTIVES, NOUNS, QUALITIES, VERBS

_ENDINGS = ".json .toml .db .log .csv .txt .bin .lock .sock .pem .yaml .sqlite .parquet .html .tmpl".split()
_ROOTS = ["/var/lib", "/etc", "/srv", "/opt", "/tmp", "~/.cache", "~/.config", "data", "build", "assets", "./out"]
_DOMAINS = ["example.com", "example.org", "internal.net", "test.dev", "cloud.io", "local"]
_LETTERS = [string.ascii_lowercase + string.digits, string.ascii_uppercase + string.digits, string.ascii_letters]


def a_number(rng: random.Random) -> str:
    shape = rng.random()
    if shape < 0.5:
        digits = rng.randint(1, 7)
        return str(rng.randint(10 ** (digits - 1), 10**digits - 1))
    if shape < 0.65:
        return str(rng.randint(1, 99) * rng.choice([10, 25, 50, 100, 512, 1000, 1024]))
    if shape < 0.9:
        sign = "-" if rng.random() < 0.2 else ""
        return f"{sign}{rng.uniform(0, 10 ** rng.randint(0, 3)):.{rng.randint(1, 4)}f}"
    return f"-{rng.randint(1, 9999)}" if shape < 0.96 else f"{rng.randint(1, 9)}e-{rng.randint(1, 9)}"


def a_token(rng: random.Random) -> str:
    """Letters and digits, never hexadecimal."""
    letters = rng.choice(_LETTERS)
    text = "".join(rng.choices(letters, k=rng.randint(4, 14)))
    at = rng.randrange(len(text))
    return text[:at] + rng.choice("ghjkmnpqrstuvwxyz" if letters[0] == "a" else "GHJKMNPQRSTUVWXYZ") + text[at + 1 :]


def a_text(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return a_token(rng)
    words = [rng.choice(rng.choice([NOUNS, ADJECTIVES, VERBS])) for _ in range(rng.randint(1, 3))]
    shape = rng.choice(["-", "_", " ", ".", "/"]).join(words)
    return f"{shape}-{rng.randint(1, 999)}" if rng.random() < 0.25 else shape


def a_path(rng: random.Random) -> str:
    folders = [rng.choice(NOUNS) for _ in range(rng.randint(0, 2))]
    name = f"{rng.choice(NOUNS)}{rng.choice(['', '-', '_'])}"
    name = f"{name}{rng.choice(QUALITIES)}" if name[-1] in "-_" else name
    return "/".join([rng.choice(_ROOTS), *folders, name + rng.choice(_ENDINGS)])


def a_url(rng: random.Random) -> str:
    scheme = rng.choice(["https", "https", "http", "wss", "redis", "postgres"])
    port = f":{rng.randint(1000, 9999)}" if rng.random() < 0.3 else ""
    tail = "/".join([rng.choice(["v1", "v2", "api", "docs", rng.choice(NOUNS)]), *rng.sample(NOUNS, rng.randint(0, 2))])
    return f"{scheme}://{rng.choice(NOUNS)}.{rng.choice(_DOMAINS)}{port}/{tail}"


def a_date(rng: random.Random) -> str:
    return f"{rng.randint(2009, 2031)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def a_version(rng: random.Random) -> str:
    return ".".join(str(rng.randint(0, 30)) for _ in range(rng.randint(2, 3)))


def a_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def a_literal(rng: random.Random, code: Dialect) -> str:
    return a_number(rng) if rng.random() < 0.5 else quoted(rng, code, a_text(rng))


def quoted(rng: random.Random, code: Dialect, value: str) -> str:
    quote = rng.choice(code.quotes)
    return f"{quote}{value}{quote}"
