"""The inverted index: which chunks hold a term, and their BM25 ranking.

It is stored in the manifest and committed together with the chunks. A segment holds the postings of a range of chunk
ids: one row for each term, with the ids (uint32, ascending) followed by the term's frequencies (uint8, weighted by
field), and the lengths of all its chunks (uint16). Segments are written once. Neighbours of similar size are merged, so
that there are few. A dropped chunk is recorded and removed at the next merge; until then every count is corrected for
it, so the scores equal those of a new index. bm25.py computes the scores.
"""

from __future__ import annotations

import heapq
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import apsw

from awareness.index.search.bm25 import (
    K1,
    POSTING_BYTES,
    NumpyScores,
    PythonScores,
    inverse_frequency,
    numpy_is_loaded,
    split,
)
from awareness.index.search.index_state import index_state

if TYPE_CHECKING:
    import numpy as np

SEGMENT_CHUNKS = 16_384  # a larger segment is written before more chunks are added
MERGED_AT_ONCE = 8  # neighbours of similar size that become one segment
BACKGROUND = 50  # chunks of other code, without any of the terms, so that words are rare in a tiny repository too
_MOST_COUNTED = 1 << 16  # terms whose frequency is kept
FEW = 20_000  # postings up to which plain Python is faster than importing numpy

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
    """Chunks that hold any of the terms.

    scores: chunk id -> BM25. bound: an upper limit of any score. known: the part of `bound`, in [0, 1], that comes
    from terms which at least one chunk holds. complete: `scores` holds all matching chunks, not only the best ones.
    """

    scores: dict[int, float]
    bound: float
    known: float
    complete: bool = True

    def __len__(self) -> int:
        return len(self.scores)

    def among(self, ids: Iterable[int]) -> Ranking:
        """Only the chunks in `ids`."""
        return replace(self, scores={i: self.scores[i] for i in self.scores.keys() & set(ids)})

    def best(self, count: int) -> list[tuple[int, float]]:
        """(id, score) of the best `count` chunks, best first; ties go to the lower id."""
        return heapq.nsmallest(count, self.scores.items(), key=lambda item: (-item[1], item[0]))


