"""Whose vectors an index is searched by: chosen by name, remembered in the index, loaded when it is needed."""

from __future__ import annotations

import functools
from pathlib import Path

from awareness.cli import render
from awareness.cli.workspace import pull_model
from awareness.errors import UsageError
from awareness.index import build
from awareness.index.embedding import TermEmbedder
from awareness.index.routing import HEAD_SUFFIX, SHIPPED_ROUTER, is_term_vectors
from awareness.index.store import Store
from awareness.types import Embedder


def choose_router(store: Store, asked_for: str | None) -> None:
    """Makes the index use another router from now on; its vectors are made by `renew`. Call inside `writing(layout)`.

    asked_for: `shipped`, a file of term vectors, an embedding model, or None for no change. Raises UsageError or
    ModelNotAvailable for what is none of these, and changes nothing then.
    """
    if asked_for is None:
        return
    router = asked_for
    if is_term_vectors(asked_for):
        router = str(Path(asked_for).expanduser().absolute())
        TermEmbedder(Path(router))
    elif asked_for != SHIPPED_ROUTER:
        if Path(asked_for).expanduser().exists():
            router = str(Path(asked_for).expanduser().absolute())
        load_embedder(router)
    if router != store.routing.router:
        with store.changing():
            store.routing.choose(router)


def renew(store: Store) -> None:
    """Makes the vectors that are missing. Call inside `writing(layout)`."""
    build.renew_vectors(store)
    embedder = embedder_of(store)
    if embedder is not None:
        with render.progress() as progress:
            build.embed_pending(store, embedder, progress=progress)


def embedder_of(store: Store) -> Embedder | None:
    """The embedding model that the index is searched by, None for term vectors, which the index opens by itself."""
    router = store.routing.router
    return None if router == SHIPPED_ROUTER or is_term_vectors(router) else load_embedder(router)


@functools.lru_cache(maxsize=2)
def load_embedder(name: str) -> Embedder:
    """Raises UsageError or ModelNotAvailable."""
    try:
        if name.endswith(HEAD_SUFFIX):
            from awareness.model.hidden import HiddenStateEmbedder

            return HiddenStateEmbedder.of_file(Path(name), pull_model)
        from awareness.model.embed import TextEmbedder

        return TextEmbedder(pull_model(name))
    except UsageError as error:
        hint = "--router shipped, all-minilm-l6-v2, a hub id, a folder, or a file that `awareness train` wrote"
        raise UsageError(f"router {name}: {error.message}", hint=hint) from error
