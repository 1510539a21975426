"""Damage of the store: finding it, and mending it without encoding anything that is still sound.

Nothing here trusts what it reads: the manifest's pages carry checksums, a shard's header is compared with the manifest,
every latent and every chunk with its digest. Repairing never throws away a latent that is sound: a shard says by itself
which chunk each latent belongs to, so that even a lost manifest costs no encoding, only cutting the files again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import apsw

from awareness.errors import IndexCorrupt, NoIndex
from awareness.index.search.routing_index import SHIPPED_ROUTER
from awareness.index.store import manifest
from awareness.index.store.garbage import rewrite
from awareness.index.store.latent_table import LatentName, Shard
from awareness.index.store.layout import IndexLayout
from awareness.index.store.shards import LatentPlace, read_content, read_places
from awareness.index.store.store import Snapshot, Store
from awareness.index.store.tensorfile import Malformed
from awareness.types import MemorySpec, Progress, silent


@dataclass(frozen=True)
class Problem:
    """Damage. kind: `manifest`, `shard`, `latent` or `chunk`. where: which one."""

    kind: str
    where: str
    detail: str


@dataclass
class Report:
    """What `check` looked at, and what it found. orphans: files that no row names; no damage, `gc` deletes them."""

    files: int = 0
    chunks: int = 0
    latents: int = 0
    shards: int = 0
    bytes: int = 0
    orphans: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Damage:
    """What is wrong with the shards: which of them are not as they were written, and the latents that are lost."""

    shards: list[Shard]
    latents: list[LatentName]


def check(layout: IndexLayout, *, read_data: bool, progress: Progress = silent) -> Report:
    """Looks at all but the latents' bytes, and with `read_data` at those too. Changes nothing. Raises NoIndex."""
    report = Report()
    try:
        with Store.open(layout) as store:
            with store.reading():
                report.problems += _manifest_problems(store, read_data)
                if report.problems:
                    return report
                report.files, report.chunks, report.latents = (
                    store.count(f"SELECT count(*) FROM {table}") for table in ("file", "chunk", "latent")
                )
                for stored in store.all_chunks() if read_data else ():
                    if stored.chunk.digest != stored.digest:
                        report.problems.append(Problem("chunk", stored.chunk.place, "its text is not what was indexed"))
                shards = store.latents.shards()
            report.shards, report.bytes = len(shards), sum(shard.bytes for shard in shards)
            for done, shard in enumerate(shards):
                progress("checking shards", done, len(shards))
                report.problems += _problems_that_stay(store, shard, read_data)
            report.orphans = len(store.latents.orphans())
    except IndexCorrupt as error:
        report.problems.append(Problem("manifest", str(layout.manifest), error.message))
    return report


def _manifest_problems(store: Store, whole: bool) -> list[Problem]:
    """What SQLite finds, in the tables and in the routing index, with every page that it reads checked."""
    pragma = "integrity_check" if whole else "quick_check"
    said = [text for (text,) in store.rows(f"PRAGMA {pragma}(20)") if text != "ok"]
    said += [f"{table} {row} refers to nothing" for table, row, *_ in store.rows("PRAGMA foreign_key_check")]
    chunks, found = store.count("SELECT count(*) FROM chunk"), store.routing.postings.count()
    if chunks != found:
        said.append(f"{chunks} chunks, but {found} of them can be found")
    if store.count("SELECT count(DISTINCT length(data)) FROM vector") > 1:
        said.append("vectors of different lengths")
    return [Problem("manifest", str(store.layout.manifest), text) for text in said]


def _problems_that_stay(store: Store, shard: Shard, read_data: bool) -> list[Problem]:
    """Of a shard that is still there: a writer may have moved its latents and deleted it meanwhile."""
    while found := list(_shard_problems(store, shard, read_data)):
        now = next((other for other in store.latents.shards() if other.name == shard.name), None)
        if now is None:
            return []
        if now == shard:
            return found
        shard = now
    return []