class Postings:
    """The inverted index of an open manifest. Call the methods that write inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection
        self._counted: tuple[tuple[int, int], dict[str, int]] = ((-1, -1), {})
        self._clear()

    def _clear(self) -> None:
        self._first = 0
        self._lengths = array("H")
        self._terms: dict[str, tuple[array[int], bytearray]] = {}

    # --- writing -----------------------------------------------------------------------------------------------

    def add(self, chunk_id: int, counts: Mapping[str, int], length: int) -> None:
        """Adds a chunk; ids ascend. counts: term -> frequency. length: the chunk's terms.

        Nothing is written before `flush`, or before a segment is full.
        """
        if not self._lengths:
            self._first = chunk_id
        self._lengths.extend([0] * (chunk_id - self._first - len(self._lengths)))  # unused ids
        self._lengths.append(min(length, 65535))
        for term, count in counts.items():
            postings = self._terms.get(term)
            if postings is None:  # faster here than setdefault, which makes both arrays every time
                postings = self._terms[term] = (array("I"), bytearray())
            postings[0].append(chunk_id)
            postings[1].append(count if count < 256 else 255)
        if len(self._lengths) >= SEGMENT_CHUNKS:
            self.flush()

    def flush(self) -> None:
        """Writes the added chunks as a segment, and merges segments of similar size."""
        if self._lengths:
            last = self._first + len(self._lengths) - 1
            chunks = len(self._lengths) - self._lengths.count(0)
            rows = ((term, ids.tobytes() + frequencies) for term, (ids, frequencies) in sorted(self._terms.items()))
            self._write(self._first, last, chunks, sum(self._lengths), self._lengths.tobytes(), rows)
            self._clear()
            self._merge_alike()

    def drop(self, ids: Iterable[int]) -> None:
        """Removes chunks. Merges all segments once a fifth of the chunks are dropped."""
        dropped_ids = sorted(ids)
        if not dropped_ids:
            return
        for first, last, lengths in self._segments("first, last, lengths"):
            of_segment = array("H", lengths)
            inside = [(i, of_segment[i - first]) for i in dropped_ids if first <= i <= last]
            self.db.executemany("INSERT OR IGNORE INTO dropped VALUES (?, ?)", inside)
        chunks, _, dropped, _ = self._totals()
        if dropped * 5 > chunks:
            self.merge()

    def merge(self) -> None:
        """Merges all segments into one, without the dropped chunks."""
        self._merge([row[0] for row in self._segments("id")])

    def clear(self) -> None:
        for table in ("posting", "segment", "dropped"):
            self.db.execute(f"DELETE FROM {table}")
        self._clear()

    def _merge_alike(self) -> None:
        """Merges the last `MERGED_AT_ONCE` segments while they are of similar size."""
        while True:
            sizes = [(segment, last - first + 1) for segment, first, last in self._segments("id, first, last")]
            tail = sizes[-MERGED_AT_ONCE:]
            newest = tail[-1][1] if tail else 0
            if len(tail) < MERGED_AT_ONCE or max(size for _, size in tail) > MERGED_AT_ONCE * max(newest, 64):
                return
            self._merge([segment for segment, _ in tail])

    def _merge(self, segments: Sequence[int]) -> None:
        """Merges neighbouring segments into one."""
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
        dropped = np.array([row[0] for row in self._dropped(first, last)], dtype=np.int64)
        lengths[dropped - first] = 0
        kept = lengths > 0
        # The rows of the old segments are read while the new segment is written, which the query does not select.
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
        """BM25 of the chunks that hold any of the terms: of all, or of at least the best `wanted`.

        terms: stemmed; a mapping gives each a weight. Rare terms are scored first. Once `wanted` chunks score more than
        the remaining terms can add, a chunk without a score cannot be among the best and is skipped (MaxScore: Turtle
        and Flood 1995).
        """
        chunks, length, dropped, dropped_length = self._totals()
        total, average = chunks - dropped, (length - dropped_length) / max(1, chunks - dropped)
        rows = {
            term: cast("list[tuple[int, bytes]]", self.db.execute(_POSTINGS_OF, (term,)).fetchall()) for term in terms
        }
        counted = self._frequencies()
        for term, term_rows in rows.items():
            counted[term] = sum(len(data) for _, data in term_rows) // POSTING_BYTES
        size = sum(len(data) for term_rows in rows.values() for _, data in term_rows) // POSTING_BYTES
        scorer: Any = PythonScores if size <= FEW and not numpy_is_loaded() else NumpyScores
        parts = {
            i: scorer(first, last, lengths, [row[0] for row in self._dropped(first, last)] if dropped else [])
            for i, first, last, lengths in self._segments("id, first, last, lengths")
        }
        term_weights = terms if isinstance(terms, Mapping) else dict.fromkeys(terms, 1.0)
        weighted = []
        for term, term_rows in rows.items():
            postings = [(parts[i], *parts[i].postings(data)) for i, data in term_rows]
            holding = sum(len(at) for _, at, _ in postings)
            idf = inverse_frequency(total + BACKGROUND, holding)
            weighted.append((idf * (K1 + 1) * term_weights[term], postings))
        weighted.sort(key=lambda item: -item[0])
        bound = remaining = sum(weight for weight, _ in weighted)
        floor = 0.0  # `wanted` chunks have at least this score
        for weight, postings in weighted:
            only_scored = floor > remaining
            remaining -= weight
            updated = [part.add(at, counts, weight, average, only_scored) for part, at, counts in postings]
            if wanted and not only_scored and remaining and sum(map(len, updated)) >= wanted:
                floor = max(floor, scorer.nth_largest(updated, wanted))
        scores: dict[int, float] = {}
        for part in parts.values():
            scores.update(part.at_least(floor))
        known = sum(weight for weight, postings in weighted if postings) / bound if bound else 0.0
        return Ranking(scores, bound, known, complete=floor == 0.0)

    def frequencies(self, terms: Iterable[str]) -> dict[str, int]:
        """term -> number of chunks that hold it, including those dropped since the last merge."""
        counted = self._frequencies()
        listed = sorted(set(terms))
        if missing := [term for term in listed if term not in counted]:
            counted.update(dict.fromkeys(missing, 0))
            counted.update(self._count(missing))
        return {term: count for term in listed if (count := counted[term])}

    def _frequencies(self) -> dict[str, int]:
        """term -> number of chunks that hold it, of the terms that were counted since the last change: the rules of a
        question ask for the same ones."""
        state = index_state(self.db)
        if self._counted[0] != state or len(self._counted[1]) > _MOST_COUNTED:
            self._counted = (state, {})
        return self._counted[1]

    def _count(self, terms: Sequence[str]) -> dict[str, int]:
        sql = (
            f"SELECT term, sum(length(data)) / {POSTING_BYTES} FROM json_each(?) listed CROSS JOIN segment"
            " CROSS JOIN posting ON segment_id = segment.id AND term = listed.value GROUP BY term"
        )
        return dict(cast("Iterator[tuple[str, int]]", self.db.execute(sql, (json.dumps(terms),))))

    def holding(self, term: str) -> list[int]:
        """The ids of the chunks that hold a term, ascending, without the dropped ones."""
        ids = array("I")
        for _, data in self.db.execute(_POSTINGS_OF, (term,)):
            ids.frombytes(cast(bytes, data)[: 4 * (len(cast(bytes, data)) // POSTING_BYTES)])
        dropped = {row[0] for row in self._dropped(min(ids), max(ids))} if ids else set()
        return sorted(set(ids) - dropped)

    def count(self) -> int:
        """The number of chunks, without the dropped ones."""
        chunks, _, dropped, _ = self._totals()
        return chunks - dropped

    def _totals(self) -> tuple[int, int, int, int]:
        """Chunks, the sum of their lengths, dropped chunks, the sum of their lengths."""
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


def _merged(rows: Iterator[tuple[str, bytes]], kept: np.ndarray, first: int) -> Iterator[tuple[str, bytes]]:
    """Rows (term, postings) of neighbouring segments, sorted by term -> one row for each term, of the kept chunks."""
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
