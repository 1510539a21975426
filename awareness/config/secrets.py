"""Keys and tokens: read from a `.env` file when training asks for it, and masked in everything that is printed.

The file may have come with a stranger's repository, so it may only set the names in `_MAY_SET`: none of them decides
which programs run, which files are written or which server a key is sent to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from awareness.errors import UsageError

MAX_BYTES = 64 << 10
MASK = "****"
MIN_CHARS = 8
"""Shorter values are not masked: they occur in ordinary words."""
_SECRET_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_MAY_SET = {
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    *(f"WANDB_{name}" for name in "API_KEY PROJECT ENTITY NAME NOTES TAGS RUN_GROUP JOB_TYPE MODE".split()),
}
_HINT = "export WANDB_API_KEY=…, which needs no file"


@dataclass(frozen=True)
class Secrets:
    """Texts to mask, longest first, since one may contain another."""

    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, *sources: Mapping[str, str]) -> Secrets:
        """The values of all variables with a name like API_KEY or HF_TOKEN."""
        named = (item for source in sources for item in source.items())
        found = {value.strip() for name, value in named if name.upper().endswith(_SECRET_ENDINGS)}
        return cls(_longest_first(value for value in found if len(value) >= MIN_CHARS))

    def __or__(self, other: Secrets) -> Secrets:
        return Secrets(_longest_first({*self.values, *other.values}))

    def mask(self, text: str) -> str:
        for value in self.values:
            text = text.replace(value, MASK)
        return text


def _longest_first(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def load_env(folder: Path) -> Secrets:
    """Sets the variables of `folder/.env` that it may set and that are not set yet; -> the secrets of file and
    environment. Without a file, only those of the environment. Raises UsageError."""
    from dotenv import dotenv_values

    # Not interpolated: `WANDB_NAME=${GITHUB_TOKEN}` would publish what the environment holds.
    found = dotenv_values(stream=StringIO(_read(folder / ".env")), interpolate=False)
    values = {name: value for name, value in found.items() if value and "\0" not in value}
    for name in _MAY_SET & values.keys():
        os.environ.setdefault(name, values[name])
    return Secrets.of(values, os.environ)


def _read(path: Path) -> str:
    """The text of a regular file that is not a link, or nothing if there is none."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not block
    try:
        with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", hint=_HINT) from error
    if not regular:
        raise UsageError(f"{path} is not a file", hint=_HINT)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes", hint=_HINT)
    return data.decode("utf-8", "replace")