def _shard_problems(store: Store, shard: Shard, read_data: bool) -> Iterator[Problem]:
    places = store.latents.of_shard(shard)
    if wrong := _wrong_with(shard, places):
        yield Problem("shard", str(shard.path), wrong)
    elif read_data:
        for spec, name in _unreadable(places):
            yield Problem("latent", str(shard.path), f"the latent of chunk {name[:16]} ({_quant(spec)}) is damaged")


def _quant(spec: str) -> str:
    return f"quant {MemorySpec.from_json(spec).quant}"


def _wrong_with(shard: Shard, places: dict[LatentName, LatentPlace]) -> str | None:
    """What is wrong with the file or its header, or None."""
    try:
        status = os.lstat(shard.path)
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if status.st_size != shard.bytes:
            return f"has {status.st_size} bytes, not {shard.bytes}"
        content = read_content(shard.path)
    except OSError as error:
        return error.strerror or str(error)
    except Malformed as error:
        return str(error)
    if content.header_checksum != shard.header:
        return "its header is damaged"
    spec = content.spec.to_json()
    for (own, name), place in places.items():
        if own != spec or content.latents.get(name) != (place.offset, place.length, place.tokens, place.checksum):
            return "it does not hold what the manifest says"
    return None


def _unreadable(places: dict[LatentName, LatentPlace]) -> Iterator[LatentName]:
    """Those whose bytes are not what was written."""
    for name, place in places.items():
        try:
            read_places([place])
        except IndexCorrupt:
            yield name


def is_sound(layout: IndexLayout) -> bool:
    """Whether there is a manifest that can be used at all."""
    try:
        with Store.open(layout) as store:
            return not _manifest_problems(store, whole=True)
    except (IndexCorrupt, NoIndex):
        return False


def remake_manifest(layout: IndexLayout) -> list[Snapshot]:
    """Makes a new manifest in place of one that is damaged or gone, and takes up every shard that says what it is.

    Returns the snapshots that the old one still told of; they have to be refreshed. Call inside `writing(layout)`.
    """
    known: list[Snapshot] = []
    settings: dict[str, str | None] = {}
    router = SHIPPED_ROUTER
    with contextlib.suppress(IndexCorrupt, NoIndex), Store.open(layout) as store:
        settings["quant"] = store.setting("quant")
        router = store.routing.router
        known = store.snapshots()

    def fill(connection: apsw.Connection) -> None:
        store = Store(layout, connection)
        for name, value in settings.items():
            if value:
                store.remember(name, value)
        if router != SHIPPED_ROUTER:
            store.routing.choose(router)
        store.latents.take_up()
        ways = {spec.quant for spec in store.latents.specs_of_chunks()}
        if "quant" not in settings and len(ways) == 1:  # so that the next `index` finds them again
            store.remember("quant", ways.pop())

    manifest.create(layout, fill)
    return known


def find_damage(store: Store, *, progress: Progress = silent) -> Damage:
    """Reads every shard whole."""
    shards: list[Shard] = []
    latents: list[LatentName] = []
    everything = store.latents.shards()
    for done, shard in enumerate(everything):
        progress("reading shards", done, len(everything))
        places = store.latents.of_shard(shard)
        lost = list(_unreadable(_within(shard, places)))
        if lost or _wrong_with(shard, places):
            shards.append(shard)
            latents += lost
    return Damage(shards, latents)


def _within(shard: Shard, places: dict[LatentName, LatentPlace]) -> dict[LatentName, LatentPlace]:
    """The places, as if the file should have the size that it has: what lies before a cut can still be sound."""
    try:
        size = os.stat(shard.path).st_size
    except OSError:
        return places
    return {name: LatentPlace(p.path, size, p.offset, p.length, p.tokens, p.checksum) for name, p in places.items()}


def drop_damage(store: Store, damage: Damage) -> None:
    """Moves what is sound in the damaged shards into new ones, and forgets the rest. Call inside `writing(layout)`."""
    lost = set(damage.latents)
    if lost:
        store.latents.forget_encoded()  # first: who is killed in between has lost nothing
    for shard in damage.shards:
        places = _within(shard, store.latents.of_shard(shard))
        rewrite(store, [(shard, {name: p for name, p in places.items() if name not in lost})])
