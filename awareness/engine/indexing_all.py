"""Indexes several repositories, one after the other, with one model and one limit of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from awareness.engine.indexing import Indexer, Outcome
from awareness.engine.workspace import Workspace
from awareness.errors import AwarenessError


@dataclass(frozen=True)
class Failure:
    """A repository that could not be indexed."""

    workspace: Workspace
    error: AwarenessError


def index_each(
    workspaces: Sequence[Workspace],
    indexer_of: Callable[[Workspace], Indexer],
    seconds: float,
    *,
    rebuild: bool = False,
) -> Iterator[tuple[Indexer, Outcome] | Failure]:
    """Indexes each in turn; one that fails does not stop the others.

    seconds: how long latents are made in all; each repository may take an equal share of what is left.
    """
    left = seconds
    for place, workspace in enumerate(workspaces):
        try:
            indexer = indexer_of(workspace)
            outcome = indexer.run(left / (len(workspaces) - place), rebuild=rebuild)
        except AwarenessError as error:
            yield Failure(workspace, error)
            continue
        left = max(0.0, left - outcome.seconds) if outcome.encoded.latents else left
        yield indexer, outcome
