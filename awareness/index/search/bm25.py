"""BM25 scores of the chunks of one segment: in plain Python where few chunks hold a term, else in numpy.

Importing numpy takes longer than ranking a small repository, so `PythonScores` serves the first question of a process
where it can. Both classes compute the formula of Robertson and Zaragoza (2009, section 3.2).
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

K1, B = 1.2, 0.75
POSTING_BYTES = 5  # uint32 chunk id, uint8 frequency


def numpy_is_loaded() -> bool:
    """Has this process already imported numpy?"""
    return "numpy" in sys.modules


def inverse_frequency(documents: int, holding: int) -> float:
    """The idf of a term that `holding` of some documents hold; never 0, so that a term of all of them still counts."""
    return max(1e-6, math.log((documents - holding + 0.5) / (holding + 0.5)))


def split(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A posting row -> chunk ids uint32 [N], frequencies uint8 [N]."""
    import numpy as np

    count = len(data) // POSTING_BYTES
    return np.frombuffer(data, dtype=np.uint32, count=count), np.frombuffer(data, dtype=np.uint8, offset=4 * count)


class PythonScores:
    """Scores of the chunks `first` to `last`. lengths: uint16 for each, its terms. dropped: ids to leave out."""

    def __init__(self, first: int, last: int, lengths: bytes, dropped: Sequence[int]) -> None:
        self.first = first
        self._lengths = array("H", lengths)
        for chunk_id in dropped:
            self._lengths[chunk_id - first] = 0
        self._has_dropped = bool(dropped)
        self._scores: dict[int, float] = {}

    def postings(self, data: bytes) -> tuple[Sequence[int], Sequence[int]]:
        """A posting row -> the chunks that hold the term, its frequency in each."""
        count = len(data) // POSTING_BYTES
        ids, counts = array("I", data[: 4 * count]), data[4 * count :]
        if not self._has_dropped:
            return ids, counts
        kept = [i for i, chunk_id in enumerate(ids) if self._lengths[chunk_id - self.first]]
        return [ids[i] for i in kept], [counts[i] for i in kept]

    def add(
        self, ids: Sequence[int], counts: Sequence[int], weight: float, average: float, only_scored: bool
    ) -> Sequence[float]:
        """Adds a term to the scores of the chunks that hold it, and returns those scores.

        weight: of the term. average: length of a chunk. only_scored: skip chunks that have no score yet.
        """
        scores, lengths, first = self._scores, self._lengths, self.first
        updated = []
        for chunk_id, count in zip(ids, counts, strict=True):
            before = scores.get(chunk_id, 0.0)
            if before or not only_scored:
                norm = K1 * (1 - B + B * lengths[chunk_id - first] / average)
                scores[chunk_id] = before + weight * count / (count + norm)
                updated.append(scores[chunk_id])
        return updated

    def at_least(self, floor: float) -> Iterable[tuple[int, float]]:
        """(id, score) of the chunks with a score of at least `floor`, without those that have none."""
        return [(chunk_id, score) for chunk_id, score in self._scores.items() if score >= floor]

    @staticmethod
    def nth_largest(scores: Sequence[Sequence[float]], n: int) -> float:
        return heapq.nlargest(n, itertools.chain.from_iterable(scores))[-1]


class NumpyScores:
    """The same as `PythonScores`, but `postings` returns positions (id - first) in place of ids."""

    def __init__(self, first: int, last: int, lengths: bytes, dropped: Sequence[int]) -> None:
        import numpy as np

        self.first = first
        self._lengths = np.frombuffer(lengths, dtype=np.uint16)
        if dropped:
            self._lengths = self._lengths.copy()
            self._lengths[np.array(dropped) - first] = 0
        self._has_dropped = bool(dropped)
        self._scores = np.zeros(last - first + 1, dtype=np.float32)

    def postings(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        ids, counts = split(data)
        at = ids.astype(np.intp)  # the index type of numpy: any other is converted at every look-up
        at -= self.first
        if self._has_dropped:
            kept = self._lengths[at] > 0
            return at[kept], counts[kept]
        return at, counts

    def add(self, at: np.ndarray, counts: np.ndarray, weight: float, average: float, only_scored: bool) -> np.ndarray:
        import numpy as np

        before = self._scores.take(at)
        if only_scored:
            scored = before > 0
            at, counts, before = at[scored], counts[scored], before[scored]
        updated = counts.astype(np.float32)
        norm = self._lengths.take(at).astype(np.float32)
        norm *= K1 * B / average
        norm += K1 * (1 - B)
        norm += updated
        updated /= norm
        updated *= weight
        updated += before
        self._scores[at] = updated
        return updated

    def at_least(self, floor: float) -> Iterable[tuple[int, float]]:
        at = (self._scores >= floor if floor else self._scores > 0).nonzero()[0]
        return zip((at + self.first).tolist(), self._scores[at].tolist(), strict=True)

    @staticmethod
    def nth_largest(scores: Sequence[np.ndarray], n: int) -> float:
        import numpy as np

        return float(np.partition(np.concatenate(scores), -n)[-n])
