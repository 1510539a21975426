"""Text -> vector without a neural network: the weighted sum of one learned vector for each term.

A question (terms t) and a chunk (terms t with frequency n_t) are compared by cos(Σ q_t·e_t, Σ log(1 + n_t)·d_t·e_t).
e_t is the vector of a term; q_t and d_t are its weights in a question and in a chunk. All three are learned together
from code and text about it (train/router_training.py). The vectors are stored in 8 bits a number, so a question costs a
few additions and no torch, a chunk 0.1 ms. The file is a safetensors file:

    terms     U8 [bytes]     the terms, sorted and concatenated, in UTF-8
    ends      U32 [V]        the end of each term
    vectors   U8 [V, D]      int8; the scale of each is part of its weights
    query     F32 [V]        q_t times the scale
    document  F32 [V]        d_t times the scale
"""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError
from awareness.index.store.tensorfile import Header, Malformed, read_header

if TYPE_CHECKING:
    import numpy as np

SHIPPED = Path(__file__).with_name("router.safetensors")
SCALE = 254.0  # int8 = number of the unit vector · SCALE, clipped at ±0.5
_HINT = "awareness index --router shipped; awareness train --config FILE makes a router"
_NAMES = {"terms": "U8", "ends": "U32", "vectors": "U8", "query": "F32", "document": "F32"}


class TermEmbedder:
    """The term vectors of one file. terms: V. dim: D. fingerprint: of the file; vectors of two files do not compare.

    Raises UsageError if `path` is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                header = read_header(file.fileno())
                _check(header)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, Malformed, ValueError) as error:
            raise UsageError(f"{path} is not a router: {error}", hint=_HINT) from error
        self._offsets = header.offsets
        self.terms, self.dim = header.tensors["vectors"].shape
        self.fingerprint = f"terms:{header.metadata.get('digest', header.checksum)}"
        self._ends = self._part("ends", 4 * self.terms).cast("I")
        self._row = functools.lru_cache(maxsize=1 << 14)(self._find)

    def verify(self) -> None:
        """Checks every number, once, before a file is chosen. Raises UsageError."""
        ends = self._ends.tolist()
        size = len(memoryview(self._map)[self._offsets["terms"] :])
        weights = (number for name in ("query", "document") for number in self._part(name, 4 * self.terms).cast("f"))
        if any(a > b for a, b in itertools.pairwise(ends)) or ends[-1] > size or not all(map(math.isfinite, weights)):
            raise UsageError(f"{self.path} is not a router: its numbers are out of range", hint=_HINT)
        try:
            for row in range(self.terms):
                self.term(row)
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.path} is not a router: its terms are not UTF-8", hint=_HINT) from error

    def _part(self, name: str, size: int, start: int = 0) -> memoryview:
        begin = self._offsets[name] + start
        return memoryview(self._map)[begin : begin + size]

    # --- questions: without numpy, whose import takes longer than this --------------------------------------------

    def query(self, terms: Sequence[str]) -> list[float] | None:
        """The unit vector of a question's terms (stemmed), None if no term is known."""
        total = [0.0] * self.dim
        for term in dict.fromkeys(terms):
            if found := self._asked(term):
                weight, vector = found
                total = [sum_ + weight * value for sum_, value in zip(total, vector, strict=True)]
        norm = math.sqrt(sum(value * value for value in total))
        return [value / norm for value in total] if norm else None

    def importance(self, term: str) -> float | None:
        """The length of what a term (stemmed) adds to a question's vector: about 1 for one that tells little, above 2
        for a rare one. None if it is not known."""
        found = self._asked(term)
        return None if found is None else float(found[0] * math.hypot(*found[1]))

    def _asked(self, term: str) -> tuple[float, memoryview] | None:
        """The weight of a term (stemmed) in a question, and its vector; None if it is not known."""
        row = self._row(term.encode("utf-8", "surrogatepass"))
        if row is None:
            return None
        return self._part("query", 4, 4 * row).cast("f")[0], self._part("vectors", self.dim, self.dim * row).cast("b")

    def _find(self, term: bytes) -> int | None:
        """The row of a term, found by bisection."""
        low, high = 0, self.terms
        while low < high:
            middle = (low + high) // 2
            candidate = self._term(middle)
            if candidate == term:
                return middle
            if candidate < term:
                low = middle + 1
            else:
                high = middle
        return None

    def _term(self, row: int) -> bytes:
        start = self._ends[row - 1] if row else 0
        return bytes(self._part("terms", self._ends[row] - start, start))

    def term(self, row: int) -> str:
        return self._term(row).decode("utf-8", "surrogatepass")

    def table(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The start of further training: vectors float32 [V, D] with a largest number of 1, and q_t, d_t, each [V]."""
        import numpy as np

        _, codes, document = self._tables
        query = np.frombuffer(self._part("query", 4 * self.terms), dtype=np.float32)
        return codes.astype(np.float32) / 127, (query * 127, document * 127)

    # --- chunks ------------------------------------------------------------------------------------------------

    def documents(self, counts: Sequence[Mapping[str, int]]) -> list[bytes]:
        """The vectors of some chunks (term -> frequency): each int8 [D], a unit vector times `SCALE`."""
        import numpy as np

        rows, vectors, weights = self._tables
        ids = array("I")
        numbers = array("f")
        starts = array("q")
        for of_chunk in counts:
            starts.append(len(ids))
            for term, count in of_chunk.items():
                row = rows.get(term)
                if row is not None:
                    ids.append(row)
                    numbers.append(count)
        at = np.frombuffer(ids, dtype=np.uint32)
        scaled = np.log1p(np.frombuffer(numbers, dtype=np.float32)) * weights[at]
        sums = np.zeros((len(counts), self.dim), dtype=np.float32)
        for chunk, (start, stop) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
            if stop > start:
                sums[chunk] = scaled[start:stop] @ vectors[at[start:stop]].astype(np.float32)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        codes = np.rint(np.clip(sums / np.maximum(norms, 1e-9) * SCALE, -127, 127)).astype(np.int8)
        return [row.tobytes() for row in codes]

    @functools.cached_property
    def _tables(self) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
        import numpy as np

        rows = {self.term(row): row for row in range(self.terms)}
        vectors = np.frombuffer(self._part("vectors", self.terms * self.dim), dtype=np.int8)
        weights = np.frombuffer(self._part("document", 4 * self.terms), dtype=np.float32)
        return rows, vectors.reshape(self.terms, self.dim), weights


@functools.lru_cache(maxsize=4)
def term_embedder(path: Path = SHIPPED) -> TermEmbedder:
    """The term vectors of this file, opened once in a process."""
    return TermEmbedder(Path(os.path.abspath(path)))


def _check(header: Header) -> None:
    """Raises Malformed unless the file has these tensors, in shapes that fit each other."""
    tensors = header.tensors
    if {name: tensor.dtype for name, tensor in tensors.items()} != _NAMES:
        raise Malformed(f"it does not have the tensors {', '.join(_NAMES)}")
    if len(tensors["vectors"].shape) != 2 or not 8 <= tensors["vectors"].shape[1] <= 4096:
        raise Malformed("its vectors have the wrong shape")
    rows = tensors["vectors"].shape[0]
    if rows == 0 or any(tensors[name].shape != (rows,) for name in ("ends", "query", "document")):
        raise Malformed("it does not have two weights and a term for each vector")
