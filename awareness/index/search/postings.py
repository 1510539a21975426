"""The inverted index: which chunks hold a term, and BM25 over them.

It lies in the manifest, so that it is committed together with the chunks. A segment holds the postings of a range of
chunk ids: for each term one row with the ids (uint32, ascending) and, behind them, how often the term counts in each
(uint8, weighted by field), and once the lengths of all its chunks (uint16). Segments are written once; neighbours of
like size are merged, so that there are few. A chunk that is dropped is only noted, and leaves at the next merge; until
then every count is corrected for it, so that scores are those of an index built anew.

BM25 is that of Robertson and Zaragoza (2009, section 3.2) with the fields weighted into one frequency. Which terms a
chunk has is routing_index.py's affair, which chunks may be found and what else makes them good is ranking.py's.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import apsw

if TYPE_CHECKING:
    import numpy as np

K1, B = 1.2, 0.75
SEGMENT_CHUNKS = 16_384  # of a segment that is written while more are to come
MERGED_AT_ONCE = 8  # so many neighbours of like size become one
FEW = 20_000  # postings that are counted one by one
_ITEM = 5  # bytes of a posting

SCHEMA = """
CREATE TABLE segment(id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, chunks INTEGER NOT NULL,
    length INTEGER NOT NULL, lengths BLOB NOT NULL) STRICT;
