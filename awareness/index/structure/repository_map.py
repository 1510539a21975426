"""A map of a repository: its most important files and definitions, as many as fit into a number of tokens.

Files refer to each other by the names that one defines and another uses. A file is important where important files
refer to it (PageRank: Page et al. 1999, on this graph), a definition by what comes in by its name. A name that several
files define tells less, in proportion; tests, examples and documents refer with little weight. The graph is made of the
chunks as they are in the index; only files that are shown are parsed.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from awareness.index.chunks.data_files import is_data
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store
from awareness.index.structure.code_view import DEFINED, CodeView
from awareness.types import printable

_DAMPING, _ROUNDS = 0.85, 30
_AMBIGUOUS = 12  # files that define a name; a name with more tells nothing
_PRIVATE = 0.1  # factor for a name that begins with `_`
_KNOWN_TO_ALL = 0.4  # of all files that use a name; a name with more is a word of the language or of prose
_WIDTH = 72  # characters of a signature: with its line number it fits into 80 columns
_ROWS = 6  # that a signature is read from
_MOST = 4_000  # definitions that are considered, the best ones
_WEIGHT = {  # of the references that a file of this kind makes, and of its own definitions
    FileKind.SOURCE: 1.0,
    FileKind.LEGACY: 0.3,
    FileKind.GENERATED: 0.2,
    FileKind.VENDORED: 0.1,
    FileKind.EXAMPLE: 0.1,
    FileKind.TEST: 0.1,
}
_ELSE = 0.02
_COMMON_WORD = 0.1  # factor for a name that is one plain word: many things are called `copy`
_CAPITAL_WORD = 0.3  # the same for `Task`
_OF_CLASS = 0.3  # factor for what stands in a class: the class comes first
_WORD = re.compile(r"[^\W\d]\w{2,80}")
# A use of a name: a call, a name with a capital or an underscore. Other words may be words of a comment.
_USED = re.compile(r"\b(?:[^\W\d]\w{2,80}(?=\()|[A-Z]\w{2,80}|[^\W\d]\w{0,40}_\w{1,40}|[a-z]\w{0,40}[A-Z]\w{0,40})")


@dataclass(frozen=True)
class MapLine:
    """A definition on a map. line: from 1. signature: its first line. depth: how many definitions it stands in."""

    line: int
    symbol: str
    signature: str
    depth: int
    score: float


@dataclass(frozen=True)
class MapFile:
    """rank: the file's PageRank, of a sum of 1."""

    path: str
    rank: float
    lines: tuple[MapLine, ...]

    def render(self) -> str:
        """The path, and below it the line number and the signature of each definition."""
        rows = [printable(self.path)]
        rows += [f"{each.line:5} {'  ' * each.depth}{printable(each.signature)}" for each in self.lines]
        return "\n".join(rows)


@dataclass(frozen=True)
class RepositoryMap:
    """files: those that are shown, by path. tokens: of the whole text. total_files: that could have been shown."""

    files: tuple[MapFile, ...]
    tokens: int
    total_files: int

    def render(self) -> str:
        return "\n".join(file.render() for file in self.files)


def repository_map(
    store: Store,
    snapshot: int,
    *,
    tokens: int,
    count_tokens: Callable[[str], int],
    in_scope: Callable[[str], bool] | None = None,
) -> RepositoryMap:
    """The map of a snapshot in at most `tokens` tokens. in_scope: path -> may it be shown; all files count for the
    importance. The same index gives the same map."""
    with store.reading(), failures(store.layout.manifest):
        graph = _Graph(store, snapshot)
        shown = [path for path in graph.defining if in_scope is None or in_scope(path)]
        scores = graph.scores(frozenset(shown))
        best = sorted(scores, key=lambda place: (-scores[place], place))[:_MOST]
        pages = _Pages(CodeView(store, snapshot), scores)

        def drawn(count: int) -> RepositoryMap:
            files = pages.files(best[:count], graph.ranks)
            made = RepositoryMap(files, 0, len(shown))
            return RepositoryMap(files, count_tokens(made.render()), len(shown))

        low, high = 0, min(len(best), tokens)  # a definition takes more than one token
        while low < high:
            middle = (low + high + 1) // 2
            if drawn(middle).tokens <= tokens:
                low = middle
            else:
                high = middle - 1
        return drawn(low)


