"""One segment of the inverted index while a question is ranked, where many chunks hold its terms.

The same as `postings.SmallSegment`, by numpy; apart from it because importing numpy takes longer than ranking a small
repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from awareness.index.search.postings import K1, B, split


class LargeSegment:
    """lengths, scores: of each chunk from `first` on."""

    def __init__(self, first: int, last: int, lengths: bytes, dropped: Sequence[int]) -> None:
        self.first = first
        self._lengths = np.frombuffer(lengths, dtype=np.uint16)
        if dropped:
            self._lengths = self._lengths.copy()
            self._lengths[np.array(dropped) - first] = 0
        self._has_dropped = bool(dropped)
        self._scores = np.zeros(last - first + 1, dtype=np.float32)

    def held(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """A posting row -> where its chunks are here, how often the term counts in each."""
        ids, counts = split(data)
        at = ids.astype(np.intp)  # as numpy indexes: it would convert at every look-up
        at -= self.first
        if self._has_dropped:
            kept = self._lengths[at] > 0
            return at[kept], counts[kept]
        return at, counts

    def add(self, at: np.ndarray, counts: np.ndarray, weight: float, average: float, only_seen: bool) -> np.ndarray:
        """As in `SmallSegment`."""
        before = np.take(self._scores, at)
        if only_seen:
            seen = before > 0
            at, counts, before = at[seen], counts[seen], before[seen]
        reached = counts.astype(np.float32)
        norm = np.take(self._lengths, at).astype(np.float32)
        norm *= K1 * B / average
        norm += K1 * (1 - B)
        norm += reached
        reached /= norm
        reached *= weight
        reached += before
        self._scores[at] = reached
        return reached

    def at_least(self, floor: float) -> Iterable[tuple[int, float]]:
        """As in `SmallSegment`."""
        at = np.flatnonzero(self._scores >= floor if floor else self._scores > 0)
        return zip((at + self.first).tolist(), self._scores[at].tolist(), strict=True)

    @staticmethod
    def nth_largest(reached: Sequence[np.ndarray], n: int) -> float:
        return float(np.partition(np.concatenate(reached), -n)[-n])
