"""Whose vectors an index is searched by: chosen by name, remembered in the index, loaded when it is needed."""

from __future__ import annotations

import functools
from pathlib import Path

from awareness.cli import render
from awareness.cli.workspace import pull_model
from awareness.errors import UsageError
from awareness.index import build
from awareness.index.search.routing_index import HEAD_SUFFIX, SHIPPED_ROUTER, is_term_vectors
from awareness.index.search.term_vectors import TermEmbedder
from awareness.index.store.store import Store
from awareness.model import sources
from awareness.model.sources import ModelFolder
from awareness.types import Embedder

_ROUTERS = "--router shipped, all-minilm-l6-v2, a hub id, a folder, or a .safetensors file that `awareness train` wrote"


def find_router(asked_for: str | None) -> str | None:
    """The router as an index remembers it; None for no change.

    asked_for: `shipped`, a file of term vectors, an embedding model. Raises UsageError or ModelNotAvailable for what is
    none of these.
    """
    if asked_for is None or asked_for == SHIPPED_ROUTER:
        return asked_for
    if not asked_for.strip():
        raise UsageError(f"'{asked_for}' is no router", hint=_ROUTERS)
    path = Path(asked_for).expanduser()
    router = str(path.absolute()) if path.exists() or is_term_vectors(asked_for) else asked_for
    if is_term_vectors(asked_for):
        TermEmbedder(path).verify()
    else:
        load_embedder(router)
    return router


def choose_router(store: Store, found: str | None) -> None:
    """Makes the index use what `find_router` found; its vectors are made by `renew`. Call inside `writing(layout)`."""
    if found is not None and found != store.routing.router:
        with store.changing():
            store.routing.choose(found)


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


def _its_decoder(name: str) -> ModelFolder:
    """The decoder that a head names; what a stranger's file names is not fetched from the hub."""
    found = pull_model(name) if name in sources.PRESETS else sources.find(name)
    if found is None:
        raise UsageError(f"its decoder {name} is not on this machine", hint=f"awareness models pull {name}")
    return found


@functools.lru_cache(maxsize=2)
def load_embedder(name: str) -> Embedder:
    """Raises UsageError or ModelNotAvailable."""
    try:
        if name.endswith(HEAD_SUFFIX):
            from awareness.model.hidden import HiddenStateEmbedder

            return HiddenStateEmbedder.of_file(Path(name), _its_decoder)
        from awareness.model.text_embedder import TextEmbedder

        return TextEmbedder(pull_model(name))
    except UsageError as error:
        raise UsageError(f"router {name}: {error.message}", hint=_ROUTERS) from error
