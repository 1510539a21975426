"""Ray: this machine, or a cluster that is running; and the work that it does for a run.

Ray starts a killed worker again and repeats what it was doing. Nothing is sent anywhere else: its statistics and its
dashboard are off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from awareness.errors import StorageFailed, UsageError, reason
from awareness.fleet.cutting import Cut, Known, Lines, Rules, Texts, cut
from awareness.fleet.encoding_worker import EncodingWorker, Shard
from awareness.fleet.object_store import EXTRA, ObjectStore
from awareness.fleet.repository_object import Place, pack
from awareness.fleet.sources import Source
from awareness.index.store.chunk_table import files_of
from awareness.types import MemorySpec, digest

if TYPE_CHECKING:
    from ray import ObjectRef

CUT_ATTEMPTS = 2  # of a repository that kills its worker
BATCH_ATTEMPTS = 6  # of a batch whose worker is killed
BOTH = 2
"""Batches of a worker at once: one is encoded, one written."""


@dataclass(frozen=True)
class Workers:
    """address: of a cluster, None to start Ray here. encoders: how many, None for as many as there is room for. cpus,
    gpus: of each; a part of a GPU is a number below 1."""

    address: str | None = None
    encoders: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Written:
    """A repository object in the store."""

    object: str
    text_bytes: int
    bytes: int


class Cluster:
    """The tasks and actors of one run. Use `opened`."""

    def __init__(self, workers: Workers, store: ObjectStore, model: str, quant: str) -> None:
        import ray

        self.ray = ray
        total = ray.cluster_resources()
        self.cpus = max(1, int(total.get("CPU", 1)))
        rooms = [self.cpus / workers.cpus] + ([total.get("GPU", 0) / workers.gpus] if workers.gpus else [])
        room = int(min(rooms) + 1e-9)
        if workers.address is None and room < (workers.encoders or 1):  # it would wait for ever; a cluster may grow
            raise UsageError(
                f"no room for {workers.encoders or 1} encoders of {workers.cpus:g} CPUs and {workers.gpus:g} GPUs:"
                f" Ray has {self.cpus} CPUs and {total.get('GPU', 0):g} GPUs here",
                hint="fewer --encoders, smaller --cpus-per-encoder or --gpus-per-encoder, or --address of a cluster",
            )
        self.encoders = workers.encoders or max(1, room)
        self._store, self._model, self._quant, self._workers = store, model, quant, workers
        self._actors: list[Any] = []
        everywhere: Any = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        self._cut: Any = ray.remote(num_returns=3, max_retries=CUT_ATTEMPTS - 1, **everywhere)(cut)
        self._write = ray.remote(max_retries=3, **everywhere)(write_repository)

    def cut(
        self, source: Source, rules: Rules, known: Known | None
    ) -> tuple[ObjectRef[Cut], ObjectRef[Lines], ObjectRef[Texts]]:
        """What `cutting.cut` returns: the first is read, the others stay where they are."""
        summary, lines, texts = self._cut.remote(source, rules, known)
        return summary, lines, texts

    def write(
        self, description: tuple[str, str | None, str, str, str], places: Mapping[str, Place], lines: ObjectRef[Lines]
    ) -> ObjectRef[Written]:
        return self._write.remote(self._store, description, dict(places), lines)

    @property
    def actors(self) -> list[Any]:
        """The workers with a model, started when they are first needed."""
        if not self._actors:
            threads = None if self._workers.gpus else max(1, int(self._workers.cpus))
            options = {
                "num_cpus": self._workers.cpus,
                "num_gpus": self._workers.gpus,
                "max_restarts": -1,
                "max_task_retries": BATCH_ATTEMPTS - 1,
                "max_concurrency": BOTH,
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}} if threads else {},
            }
            remote = self.ray.remote(_Encoder).options(**options)
            self._actors = [remote.remote(self._store, self._model, self._quant, threads) for _ in range(self.encoders)]
        return self._actors

    def spec(self) -> MemorySpec:
        """Of the latents that the workers make. Waits for a model."""
        return self.get(self.actors[0].spec.remote())

    def encode(self, actor: Any, parts: Sequence[tuple[ObjectRef[Texts], Sequence[str]]]) -> ObjectRef[Shard]:
        """parts: (texts of a repository, chunk digests)."""
        return actor.encode_parts.remote([([texts], list(names)) for texts, names in parts])

    def wait(self, refs: Sequence[ObjectRef[Any]], seconds: float) -> list[ObjectRef[Any]]:
        """Those that are ready, at least one unless the time is over."""
        ready, _ = self.ray.wait(list(refs), num_returns=1, timeout=seconds)
        if ready:
            more, _ = self.ray.wait(list(refs), num_returns=len(refs), timeout=0)
            return list(more)
        return []

    def get(self, ref: ObjectRef[Any]) -> Any:
        """The result of a task. Raises what the task raised, and WorkerDied if it killed its process."""
        from ray import exceptions

        try:
            return self.ray.get(ref)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, exceptions.RayError):
                raise WorkerDied(f"its worker died: {type(error.cause).__name__}", hint=_AGAIN) from error
            raise error.cause or error from None
        except (
            exceptions.ActorDiedError,
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        ) as error:
            raise WorkerDied(
                f"its worker died: {type(error).__name__}", hint="fewer --encoders, if memory is short"
            ) from error
        except exceptions.RayError as error:
            raise StorageFailed(f"Ray failed: {reason(error)[:200]}", hint=_AGAIN) from error


_AGAIN = "the same command again, which continues from there"


class Stale(StorageFailed):
    """A repository whose text is no longer what was encoded: it was cut again, after a change."""


class WorkerDied(StorageFailed):
    """A task whose process was killed, as often as it was tried."""


@contextlib.contextmanager
def opened(workers: Workers, store: ObjectStore, model: str, quant: str) -> Iterator[Cluster]:
    """Raises UsageError without the extra or the cluster."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("fleets need the extra `fleet` of the package", hint=EXTRA)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            ray.init(
                address=workers.address,
                include_dashboard=None if workers.address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"Ray cannot be reached at {workers.address or 'this machine'}: {reason(error)[:200]}",
            hint="ray status --address ADDRESS, or without --address to start it here",
        ) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints what it repeats, where a program expects the answer
            yield Cluster(workers, store, model, quant)
    finally:
        if is_ours:
            ray.shutdown()


class _Encoder(EncodingWorker):
    """What Ray keeps running: fetches the texts of a batch from where they were cut."""

    def encode_parts(self, parts: Sequence[tuple[list[ObjectRef[Texts]], Sequence[str]]]) -> Shard:
        import ray

        texts: Texts = {}
        for (ref,), names in parts:
            of_repository = ray.get(ref)
            if any(name not in of_repository for name in names):
                raise Stale("a repository has changed while its chunks were encoded")
            texts |= {name: of_repository[name] for name in names}
        return self.encode(texts)


def write_repository(
    store: ObjectStore, description: tuple[str, str | None, str, str, str], places: Mapping[str, Place], lines: Lines
) -> Written:
    """Writes a repository object. description: the first arguments of `repository_object.pack`."""
    tokens: dict[str, int] = {}
    for _ in files_of(lines, tokens):  # also checks what readers will check
        pass
    if tokens != {chunk: place.tokens for chunk, place in places.items()}:
        raise Stale("its text has changed")
    data, size = pack(*description, places, lines)
    name = digest(data)
    store.create(f"repositories/{name}", data)
    return Written(name, size, len(data))
