"""Find damage of a store, and repair it without encoding anything that is still sound.

Nothing that is read is trusted: the pages of the manifest carry checksums, the header of a shard is compared with the
manifest, and every latent and chunk with its digest. A repair never drops a sound latent: a shard names the chunk of
each of its latents, so even a lost manifest costs no encoding, only cutting the files again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

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
    """One damage. kind: `manifest`, `shard`, `latent` or `chunk`. where: which one."""

    kind: str
    where: str
    detail: str


@dataclass
class Report:
    """The result of `check`: what it counted, and the damage. orphans: files without a row, which `gc` deletes."""

    files: int = 0
    chunks: int = 0
    latents: int = 0
    shards: int = 0
    bytes: int = 0
    orphans: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Damage:
    """shards: those that are not as they were written. latents: those that are lost."""

    shards: list[Shard]
    latents: list[LatentName]


def check(layout: IndexLayout, *, read_data: bool, progress: Progress = silent) -> Report:
    """Checks everything but the bytes of the latents, with `read_data` also those. Changes nothing. Raises NoIndex."""
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
                        report.problems.append(Problem("chunk", stored.chunk.place, "its text has changed"))
                shards = store.latents.shards()
            report.shards, report.bytes = len(shards), sum(shard.bytes for shard in shards)
            for done, shard in enumerate(shards):
                progress("checking shards", done, len(shards))
                report.problems += _lasting_problems(store, shard, read_data)
            report.orphans = len(store.latents.orphans())
    except IndexCorrupt as error:
        report.problems.append(Problem("manifest", str(layout.manifest), error.message))
    return report


def _manifest_problems(store: Store, whole: bool) -> list[Problem]:
    """Damage of the tables and the routing index. whole: read every page, not only some."""
    pragma = "integrity_check" if whole else "quick_check"
    details = [text for (text,) in store.rows(f"PRAGMA {pragma}(20)") if text != "ok"]
    details += [f"{table} {row} refers to a missing row" for table, row, *_ in store.rows("PRAGMA foreign_key_check")]
    chunks, searchable = store.count("SELECT count(*) FROM chunk"), store.routing.postings.count()
    if chunks != searchable:
        details.append(f"{chunks} chunks, but {searchable} of them in the search index")
    if store.count("SELECT count(DISTINCT length(data)) FROM vector") > 1:
        details.append("vectors of different lengths")
    return [Problem("manifest", str(store.layout.manifest), text) for text in details]


def _lasting_problems(store: Store, shard: Shard, read_data: bool) -> list[Problem]:
    """Damage of a shard, unless a writer has deleted it meanwhile, after moving its latents."""
    while problems := list(_shard_problems(store, shard, read_data)):
        current = next((other for other in store.latents.shards() if other.name == shard.name), None)
        if current is None:
            return []
        if current == shard:
            return problems
        shard = current
    return []


def _shard_problems(store: Store, shard: Shard, read_data: bool) -> Iterator[Problem]:
    places = store.latents.of_shard(shard)
    if detail := _file_problem(shard, places):
        yield Problem("shard", str(shard.path), detail)
    elif read_data:
        for spec, name in _unreadable(places):
            quant = MemorySpec.from_json(spec).quant
            yield Problem("latent", str(shard.path), f"the latent of chunk {name[:16]} (quant {quant}) is damaged")


def _file_problem(shard: Shard, places: dict[LatentName, LatentPlace]) -> str | None:
    """The damage of the file or its header, or None."""
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
    for (latent_spec, name), place in places.items():
        if latent_spec != spec or content.latents.get(name) != (
            place.offset,
            place.length,
            place.tokens,
            place.checksum,
        ):
            return "it does not match the manifest"
    return None


def _unreadable(places: dict[LatentName, LatentPlace]) -> Iterator[LatentName]:
    """The latents whose bytes are damaged or missing."""
    for name, place in places.items():
        try:
            read_places([place])
        except IndexCorrupt:
            yield name


def is_sound(layout: IndexLayout) -> bool:
    """Is there a manifest that can be used?"""
    try:
        with Store.open(layout) as store:
            return not _manifest_problems(store, whole=True)
    except (IndexCorrupt, NoIndex):
        return False


def remake_manifest(layout: IndexLayout) -> list[Snapshot]:
    """Replaces a damaged or missing manifest by a new one that holds every readable shard.

    Returns the snapshots that could be read from the old one; they have to be refreshed. Call inside `writing(layout)`.
    """
    snapshots: list[Snapshot] = []
    settings: dict[str, str | None] = {}
    router = SHIPPED_ROUTER
    with contextlib.suppress(IndexCorrupt, NoIndex), Store.open(layout) as store:
        settings["quant"] = store.setting("quant")
        router = store.routing.router
        snapshots = store.snapshots()

    def fill(connection: apsw.Connection) -> None:
        store = Store(layout, connection)
        for name, value in settings.items():
            if value:
                store.remember(name, value)
        if router != SHIPPED_ROUTER:
            store.routing.choose(router)
        store.latents.adopt_all()
        quants = {spec.quant for spec in store.latents.specs_of_chunks()}
        if "quant" not in settings and len(quants) == 1:  # so that the next `index` uses these latents
            store.remember("quant", quants.pop())

    manifest.create(layout, fill)
    return snapshots


def find_damage(store: Store, *, progress: Progress = silent) -> Damage:
    """Reads every byte of every shard."""
    shards: list[Shard] = []
    latents: list[LatentName] = []
    all_shards = store.latents.shards()
    for done, shard in enumerate(all_shards):
        progress("reading shards", done, len(all_shards))
        places = store.latents.of_shard(shard)
        lost = list(_unreadable(_within(shard, places)))
        if lost or _file_problem(shard, places):
            shards.append(shard)
            latents += lost
    return Damage(shards, latents)


def _within(shard: Shard, places: dict[LatentName, LatentPlace]) -> dict[LatentName, LatentPlace]:
    """The places with the actual size of the file: in a truncated file, the latents before the cut may be sound."""
    try:
        size = os.stat(shard.path).st_size
    except OSError:
        return places
    return {name: replace(place, file_bytes=size) for name, place in places.items()}


def drop_damage(store: Store, damage: Damage) -> None:
    """Moves the sound latents of damaged shards into new ones, and drops the rest. Call inside `writing(layout)`."""
    lost = set(damage.latents)
    if lost:
        store.latents.forget_encoded()  # first: a process killed in between has lost nothing
    for shard in damage.shards:
        places = _within(shard, store.latents.of_shard(shard))
        rewrite(store, [(shard, {name: p for name, p in places.items() if name not in lost})])
