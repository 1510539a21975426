"""A repository's index or a pack, opened to be searched; several are searched together and ranked as one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.corpus_names import Named, unique_names
from awareness.engine.embedders import embedder_of
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.units import named_list
from awareness.engine.workspace import Workspace, quant_of
from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.index.chunks.documents import Document
from awareness.index.files.file_kinds import kinds_named
from awareness.index.files.nested import nested_repositories
from awareness.index.files.patterns import build_scope
from awareness.index.files.repository import is_below
from awareness.index.files.scopes import no_match, rooted
from awareness.index.search.ranking import SPREAD, HybridRouter, Rules, SecondStage
from awareness.index.store.pack import open_pack
from awareness.index.store.store import Snapshot, Store
from awareness.types import Chunk, Hit, Latent, MemorySpec, printable


@dataclass(frozen=True)
class Corpus:
    """name: tells it from the others, None for the only repository. quant: how its latents are stored. spec: of the
    latents of a pack or fleet; None for a repository. verify: True if the code still reads like the chunk. below: the
    folder or file that alone is searched, empty for all. build_scope: patterns -> (path -> is it searched?), or None
    for all. read: path -> an indexed file as it is now, None if it is gone or left out now; None for a pack, which has
    no files. is_found: it was found in a folder, not named. root: of the work tree; None for a commit or a pack, whose
    files are not on disk. fetch: chunk digests -> the latents that a fleet has of them."""

    name: str | None
    store: Store
    snapshot: int
    rev: str | None
    model: str
    quant: str
    spec: MemorySpec | None
    verify: Callable[[Chunk], bool]
    below: str = ""
    is_found: bool = False
    root: Path | None = None
    build_scope: Callable[[Sequence[str] | None], Callable[[str], bool] | None] = lambda patterns: (
        build_scope(rooted(patterns, None)) if patterns else None
    )
    read: Callable[[str], Document | None] | None = None
    fetch: Callable[[Sequence[str]], dict[str, Latent]] | None = None

    def count_chunks(self) -> int:
        """How many chunks are searched."""
        if not self.below:
            return self.store.count_chunks(self.snapshot)
        files = [i for i, path, _ in self.store.files(self.snapshot) if is_below(path, self.below)]
        return len(self.store.chunk_ids(files))

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
        return self._named(self.chunk.place)

    @property
    def file(self) -> Path | None:
        """The file on disk; None for one of a commit or a pack, and for one that leads out of the work tree now."""
        root = self.corpus.root
        if root is None:
            return None
        path = root / self.chunk.path
        return path if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)) else None

    def place_of(self, first: int, last: int) -> str:
        """The same of some of its lines; `path:line` of a single one, as editors open it."""
        lines = f"{first}" if first == last else f"{first}-{last}"
        return self._named(f"{printable(self.chunk.path)}:{lines}")

    def _named(self, place: str) -> str:
        rev = f"@{self.corpus.rev[:12]}" if self.corpus.rev else ""
        return f"{place}{rev}" + (f" ({printable(self.corpus.name)})" if self.corpus.name else "")

    @property
    def symbol(self) -> str:
        """On one line, safe to print."""
        return printable(self.chunk.symbol)

    @property
    def is_current(self) -> bool:
        """True if the code, read again now, is what was indexed."""
        return self.corpus.verify(self.chunk)

    def lines_between(self, parts: Sequence[tuple[int, int]]) -> list[tuple[int, str]]:
        """The lines of these parts, each once, by number, without blank ones. parts: of its first and last lines."""
        numbers = sorted({number for first, last in parts for number in range(first, last + 1)})
        rows = self.chunk.text.split("\n")
        numbered = [(number, rows[number - self.chunk.start_line]) for number in numbers]
        return [(number, row) for number, row in numbered if row.strip()]

    def preview(self, lines: int = 3) -> str:
        """The chunk's first lines that are not blank, each of at most 120 characters."""
        filled = [line for line in self.chunk.text.split("\n") if line.strip()]
        return "\n".join(line[:120] for line in filled[:lines])

    def _where(self) -> dict[str, object]:
        chunk = self.chunk
        return {
            "path": chunk.path,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "symbol": chunk.symbol,
            "score": self.score,
            "rev": self.corpus.rev,
            "origin": self.corpus.name,
        }

    def listed(self) -> dict[str, object]:
        """Where it is, for a list of sources. uri: of the file on disk; None for what is no file there."""
        file = self.file
        return {**self._where(), "uri": None if file is None else file.absolute().as_uri()}

    def to_json(self, *, with_preview: bool = True) -> dict[str, object]:
        preview = {"preview": self.preview()} if with_preview else {}
        return {
            **self._where(),
            "kind": self.hit.kind,
            "copies": [copy.place for copy in self.hit.copies],
            "translations": [other.place for other in self.hit.translations],
            **preview,
        }


