"""Encodes batches of chunks of any repositories and writes their latents to the store: what an actor of a run does.

A batch becomes one shard, which is in the store before the batch counts as done. A worker that dies is started again
by Ray and gets its batch again; nothing else is encoded twice.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.models import load_model, pull_known
from awareness.errors import storage_errors
from awareness.fleet.object_store import ObjectStore
from awareness.fleet.repository_object import SHARDS, Place
from awareness.index.store.shards import ShardContent, write_shard
from awareness.types import MemorySpec


@dataclass(frozen=True)
class Shard:
    """A shard in the store. places: chunk digest -> where its latent is. bytes: written. seconds: of the model."""

    name: str
    places: dict[str, Place]
    tokens: int
    bytes: int
    seconds: float


class EncodingWorker:
    """A model that encodes. One batch is encoded while the one before it is written."""

    def __init__(self, store: ObjectStore, model: str, quant: str, threads: int | None) -> None:
        """threads: of the CPU, None for all that are idle."""
        import torch

        self._store = store
        self._model = threading.Lock()
        loaded = load_model(pull_known(model), quant)
        if threads is not None:
            torch.set_num_threads(threads)
        self._encoder = loaded.encoder.for_many()

    def spec(self) -> MemorySpec:
        """Of the latents that it makes."""
        return self._encoder.spec

    def encode(self, texts: Mapping[str, str]) -> Shard:
        """texts: chunk digest -> what the model reads. May be called from several threads. Raises StorageFailed."""
        with self._model:
            started = time.perf_counter()
            latents = dict(zip(texts, self._encoder.encode(list(texts.values())), strict=True))
            seconds = time.perf_counter() - started
        temporary = Path(tempfile.gettempdir())
        with storage_errors(temporary), tempfile.TemporaryDirectory(prefix="awareness-shard-") as folder:
            ordered = dict(sorted(latents.items()))  # the same latents make the same bytes, as they have one name
            name, content = write_shard(Path(folder), self._encoder.spec, ordered)
            data = (Path(folder) / f"{name}.safetensors").read_bytes()
        if not self._store.create(SHARDS + name, data) and self._store.read(SHARDS + name)[0] != data:
            self._store.delete([SHARDS + name])  # it is damaged
            self._store.create(SHARDS + name, data)
        return Shard(name, places_in(name, content), sum(x.tokens for x in latents.values()), len(data), seconds)


def places_in(name: str, content: ShardContent) -> dict[str, Place]:
    """chunk digest -> where its latent is in the shard of this name."""
    return {key: Place(name, *place) for key, place in content.latents.items()}
