"""What the store no longer needs: finding it, and giving its room back while readers go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from awareness.index.store.latent_table import LatentName, Shard
from awareness.index.store.layout import IndexLayout
from awareness.index.store.shards import SHARD_BYTES, LatentPlace, read_places, shard_name
from awareness.index.store.store import Store
from awareness.types import SINK, Latent, MemorySpec, Progress, silent

GARBAGE_SHARE = 0.25  # of a shard's bytes, from where on it is rewritten
SMALL_SHARD = SHARD_BYTES // 4


@dataclass(frozen=True)
class Collected:
    """What `collect_garbage` freed, or would free: then bytes is without the manifest, and without new headers."""

    latents: int
    orphans: int
    shards_rewritten: int
    bytes: int


def collect_garbage(
    store: Store, *, quant: str, drop: Sequence[str] = (), dry_run: bool = False, progress: Progress = silent
) -> Collected:
    """Frees what nothing needs: snapshots named in `drop`, latents that no snapshot shows or that are stored in another
    way than `quant`, room inside shards, files that no row names. Small shards become large ones.

    Call inside `writing(store.layout)`. Readers go on: what they are at is moved before it is deleted.
    """
    before = _disk_bytes(store.layout)
    with store.trial() if dry_run else contextlib.nullcontext():
        for name in drop:
            store.drop_snapshot(name)
        otherwise = store.latents.stored_otherwise(quant)
        if otherwise:
            store.latents.forget_encoded()  # they may be shown, and `encode_pending` has to make them again
        garbage = store.latents.unshown() | otherwise
        groups = list(_worth_rewriting(store, garbage))
        orphans = store.latents.orphans()
        rewritten = sum(map(len, groups))
        if dry_run:
            kept = sum(place.length for group in groups for _, places in group for place in places.values())
            freed = sum(shard.bytes for group in groups for shard, _ in group) - kept
            return Collected(len(garbage), len(orphans), rewritten, freed + sum(p.lstat().st_size for p in orphans))
    for done, group in enumerate(groups):
        progress("rewriting shards", done, len(groups))
        rewrite(store, group)
    store.latents.drop(garbage)
    store.latents.sweep()
    store.compact()
    freed = max(0, before - _disk_bytes(store.layout))  # the manifest may have grown by a page
    return Collected(len(garbage), len(orphans), rewritten, freed)


_Kept = tuple[Shard, dict[LatentName, LatentPlace]]
"""A shard, and those of its latents that are needed."""


def _worth_rewriting(store: Store, garbage: set[LatentName]) -> Iterator[list[_Kept]]:
    """Groups of shards of one spec, each to be one new shard, or none if nothing of them is needed.

    The sink stays apart: a shard that it is in never makes room for others (`Latents.make_room`).
    """
    open_groups: dict[tuple[str, bool, bool], list[_Kept]] = {}
    for shard in store.latents.shards():
        places = store.latents.of_shard(shard)
        kept = {name: place for name, place in places.items() if name not in garbage}
        size = sum(place.length for place in kept.values())
        if not kept:
            yield [(shard, kept)]
            continue
        if shard.bytes >= SMALL_SHARD and size > (1 - GARBAGE_SHARE) * shard.bytes:
            continue
        key = (next(spec for spec, _ in kept), shard.eager, any(chunk == SINK for _, chunk in kept))
        group = open_groups.setdefault(key, [])
        if group and sum(p.length for _, places in group for p in places.values()) + size > SHARD_BYTES:
            yield open_groups.pop(key)
            group = open_groups.setdefault(key, [])
        group.append((shard, kept))
    for group in open_groups.values():
        shard, kept = group[0]
        if len(group) > 1 or len(kept) < len(store.latents.of_shard(shard)):  # a small one alone stays as it is
            yield group


def rewrite(store: Store, group: Sequence[_Kept]) -> None:
    """Puts what is kept of some shards of one spec into a new one; only then the old ones are deleted.

    Where all of a single shard is kept, because only its header or its size is wrong, the new one has the old name.
    """
    latents: dict[str, Latent] = {}
    written = ""
    for _, kept in group:
        latents |= dict(zip((chunk for _, chunk in kept), read_places(list(kept.values())), strict=True))
    if latents:
        spec = MemorySpec.from_json(next(spec for _, kept in group for spec, _ in kept))
        eager, used = any(shard.eager for shard, _ in group), max(shard.used for shard, _ in group)
        store.latents.write(spec, latents, eager=eager, used=used)
        written = shard_name(spec, {chunk: place.checksum for _, kept in group for (_, chunk), place in kept.items()})
    store.latents.drop_shards([shard.id for shard, _ in group if shard.name != written])


def _disk_bytes(layout: IndexLayout) -> int:
    return sum(path.lstat().st_size for path in layout.root.rglob("*") if path.is_file())
