"""Which embedding model an index is searched with: chosen by name, remembered in the index, loaded on first use."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Sequence
from pathlib import Path

from awareness.engine.models import pull_model
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import UsageError
from awareness.index import build
from awareness.index.search.routing_index import HEAD_SUFFIX, SHIPPED_ROUTER, is_term_vectors, terms_of
from awareness.index.search.term_vectors import SCALE, TermEmbedder
from awareness.index.search.terms import weighted_terms
from awareness.index.store.store import Store
from awareness.types import Chunk, Embedder

_ROUTERS = "--router shipped, all-minilm-l6-v2, a hub id, a folder, or a .safetensors file that `awareness train` wrote"


def resolve_router(name: str | None, reporter: Reporter = SILENT) -> str | None:
    """The router's name as an index remembers it; None for no change.

    name: `shipped`, a file of term vectors, or an embedding model. Raises UsageError or ModelNotAvailable for anything
    else.
    """
    if name is None or name == SHIPPED_ROUTER:
        return name
    if not name.strip():
        raise UsageError(f"'{name}' is no router", hint=_ROUTERS)
    path = Path(name).expanduser()
    router = str(path.absolute()) if path.exists() or is_term_vectors(name) else name
    if is_term_vectors(name):
        TermEmbedder(path).verify()
    else:
        load_embedder(router, reporter)
    return router


def choose_router(store: Store, router: str | None) -> None:
    """Makes the index use what `resolve_router` returned; `renew_vectors` then makes its vectors. Call inside
    `writing(layout)`."""
    if router is not None and router != store.routing.router:
        with store.changing():
            store.routing.choose(router)


def renew_vectors(store: Store, reporter: Reporter = SILENT) -> None:
    """Makes the vectors that are missing. Call inside `writing(layout)`."""
    build.renew_vectors(store)
    embedder = embedder_of(store, reporter)
    if embedder is not None:
        with reporter.progress() as progress:
            build.embed_pending(store, embedder, progress=progress)


def embedder_of(store: Store, reporter: Reporter = SILENT) -> Embedder | None:
    """The embedding model that the index is searched with; None for term vectors, which the index opens by itself."""
    router = store.routing.router
    return None if router == SHIPPED_ROUTER or is_term_vectors(router) else load_embedder(router, reporter)


@functools.lru_cache(maxsize=2)
def load_embedder(name: str, reporter: Reporter = SILENT) -> Embedder:
    """Raises UsageError or ModelNotAvailable."""
    if name.endswith(HEAD_SUFFIX):
        raise UsageError(
            f"router {name} is a head for hidden states, and routers of that kind were removed (docs/routing.md)",
            hint="awareness index --router shipped",
        )
    try:
        from awareness.model.text_embedder import TextEmbedder

        return TextEmbedder(pull_model(name, reporter))
    except UsageError as error:
        raise UsageError(f"router {name}: {error.message}", hint=_ROUTERS) from error


def embed_texts(
    store: Store, texts: Sequence[str], *, as_code: bool = False, reporter: Reporter = SILENT
) -> list[list[float]]:
    """The unit vectors that the index compares: of questions, or as_code of texts like its chunks; by term vectors or
    the embedding model, whichever it is searched with. Raises UsageError for a text without a vector."""
    embedder, terms = embedder_of(store, reporter), store.routing.terms
    chunks = [Chunk("", 1, 1 + text.count("\n"), "", text) for text in texts] if as_code else []
    vectors: list[list[float] | None]
    if embedder is not None:
        made = embedder.chunks(chunks) if as_code else map(embedder.question, texts)
        vectors = [[float(number) for number in vector] for vector in made]
    elif terms is None:
        raise UsageError(f"router {store.routing.router} has no vectors", hint=_ROUTERS)
    elif as_code:
        codes = terms.documents([terms_of(chunk)[0] for chunk in chunks])
        vectors = [_unit([number / SCALE for number in array("b", code)]) for code in codes]
    else:
        vectors = [terms.query(list(weighted_terms(text))) for text in texts]
    for number, vector in enumerate(vectors):
        if vector is None:
            raise UsageError(f"text {number} has no word that the router knows", hint="other words, or leave it out")
    return [vector for vector in vectors if vector is not None]


def _unit(vector: list[float]) -> list[float] | None:
    norm = math.hypot(*vector)
    return [number / norm for number in vector] if norm else None
