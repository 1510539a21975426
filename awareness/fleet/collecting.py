"""Deletes what a fleet's catalogue no longer needs: `awareness fleet gc`.

catalogue.py says why a run at the same time loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from awareness.errors import IndexLocked, UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import KINDS, OBJECT, Catalogue
from awareness.fleet.latent_ledger import READERS
from awareness.fleet.object_store import ObjectStore, StoredObject
from awareness.fleet.repository_object import SHARDS, read_shards
from awareness.types import Progress, printable, silent

YOUNG_S = 86_400.0
"""Objects of the last day are kept: a run may be about to name them."""
REMEMBERED_S = 30 * 86_400.0
"""How long the catalogue remembers what was deleted."""
_TAKEN_OVER_S = 3600.0
_LONGEST_S = 1800.0  # of one collection: another one may take over what is left after twice that
_AT_ONCE = 500


@dataclass(frozen=True)
class Collected:
    """What was deleted, or would be. forgotten: repositories."""

    objects: int
    bytes: int
    forgotten: tuple[str, ...]
    kept_young: int


def collect(
    store: ObjectStore,
    *,
    forget: Sequence[str] = (),
    young_s: float = YOUNG_S,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Collected:
    """forget: names of repositories that leave the catalogue first. young_s: objects that were written within so many
    seconds are kept. Raises UsageError for an unknown name, IndexLocked if another process collects, IndexCorrupt."""
    before, _ = catalogues.read(store)
    for name in forget:
        if name not in before.repositories:
            hint = f"awareness fleet status {store.url} --repositories"
            raise UsageError(f"{store.url} has no repository '{printable(name)}'", hint=hint)
    if forget and not dry_run:
        catalogues.commit(store, None, lambda old: _without(old, forget))
    chosen: list[StoredObject] = []
    shards: dict[str, tuple[str, ...]] = {}
    young = 0

    def choose(old: Catalogue) -> Catalogue:
        nonlocal chosen, young
        now = time.time()
        if any(now - at < _TAKEN_OVER_S for at in old.collecting.values()):
            raise IndexLocked(f"another process collects {store.url}", hint="the same command again, in an hour")
        needed = _needed(store, _without(old, forget) if dry_run else old, shards, progress)
        oldest = datetime.now(timezone.utc) - timedelta(seconds=young_s)
        there = [one for kind in KINDS for one in store.list(kind) if OBJECT.fullmatch(one.key)]
        unneeded = [one for one in there if one.key not in needed]
        chosen = [one for one in unneeded if one.modified <= oldest or one.key in old.collecting]
        young = len(unneeded) - len(chosen)
        collecting = {one.key: now for one in chosen}
        gone = {**old.collected, **old.collecting}  # of a collection that was killed some are gone, and some are not
        collected = {key: at for key, at in gone.items() if now - at < REMEMBERED_S and key not in collecting}
        return replace(old, collecting=collecting, collected=collected)

    if dry_run:
        choose(before)
    else:
        started = time.monotonic()
        catalogues.commit(store, None, choose)
        for at in range(0, len(chosen), _AT_ONCE):
            if time.monotonic() - started > _LONGEST_S:
                raise IndexLocked(f"{store.url} deletes too slowly", hint="the same command again, in an hour")
            progress("deleting", at, len(chosen))
            store.delete([one.key for one in chosen[at : at + _AT_ONCE]])
        if chosen:
            keys = {one.key for one in chosen}
            catalogues.commit(store, None, lambda old: catalogues.collected(old, keys))
    return Collected(len(chosen), sum(one.bytes for one in chosen), tuple(forget), young)


def _needed(
    store: ObjectStore, catalogue: Catalogue, shards: dict[str, tuple[str, ...]], progress: Progress
) -> set[str]:
    """The keys of all objects that the catalogue names, and of the shards that those name. shards: of repository
    objects, as far as they are known from the call before."""
    needed = catalogue.keys
    new = [entry for entry in catalogue.repositories.values() if entry.object not in shards]
    with ThreadPoolExecutor(READERS) as pool:
        for done, (entry, names) in enumerate(zip(new, pool.map(lambda e: read_shards(store, e), new), strict=True)):
            progress("reading repositories", done, len(new))
            shards[entry.object] = names
    for entry in catalogue.repositories.values():
        needed |= {SHARDS + name for name in shards[entry.object]}
    return needed


def _without(catalogue: Catalogue, names: Sequence[str]) -> Catalogue:
    kept = {name: entry for name, entry in catalogue.repositories.items() if name not in names}
    return replace(catalogue, repositories=kept)
