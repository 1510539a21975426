"""`awareness` as a system of the benchmark: complete, and with each of its parts switched off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metrics import Place
from peers import TOP, Answers

from awareness.engine.embedders import choose_router, embedder_of, renew_vectors, resolve_router
from awareness.engine.models import pull_model
from awareness.engine.second_stage import load_second_stage
from awareness.engine.workspace import Workspace
from awareness.index.search.ranking import GATHERED, SPREAD, HybridRouter, Rules
from awareness.index.search.routing_index import SHIPPED_ROUTER
from awareness.index.store.lock import writing
from awareness.index.store.store import Snapshot, Store
from awareness.model import presets

WHOLE = SPREAD
BARE = Rules(
    lexical=0.0,
    dense=0.0,
    kinds=False,
    definition=0.0,
    calls=0.0,
    same_file=1.0,
    same_file_named=1.0,
    artefacts=1.0,
    lookup=0.0,
    body_definition=0.0,
    joined=False,
    near=False,
    symbol_words=0.0,
    literal=0.0,
    message=0.0,
    mention=0.0,
    in_file=0.0,
    verbatim=0.0,
    pages=False,
    past=0,
)
VARIANTS = {
    "ours": WHOLE,
    "without dense": replace(WHOLE, dense=0.0),
    "without words": replace(WHOLE, lexical=0.0),
    "without kinds": replace(WHOLE, kinds=False),
    "without definitions": replace(WHOLE, definition=0.0, lookup=0.0, body_definition=0.0),
    "without joined names": replace(WHOLE, joined=False, near=False),
    "without symbol words": replace(WHOLE, symbol_words=0.0),
    "without words in order": replace(WHOLE, verbatim=0.0, literal=0.0, message=0.0),
    "without places": replace(WHOLE, mention=0.0, in_file=0.0),
    "without pages": replace(WHOLE, pages=False),
    "without calls": replace(WHOLE, calls=0.0),
    "without spreading": GATHERED,  # as `ask` routes
    "without past commits": replace(WHOLE, past=0),
    "without intent": replace(WHOLE, same_file_named=WHOLE.same_file),
    "bm25": replace(BARE, lexical=1.0),
    "dense": replace(BARE, dense=1.0),
}


def built(root: Path) -> tuple[Store, Snapshot, float]:
    """The open routing index of a repository, and the seconds to build it; 0 if it existed."""
    workspace = Workspace.open(root)
    seconds = 0.0
    if not workspace.layout.exists:
        folder = pull_model(presets.DEFAULT_MODEL)
        started = time.perf_counter()
        with writing(workspace.layout), Store.create(workspace.layout) as store:
            workspace.refresh(store, folder)
        seconds = time.perf_counter() - started
    return *workspace.open_snapshot(), seconds


def with_router(store: Store, router: str | None) -> float:
    """Make the index use this router (None: the shipped one). Returns the seconds to compute its vectors."""
    started = time.perf_counter()
    with writing(store.layout):
        choose_router(store, resolve_router(router or SHIPPED_ROUTER))
        renew_vectors(store)
    return time.perf_counter() - started


@dataclass
class Ours:
    """One index is built per repository and shared by all variants. router: an embedding model, or a file. deep: with
    the second stage; its time is that of questions about code that it has not read yet."""

    rules: Rules
    router: str | None = None
    deep: bool = False

    def __call__(self, root: Path, queries: Sequence[str]) -> Answers:
        answers = Answers()
        store, snapshot, answers.index_s = built(root)
        with store:
            if store.routing.router != (self.router or SHIPPED_ROUTER):
                answers.index_s += with_router(store, self.router)
            again = load_second_stage() if self.deep else None
            router = HybridRouter(store, snapshot.id, embedder=embedder_of(store), rules=self.rules, second_stage=again)
            router.search("warm up", top_k=TOP)
            for query in queries:
                started = time.perf_counter()
                hits = router.search(query, top_k=TOP)
                answers.query_s.append(time.perf_counter() - started)
                answers.hits.append([Place(h.chunk.path, h.chunk.start_line, h.chunk.end_line, h.score) for h in hits])
        return answers
