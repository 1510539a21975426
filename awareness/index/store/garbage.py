"""Find what a store no longer needs, and free its space while readers go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from awareness.index.store.latent_table import LatentName, Shard
from awareness.index.store.layout import IndexLayout
from awareness.index.store.shards import SHARD_BYTES, LatentPlace, read_places, shard_name
from awareness.index.store.store import Store
from awareness.types import SINK, MemorySpec, Progress, silent

GARBAGE_SHARE = 0.25  # of a shard's bytes; a shard with more garbage is rewritten
SMALL_SHARD = SHARD_BYTES // 4


@dataclass(frozen=True)
class Collected:
    """What `collect_garbage` freed. In a dry run, bytes leaves out the manifest and the headers of new shards."""

    latents: int
    orphans: int
    shards_rewritten: int
    bytes: int


def collect_garbage(
    store: Store, *, quant: str, drop: Sequence[str] = (), dry_run: bool = False, progress: Progress = silent
) -> Collected:
    """Deletes the snapshots in `drop`, latents that are in no snapshot or not stored as `quant`, and orphaned files.

    Merges small shards. Call inside `writing(store.layout)`. Readers go on: latents are moved before they are deleted.
    """
    before = _disk_bytes(store.layout)
    with store.reading() if dry_run else contextlib.nullcontext():
        for name in drop:
            store.drop_snapshot(name)
        otherwise = store.latents.stored_otherwise(quant)
        if otherwise:
            store.latents.forget_encoded()  # `encode_pending` may have to encode their chunks again
        garbage = store.latents.unshown() | otherwise
        groups = list(_shards_to_rewrite(store, garbage))
        orphans = store.latents.orphans()
        rewritten = sum(map(len, groups))
        if dry_run:
            freed = sum(shard.bytes - _size(kept) for group in groups for shard, kept in group)
            return Collected(len(garbage), len(orphans), rewritten, freed + sum(p.lstat().st_size for p in orphans))
    for done, group in enumerate(groups):
        progress("rewriting shards", done, len(groups))
        rewrite(store, group)
    store.latents.drop(garbage)
    store.latents.sweep()
    store.compact()
    freed = max(0, before - _disk_bytes(store.layout))  # the manifest may have grown by a page
    return Collected(len(garbage), len(orphans), rewritten, freed)


Places = dict[LatentName, LatentPlace]


def _size(places: Places) -> int:
    return sum(place.length for place in places.values())


def _shards_to_rewrite(store: Store, garbage: set[LatentName]) -> Iterator[list[tuple[Shard, Places]]]:
    """Groups of shards of one spec, with the latents to keep; each group becomes at most one new shard.

    A shard with the sink is not merged with others, as it is never dropped (`Latents.make_room`).
    """
    open_groups: dict[tuple[str, bool, bool], list[tuple[Shard, Places]]] = {}
    for shard in store.latents.shards():
        kept = {name: place for name, place in store.latents.of_shard(shard).items() if name not in garbage}
        if not kept:
            yield [(shard, kept)]
            continue
        if shard.bytes >= SMALL_SHARD and _size(kept) > (1 - GARBAGE_SHARE) * shard.bytes:
            continue
        key = (next(spec for spec, _ in kept), shard.eager, any(chunk == SINK for _, chunk in kept))
        group = open_groups.setdefault(key, [])
        if group and sum(_size(places) for _, places in group) + _size(kept) > SHARD_BYTES:
            yield open_groups.pop(key)
            group = open_groups.setdefault(key, [])
        group.append((shard, kept))
    for group in open_groups.values():
        shard, kept = group[0]
        if len(group) > 1 or len(kept) < len(
            store.latents.of_shard(shard)
        ):  # a single small shard without garbage stays
            yield group


def rewrite(store: Store, group: Sequence[tuple[Shard, Places]]) -> None:
    """Copies the latents to keep, all of one spec, into a new shard, then deletes the old shards.

    If all latents of a single shard are kept, because only its header or size is damaged, the new one has the old name.
    """
    places: Places = {}
    for _, kept in group:
        places |= kept
    new_name = ""
    if places:
        spec = MemorySpec.from_json(next(iter(places)).spec)
        latents = dict(zip((name.chunk for name in places), read_places(list(places.values())), strict=True))
        eager, used = any(shard.eager for shard, _ in group), max(shard.used for shard, _ in group)
        store.latents.write(spec, latents, eager=eager, used=used)
        new_name = shard_name(spec, {name.chunk: place.checksum for name, place in places.items()})
    store.latents.drop_shards([shard.id for shard, _ in group if shard.name != new_name])


def _disk_bytes(layout: IndexLayout) -> int:
    return sum(path.lstat().st_size for path in layout.root.rglob("*") if path.is_file())