CREATE TABLE posting(segment_id INTEGER NOT NULL REFERENCES segment, term TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY(segment_id, term)) STRICT, WITHOUT ROWID;
CREATE TABLE dropped(chunk_id INTEGER PRIMARY KEY, length INTEGER NOT NULL) STRICT;
"""

_POSTINGS_OF = "SELECT segment_id, data FROM posting WHERE segment_id IN (SELECT id FROM segment) AND term = ?"


@dataclass(frozen=True)
class Ranking:
    """Chunks that hold any of the terms: id -> BM25. bound: what no chunk can exceed. known: the share of it that is
    of terms which any chunk holds.

    complete: all of them are here, not just enough for as many as were wanted.
    """

    scores: dict[int, float]
    bound: float
    known: float
    complete: bool = True

    def __len__(self) -> int:
        return len(self.scores)

    def among(self, ids: Iterable[int]) -> Ranking:
        """The same without the chunks that are not listed."""
        return replace(self, scores={i: self.scores[i] for i in self.scores.keys() & set(ids)})

    def best(self, count: int) -> list[tuple[int, float]]:
        """The `count` best, best first; among equals the lower id."""
        return heapq.nsmallest(count, self.scores.items(), key=lambda item: (-item[1], item[0]))


class Postings:
    """Of one open manifest. Methods that write are called inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection
        self._clear()

    def _clear(self) -> None:
        self._first = 0
        self._lengths = array("H")
        self._terms: dict[str, tuple[array[int], bytearray]] = {}

    # --- writing -----------------------------------------------------------------------------------------------

    def add(self, chunk_id: int, counts: Mapping[str, int], length: int) -> None:
        """Takes up a chunk by how often its terms count, and how many it has; ids ascend. Nothing is written before
        `flush`, or before a segment is full."""
        if not self._lengths:
            self._first = chunk_id
        self._lengths.extend([0] * (chunk_id - self._first - len(self._lengths)))  # ids that are not chunks
        self._lengths.append(min(length, 65535))
        for term, count in counts.items():
            held = self._terms.get(term)
            if held is None:
                held = self._terms[term] = (array("I"), bytearray())
            held[0].append(chunk_id)
            held[1].append(count if count < 256 else 255)
        if len(self._lengths) >= SEGMENT_CHUNKS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added as a segment, and merges what has become alike."""
        if self._lengths:
            last = self._first + len(self._lengths) - 1
            chunks = len(self._lengths) - self._lengths.count(0)
            rows = ((term, ids.tobytes() + frequencies) for term, (ids, frequencies) in sorted(self._terms.items()))
            self._write(self._first, last, chunks, sum(self._lengths), self._lengths.tobytes(), rows)
            self._clear()
            self._merge_alike()

    def drop(self, ids: Iterable[int]) -> None:
        """Forgets chunks. Once a fifth of all are dropped, everything is merged."""
        gone = sorted(ids)
        if not gone:
            return
        for first, last, lengths in self._segments("first, last, lengths"):
            of_segment = array("H", lengths)
            inside = [(i, of_segment[i - first]) for i in gone if first <= i <= last]
            self.db.executemany("INSERT OR IGNORE INTO dropped VALUES (?, ?)", inside)
        chunks, _, dropped, _ = self._totals()
        if dropped * 5 > chunks:
            self.merge()

    def merge(self) -> None:
        """Makes one segment of all, without what was dropped."""
        self._merge([row[0] for row in self._segments("id")])

    def clear(self) -> None:
        for table in ("posting", "segment", "dropped"):
            self.db.execute(f"DELETE FROM {table}")
        self._clear()

    def _merge_alike(self) -> None:
        """Merges the last segments for as long as the last `MERGED_AT_ONCE` are of like size."""
        while True:
            sizes = [(segment, last - first + 1) for segment, first, last in self._segments("id, first, last")]
            tail = sizes[-MERGED_AT_ONCE:]
            newest = tail[-1][1] if tail else 0
            if len(tail) < MERGED_AT_ONCE or max(size for _, size in tail) > MERGED_AT_ONCE * max(newest, 64):
                return
            self._merge([segment for segment, _ in tail])

    def _merge(self, segments: Sequence[int]) -> None:
        """Makes one segment of neighbours."""
        import numpy as np

        if not segments:
            return
        marks = ",".join("?" * len(segments))
        ranges = list(
            self.db.execute(f"SELECT first, last, lengths FROM segment WHERE id IN ({marks}) ORDER BY first", segments)
        )
        first, last = ranges[0][0], ranges[-1][1]
        lengths = np.zeros(last - first + 1, dtype=np.uint16)
        for start, stop, data in ranges:
            lengths[start - first : stop - first + 1] = np.frombuffer(data, dtype=np.uint16)
        gone = np.array([row[0] for row in self._dropped(first, last)], dtype=np.int64)
        lengths[gone - first] = 0
        kept = lengths > 0
        # Rows of the old segments are read while those of the new one are written: it is not among those read.
        rows = self.db.execute(
            f"SELECT term, data FROM posting WHERE segment_id IN ({marks}) ORDER BY term, segment_id", segments
        )
        merged = _merged(cast("Iterator[tuple[str, bytes]]", rows), kept, first)
        self._write(first, last, int(kept.sum()), int(lengths.sum(dtype=np.int64)), lengths.tobytes(), merged)
        self.db.execute(f"DELETE FROM posting WHERE segment_id IN ({marks})", segments)
        self.db.execute(f"DELETE FROM segment WHERE id IN ({marks})", segments)
        self.db.execute("DELETE FROM dropped WHERE chunk_id BETWEEN ? AND ?", (first, last))

    def _write(
        self, first: int, last: int, chunks: int, length: int, lengths: bytes, rows: Iterable[tuple[str, bytes]]
    ) -> None:
        self.db.execute(
            "INSERT INTO segment(first, last, chunks, length, lengths) VALUES (?, ?, ?, ?, ?)",
            (first, last, chunks, length, lengths),
        )
        segment = self.db.last_insert_rowid()
        self.db.executemany("INSERT INTO posting VALUES (?, ?, ?)", ((segment, term, data) for term, data in rows))

    # --- reading -----------------------------------------------------------------------------------------------

    def rank(self, terms: Sequence[str] | Mapping[str, float], wanted: int | None = None) -> Ranking:
        """BM25 of the chunks that hold any of the terms (already stemmed): of all, or at least of the best `wanted`.

        terms: with how much each counts, or all alike. Rare terms come first. Once the chunks seen include `wanted`
        that score more than all terms to come can give, a chunk that was not seen yet can't be among the best, and is
        passed over (MaxScore: Turtle and Flood 1995).
        """
        chunks, length, dropped, dropped_length = self._totals()
        total, average = chunks - dropped, (length - dropped_length) / max(1, chunks - dropped)
        segments = {row[0]: row[1:] for row in self._segments("id, first, last, lengths")}
        gone = {i: [row[0] for row in self._dropped(*segments[i][:2])] if dropped else [] for i in segments}
        rows = {
            term: cast("list[tuple[int, bytes]]", self.db.execute(_POSTINGS_OF, (term,)).fetchall()) for term in terms
        }
        # Few postings are sooner counted than numpy is imported.
        postings = sum(len(data) for found in rows.values() for _, data in found) // _ITEM
        few = postings <= FEW and not numpy_is_here()
        kind: Any = SmallSegment
        if not few:
            from awareness.index.search.postings_numpy import LargeSegment as kind
        parts = {i: kind(*segments[i], gone[i]) for i in segments}
        weighted = []
        worth = terms if isinstance(terms, Mapping) else dict.fromkeys(terms, 1.0)
        for term, found in rows.items():
            held = [(parts[i], *parts[i].held(data)) for i, data in found]
            holding = sum(len(at) for _, at, _ in held)
            rarity = max(1e-6, math.log((total - holding + 0.5) / (holding + 0.5)))
            weighted.append((rarity * (K1 + 1) * worth[term], held))
        weighted.sort(key=lambda one: -one[0])
        bound = to_come = sum(weight for weight, _ in weighted)
        floor = 0.0  # `wanted` chunks have at least this score
        for weight, held in weighted:
            only_seen = floor > to_come
            to_come -= weight
            reached = [part.add(at, counts, weight, average, only_seen) for part, at, counts in held]
            if wanted and not only_seen and to_come and sum(map(len, reached)) >= wanted:
                floor = max(floor, kind.nth_largest(reached, wanted))
        scores: dict[int, float] = {}
        for part in parts.values():
            scores.update(part.at_least(floor))
        known = sum(weight for weight, held in weighted if held) / bound if bound else 0.0
        return Ranking(scores, bound, known, complete=floor == 0.0)

    def frequencies(self, terms: Iterable[str]) -> dict[str, int]:
        """In how many chunks each term is, about: those dropped since the last merge count still."""
        sql = (
            f"SELECT term, sum(length(data)) / {_ITEM} FROM json_each(?) listed CROSS JOIN segment"
            " CROSS JOIN posting ON segment_id = segment.id AND term = listed.value GROUP BY term"
        )
        return dict(cast("Iterator[tuple[str, int]]", self.db.execute(sql, (json.dumps(list(terms)),))))

    def count(self) -> int:
        """How many chunks can be found."""
        chunks, _, dropped, _ = self._totals()
        return chunks - dropped

    def _totals(self) -> tuple[int, int, int, int]:
        """Chunks and the sum of their lengths, in all segments, and of them dropped."""
        sql = (
            "SELECT coalesce(sum(chunks), 0), coalesce(sum(length), 0), (SELECT count(*) FROM dropped),"
            " (SELECT coalesce(sum(length), 0) FROM dropped) FROM segment"
        )
        return cast("tuple[int, int, int, int]", next(self.db.execute(sql)))

    def _segments(self, columns: str) -> list[tuple[Any, ...]]:
        return list(self.db.execute(f"SELECT {columns} FROM segment ORDER BY first"))

    def _dropped(self, first: int, last: int) -> list[tuple[Any, ...]]:
        sql = "SELECT chunk_id FROM dropped WHERE chunk_id BETWEEN ? AND ? ORDER BY chunk_id"
        return list(self.db.execute(sql, (first, last)))


def numpy_is_here() -> bool:
    """Has this process paid for numpy's import?"""
    return "numpy" in sys.modules


