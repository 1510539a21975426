"""Which repositories of a fleet a question is about, by their words: the first step of a search over many.

An object in `routing/` holds, for some repositories, the terms of each with the number of its chunks that hold it: an
inverted index whose documents are repositories. It is a safetensors file of arrays, which is mapped, not read: a
question looks up its own terms in it, so the memory that it takes does not grow with the fleet.

Ranking is BM25 (Robertson and Zaragoza 2009, section 3.2) with a repository as the document, its chunks as the length,
and the chunks that hold a term as its frequency. `B` was chosen on ten development repositories among 200 packages: a
large repository is more often what a question is about than its length lets BM25 expect.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from awareness.errors import IndexCorrupt, storage_errors
from awareness.index.search.bm25 import K1
from awareness.index.search.terms import stems, weighted_terms
from awareness.index.store.tensorfile import Header, Malformed, TensorInfo, read_header, write

FORMAT_VERSION = 1
B = 0.5
MOST_OBJECTS = 24
"""More are joined: each question looks into all of them."""
JOINED_AT_ONCE = 16
NAMED = 255
"""The chunks that are counted to hold a word of the repository's own name: the most that there can be."""
_DTYPES = {
    "terms": np.uint8,
    "term_starts": np.uint32,
    "posting_starts": np.uint32,
    "repositories": np.uint32,
    "counts": np.uint8,
    "lengths": np.uint32,
}
_NAMES = {np.uint8: "U8", np.uint32: "U32"}
_MOST_NUMBER = (1 << 32) - 1


@dataclass(frozen=True)
class Words:
    """Of one repository. object: digest of its repository object. chunks: how many it has. counts: term -> the chunks
    that hold it."""

    object: str
    chunks: int
    counts: Mapping[str, int]


def named(name: str, counts: Mapping[str, int]) -> dict[str, int]:
    """The words of a repository with those of its name."""
    return {**counts, **dict.fromkeys(stems(name.replace("/", " ")), NAMED)}


def pack(repositories: Sequence[Words]) -> bytes:
    """An object of these repositories; equal arguments give equal bytes."""
    rows = heapq.merge(*(_rows_of(words, place) for place, words in enumerate(repositories)))
    return _packed(rows, [words.object for words in repositories], [words.chunks for words in repositories])


def _rows_of(words: Words, place: int) -> Iterator[tuple[str, int, int]]:
    return ((term, place, count) for term, count in sorted(words.counts.items()))


def join(objects_of_words: Sequence[bytes], kept: Iterable[str]) -> tuple[bytes, tuple[str, ...]]:
    """One object for those repositories of several objects that are kept, and its repositories (by their objects)."""
    temporary = Path(tempfile.gettempdir())
    with storage_errors(temporary), tempfile.TemporaryDirectory(prefix="awareness-words-") as folder:
        parts = []
        for number, data in enumerate(objects_of_words):
            path = Path(folder) / f"{number}"
            path.write_bytes(data)
            parts.append(WordTable(path))
        return _joined(parts, set(kept))


def _joined(parts: Sequence[WordTable], wanted: set[str]) -> tuple[bytes, tuple[str, ...]]:
    objects: list[str] = []
    chunks: list[int] = []
    rows = []
    for part in parts:
        numbers = {}
        for place, name in enumerate(part.objects):
            if name in wanted:
                wanted.discard(name)
                numbers[place] = len(objects)
                objects.append(name)
                chunks.append(int(part.lengths[place]))
        rows.append(part.rows(numbers))
    return _packed(heapq.merge(*rows), objects, chunks), tuple(objects)


def _packed(rows: Iterable[tuple[str, int, int]], objects: Sequence[str], chunks: Sequence[int]) -> bytes:
    """rows: (term, place of the repository, chunks that hold it), sorted."""
    terms, term_starts, posting_starts = bytearray(), [0], [0]
    places: list[int] = []
    counts = bytearray()
    for term, group in itertools.groupby(rows, key=lambda row: row[0]):
        terms += term.encode("utf-8", "surrogatepass")
        for _, place, count in group:
            places.append(place)
            counts.append(min(count, 255))
        term_starts.append(len(terms))
        posting_starts.append(len(places))
    if max(len(terms), len(places)) > _MOST_NUMBER:
        raise ValueError("too many words for one object")
    arrays: dict[str, np.ndarray] = {
        "terms": np.frombuffer(bytes(terms), dtype=np.uint8),
        "term_starts": np.array(term_starts, dtype=np.uint32),
        "posting_starts": np.array(posting_starts, dtype=np.uint32),
        "repositories": np.array(places, dtype=np.uint32),
        "counts": np.frombuffer(bytes(counts), dtype=np.uint8),
        "lengths": np.array(chunks, dtype=np.uint32),
    }
    infos = [TensorInfo(name, _NAMES[_DTYPES[name]], array.shape) for name, array in arrays.items()]
    metadata = {"format": "awareness-words", "version": str(FORMAT_VERSION), "objects": json.dumps(list(objects))}
    temporary = Path(tempfile.gettempdir())
    with storage_errors(temporary), tempfile.TemporaryDirectory(prefix="awareness-words-") as folder:
        path = Path(folder) / "words"
        write(path, infos, (array.tobytes() for array in arrays.values()), lambda _: metadata)
        return path.read_bytes()


