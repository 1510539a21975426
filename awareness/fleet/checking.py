"""Compares what a fleet's store holds with its digests and checksums: `awareness fleet check`."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from awareness.errors import IndexCorrupt
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import Catalogue, Entry, collected
from awareness.fleet.latent_ledger import READERS
from awareness.fleet.object_store import NoSuchObject, ObjectStore
from awareness.fleet.repository_object import SHARDS, Place, read
from awareness.fleet.repository_object import read_shards as read_shards_of
from awareness.index.store.tensorfile import Malformed, checksum_of
from awareness.types import Progress, digest, silent

SAMPLE = 256
"""Latents that are read unless all are."""


@dataclass(frozen=True)
class Problem:
    """kind: `repositories`, `routing` or `shards`. where: the name of a repository, or the key of another object."""

    kind: str
    where: str
    why: str


@dataclass
class FleetHealth:
    """What was looked at, and what is wrong."""

    repositories: int = 0
    chunks: int = 0
    latents: int = 0
    latents_read: int = 0
    bytes_read: int = 0
    problems: list[Problem] = field(default_factory=list)


def check(
    store: ObjectStore, *, sample: int | None = SAMPLE, seed: int = 0, progress: Progress = silent
) -> FleetHealth:
    """Reads every repository and routing object, and the latents of a sample of chunks, or of all (None). Raises
    NoIndex, IndexCorrupt for a catalogue that cannot be read, and StorageFailed."""
    catalogue, _ = catalogues.read(store)
    found = FleetHealth(repositories=len(catalogue.repositories), chunks=catalogue.chunks)
    places: set[Place] = set()
    entries = list(catalogue.repositories.items())
    with ThreadPoolExecutor(READERS) as pool:
        checked = pool.map(lambda item: _check_repository(store, item[1]), entries)
        for done, ((name, _), (of_it, why)) in enumerate(zip(entries, checked, strict=True)):
            progress("reading repositories", done, len(entries))
            places.update(of_it.values())
            if why:
                found.problems.append(Problem("repositories", name, why))
        for shard in catalogue.routing:
            if why := _check_named(store, shard.key):
                found.problems.append(Problem("routing", shard.key, why))
        found.latents = len(places)
        chosen = sorted(places)
        if sample is not None and sample < len(chosen):
            chosen = random.Random(seed).sample(chosen, sample)
        by_shard: dict[str, list[Place]] = defaultdict(list)
        for place in chosen:
            by_shard[place.key].append(place)
        read_shards = pool.map(lambda item: _check_latents(store, *item), by_shard.items())
        for done, (key, why) in enumerate(zip(by_shard, read_shards, strict=True)):
            progress("reading latents", done, len(by_shard))
            if why:
                found.problems.append(Problem("shards", key, why))
            found.latents_read += len(by_shard[key])
            found.bytes_read += sum(place.length for place in by_shard[key])
    return found


def make_way(store: ObjectStore, problems: Sequence[Problem], progress: Progress = silent) -> set[str]:
    """Deletes damaged objects, which are named by what they should hold and so could not be written again, and returns
    the repositories that have to be indexed anew."""
    catalogue, _ = catalogues.read(store)
    affected = {problem.where for problem in problems if problem.kind == "repositories"}
    shards = {problem.where for problem in problems if problem.kind == "shards"}
    routing = {problem.where for problem in problems if problem.kind == "routing"}
    described = {name for shard in catalogue.routing if shard.key in routing for name in shard.objects}
    affected |= {name for name, entry in catalogue.repositories.items() if entry.object in described}
    entries = {name: entry for name, entry in catalogue.repositories.items() if name not in affected}
    with ThreadPoolExecutor(READERS) as pool:
        used = pool.map(lambda entry: read_shards_of(store, entry), entries.values())
        for done, (name, names) in enumerate(zip(entries, used, strict=True)):
            progress("reading repositories", done, len(entries))
            if not shards.isdisjoint(SHARDS + shard for shard in names):
                affected.add(name)
    known = catalogue.repositories
    broken = {known[p.where].key for p in problems if p.kind == "repositories" and p.where in known}
    keys = shards | routing | broken

    def mark(old: Catalogue) -> Catalogue:
        """As `gc` does it, so that a run at the same time does not name what is deleted."""
        kept = tuple(shard for shard in old.routing if shard.key not in routing)
        return replace(old, routing=kept, collecting={**old.collecting, **dict.fromkeys(keys, time.time())})

    catalogues.commit(store, None, mark)
    store.delete(sorted(keys))
    catalogues.commit(store, None, lambda old: collected(old, keys))
    return affected


def _check_repository(store: ObjectStore, entry: Entry) -> tuple[dict[str, Place], str]:
    """The places of its latents, and what is wrong with it or empty."""
    try:
        repository = read(store, entry)
        for _ in repository.files():
            pass
        return repository.places, ""
    except NoSuchObject:
        return {}, "its object is missing"
    except IndexCorrupt as error:
        return {}, error.message.rpartition("damaged: ")[2]
    except Malformed as error:
        return {}, str(error)


def _check_named(store: ObjectStore, key: str) -> str:
    try:
        data, _ = store.read(key)
    except NoSuchObject:
        return "it is missing"
    return "" if digest(data) == key.rpartition("/")[2] else "its digest is another one"


def _check_latents(store: ObjectStore, key: str, places: list[Place]) -> str:
    try:
        read = store.read_ranges(key, [(place.offset, place.length) for place in places])
    except NoSuchObject:
        return "it is missing"
    wrong = sum(checksum_of(data) != place.checksum for data, place in zip(read, places, strict=True))
    return f"{wrong} of {len(places)} latents are damaged" if wrong else ""
