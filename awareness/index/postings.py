"""The inverted index: which chunks hold a term, and BM25 over them.

It lies in the manifest, so that it is committed together with the chunks. A segment holds the postings of a range of
chunk ids: for each term one row with the ids (uint32, ascending) and, behind them, how often the term counts in each
(uint8, weighted by field), and once the lengths of all its chunks (uint16). Segments are written once; neighbours of
like size are merged, so that there are few. A chunk that is dropped is only noted, and leaves at the next merge; until
then every count is corrected for it, so that scores are those of an index built anew.

BM25 is that of Robertson and Zaragoza (2009, section 3.2) with the fields weighted into one frequency. Which terms a
text has is lexical.py's affair, which chunks may be found and what else makes them good is search.py's.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import apsw

from awareness.index.lexical import stems

if TYPE_CHECKING:
    import numpy as np

K1, B = 1.2, 0.75
SYMBOL_WEIGHT, PATH_WEIGHT = 6, 4  # of a word there, against one in the text
SEGMENT_CHUNKS = 16_384  # of a segment that is written while more are to come
MERGED_AT_ONCE = 8  # so many neighbours of like size become one
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
    """Chunks that hold any of the terms: ids and their BM25, in no order. bound: what no chunk can exceed.

    complete: all of them are here, not just enough for as many as were wanted.
    """

    ids: np.ndarray
    scores: np.ndarray
    bound: float
    complete: bool

    def among(self, ids: Sequence[int]) -> Ranking:
        """The same without the chunks that are not listed."""
        import numpy as np

        kept = np.isin(self.ids, np.array(ids, dtype=np.int64))
        return replace(self, ids=self.ids[kept], scores=self.scores[kept])

    def best(self, count: int) -> list[tuple[int, float]]:
        """The `count` best, best first; among equals the lower id."""
        import numpy as np

        chosen = np.arange(len(self.ids))
        if count < len(chosen):
            floor = np.partition(self.scores, -count)[-count]
            chosen = np.flatnonzero(self.scores >= floor)
        ordered = chosen[np.lexsort((self.ids[chosen], -self.scores[chosen]))][:count]
        return list(zip(self.ids[ordered].tolist(), self.scores[ordered].tolist(), strict=True))


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

    def add(self, chunk_id: int, symbol: str, path: str, text: str) -> None:
        """Takes up a chunk; ids ascend. Nothing is written before `flush`, or before a segment is full."""
        counts = Counter(stems(text))
        length = counts.total()
        for field, weight in ((symbol, SYMBOL_WEIGHT), (path, PATH_WEIGHT)):
            for term in stems(field):
                counts[term] += weight
                length += 1
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

    def rank(self, terms: Sequence[str], wanted: int | None = None) -> Ranking:
        """BM25 of the chunks that hold any of the terms (already stemmed): of all, or at least of the best `wanted`.

        Rare terms come first. Once the chunks seen include `wanted` that score more than all terms to come can give, a
        chunk that was not seen yet can't be among the best, and is passed over (MaxScore: Turtle and Flood 1995).
        """
        import numpy as np

        chunks, length, dropped, dropped_length = self._totals()
        total, average = chunks - dropped, (length - dropped_length) / max(1, chunks - dropped)
        segments = {row[0]: _Segment(*row[1:]) for row in self._segments("id, first, last, lengths")}
        if dropped:
            for segment in segments.values():
                segment.drop([row[0] for row in self._dropped(segment.first, segment.last)])
        found = []
        for term in dict.fromkeys(terms):
            rows = cast("Iterator[tuple[int, bytes]]", self.db.execute(_POSTINGS_OF, (term,)))
            held = [(segments[segment], *segments[segment].held(data)) for segment, data in rows]
            holding = sum(len(at) for _, at, _ in held)
            found.append((max(1e-6, math.log((total - holding + 0.5) / (holding + 0.5))) * (K1 + 1), held))
        found.sort(key=lambda one: -one[0])
        bound = to_come = sum(weight for weight, _ in found)
        floor = 0.0  # `wanted` chunks have at least this score
        for weight, held in found:
            only_seen = floor > to_come
            to_come -= weight
            reached = [segment.add(at, counts, weight, average, only_seen) for segment, at, counts in held]
            if wanted and not only_seen and sum(map(len, reached)) >= wanted:
                floor = max(floor, float(np.partition(np.concatenate(reached), -wanted)[-wanted]))
        best = [(np.flatnonzero(s.scores >= floor if floor else s.scores > 0), s) for s in segments.values()]
        ids = np.concatenate([np.empty(0, np.int64), *(at + segment.first for at, segment in best)])
        scores = np.concatenate([np.empty(0, np.float32), *(segment.scores[at] for at, segment in best)])
        return Ranking(ids, scores, bound, complete=floor == 0.0)

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


class _Segment:
    """One segment while a question is ranked. lengths, scores: of each chunk from `first` on."""

    def __init__(self, first: int, last: int, lengths: bytes) -> None:
        import numpy as np

        self.first, self.last = first, last
        self.lengths = np.frombuffer(lengths, dtype=np.uint16)
        self.scores = np.zeros(last - first + 1, dtype=np.float32)
        self._has_dropped = False

    def drop(self, ids: Sequence[int]) -> None:
        """These chunks are held by no term any more."""
        import numpy as np

        if ids:
            self._has_dropped = True
            self.lengths = self.lengths.copy()
            self.lengths[np.array(ids) - self.first] = 0

    def held(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """A posting row -> where its chunks are here, how often the term counts in each."""
        import numpy as np

        ids, counts = _split(data)
        at = ids.astype(np.intp)  # as numpy indexes: it would convert at every look-up
        at -= self.first
        if self._has_dropped:
            kept = self.lengths[at] > 0
            return at[kept], counts[kept]
        return at, counts

    def add(self, at: np.ndarray, counts: np.ndarray, weight: float, average: float, only_seen: bool) -> np.ndarray:
        """Adds a term's part to the scores; returns the scores that it reached. only_seen: of those above 0."""
        import numpy as np

        before = np.take(self.scores, at)
        if only_seen:
            seen = before > 0
            at, counts, before = at[seen], counts[seen], before[seen]
        frequency = counts.astype(np.float32)
        norm = np.take(self.lengths, at).astype(np.float32)
        norm *= K1 * B / average
        norm += K1 * (1 - B)
        norm += frequency
        frequency /= norm
        frequency *= weight
        frequency += before
        self.scores[at] = frequency
        return frequency


def _split(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A posting row -> ids, frequencies."""
    import numpy as np

    count = len(data) // _ITEM
    return np.frombuffer(data, dtype=np.uint32, count=count), np.frombuffer(data, dtype=np.uint8, offset=4 * count)


def _merged(rows: Iterator[tuple[str, bytes]], kept: np.ndarray, first: int) -> Iterator[tuple[str, bytes]]:
    """Rows of neighbouring segments, by term and segment -> one row a term, of the chunks that are kept."""
    import itertools

    import numpy as np

    for term, group in itertools.groupby(rows, key=lambda row: row[0]):
        parts = [_split(data) for _, data in group]
        ids = np.concatenate([ids for ids, _ in parts])
        frequencies = np.concatenate([frequencies for _, frequencies in parts])
        stay = kept[ids - np.uint32(first)]
        if not stay.all():
            ids, frequencies = ids[stay], frequencies[stay]
        if len(ids):
            yield term, ids.tobytes() + frequencies.tobytes()
