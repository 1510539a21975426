"""Dense vectors of chunks in the manifest, and the nearest ones to a question.

Each chunk has one int8 vector. Up to `EXACT_CHUNKS` every vector is compared, and from its second question on a process
keeps them as a matrix in memory. Above it, only the vectors of the chunks that BM25 ranks best are compared: reading a
million vectors for one question takes seconds.
"""

from __future__ import annotations

import heapq
import json
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import apsw

from awareness.index.search.bm25 import numpy_is_loaded
from awareness.index.search.index_state import index_state
from awareness.index.search.term_vectors import SCALE
from awareness.types import Vector

if TYPE_CHECKING:
    import numpy as np

SCHEMA = """
CREATE TABLE vector(chunk_id INTEGER PRIMARY KEY REFERENCES chunk ON DELETE CASCADE, data BLOB NOT NULL) STRICT;
"""
EXACT_CHUNKS = 200_000
FEW = 10_000  # vectors up to which plain Python is faster than importing numpy, for one question
_BATCH = 1024
_DIGITS = 5  # of a cosine: the same vector in another row of a matrix may differ in the next ones

Documents = Callable[[Sequence[Mapping[str, int]]], Sequence[bytes]]
"""Term frequencies of some chunks -> their vectors, each int8 [D]."""


@dataclass(frozen=True)
class Similarities:
    """Cosines of a question with chunks. best: (id, cosine), best first. of: ids -> {id: cosine}."""

    best: list[tuple[int, float]]
    of: Callable[[Iterable[int]], dict[int, float]]


NO_SIMILARITIES = Similarities([], lambda ids: {})


class Vectors:
    """The vectors of an open manifest. Call the methods that write inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection
        self._waiting: list[tuple[int, Mapping[str, int]]] = []
        self._has_answered = False
        self._counted: tuple[tuple[int, int], int] | None = None
        self._loaded: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None

    # --- writing -----------------------------------------------------------------------------------------------

    def add(self, chunk_id: int, counts: Mapping[str, int], documents: Documents) -> None:
        """Adds a chunk by its terms (term -> frequency). It may not be written before `flush`."""
        self._waiting.append((chunk_id, counts))
        if len(self._waiting) >= _BATCH:
            self.flush(documents)

    def flush(self, documents: Documents) -> None:
        if self._waiting:
            codes = documents([counts for _, counts in self._waiting])
            self.write(zip((chunk_id for chunk_id, _ in self._waiting), codes, strict=True))
            self._waiting = []

    def write(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """rows: (chunk id, int8 [D])."""
        self.db.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?)", rows)

    def clear(self) -> None:
        self._waiting = []
        self.db.execute("DELETE FROM vector")

    def missing(self, *, also_present: bool = False) -> list[int]:
        """The ids of the chunks without a vector, or of all chunks."""
        sql = "SELECT id FROM chunk WHERE ? OR id NOT IN (SELECT chunk_id FROM vector) ORDER BY id"
        return [cast(int, row[0]) for row in self.db.execute(sql, (also_present,))]

    # --- reading -----------------------------------------------------------------------------------------------

    def count(self) -> int:
        return cast(int, next(self.db.execute("SELECT count(*) FROM vector"))[0])

    def vector(self, chunk_id: int) -> list[float] | None:
        """The vector of a chunk, as long as a question's; None if it has none."""
        row = next(self._rows([chunk_id]), None)
        return None if row is None else [value / SCALE for value in array("b", row[1])]

    def similar(self, question: Vector, wanted: int) -> Similarities:
        """Cosines with a question (a unit vector). Above `EXACT_CHUNKS` vectors, `best` is empty."""
        count = self._count_to_limit()
        if count > EXACT_CHUNKS:
            return Similarities([], lambda ids: _compare(self._rows(ids), question))
        first, self._has_answered = not self._has_answered, True
        if count <= FEW and first and not numpy_is_loaded():
            cosines = _compare(self._rows(None), question)
            best = heapq.nlargest(wanted, cosines.items(), key=lambda item: item[1])
            return Similarities(best, lambda ids: {i: cosines[i] for i in ids if i in cosines})
        return self._by_matrix(question, wanted)

    def _count_to_limit(self) -> int:
        """The number of vectors, at most one more than `EXACT_CHUNKS`; counted again only after a change."""
        state = index_state(self.db)
        if self._counted is None or self._counted[0] != state:
            sql = "SELECT count(*) FROM (SELECT 1 FROM vector LIMIT ?)"
            self._counted = (state, cast(int, next(self.db.execute(sql, (EXACT_CHUNKS + 1,)))[0]))
        return self._counted[1]

    def _by_matrix(self, question: Vector, wanted: int) -> Similarities:
        import numpy as np

        ids, matrix = self._matrix()
        if not len(ids) or matrix.shape[1] != len(question):
            return NO_SIMILARITIES
        cosines = matrix @ (np.asarray(question, dtype=np.float32) / SCALE)
        wanted = min(wanted, len(ids))
        at = np.argpartition(-cosines, wanted - 1)[:wanted]
        at = at[np.lexsort((at, -cosines[at].round(_DIGITS)))]
        best = list(zip(ids[at].tolist(), cosines[at].round(_DIGITS).tolist(), strict=True))

        def of(chunk_ids: Iterable[int]) -> dict[int, float]:
            listed = np.fromiter(chunk_ids, dtype=np.int64)
            rows = np.minimum(np.searchsorted(ids, listed), len(ids) - 1)
            known = ids[rows] == listed
            return dict(zip(listed[known].tolist(), cosines[rows[known]].round(_DIGITS).tolist(), strict=True))

        return Similarities(best, of)

    def _matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """ids int64 [N], vectors float32 [N, D]; read again only after a change."""
        import numpy as np

        state = index_state(self.db)
        if self._loaded is None or self._loaded[0] != state:
            rows = self.db.execute("SELECT chunk_id, data FROM vector ORDER BY chunk_id").fetchall()
            ids = np.array([row[0] for row in rows], dtype=np.int64)
            data = np.frombuffer(b"".join(cast(bytes, row[1]) for row in rows), dtype=np.int8)
            self._loaded = (state, ids, data.reshape(len(ids), -1 if len(ids) else 0).astype(np.float32))
        return self._loaded[1], self._loaded[2]

    def _rows(self, ids: Iterable[int] | None) -> Iterator[tuple[Any, ...]]:
        if ids is None:
            return self.db.execute("SELECT chunk_id, data FROM vector")
        return self.db.execute(
            "SELECT chunk_id, data FROM json_each(?) listed CROSS JOIN vector ON chunk_id = listed.value",
            (json.dumps(list(ids)),),
        )


def packed(vector: Vector) -> bytes:
    """A unit vector as it is stored: int8 [D], clipped at ±0.5."""
    return array("b", (max(-127, min(127, round(value * SCALE))) for value in vector)).tobytes()


def _compare(rows: Iterable[tuple[Any, ...]], question: Vector) -> dict[int, float]:
    """id -> cosine, in plain Python. rows: (id, int8 [D])."""
    scaled = [value / SCALE for value in question]
    return {i: sum(map(operator.mul, scaled, array("b", data))) for i, data in rows}
