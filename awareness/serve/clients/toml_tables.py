"""One table of a TOML file, as Codex reads it: put in at the end or taken out, and every other byte stays.

tomlkit 0.15 does not do that: a table that went in and out leaves an empty line, the comment before the next table
moves to ours, and in a file with CRLF ours gets LF.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEADER = re.compile(r"^[ \t]*\[.*$", re.MULTILINE)


def parse(text: str) -> dict[str, Any]:
    """Raises ValueError."""
    return tomllib.loads(text)


def with_table(text: str, path: tuple[str, str], value: Mapping[str, Any]) -> str:
    """The text with this table; one that is there is replaced. Raises ValueError where it stands in another form."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"[{'.'.join(path)}]", *(f"{_key(key)} = {_dumped(item)}" for key, item in value.items()), ""]
    kept = without_table(text, path)
    gap = "" if not kept.strip() else newline if kept.endswith("\n") else newline * 2
    changed = (kept if kept.strip() else "") + gap + newline.join(lines)
    if parse(changed).get(path[0], {}).get(path[1]) != dict(value):
        raise ValueError(f"{path[0]} is written in a form that cannot be added to")
    return changed


def without_table(text: str, path: tuple[str, str]) -> str:
    """The text without this table and those inside it. Raises ValueError where it stands in another form."""
    before = parse(text)
    if path[1] not in before.get(path[0], {}):
        return text
    wanted = {key: value for key, value in before.items() if key != path[0]}
    others = {key: value for key, value in before[path[0]].items() if key != path[1]}
    name = r"[ \t]*\.[ \t]*".join(rf"(?:{re.escape(key)}|\"{re.escape(key)}\"|'{re.escape(key)}')" for key in path)
    ours = re.compile(rf"[ \t]*\[[ \t]*{name}[ \t]*(?:\.[^\]]*)?\][ \t]*(?:#.*)?\r?$")
    headers = [start for match in _HEADER.finditer(text) if _is_complete(text[: (start := match.start())])]
    headers.append(len(text))
    spans = [(a, b) for a, b in itertools.pairwise(headers) if ours.match(text[a:b].split("\n")[0])]
    for start, end in reversed(spans):
        lines = text[start:end].splitlines(keepends=True)
        while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            lines.pop()  # blank lines and comments after it belong to what follows
        rest = text[start + len("".join(lines)) :]
        head = text[:start]
        if not rest.strip():
            head, rest = re.sub(r"\n\r?\n\Z", "\n", head), ""
        else:
            rest = rest.lstrip("\r\n")
        text = head + rest
    after = parse(text)
    if {key: value for key, value in after.items() if key != path[0]} != wanted or after.get(path[0], {}) != others:
        raise ValueError(f"{'.'.join(path)} is written in a form that cannot be taken out")
    return text


def _is_complete(text: str) -> bool:
    """False inside a string of several lines."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _dumped(key)


def _dumped(value: Any) -> str:
    """A string, a number, a list of them, or a table of them, on one line. Raises ValueError for others."""
    if isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_dumped(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dumped, value)) + "]"
    raise ValueError(f"{value!r} cannot be written again")