class SmallSegment:
    """One segment while a question is ranked, where few chunks hold its terms."""

    def __init__(self, first: int, last: int, lengths: bytes, dropped: Sequence[int]) -> None:
        self.first = first
        self._lengths = array("H", lengths)
        for chunk_id in dropped:
            self._lengths[chunk_id - first] = 0
        self._has_dropped = bool(dropped)
        self._scores: dict[int, float] = {}

    def held(self, data: bytes) -> tuple[Sequence[int], Sequence[int]]:
        """A posting row -> which chunks hold the term, how often it counts in each."""
        count = len(data) // _ITEM
        ids, counts = array("I", data[: 4 * count]), data[4 * count :]
        if not self._has_dropped:
            return ids, counts
        kept = [i for i, chunk_id in enumerate(ids) if self._lengths[chunk_id - self.first]]
        return [ids[i] for i in kept], [counts[i] for i in kept]

    def add(
        self, ids: Sequence[int], counts: Sequence[int], weight: float, average: float, only_seen: bool
    ) -> Sequence[float]:
        """Adds a term's part to the scores; returns those that it reached. only_seen: of chunks that have one."""
        scores, lengths, first = self._scores, self._lengths, self.first
        reached = []
        for chunk_id, count in zip(ids, counts, strict=True):
            before = scores.get(chunk_id, 0.0)
            if before or not only_seen:
                norm = K1 * (1 - B + B * lengths[chunk_id - first] / average)
                scores[chunk_id] = before + weight * count / (count + norm)
                reached.append(scores[chunk_id])
        return reached

    def at_least(self, floor: float) -> Iterable[tuple[int, float]]:
        """(id, score) of the chunks that have any score, and no less than that."""
        return [(chunk_id, score) for chunk_id, score in self._scores.items() if score >= floor]

    @staticmethod
    def nth_largest(reached: Sequence[Sequence[float]], n: int) -> float:
        return heapq.nlargest(n, itertools.chain.from_iterable(reached))[-1]


def split(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A posting row -> ids, frequencies."""
    import numpy as np

    count = len(data) // _ITEM
    return np.frombuffer(data, dtype=np.uint32, count=count), np.frombuffer(data, dtype=np.uint8, offset=4 * count)


def _merged(rows: Iterator[tuple[str, bytes]], kept: np.ndarray, first: int) -> Iterator[tuple[str, bytes]]:
    """Rows of neighbouring segments, by term and segment -> one row a term, of the chunks that are kept."""
    import numpy as np

    for term, group in itertools.groupby(rows, key=lambda row: row[0]):
        parts = [split(data) for _, data in group]
        ids = np.concatenate([ids for ids, _ in parts])
        frequencies = np.concatenate([frequencies for _, frequencies in parts])
        stay = kept[ids - np.uint32(first)]
        if not stay.all():
            ids, frequencies = ids[stay], frequencies[stay]
        if len(ids):
            yield term, ids.tobytes() + frequencies.tobytes()
