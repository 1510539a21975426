"""A repository's index or a pack, opened to be searched; several are searched together and ranked as one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.embedders import embedder_of
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import IndexCorrupt
from awareness.index.files.repository import build_scope
from awareness.index.search.ranking import SPREAD, HybridRouter, Rules
from awareness.index.store.pack import open_pack
from awareness.index.store.store import Store
from awareness.types import Chunk, Hit, MemorySpec, printable


@dataclass(frozen=True)
class Corpus:
    """name: as the user wrote it, None for the only repository. quant: how its latents are stored. spec: of a pack's
    latents, which cannot be made anew; None for a repository. verify: True if the code still reads like the chunk."""

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
        """A damaged pack, or a damaged cache of one, is repaired by reading the pack again, not by `repair`."""
        try:
            yield
        except IndexCorrupt as error:
            if self.spec is None:
                raise
            shutil.rmtree(self.store.layout.root, ignore_errors=True)
            raise IndexCorrupt(error.message, hint="the same command again, which checks the whole pack") from error


@dataclass(frozen=True)
class CorpusHit:
    """A hit and the corpus that it comes from."""

    corpus: Corpus
    hit: Hit

    @property
    def chunk(self) -> Chunk:
        return self.hit.chunk

    @property
    def score(self) -> float:
        """In [0, 1]; comparable between corpora."""
        return self.hit.score

    @property
    def place(self) -> str:
        """`path:first-last`, with the commit and the corpus where they are needed."""
        rev = f"@{self.corpus.rev[:12]}" if self.corpus.rev else ""
        return f"{self.chunk.place}{rev}" + (f" ({self.corpus.name})" if self.corpus.name else "")

    @property
    def symbol(self) -> str:
        """On one line, safe to print."""
        return printable(self.chunk.symbol)

    @property
    def is_current(self) -> bool:
        """True if the code, read again now, is what was indexed."""
        return self.corpus.verify(self.chunk)

    def preview(self, lines: int = 3) -> str:
        """The chunk's first lines that are not blank, each of at most 120 characters."""
        filled = [line for line in self.chunk.text.split("\n") if line.strip()]
        return "\n".join(line[:120] for line in filled[:lines])

    def to_json(self, *, with_preview: bool = True) -> dict[str, object]:
        chunk = self.chunk
        preview = {"preview": self.preview()} if with_preview else {}
        return {
            "path": chunk.path,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "symbol": chunk.symbol,
            "score": self.score,
            "rev": self.corpus.rev,
            "origin": self.corpus.name,
            **preview,
        }


@contextlib.contextmanager
def open_corpora(
    workspaces: Sequence[Workspace], packs: Sequence[Path], reporter: Reporter = SILENT
) -> Iterator[list[Corpus]]:
    """Opens the indexes of repositories, and packs. Raises NoIndex."""
    has_several = len(workspaces) + len(set(packs)) > 1
    with contextlib.ExitStack() as stack:
        corpora = []
        for workspace in workspaces:
            store, snapshot = workspace.open_snapshot()
            stack.enter_context(store)
            corpora.append(
                Corpus(
                    name=workspace.repository.root.name if has_several else None,
                    store=store,
                    snapshot=snapshot.id,
                    rev=workspace.rev,
                    model=snapshot.model,
                    quant=quant_of(store),
                    spec=None,
                    verify=workspace.shows,
                )
            )
        for path in dict.fromkeys(packs):
            with reporter.progress() as progress:
                pack = open_pack(path, progress=progress)
            stack.enter_context(pack.store)
            corpora.append(
                Corpus(
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
        yield corpora


def open_workspaces(repos: Sequence[Path], packs: Sequence[Path], rev: str | None) -> list[Workspace]:
    """The repositories named, each once; else the current folder's, unless only packs are named."""
    workspaces = [Workspace.open(path, rev=rev) for path in repos or ([] if packs else [Path()])]
    return list({workspace.repository.root: workspace for workspace in workspaces}.values())


def search_corpora(
    corpora: Sequence[Corpus],
    query: str,
    scope: Sequence[str] | None,
    top_k: int,
    rules: Rules = SPREAD,
    reporter: Reporter = SILENT,
) -> list[CorpusHit]:
    """The best hits of all corpora, best first. scope: globs of paths, `!` before one excludes."""
    in_scope = build_scope(scope) if scope else None
    hits: list[CorpusHit] = []
    for corpus in corpora:
        with corpus.blaming_the_pack():
            router = HybridRouter(corpus.store, corpus.snapshot, in_scope, embedder_of(corpus.store, reporter), rules)
            hits += [CorpusHit(corpus, hit) for hit in router.search(query, top_k=top_k)]
    return sorted(hits, key=lambda hit: -hit.score)[:top_k]
