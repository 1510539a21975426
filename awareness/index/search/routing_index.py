"""The routing index: everything in the manifest that leads from a question to chunks.

It has three parts, filled together as chunks are added: the terms of each chunk (postings.py), its vector
(dense_vectors.py) and its definition (definitions.py). ranking.py combines them.

The router that makes the vectors is chosen once for an index. It is a file of term vectors (term_vectors.py; by default
the shipped one), which makes them as chunks are added, or an embedding model (`Embedder`), which is slow, needs torch
and is passed in by the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import apsw

from awareness.index.search import definitions, dense_vectors, postings
from awareness.index.search.definitions import Definitions
from awareness.index.search.dense_vectors import Documents, Vectors, packed
from awareness.index.search.postings import Postings
from awareness.index.search.term_vectors import SHIPPED, TermEmbedder, term_embedder
from awareness.index.search.terms import is_single, stems, weighted_terms
from awareness.types import Chunk, Embedder

SCHEMA = postings.SCHEMA + dense_vectors.SCHEMA + definitions.SCHEMA
SYMBOL_WEIGHT, PATH_WEIGHT = 6, 4  # of a term there; one in the text counts 1
SHIPPED_ROUTER = "shipped"
HEAD_SUFFIX = ".head.safetensors"  # of a router on a decoder's hidden states, a kind that was removed
_SUFFIX = ".safetensors"


class Routing:
    """The routing index of an open manifest. Call the methods that write inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection
        self.postings = Postings(connection)
        self.vectors = Vectors(connection)
        self.definitions = Definitions(connection)
        self._make: Documents | None = None

    # --- vectors -----------------------------------------------------------------------------------------------

    @property
    def router(self) -> str:
        """The chosen router: `shipped`, the path of a file of term vectors, or the name of an embedding model."""
        return self._meta("router") or SHIPPED_ROUTER

    @property
    def terms(self) -> TermEmbedder | None:
        """The term vectors, None if the router is an embedding model. Raises UsageError if their file is missing."""
        router = self.router
        if router == SHIPPED_ROUTER:
            return term_embedder(SHIPPED)
        return term_embedder(Path(router)) if is_term_vectors(router) else None

    @property
    def made_by(self) -> str | None:
        """The fingerprint of what made the stored vectors."""
        return self._meta("vectors")

    def choose(self, router: str) -> None:
        """Sets the router that makes the vectors from now on."""
        self._remember("router", router)

    def make_by(self, fingerprint: str) -> None:
        """Deletes the stored vectors unless they have this fingerprint, and remembers it for the next ones."""
        if self.made_by != fingerprint:
            self.vectors.clear()
            self._remember("vectors", fingerprint)

    def embed(self, chunks: Iterable[tuple[int, Chunk]], embedder: Embedder) -> None:
        """Makes the vectors of (id, chunk) with an embedding model."""
        self.make_by(embedder.fingerprint)
        by_id = dict(chunks)
        vectors = embedder.chunks(list(by_id.values()))
        self.vectors.write((i, packed(vector)) for i, vector in zip(by_id, vectors, strict=True))

    def embed_terms(self, chunks: Iterable[tuple[int, Chunk]], terms: TermEmbedder) -> None:
        """Makes the vectors of (id, chunk) from term vectors."""
        self.make_by(terms.fingerprint)
        for chunk_id, chunk in chunks:
            self.vectors.add(chunk_id, terms_of(chunk)[0], terms.documents)
        self.vectors.flush(terms.documents)

    def _meta(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (f"routing.{key}",)).fetchone()
        return cast(str, row[0]) if row else None

    def _remember(self, key: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"routing.{key}", value))

    # --- chunks ------------------------------------------------------------------------------------------------

    def add(self, chunk_id: int, chunk: Chunk) -> None:
        """Adds a chunk; ids ascend. It may not be written before `flush`."""
        counts, length = terms_of(chunk)
        self.postings.add(chunk_id, counts, length)
        self.definitions.add(chunk_id, chunk)
        self._make = self._make or self._documents()
        if self._make:
            self.vectors.add(chunk_id, counts, self._make)

    def flush(self) -> None:
        self.postings.flush()
        if self._make:
            self.vectors.flush(self._make)
        self._make = None

    def _documents(self) -> Documents | None:
        terms = self.terms
        if terms is None:
            return None
        if self.made_by is None:
            self.make_by(terms.fingerprint)
        return terms.documents if self.made_by == terms.fingerprint else None

    def drop(self, ids: Sequence[int]) -> None:
        """Removes chunks whose rows are deleted; SQLite has deleted their vectors and definitions with them."""
        self.postings.drop(ids)

    def clear(self) -> None:
        for part in (self.postings, self.vectors, self.definitions):
            part.clear()

    def merge(self) -> None:
        """Removes everything that is left of dropped chunks."""
        self.postings.merge()


def is_term_vectors(router: str) -> bool:
    """Is `router` the path of a file of term vectors, and neither a model nor a head for one?"""
    return router.endswith(_SUFFIX) and not router.endswith(HEAD_SUFFIX)


def terms_of(chunk: Chunk) -> tuple[Counter[str], int]:
    """term -> frequency in the chunk, weighted by field; the number of its terms."""
    counts = Counter(stems(chunk.text))
    length = sum(count for term, count in counts.items() if not is_single(term))  # which stand in pairs already
    for field, weight in ((chunk.symbol, SYMBOL_WEIGHT), (chunk.path, PATH_WEIGHT)):
        for term in stems(field):
            counts[term] += weight
            length += 1
    return counts, length


def rank_by_words(question: str, chunks: Sequence[Chunk]) -> list[int]:
    """Places in `chunks` by BM25, best first; chunks without any of the words last, in order. Needs no index."""
    connection = apsw.Connection(":memory:")
    connection.execute(postings.SCHEMA)
    index = Postings(connection)
    for place, chunk in enumerate(chunks):
        index.add(place, *terms_of(chunk))
    index.flush()
    best = [place for place, _ in index.rank(weighted_terms(question)).best(len(chunks))]
    connection.close()
    return best + [place for place in range(len(chunks)) if place not in set(best)]