class WordTable:
    """One object, mapped from its file. Raises IndexCorrupt for a file that is not one. objects: of its repositories;
    lengths: their chunks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                header = read_header(file.fileno())
            self.objects = _objects(header)
            arrays = {name: self._mapped(header, name) for name in _DTYPES}
            self._terms, self._starts = arrays["terms"], arrays["term_starts"]
            self._postings, self._places, self._counts = (
                arrays[name] for name in ("posting_starts", "repositories", "counts")
            )
            self.lengths = arrays["lengths"]
            fits = (
                len(self._starts) == len(self._postings) >= 1
                and len(self._places) == len(self._counts) == int(self._postings[-1])
                and int(self._starts[-1]) == len(self._terms)
                and len(self.lengths) == len(self.objects)
            )
            if not fits:
                raise Malformed("its arrays do not fit together")
        except (Malformed, ValueError, OSError) as error:
            raise IndexCorrupt(
                f"{path} is damaged: {error}", hint="the same command again, which fetches it"
            ) from error

    def _mapped(self, header: Header, name: str) -> np.ndarray:
        info = header.tensors.get(name)
        if info is None or info.dtype != _NAMES[_DTYPES[name]] or len(info.shape) != 1:
            raise Malformed(f"it has no array {name}")
        if info.nbytes == 0:
            return np.zeros(0, dtype=_DTYPES[name])
        return np.memmap(self.path, dtype=_DTYPES[name], mode="r", offset=header.offsets[name], shape=info.shape)

    def holding(self, term: str) -> tuple[np.ndarray, np.ndarray]:
        """The places in `objects` of the repositories that hold a term, uint32 [N], and their chunks with it, [N]."""
        wanted = term.encode("utf-8", "surrogatepass")
        low, high = 0, len(self._starts) - 1
        while low < high:
            middle = (low + high) // 2
            found = self._term(middle)
            if found == wanted:
                return self._rows(middle)
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.uint8)

    def rows(self, numbers: Mapping[int, int]) -> Iterator[tuple[str, int, int]]:
        """(term, new place, chunks that hold it), sorted. numbers: the places that are kept -> their new ones."""
        for i in range(len(self._starts) - 1):
            term = self._term(i).decode("utf-8", "surrogatepass")
            places, counts = self._rows(i)
            for place, count in sorted(zip(places.tolist(), counts.tolist(), strict=True)):
                if place in numbers:
                    yield term, numbers[place], count

    def _term(self, number: int) -> bytes:
        return bytes(self._terms[int(self._starts[number]) : int(self._starts[number + 1])])

    def _rows(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(int(self._postings[number]), int(self._postings[number + 1]))
        places, counts = self._places[part], self._counts[part]
        if len(places) and int(places.max()) >= len(self.objects):
            raise IndexCorrupt(f"{self.path} is damaged: a word has no repository", hint="delete it, and ask again")
        return places, counts


def _objects(header: Header) -> tuple[str, ...]:
    if header.metadata.get("format") != "awareness-words" or header.metadata.get("version") != str(FORMAT_VERSION):
        raise Malformed("it has another format")
    try:
        objects = json.loads(header.metadata["objects"])
    except (KeyError, ValueError, RecursionError):
        raise Malformed("it names no repositories") from None
    if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
        raise Malformed("it names no repositories")
    return tuple(objects)


def best_repositories(
    question: str, tables: Sequence[WordTable], live: Iterable[str], most: int
) -> list[tuple[str, float]]:
    """(repository object, score) of those that the question is about, best first. live: the objects that count."""
    wanted = set(live)
    kept = [np.array([name in wanted for name in table.objects], dtype=bool) for table in tables]
    numbers = sum(int(mask.sum()) for mask in kept)
    length = sum(int(table.lengths[mask].sum()) for table, mask in zip(tables, kept, strict=True))
    average = max(1.0, length / max(1, numbers))
    scores = [np.zeros(len(table.objects), dtype=np.float32) for table in tables]
    for term, weight in weighted_terms(question).items():
        held = [table.holding(term) for table in tables]
        holding = sum(int(mask[places].sum()) for (places, _), mask in zip(held, kept, strict=True))
        idf = math.log1p((numbers - holding + 0.5) / (holding + 0.5))
        for (places, counts), table, score in zip(held, tables, scores, strict=True):
            if len(places):
                frequency = counts.astype(np.float32)
                norm = K1 * (1 - B + B * table.lengths[places] / average)
                score[places] += weight * idf * (K1 + 1) * frequency / (frequency + norm)
    found: dict[str, float] = {}
    for table, mask, score in zip(tables, kept, scores, strict=True):
        score[~mask] = 0.0
        for place in np.argsort(-score, kind="stable")[:most]:
            if score[place] > 0:
                found[table.objects[place]] = max(found.get(table.objects[place], 0.0), float(score[place]))
    return heapq.nsmallest(most, found.items(), key=lambda item: (-item[1], item[0]))
