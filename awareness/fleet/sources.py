"""The repositories that a run is told to index: addresses of clones, folders, and files that list them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from awareness.errors import UsageError
from awareness.fleet.catalogue import MOST_NAME
from awareness.index.files.nested import MAX_FOLDERS, look_inside
from awareness.index.files.repository import Repository
from awareness.types import printable

_URL = re.compile(r"(?P<scheme>https?|ssh|git|file)://(?:[^@/]*@)?(?P<host>[^/]*)/(?P<path>.+)")
_SCP = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?!//)(?P<path>[^\\:].*)")  # git@host:owner/name
_SECRET = re.compile(r"https?://([^@/]*)@|\w+://[^@/:]*:([^@/]*)@")
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:{1,2}(?://)?")
_LIST = "each line of a list is an address of a clone or a folder, with NAME and a tab before it if you want"


@dataclass(frozen=True)
class Source:
    """name: in the catalogue. place: what git clones, or an absolute path. is_folder: it is read where it is."""

    name: str
    place: str
    is_folder: bool


def read_sources(words: Sequence[str], taken: Mapping[str, str] | None = None) -> list[Source]:
    """The repositories of some words: addresses, folders (one of clones stands for all of them) and files of them.

    taken: name -> place of those that the catalogue has, which keep their names. A name is the end of an address or of
    a path, as long as it has to be to be the only one. Raises UsageError.
    """
    named: dict[str, str] = {}
    places: dict[str, tuple[str, ...]] = {}  # of those without a given name, with the parts of their names
    for word in words:
        for name, place in _read(word, ""):
            if name and named.setdefault(name, place) != place:
                raise UsageError(f"two repositories are named '{printable(name)}'", hint="name each line otherwise")
            if not name:
                places.setdefault(place, _parts(place))
    known = {place: name for name, place in (taken or {}).items()}
    chosen = {place: known[place] for place in places if place in known and known[place] not in named}
    fresh = {place: parts for place, parts in places.items() if place not in chosen}
    used = {*named, *chosen.values(), *(taken or {})}
    chosen |= dict(zip(fresh, _unique(list(fresh.values()), used), strict=True))
    pairs = {**{name: place for place, name in chosen.items()}, **named}
    for name, place in pairs.items():
        if not (name + place).isprintable() or len(name) > MOST_NAME:
            raise UsageError(f"'{printable(place[:200])}' has no name that can be shown", hint=_LIST)
    return [Source(name, place, not is_address(place)) for name, place in sorted(pairs.items())]


def is_address(place: str) -> bool:
    """Is it something that git clones, and not a path?"""
    return bool(_URL.fullmatch(place)) or (bool(_SCP.fullmatch(place)) and not Path(place).exists())


def _read(word: str, listed_in: str) -> Iterable[tuple[str, str]]:
    """(given name or empty, place) of each repository that a word, or a line of the file `listed_in`, means."""
    name, tab, place = word.rpartition("\t")
    name, place = name.strip(), place.strip()
    where = f"{listed_in}: " if listed_in else ""
    if (tab and not name) or not place or not (name + place).isprintable() or place.startswith("-"):
        raise UsageError(f"{where}'{printable(word[:120])}' names no repository", hint=_LIST)
    if secret := _SECRET.match(place):
        shown = place.replace(secret[1] or secret[2] or "@", "…", 1)
        hint = "an address without it, and git's credential helper or ssh"
        raise UsageError(f"{where}{shown} has a secret, which everybody who reads the store would see", hint=hint)
    if is_address(place):
        return [(name, place.removesuffix("/"))]
    if _ANY_SCHEME.match(place) and not Path(place).exists():
        hint = "https://…, ssh://… or git@HOST:PATH"
        raise UsageError(f"{where}'{place[:120]}' is not an address that is cloned", hint=hint)
    base = Path(listed_in).parent if listed_in else Path()
    path = (base / Path(place).expanduser()).absolute()
    if path.is_file() and not listed_in:
        return _lines(path)
    if not path.is_dir():
        raise UsageError(f"{where}{place[:200]} is neither a folder nor a file", hint=_LIST)
    return [(name, str(folder)) for folder in _repositories(path.resolve(), is_one=bool(name or listed_in))]


def _repositories(folder: Path, *, is_one: bool) -> list[Path]:
    """The folder, or the repositories in it if it is none. is_one: it was listed, so it stands for itself."""
    if is_one or Repository.open(folder).common_git_dir is not None:
        return [folder]
    inside = look_inside(folder)
    if not inside.is_complete:
        raise UsageError(f"{folder} has more than {MAX_FOLDERS:,} folders", hint="list its repositories in a file")
    return inside.repositories or [folder]


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", hint=_LIST) from error
    lines = [line.strip(" \r") for line in text.split("\n")]
    return [found for line in lines if line and not line.startswith("#") for found in _read(line, str(path))]


def _parts(place: str) -> tuple[str, ...]:
    """What the name is made of: host and path of an address, the parts of a path."""
    match = _URL.fullmatch(place) or (_SCP.fullmatch(place) if is_address(place) else None)
    if match is None:
        return tuple(part.removesuffix(".git") for part in PurePosixPath(place).parts[1:]) or ("root",)
    path = match["path"].removesuffix(".git").strip("/")
    return tuple(part for part in (match["host"], *path.split("/")) if part)


def _unique(parts: Sequence[tuple[str, ...]], used: Iterable[str]) -> list[str]:
    """A name for each: addresses with their host, folders by the last of their parts, longer where two would be one."""
    taken = set(used)
    names = [""] * len(parts)
    left = set(range(len(parts)))
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends: dict[str, list[int]] = defaultdict(list)
        for i in left:
            ends["/".join(parts[i][-length:])].append(i)
        for name, those in ends.items():
            if name not in taken and (len(those) == 1 or length >= max(len(parts[i]) for i in those)):
                names[those[0]] = name
                taken.add(name)
                left.discard(those[0])
        if not left:
            break
    for i in sorted(left):  # its whole path is a name already
        names[i] = next(n for k in range(2, len(parts) + 3) if (n := f"{'/'.join(parts[i])}-{k}") not in taken)
        taken.add(names[i])
    return names