class _Graph:
    """defining: the files of code, by path. ranks: path -> PageRank."""

    def __init__(self, store: Store, snapshot: int) -> None:
        self.defining: list[str] = []
        self._names: dict[str, set[str]] = defaultdict(set)  # path -> what it defines
        self._inner: dict[str, set[str]] = defaultdict(set)  # path -> what it defines in something else
        self._uses: dict[str, Counter[str]] = defaultdict(Counter)  # path -> how often it uses a word
        for stored in store.chunks(snapshot):
            chunk = stored.chunk
            self._uses[chunk.path].update(_USED.findall(chunk.text))
            if kind_of(chunk.path) not in _WEIGHT or is_data(chunk.path):
                continue
            names = self._names[chunk.path]
            for indent, name in DEFINED.findall(chunk.text):
                if len(name) > 2:
                    (self._inner[chunk.path] if indent else names).add(name)
            if chunk.symbol and " " not in chunk.symbol:
                first, *rest = [part for part in re.split(r"[.#]", chunk.symbol) if _WORD.fullmatch(part)] or [""]
                names.update([first] if first else [])
                self._inner[chunk.path].update(rest)
        for path, inner in self._inner.items():
            inner -= self._names[path]
        self.defining = sorted(path for path in self._names if self._names[path] or self._inner[path])
        self._definers: dict[str, list[str]] = defaultdict(list)
        for path in self.defining:
            for name in sorted(self._names[path] | self._inner[path]):
                self._definers[name].append(path)
        self._edges = list(self._links())
        self.ranks = self._ranked()

    def _links(self) -> Iterator[tuple[str, str, str, float]]:
        """(the file that uses a name, the file that defines it, the name, the weight)."""
        spread = Counter(name for words in self._uses.values() for name in words if name in self._definers)
        limit = max(8, _KNOWN_TO_ALL * len(self._uses))
        for path in sorted(self._uses):
            weight = _WEIGHT.get(kind_of(path), _ELSE)
            for name, count in sorted(self._uses[path].items()):
                definers = self._definers.get(name)
                if definers is None or len(definers) > _AMBIGUOUS or spread[name] > limit or path in definers:
                    continue
                factor = _telling(name)
                for definer in definers:
                    inner = _OF_CLASS if name in self._inner[definer] else 1.0
                    value = weight * factor * inner * math.sqrt(count) / len(definers) ** 2
                    yield path, definer, name, value * _WEIGHT.get(kind_of(definer), _ELSE)

    def _ranked(self) -> dict[str, float]:
        import numpy as np

        paths = sorted(self._uses)
        at = {path: i for i, path in enumerate(paths)}
        count = max(1, len(paths))
        source = np.array([at[path] for path, *_ in self._edges], dtype=np.int64)
        target = np.array([at[path] for _, path, *_ in self._edges], dtype=np.int64)
        weight = np.array([value for *_, value in self._edges], dtype=np.float64)
        out = np.bincount(source, weights=weight, minlength=count) if len(source) else np.zeros(count)
        share = weight / out[source] if len(source) else weight
        start = np.array([_WEIGHT.get(kind_of(path), _ELSE) for path in paths] or [1.0])
        start /= start.sum()
        rank = start
        for _ in range(_ROUNDS):
            lost = rank[out == 0].sum()
            flow = np.bincount(target, weights=share * rank[source], minlength=count) if len(source) else 0.0
            rank = _DAMPING * (flow + lost * start) + (1 - _DAMPING) * start
        self._out = dict(zip(paths, out.tolist(), strict=True))
        return dict(zip(paths, rank.tolist(), strict=True))

    def scores(self, shown: frozenset[str]) -> dict[tuple[str, str], float]:
        """(path, name) -> the importance of the definition, of the files that may be shown."""
        scores: dict[tuple[str, str], float] = defaultdict(float)
        for path in shown:
            names = self._names[path] | self._inner[path]
            own = 1e-3 * self.ranks[path] * _WEIGHT.get(kind_of(path), _ELSE) / max(1, len(names))
            for name in names:
                uses = math.log1p(self._uses[path][name]) * (_OF_CLASS if name in self._inner[path] else 1.0)
                scores[path, name] = own * uses * _telling(name)
        for path, definer, name, value in self._edges:
            if definer in shown:
                scores[definer, name] += self.ranks[path] * value / self._out[path]
        return scores


