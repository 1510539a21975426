"""The structure of the searched code: callers, callees, tests, similar code and maps, over one or several corpora."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.engine.corpus import Corpus, CorpusHit
from awareness.errors import NothingFound, UsageError
from awareness.model import model_files, presets
from awareness.model.token_offsets import token_starts
from awareness.types import Hit, printable

if TYPE_CHECKING:  # else imported late: they load the table of languages
    from awareness.index.structure.call_graph import Link
    from awareness.index.structure.repository_map import RepositoryMap

DEFAULT_MAP_TOKENS = 1024
_CHARACTERS_OF_A_TOKEN = 3.2  # of a map, by the tokenizers of Qwen2.5 and Llama 3: a little more is not counted


class Relation(str, Enum):
    """What is asked about a name."""

    callers = "callers"
    callees = "callees"
    tests_of = "tests-of"


@dataclass(frozen=True)
class LinkedHit(CorpusHit):
    """A hit of the call graph: the chunk with the line, and what the line says."""

    link: Link

    @property
    def line_place(self) -> str:
        """`path:line`, with the commit and the corpus where they are needed."""
        chunk = self.chunk
        return f"{printable(chunk.path)}:{self.link.line}{self.place.removeprefix(chunk.place)}"

    def to_json(self, *, with_preview: bool = True) -> dict[str, object]:
        link = self.link
        return super().to_json(with_preview=with_preview) | {
            "line": link.line,
            "lines": list(link.lines),
            "name": link.symbol,
            "text": link.text,
            "how": link.how,
            "proven": link.is_proven,
            "target": link.target,
        }


def linked(
    corpora: Sequence[Corpus], relation: Relation, name: str, scope: Sequence[str] | None, top_k: int
) -> list[LinkedHit]:
    """The hits of all corpora, best first. Raises NothingFound if none of them has the name."""
    from awareness.index.structure.call_graph import CallGraph

    hits: list[LinkedHit] = []
    unknown: list[NothingFound] = []
    for corpus in corpora:
        with corpus.blaming_the_pack():
            graph = CallGraph(corpus.store, corpus.snapshot, corpus.build_scope(scope))
            ask: Callable[..., list[Link]] = {
                Relation.callers: graph.callers,
                Relation.callees: graph.callees,
                Relation.tests_of: graph.tests_of,
            }[relation]
            try:
                links = ask(name, top_k=top_k)
            except NothingFound as error:
                unknown.append(error)
                continue
            hits += [LinkedHit(corpus, Hit(link.chunk, link.score), link) for link in links]
    if len(unknown) == len(corpora) and unknown:
        raise next((error for error in unknown if error.hint and error.hint.startswith("one of")), unknown[0])
    return sorted(hits, key=lambda hit: -hit.score)[:top_k]


@dataclass(frozen=True)
class CorpusMap:
    """The map of one corpus. tokenizer: the model whose tokens were counted; None if they were estimated."""

    corpus: Corpus
    map: RepositoryMap
    budget: int
    tokenizer: str | None

    def to_json(self) -> dict[str, object]:
        files = [
            {
                "path": file.path,
                "rank": round(file.rank, 6),
                "definitions": [
                    {"line": line.line, "symbol": line.symbol, "signature": line.signature, "depth": line.depth}
                    for line in file.lines
                ],
            }
            for file in self.map.files
        ]
        return {
            "origin": self.corpus.name,
            "rev": self.corpus.rev,
            "files": files,
            "total_files": self.map.total_files,
            "tokens": self.map.tokens,
            "budget": self.budget,
            "tokenizer": self.tokenizer,
        }


def mapped(corpora: Sequence[Corpus], scope: Sequence[str] | None, tokens: int) -> list[CorpusMap]:
    """The map of each corpus; they share the tokens equally."""
    from awareness.index.structure.repository_map import repository_map

    if tokens < 1:
        raise UsageError(f"{tokens} tokens are too few for a map", hint="--tokens 1024")
    maps = []
    budget = max(1, tokens // max(1, len(corpora)))
    for corpus in corpora:
        count, tokenizer = _counter(corpus.model)
        with corpus.blaming_the_pack():
            made = repository_map(
                corpus.store,
                corpus.snapshot,
                tokens=budget,
                count_tokens=count,
                in_scope=corpus.build_scope(scope),
            )
        maps.append(CorpusMap(corpus, made, budget, tokenizer))
    return maps


def _counter(model: str) -> tuple[Callable[[str], int], str | None]:
    """What counts tokens: the model's own tokenizer if it is on this machine, else an estimate."""
    folder = model_files.find(model) if model in presets.PRESETS or Path(model).is_dir() else None
    if folder is None or not (folder.path / "tokenizer.json").is_file():
        return lambda text: math.ceil(len(text) / _CHARACTERS_OF_A_TOKEN), None
    starts = token_starts(folder.path)
    return lambda text: len(starts(text)), model


def similar(
    corpora: Sequence[Corpus], roots: Sequence[Path], place: str, scope: Sequence[str] | None, top_k: int
) -> list[CorpusHit]:
    """The chunks most like the one at `FILE:LINE`, in the corpus that has the file. roots: of the repositories, for a
    path from the working folder. Raises UsageError."""
    from awareness.index.structure.similar_chunks import similar_chunks

    file, _, number = place.strip().rpartition(":")
    if not file or not number.isdecimal():
        raise UsageError(f"'{printable(place[:80])}' is no place", hint="FILE:LINE, such as src/app.py:120")
    for corpus in corpora:
        paths = [path for _, path, _ in corpus.store.files(corpus.snapshot)]
        if (path := indexed_path(file, paths, roots)) is not None:
            with corpus.blaming_the_pack():
                hits = similar_chunks(
                    corpus.store, corpus.snapshot, path, int(number), top_k=top_k, in_scope=corpus.build_scope(scope)
                )
                return [CorpusHit(corpus, hit) for hit in hits]
    raise UsageError(f"{printable(file)} is not indexed", hint=f"awareness status --why {printable(file)}")


def indexed_path(file: str, paths: Sequence[str], roots: Sequence[Path]) -> str | None:
    """The indexed path that a user means: from the top folder, from the working folder, or its unique end."""
    known = set(paths)
    if file in known:
        return file
    normal = os.path.normpath(file).replace(os.sep, "/")
    if normal in known:
        return normal
    try:
        real = Path(os.path.realpath(file))
    except ValueError:  # no file can be called that
        return None
    for root in roots:
        if real.is_relative_to(root) and (inner := real.relative_to(root).as_posix()) in known:
            return inner
    ending = [path for path in paths if path.endswith(f"/{normal}")]
    return ending[0] if len(ending) == 1 else None