@contextlib.contextmanager
def open_corpora(
    workspaces: Sequence[Workspace], packs: Sequence[Path], reporter: Reporter = SILENT
) -> Iterator[list[Corpus]]:
    """Opens the indexes of repositories, and packs. Repositories that were found and are not indexed are left out, with
    a note. Raises NoIndex, and UsageError for a part of a repository without an indexed file."""
    packs = list({os.path.realpath(path): path for path in reversed(packs)}.values())[::-1]
    with contextlib.ExitStack() as stack:
        opened: list[tuple[Workspace, Store, Snapshot]] = []
        missing: list[Workspace] = []
        empty: list[Workspace] = []
        for workspace in workspaces:
            try:
                store, snapshot = workspace.open_snapshot()
            except NoIndex:
                if workspace.found_in is None:
                    raise
                missing.append(workspace)
                continue
            stack.enter_context(store)
            if workspace.below and not any(is_below(path, workspace.below) for _, path, _ in store.files(snapshot.id)):
                empty.append(workspace)
                continue
            opened.append((workspace, store, snapshot))
        for workspace in empty:
            if not any(other.repository.root.is_relative_to(workspace.top) for other, _, _ in opened):
                note_unsearched([workspace], reporter)
                hint = f"awareness status --repo {workspace.repository.root} --why {workspace.top}"
                raise UsageError(f"nothing in {workspace.top} is indexed", hint=hint)
        _note_missing(missing, is_anything_left=bool(opened or packs), reporter=reporter)
        has_several = len(workspaces) + len(packs) > 1 or any(workspace.found_in for workspace in workspaces)
        names = unique_names(
            [Named.of_folder(workspace.repository.root, workspace.below) for workspace, _, _ in opened]
            + [Named.of_file(path) for path in packs]
        )
        corpora = [
            Corpus(
                name=name if has_several else None,
                store=store,
                snapshot=snapshot.id,
                rev=workspace.rev,
                model=snapshot.model,
                quant=quant_of(store),
                spec=None,
                verify=workspace.shows,
                below=workspace.below,
                is_found=workspace.found_in is not None,
                root=None if workspace.rev else workspace.repository.root,
                build_scope=workspace.build_scope,
                read=workspace.read,
            )
            for (workspace, store, snapshot), name in zip(opened, names, strict=False)
        ]
        for path, name in zip(packs, names[len(opened) :], strict=True):
            with reporter.progress() as progress:
                pack = open_pack(path, progress=progress)
            stack.enter_context(pack.store)
            corpora.append(
                Corpus(
                    name=name,
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


def _note_missing(missing: Sequence[Workspace], *, is_anything_left: bool, reporter: Reporter) -> None:
    """Names the repositories of a folder that have no index. Raises NoIndex if nothing else is left."""
    if not missing:
        return
    folder = missing[0].found_in
    listed = named_list([str(workspace.repository.root) for workspace in missing])
    if not is_anything_left:
        raise NoIndex(
            f"none of the repositories in {folder} is indexed yet: {listed}", hint=f"awareness index {folder}"
        )
    reporter.note(f"not indexed yet, and not searched: {listed}; awareness index {folder}")


def note_unsearched(workspaces: Sequence[Workspace], reporter: Reporter) -> None:
    """Names the repositories inside those that are searched which are not searched themselves."""
    searched = {workspace.repository.root for workspace in workspaces}
    for workspace in workspaces:
        root = workspace.repository.root
        if workspace.rev or workspace.found_in or workspace.repository.common_git_dir is None:
            continue
        nested = [
            n.path for n in nested_repositories(workspace.repository) if n.is_there and root / n.path not in searched
        ]
        if inside := [path for path in nested if is_below(path, workspace.below)]:
            reporter.note(
                f"repositories inside that were not searched: {named_list(inside)}; awareness index {root} --nested"
            )


def search_corpora(
    corpora: Sequence[Corpus],
    query: str,
    scope: Sequence[str] | None,
    top_k: int,
    rules: Rules = SPREAD,
    reporter: Reporter = SILENT,
    kinds: Sequence[str] | None = None,
    second_stage: SecondStage | None = None,
    languages: Sequence[str] | None = None,
) -> list[CorpusHit]:
    """The best hits of all corpora, best first. scope: globs of paths, `!` before one excludes. kinds: of files, as
    `kinds_named` reads them; languages: as `languages_named` reads them. second_stage: reads the best chunks again, if
    term vectors found them: an embedding model has read them already."""
    chosen = kinds_named(kinds) if kinds else None
    hits: list[CorpusHit] = []
    for corpus in corpora:
        with corpus.blaming_the_pack():
            in_scope, embedder = corpus.build_scope(scope), embedder_of(corpus.store, reporter)
            if languages:
                in_scope = _in_languages(languages, in_scope)
            again = second_stage if embedder is None else None
            router = HybridRouter(corpus.store, corpus.snapshot, in_scope, embedder, rules, chosen, again)
            hits += [CorpusHit(corpus, hit) for hit in router.search(query, top_k=top_k)]
    return _without_twins(sorted(hits, key=lambda hit: -hit.score))[:top_k]


def _in_languages(names: Sequence[str], in_scope: Callable[[str], bool] | None) -> Callable[[str], bool]:
    """Narrows a scope to the files of these languages. Raises UsageError."""
    from awareness.index.chunks.languages import language_of, languages_named  # imported late: loads their table

    wanted = languages_named(names)
    return lambda path: (in_scope is None or in_scope(path)) and language_of(path) in wanted


def _without_twins(hits: Sequence[CorpusHit]) -> list[CorpusHit]:
    """Work trees of one repository that were found, not named, show the code that they share once."""
    seen: set[tuple[Path, str, int, str]] = set()
    kept = []
    for hit in hits:
        chunk = hit.chunk
        code = (hit.corpus.store.layout.root, chunk.path, chunk.start_line, chunk.digest)
        if not (hit.corpus.is_found and code in seen):
            kept.append(hit)
        seen.add(code)
    return kept


def empty_scope(corpora: Sequence[Corpus], scope: Sequence[str] | None) -> str | None:
    """A message if no indexed file is in the scope; None if one is, or without a scope."""
    if not scope:
        return None
    paths: list[str] = []
    for corpus in corpora:
        in_scope = corpus.build_scope(scope)
        for _, path, _ in corpus.store.files(corpus.snapshot):
            if in_scope is None or in_scope(path):
                return None
            paths.append(path)
    return no_match(scope, paths, "indexed files")
