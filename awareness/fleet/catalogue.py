"""The catalogue of a fleet: which repositories its store holds, and as which objects.

    catalogue.json            the catalogue, the only object that is ever replaced
    repositories/DIGEST       one repository as it was indexed: its chunks, and where their latents are
    shards/NAME               latents of any repositories (awareness/index/store/shards.py has the format)
    listings/DIGEST           where the latents of some shards are, for later runs
    routing/DIGEST            the words of some repositories, which lead a question to them

All other objects are named by their content and written before the catalogue that names them, so a run that is killed
leaves at most objects that nothing names. Two runs at once commit one after the other: `commit` reads the catalogue,
changes it and writes it if it is still the same, else begins again.

`gc` may not delete what a run at the same time is about to name. It first commits the keys that it will delete
(`collecting`), and when they are gone that they were (`collected`). A run does not commit what is being collected; of
what was collected it looks whether it is there, and makes it again if it is not.

Nothing in a catalogue is trusted: `parse` checks every field, and digests tell whether an object is the one meant.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from awareness.errors import IndexCorrupt, IndexLocked, NoIndex, UsageError
from awareness.fleet.object_store import NoSuchObject, ObjectStore, Version
from awareness.types import MemorySpec, printable

KEY = "catalogue.json"
FORMAT_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REV = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_BYTES = 1 << 30
MOST_NAME = 400
_ATTEMPTS = 60
KINDS = ("repositories", "shards", "listings", "routing")
OBJECT = re.compile(rf"(?:{'|'.join(KINDS)})/[0-9a-f]{{64}}")
"""The keys of all objects but the catalogue."""


@dataclass(frozen=True)
class Entry:
    """One repository. source: what it was cloned or read from. rev: the commit, None for a folder without one. state:
    identifies what was read: the commit, or a digest of the files. object: digest, its name in `repositories/`.
    chunking: the rules that its files were cut by. indexed: Unix time. text_bytes: of the object, unpacked."""

    source: str
    rev: str | None
    state: str
    chunking: str
    object: str
    files: int
    chunks: int
    tokens: int
    text_bytes: int
    indexed: float

    @property
    def key(self) -> str:
        return f"repositories/{self.object}"


@dataclass(frozen=True)
class RoutingObject:
    """An object in `routing/`. objects: the repository objects that it describes, in its order; what the catalogue no
    longer names is passed over."""

    object: str
    objects: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"routing/{self.object}"


@dataclass(frozen=True)
class Catalogue:
    """generation: how often it was committed. writer: of this generation. model: name; fingerprint: of its weights.
    spec: of all latents. scope, include: the patterns of all repositories.
    repositories: by name. collecting, collected: keys that `gc` is deleting and has deleted -> Unix time."""

    model: str
    fingerprint: str
    spec: MemorySpec
    scope: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    repositories: dict[str, Entry] = field(default_factory=dict)
    routing: tuple[RoutingObject, ...] = ()
    listings: tuple[str, ...] = ()
    collecting: dict[str, float] = field(default_factory=dict)
    collected: dict[str, float] = field(default_factory=dict)
    generation: int = 0
    writer: str = ""

    @property
    def chunks(self) -> int:
        return sum(entry.chunks for entry in self.repositories.values())

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self.repositories.values())

    @property
    def keys(self) -> set[str]:
        """What it names itself; the shards are named by the repository objects."""
        entries = {entry.key for entry in self.repositories.values()}
        return entries | {shard.key for shard in self.routing} | {f"listings/{name}" for name in self.listings}

    def to_json(self) -> bytes:
        value = {
            **vars(self),
            "format": "awareness-fleet",
            "version": FORMAT_VERSION,
            "spec": self.spec.to_json(),
            "repositories": {name: vars(entry) for name, entry in self.repositories.items()},
            "routing": [vars(shard) for shard in self.routing],
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def read(store: ObjectStore) -> tuple[Catalogue, Version]:
    """Raises NoIndex for a store without a catalogue, IndexCorrupt for one that is damaged, StorageFailed."""
    try:
        data, version = store.read(KEY)
    except NoSuchObject as error:
        raise NoIndex(
            f"{store.url} holds no fleet: it has no {KEY}", hint=f"awareness fleet index REPOSITORY --out {store.url}"
        ) from error
    return parse(data, store.url), version


def read_if_any(store: ObjectStore) -> tuple[Catalogue | None, Version | None]:
    """As `read`, but (None, None) for a store without a catalogue."""
    try:
        return read(store)
    except NoIndex:
        return None, None


def commit(store: ObjectStore, first: Catalogue | None, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
    """Replaces the catalogue by what `change` makes of it, and returns that. `change` is called again if another
    process was faster. first: what to begin with where there is none. Raises what `change` raises, NoIndex without a
    catalogue and `first`, and IndexLocked if others are faster again and again."""
    writer = os.urandom(16).hex()
    for attempt in range(_ATTEMPTS):
        current, version = read_if_any(store)
        if current is not None and current.writer == writer:
            return current  # it was written, but the answer was lost
        before = current or first
        if before is None:
            raise NoIndex(f"{store.url} holds no fleet", hint=f"awareness fleet index REPOSITORY --out {store.url}")
        changed = replace(change(before), generation=before.generation + 1, writer=writer)
        data = changed.to_json()
        parse(data, store.url)  # what could not be read again is never written
        if store.replace(KEY, data, version):
            return changed
        time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))
    raise IndexLocked(f"other processes change {store.url} all the time", hint="the same command again, later")


def collected(catalogue: Catalogue, keys: Collection[str]) -> Catalogue:
    """The same after these keys, which were being collected, are gone."""
    left = {key: at for key, at in catalogue.collecting.items() if key not in keys}
    gone = {key: at for key, at in catalogue.collecting.items() if key in keys}
    return replace(catalogue, collecting=left, collected={**catalogue.collected, **gone})


def parse(data: bytes, url: str) -> Catalogue:
    """The catalogue with every field checked. Raises IndexCorrupt, and UsageError for a format of another version."""
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        value: dict[str, Any] = json.loads(data)
        if value.pop("format") != "awareness-fleet":
            raise ValueError("it is of another program")
        if (version := value.pop("version")) != FORMAT_VERSION:
            raise UsageError(
                f"{url} has format version {version!r:.20}, this program reads {FORMAT_VERSION}",
                hint="install the version of awareness that wrote it, or index into another store",
            )
        repositories = {_name(name): _entry(entry) for name, entry in value.pop("repositories").items()}
        routing = tuple(
            RoutingObject(_digest(shard["object"]), tuple(map(_digest, shard["objects"])))
            for shard in value.pop("routing")
        )
        collecting, collected = (
            {_key(key): _time(at) for key, at in value.pop(name).items()} for name in ("collecting", "collected")
        )
        listings = tuple(map(_digest, value.pop("listings")))
        scope, include = (tuple(map(_text, value.pop(name))) for name in ("scope", "include"))
        texts = {name: _text(value.pop(name)) for name in ("model", "fingerprint", "writer")}
        spec = MemorySpec.from_json(value.pop("spec"))
        generation = _number(value.pop("generation"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error) if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError) else ""
        said = f": {printable(reason[:100])}" if reason else ""
        hint = "restore it from a backup of the store"
        raise IndexCorrupt(f"the catalogue of {url} is damaged{said}", hint=hint) from None
    return Catalogue(
        spec=spec,
        scope=scope,
        include=include,
        repositories=repositories,
        routing=routing,
        listings=listings,
        collecting=collecting,
        collected=collected,
        generation=generation,
        **texts,
    )


def _entry(value: dict[str, Any]) -> Entry:
    rev = value["rev"]
    if rev is not None and not (isinstance(rev, str) and _REV.fullmatch(rev)):
        raise ValueError("a commit is not a hash")
    numbers = {name: _number(value[name]) for name in ("files", "chunks", "tokens", "text_bytes")}
    return Entry(
        source=_text(value["source"]),
        rev=rev,
        state=_text(value["state"]),
        chunking=_text(value["chunking"]),
        object=_digest(value["object"]),
        indexed=_time(value["indexed"]),
        **numbers,
    )


def _name(value: Any) -> str:
    if not _text(value) or len(value) > MOST_NAME:
        raise ValueError("a repository has no name")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a text has control characters")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("an object is not named by a digest")
    return value


def _key(value: Any) -> str:
    kind, _, name = _text(value).partition("/")
    if kind not in KINDS:
        raise ValueError("an object is of an unknown kind")
    _digest(name)
    return str(value)


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1 << 40:
        raise ValueError("a time is none")
    return float(value)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("a number is none")
    return value
