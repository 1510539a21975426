"""A memory of many repositories, of which each question opens those that it is about: `fleet.fleet_memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from awareness.engine.corpus import Corpus


class MemorySource(Protocol):
    """Several threads may use it, one at a time."""

    @property
    def name(self) -> str:
        """How the user named it."""
        ...

    @property
    def model(self) -> str:
        """The name of the model that made its latents. Raises NoIndex, StorageFailed."""
        ...

    @property
    def repositories(self) -> int:
        """How many it holds. Raises as `model`."""
        ...

    @property
    def opened(self) -> list[Corpus]:
        """Those that questions have opened, the last one last."""
        ...

    def about(self, question: str) -> list[Corpus]:
        """Those that a question is about, best first, opened. Raises NoIndex, IndexCorrupt, StorageFailed."""
        ...

    def reopened(self, corpus: Corpus) -> Corpus | None:
        """One that it has opened before, opened now; None for one that it has not."""
        ...

    def refresh(self) -> None:
        """Looks whether it has changed."""
        ...

    def close(self) -> None: ...
