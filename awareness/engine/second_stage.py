"""The second stage of a search: an embedding model reads the chunks that the index ranks best.

It is loaded on first use and stays in memory, with the vectors of the chunks that it has read: a later question about
the same code costs its own vector and no more.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence

from awareness.config.environment import environment
from awareness.engine.embedders import load_embedder
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import UsageError
from awareness.model.model_files import find
from awareness.types import Chunk, Embedder, Vector

MODEL = "all-minilm-l6-v2"
KEPT = 4096  # vectors in memory


class MeaningReader:
    """Compares a question with chunks by an embedding model. `ranking.SecondStage` says what it is called with."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    def __call__(self, question: str, chunks: Sequence[Chunk]) -> list[float]:
        """The cosine of the question with each chunk, in order."""
        new = {chunk.digest: chunk for chunk in chunks if chunk.digest not in self._vectors}
        self._vectors.update(zip(new, self._embedder.chunks(list(new.values())), strict=True))
        for chunk in chunks:
            self._vectors.move_to_end(chunk.digest)
        asked = self._embedder.question(question)
        cosines = [_dot(asked, self._vectors[chunk.digest]) for chunk in chunks]
        while len(self._vectors) > KEPT:
            self._vectors.popitem(last=False)
        return cosines


@functools.lru_cache(maxsize=1)
def load_second_stage(reporter: Reporter = SILENT) -> MeaningReader:
    """Downloads the model if necessary. Raises ModelNotAvailable and UsageError."""
    from awareness.model.threads import use_idle_cores

    use_idle_cores()
    reporter.detail(f"loading {MODEL}, which reads the best chunks again")
    return MeaningReader(load_embedder(MODEL, reporter))


def second_stage_for_ask(reporter: Reporter = SILENT) -> MeaningReader | None:
    """None if it is switched off, or if its model is not on this machine: a question does not download it."""
    if environment().second_stage == "none":
        return None
    try:
        is_here = find(MODEL) is not None
    except UsageError:  # a user without a home folder has no models either
        is_here = False
    return load_second_stage(reporter) if is_here else None


def _dot(a: Vector, b: Vector) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)))
