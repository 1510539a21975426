"""The chunks that are most like the one at a line: by their vectors, and by the rare terms that they share."""

from __future__ import annotations

import math
from collections.abc import Callable

from awareness.errors import UsageError
from awareness.index.search.routing_index import terms_of
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store, StoredChunk
from awareness.index.structure.code_view import CodeView
from awareness.types import Hit, printable

_TERMS = 24  # the most telling ones of a chunk
_CANDIDATES = 200  # from each of the two rankings
_BY_VECTOR = 0.5  # the share of the cosine in a score


def similar_chunks(
    store: Store, snapshot: int, path: str, line: int, *, top_k: int, in_scope: Callable[[str], bool] | None = None
) -> list[Hit]:
    """The chunks most like the one at a line of a file, best first, without itself and its copies.

    A score is half the cosine of the vectors, half the BM25 of the chunk's most telling terms, divided by what the
    chunk itself gets. Raises UsageError for a file that is not indexed and for a line that it does not have.
    """
    with store.reading(), failures(store.layout.manifest):
        given = chunk_at(CodeView(store, snapshot), path, line)
        routing = store.routing
        counts, _ = terms_of(given.chunk)
        frequencies = routing.postings.frequencies(counts)
        total = routing.postings.count()
        weights = {
            term: math.log1p(counts[term]) * math.log(1 + total / count)
            for term, count in frequencies.items()
            if count > 1 and 2 * count <= max(total, 4)
        }
        telling = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_TERMS])
        ranking = routing.postings.rank(telling)
        own = ranking.scores.get(given.id) or ranking.bound or 1.0
        vector = routing.vectors.vector(given.id)
        nearest = routing.vectors.similar(vector, _CANDIDATES) if vector else None
        allowed = None
        if in_scope is not None:
            allowed = set(store.chunk_ids([file for file, known, _ in store.files(snapshot) if in_scope(known)]))
            ranking = ranking.among(allowed)
        ids = [i for i, _ in ranking.best(_CANDIDATES)]
        if nearest is not None:
            best = nearest.best if allowed is None else nearest.of(allowed).items()
            ids += [i for i, _ in sorted(best, key=lambda item: -item[1])[:_CANDIDATES]]
        shown = store.chunks_shown(snapshot, sorted(set(ids) - {given.id}))
        cosines = nearest.of(shown) if nearest is not None else {}
        hits: list[Hit] = []
        for i, stored in shown.items():
            lexical = min(1.0, ranking.scores.get(i, 0.0) / own)
            share = _BY_VECTOR if i in cosines else 0.0
            score = share * max(0.0, min(1.0, cosines.get(i, 0.0))) + (1 - share) * lexical
            hits.append(Hit(stored.chunk, round(score, 4)))
        hits.sort(key=lambda hit: (-hit.score, hit.chunk.path, hit.chunk.start_line))
        texts = {_body(given.chunk.text)}
        kept: list[Hit] = []
        for hit in hits:
            if (body := _body(hit.chunk.text)) not in texts and hit.score > 0:
                texts.add(body)
                kept.append(hit)
        return kept[:top_k]


def chunk_at(code: CodeView, path: str, line: int) -> StoredChunk:
    """The chunk on a line of a file. Raises UsageError."""
    chunks = code.chunks(path)
    if not chunks:
        raise UsageError(f"{printable(path)} is not indexed", hint=f"awareness status --why {printable(path)}")
    last = max(stored.chunk.end_line for stored in chunks)
    if not 1 <= line <= last:
        raise UsageError(f"{printable(path)} has no line {line}", hint=f"a line from 1 to {last}")
    return code.chunk_at(path, line) or chunks[0]


def _body(text: str) -> str:
    """A text without indentation: two chunks with the same are copies."""
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())