def _telling(name: str) -> float:
    """How much a name tells what it means, in (0, 1]."""
    if name.startswith("_"):
        return _PRIVATE
    inner = name[1:]
    if "_" in inner or any(letter.isupper() for letter in inner):
        return 1.0
    return _CAPITAL_WORD if name[0].isupper() else _COMMON_WORD


class _Pages:
    """The definitions of the files that are shown, read once."""

    def __init__(self, code: CodeView, scores: dict[tuple[str, str], float]) -> None:
        self._code, self._scores = code, scores
        self._lines = lru_cache(maxsize=None)(self._read)

    def files(self, places: Sequence[tuple[str, str]], ranks: dict[str, float]) -> tuple[MapFile, ...]:
        wanted: dict[str, set[str]] = defaultdict(set)
        for path, name in places:
            wanted[path].add(name)
        files = []
        for path in sorted(wanted):
            lines = self._lines(path)
            chosen = {each.symbol for each in lines if each.symbol.rpartition(".")[2] in wanted[path]}
            around = {symbol[:at] for symbol in chosen for at, letter in enumerate(symbol) if letter == "."}
            kept = tuple(each for each in lines if each.symbol in chosen | around)
            if kept:
                files.append(MapFile(path, ranks[path], kept))
        return tuple(files)

    def _read(self, path: str) -> tuple[MapLine, ...]:
        """The definitions of a file, ascending, each symbol once."""
        file = self._code.file(path)
        lines: dict[str, MapLine] = {}
        for each in file.definitions():
            score = self._scores.get((path, each.name), 0.0)
            signature = _signature(file.lines[each.row : min(each.stop, each.row + _ROWS)])
            lines.setdefault(each.symbol, MapLine(each.row + 1, each.symbol, signature, len(each.scopes), score))
        if lines:
            known = set(lines)
            return tuple(
                MapLine(each.line, each.symbol, each.signature, _depth(each.symbol, known), each.score)
                for each in lines.values()
            )
        for stored in self._code.chunks(path):  # without a grammar, by the chunks
            chunk = stored.chunk
            if chunk.symbol and " " not in chunk.symbol and chunk.symbol not in lines:
                last = chunk.symbol.rpartition(".")[2]
                rows = [(at, row) for at, row in enumerate(chunk.text.split("\n")) if last in row]
                at, row = rows[0] if rows else (0, chunk.text.split("\n")[0])
                score = self._scores.get((path, last), 0.0)
                line = chunk.start_line + at
                lines[chunk.symbol] = MapLine(line, chunk.symbol, _signature([row]), 0, score)
        return tuple(lines.values())


def _signature(rows: Sequence[str]) -> str:
    """The rows of a definition up to the end of its arguments as one line, cut to a width."""
    text = ""
    for row in rows:
        text = f"{text} {row.strip()}".strip()
        if len(text) > _WIDTH or text.count("(") <= text.count(")"):
            break
    text = re.sub(r"(?<=[(\[]) | (?=[)\]])", "", " ".join(text[: 4 * _WIDTH].split())).replace(",)", ")")
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _depth(symbol: str, known: set[str]) -> int:
    """How many of the definitions around a symbol are known: the type of a method in Go may be in another file."""
    return sum(symbol[:at] in known for at, letter in enumerate(symbol) if letter == ".")
