"""The routing index: everything in the manifest that leads from a question to chunks.

Three parts, filled together as chunks come and go: which chunks hold a term (postings.py), what they are about
(dense_vectors.py), what they define (definitions.py). How they are weighed is ranking.py's affair.

Whose vectors they are is chosen once for an index: a file of term vectors (term_vectors.py; the shipped one, unless
another is named), which makes them as chunks are added, or an embedding model, which is slow, needs torch, and is
brought by the command (`Embedder`).
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
from awareness.index.search.terms import stems, weighted_terms
from awareness.types import Chunk, Embedder

SCHEMA = postings.SCHEMA + dense_vectors.SCHEMA + definitions.SCHEMA
SYMBOL_WEIGHT, PATH_WEIGHT = 6, 4  # of a word there, against one in the text
SHIPPED_ROUTER = "shipped"
HEAD_SUFFIX = ".head.safetensors"  # of a router on a decoder's hidden states, a kind that was removed
_SUFFIX = ".safetensors"


class Routing:
    """Of one open manifest. Methods that write are called inside a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.db = connection
        self.postings = Postings(connection)
        self.vectors = Vectors(connection)
        self.definitions = Definitions(connection)
        self._make: Documents | None = None

    # --- whose vectors -----------------------------------------------------------------------------------------

    @property
    def router(self) -> str:
        """What was chosen: `shipped`, a file of term vectors, or an embedding model."""
        return self._meta("router") or SHIPPED_ROUTER

    @property
    def terms(self) -> TermEmbedder | None:
        """The term vectors, unless the router is an embedding model. Raises UsageError if their file is gone."""
        router = self.router
        if router == SHIPPED_ROUTER:
            return term_embedder(SHIPPED)
        return term_embedder(Path(router)) if is_term_vectors(router) else None

    @property
    def made_by(self) -> str | None:
        """The fingerprint of whatever made the vectors that are there."""
        return self._meta("vectors")

    def choose(self, router: str) -> None:
        """From now on vectors are this router's."""
        self._remember("router", router)

    def make_by(self, fingerprint: str) -> None:
        """The vectors to come are by this; those by anything else are forgotten."""
        if self.made_by != fingerprint:
            self.vectors.clear()
            self._remember("vectors", fingerprint)

    def embed(self, chunks: Iterable[tuple[int, Chunk]], embedder: Embedder) -> None:
        """Makes vectors by an embedding model."""
        self.make_by(embedder.fingerprint)
        listed = list(chunks)
        made = embedder.chunks([chunk for _, chunk in listed])
        self.vectors.write((i, packed(vector)) for (i, _), vector in zip(listed, made, strict=True))

    def embed_terms(self, chunks: Iterable[tuple[int, Chunk]], terms: TermEmbedder) -> None:
        """Makes vectors by term vectors."""
        self.make_by(terms.fingerprint)
        for chunk_id, chunk in chunks:
            self.vectors.add(chunk_id, terms_of(chunk)[0], terms.documents)
        self.vectors.flush(terms.documents)

    def _meta(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (f"routing.{key}",)).fetchone()
        return cast(str, row[0]) if row else None

    def _remember(self, key: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"routing.{key}", value))

    # --- chunks come and go ------------------------------------------------------------------------------------

    def add(self, chunk_id: int, chunk: Chunk) -> None:
        """Takes up a chunk; ids ascend. Nothing is sure to be written before `flush`."""
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
        """Forgets chunks whose rows are gone; what hangs on those rows went with them."""
        self.postings.drop(ids)

    def clear(self) -> None:
        for part in (self.postings, self.vectors, self.definitions):
            part.clear()

    def merge(self) -> None:
        """Leaves nothing of what was dropped."""
        self.postings.merge()


def is_term_vectors(router: str) -> bool:
    """Is this the name of a file of term vectors, not of a model or of a head for one?"""
    return router.endswith(_SUFFIX) and not router.endswith(HEAD_SUFFIX)


def terms_of(chunk: Chunk) -> tuple[Counter[str], int]:
    """How often each term counts in a chunk, weighted by field, and how many terms it has."""
    counts = Counter(stems(chunk.text))
    length = counts.total()
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
