"""The repositories of a fleet as sources (`data.sources: [s3://bucket/code]`): their chunks and their latents.

Chunks are those that the fleet was cut into, so their latents are there and no model has to make them: they are read by
ranges as samples need them, as questions read them, quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from awareness.errors import IndexCorrupt, UsageError
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import Entry
from awareness.fleet.object_store import ObjectStore, is_store, open_store
from awareness.fleet.repository_object import Place, damaged, read
from awareness.index.store.tensorfile import Malformed, checksum_of
from awareness.model.quantisation import to_tensor
from awareness.types import Buffer, Chunk, Latent, MemorySpec, digest

__all__ = ["FleetLatents", "FleetPlace", "is_store", "read_chunks", "repositories_of"]


@dataclass(frozen=True)
class FleetPlace:
    """A repository of the fleet at `url`."""

    url: str
    name: str
    entry: Entry


def repositories_of(url: str) -> list[FleetPlace]:
    """All of them, by name. Raises NoIndex, StorageFailed, UsageError."""
    known, _ = catalogues.read(open_store(url))
    if not known.repositories:
        raise UsageError(
            f"data.sources: {url} holds no repository", hint=f"awareness fleet index REPOSITORY --out {url}"
        )
    return [FleetPlace(url, name, entry) for name, entry in sorted(known.repositories.items())]


def read_chunks(place: FleetPlace) -> list[tuple[Chunk, int]]:
    """All chunks of a repository with their tokens, by path and line. Raises IndexCorrupt, StorageFailed."""
    repository = read(open_store(place.url), place.entry)
    try:
        return [sized for file in repository.files() for sized in file.chunks or ()]
    except Malformed as error:
        raise damaged(place.entry, place.url, str(error)) from error


class FleetLatents:
    """The latents of the chunks of some fleets, for a model that makes latents by `spec`."""

    def __init__(self, places: Sequence[FleetPlace], spec: MemorySpec) -> None:
        self._spec = spec.raw
        self._stores: dict[str, tuple[ObjectStore, MemorySpec]] = {}
        self._places: dict[str, tuple[str, Place]] = {}
        for place in places:
            if place.url not in self._stores:
                store = open_store(place.url)
                self._stores[place.url] = store, catalogues.read(store)[0].spec
            store, own = self._stores[place.url]
            if own.raw == self._spec:
                self._places |= {name: (place.url, at) for name, at in read(store, place.entry).places.items()}

    def __len__(self) -> int:
        return len(self._places)

    def get(self, text: str) -> Tensor | None:
        """[2, layers, H_kv, T, D] of a chunk's encoded text, None if no fleet has it. Raises IndexCorrupt for one that
        is damaged, StorageFailed."""
        found = self._places.get(digest(text))
        if found is None:
            return None
        url, place = found
        store, spec = self._stores[url]
        data: Buffer = b""
        if place.length == spec.latent_bytes(place.tokens):
            (data,) = store.read_ranges(place.key, [(place.offset, place.length)])
        if checksum_of(data) != place.checksum:
            hint = f"awareness fleet refresh {url} --repair"
            raise IndexCorrupt(f"{url}: a latent in {place.key} is damaged", hint=hint)
        return to_tensor(Latent(place.tokens, bytearray(data)), spec)
