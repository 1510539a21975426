"""What a question is put to: repositories with their indexes, and packs; all of them at once, ranked together."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.cli import render
from awareness.cli.routers import embedder_of
from awareness.cli.workspace import Workspace, quant_of
from awareness.errors import IndexCorrupt
from awareness.index.files.repository import build_scope
from awareness.index.search.ranking import SPREAD, HybridRouter, Rules
from awareness.index.store.pack import open_pack
from awareness.index.store.store import Store
from awareness.types import Chunk, Hit, MemorySpec


@dataclass(frozen=True)
class Origin:
    """One of the things asked. name: how the user named it, None for the only repository. quant: how its latents are
    stored. spec: of its latents where it can't have others (a pack). verify: does the code still say this?"""

    name: str | None
    store: Store
    snapshot: int
    rev: str | None
    model: str
    quant: str
    spec: MemorySpec | None
    verify: Callable[[Chunk], bool]

    @contextlib.contextmanager
    def blaming_the_pack(self) -> Iterator[None]:
        """Damage to what the cache keeps of a pack, or to the pack, is mended by reading it anew, not by `repair`."""
        try:
            yield
        except IndexCorrupt as error:
            if self.spec is None:
                raise
            shutil.rmtree(self.store.layout.root, ignore_errors=True)
            raise IndexCorrupt(error.message, hint="the same command again, which checks the whole pack") from error


@dataclass(frozen=True)
class Found:
    """A hit and where it comes from."""

    origin: Origin
    hit: Hit

    @property
    def place(self) -> str:
        """`path:first-last`, with the commit and the origin where they are needed."""
        rev = f"@{self.origin.rev[:12]}" if self.origin.rev else ""
        return f"{self.hit.chunk.place}{rev}" + (f" ({self.origin.name})" if self.origin.name else "")


@contextlib.contextmanager
def opened(workspaces: Sequence[Workspace], packs: Sequence[Path] | None) -> Iterator[list[Origin]]:
    """Opens the indexes of repositories, and packs. Raises NoIndex."""
    several = len(workspaces) + len(set(packs or ())) > 1
    with contextlib.ExitStack() as stack:
        origins = []
        for workspace in workspaces:
            store, snapshot = workspace.open_snapshot()
            stack.enter_context(store)
            origins.append(
                Origin(
                    name=workspace.repository.root.name if several else None,
                    store=store,
                    snapshot=snapshot.id,
                    rev=workspace.rev,
                    model=snapshot.model,
                    quant=quant_of(store),
                    spec=None,
                    verify=workspace.shows,
                )
            )
        for path in dict.fromkeys(packs or ()):
            with render.progress() as progress:
                pack = open_pack(path, progress=progress)
            stack.enter_context(pack.store)
            origins.append(
                Origin(
                    name=str(path),
                    store=pack.store,
                    snapshot=pack.snapshot,
                    rev=pack.about.rev,
                    model=pack.about.model,
                    quant=pack.spec.quant,
                    spec=pack.spec,
                    # Every chunk of a pack was compared with its digest, and so is every page that it is read from.
                    verify=lambda chunk: True,
                )
            )
        yield origins


def workspaces_asked(repos: Sequence[Path] | None, packs: Sequence[Path] | None, rev: str | None) -> list[Workspace]:
    """The repositories that are asked: those named, else the current folder's, unless only packs are named."""
    opened = [Workspace.open(path, rev=rev) for path in repos or ([] if packs else [Path()])]
    return list({workspace.repository.root: workspace for workspace in opened}.values())


def search_all(
    origins: Sequence[Origin], query: str, scope: Sequence[str] | None, top_k: int, rules: Rules = SPREAD
) -> list[Found]:
    """The best hits of all origins, best first; scores are in [0, 1] everywhere."""
    in_scope = build_scope(scope) if scope else None
    found = []
    for origin in origins:
        with origin.blaming_the_pack():
            router = HybridRouter(origin.store, origin.snapshot, in_scope, embedder_of(origin.store), rules)
            hits = router.search(query, top_k=top_k)
        found += [Found(origin, hit) for hit in hits]
    return sorted(found, key=lambda one: -one.hit.score)[:top_k]
