"""Lines of a repository that rest on a definition in another of its files: the cases of `perplexity`.

Such a line calls or reads a function, class or method whose name nothing else in the repository is called by, in a file
that imports it, and the name stands there for the first time in its chunk. So what is above the line says little of the
name, and the chunk that defines it says all.
"""

from __future__ import annotations

import ast
import builtins
import io
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from awareness.errors import UsageError
from awareness.index.chunks.chunking import TokenStarts, sized_chunks
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.types import Chunk, Sample

_LINES_BEFORE = 2  # that a line has above it in its chunk, at the least
_LONGEST = 160  # characters of a line
_SHORTEST_NAME = 4
_BUILTIN = (str, bytes, int, float, list, tuple, dict, set, re.Pattern, re.Match, Path, io.TextIOWrapper, BaseException)
_COMMON = frozenset(dir(builtins)).union(*map(dir, _BUILTIN))  # names that say nothing about whose they are


@dataclass(frozen=True)
class LineCase:
    """`sample.answer` is the line `place` (path:line), from behind its indentation on; `named` asks for the same, but
    for nothing of it except the name. shuffled: what is read in the control, as many chunks as `sample.texts`."""

    sample: Sample
    named: Sample
    shuffled: tuple[str, ...]
    name: str
    place: str


@dataclass(frozen=True)
class _Definition:
    """owner: the class of a method, empty for what a module defines."""

    path: str
    line: int
    owner: str


@dataclass(frozen=True)
class _Use:
    path: str
    line: int
    name: str


@dataclass(frozen=True)
class _Drawn:
    """A use with what is read for it, before it is known what others read."""

    use: _Use
    context: str
    line: str
    chunks: tuple[Chunk, ...]
    gold: int


def make_cases(
    files: Mapping[str, str], token_starts: TokenStarts, *, samples: int, chunks: int, chunk_tokens: int, seed: int
) -> list[LineCase]:
    """At most `samples` cases, each of another definition. files: path -> text, of a repository. Raises UsageError."""
    trees = {path: tree for path, text in files.items() if path.endswith(".py") and (tree := _parsed(text))}
    source = {path: tree for path, tree in trees.items() if kind_of(path) is FileKind.SOURCE}
    sized = {path: sized_chunks(path, files[path], token_starts, max_tokens=chunk_tokens) for path in source}
    pool = [chunk for own in sized.values() for chunk, tokens in own if tokens * 2 >= chunk_tokens]
    cut = {path: [chunk for chunk, _ in own] for path, own in sized.items()}
    definitions = _definitions(source, trees)
    uses = list(_uses(source, definitions))
    rng = random.Random(f"{seed}/{chunks}")
    rng.shuffle(uses)
    drawn: dict[str, _Drawn] = {}
    for use in uses:
        if use.name not in drawn and (one := _draw(rng, use, definitions[use.name], cut, pool, chunks)):
            drawn[use.name] = one
    cases = list(_with_control(list(drawn.values())[:samples]))
    if not cases:
        raise UsageError(
            f"{len(source)} Python files have {len(uses)} uses of another file's definition, and no two of them make"
            f" cases of {chunks} chunks",
            hint="fewer --chunks, smaller --chunk-tokens, or a larger --repo",
        )
    return cases


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _definitions(source: Mapping[str, ast.Module], trees: Mapping[str, ast.Module]) -> dict[str, _Definition]:
    """What the modules of `source` and their classes define, by names that nothing else in `trees` is called by."""
    bound: Counter[str] = Counter()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound[node.name] += 1
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] += 1
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            bound[node.attr] += 1
    found: dict[str, _Definition] = {}
    for path, tree in source.items():
        owned = [(node, "") for node in tree.body]
        owned += [(node, top.name) for top in tree.body if isinstance(top, ast.ClassDef) for node in top.body]
        for node, owner in owned:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _telling(node.name, bound):
                found[node.name] = _Definition(path, node.lineno, owner)
    return found


def _telling(name: str, bound: Mapping[str, int]) -> bool:
    return bound[name] == 1 and len(name) >= _SHORTEST_NAME and name not in _COMMON


def _uses(source: Mapping[str, ast.Module], definitions: Mapping[str, _Definition]) -> Iterator[_Use]:
    """Calls and attributes that mean a definition of another file, as far as the imports of the file show."""
    tops = _top_modules(source)
    for path, tree in source.items():
        imported, modules = _imports(tree, tops)
        own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name, line, behind = node.func.id, node.func.lineno, None
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                name, line, behind = node.attr, node.end_lineno or 0, node.value
            else:
                continue
            definition = definitions.get(name)
            if definition is None or definition.path == path:
                continue
            module = PurePosixPath(definition.path).stem
            if behind is None:
                known = not definition.owner and name in imported and name not in own
            elif definition.owner:
                known = definition.owner in imported or module in modules
            else:
                known = module in modules and module == getattr(behind, "id", getattr(behind, "attr", None))
            if known:
                yield _Use(path, line, name)


def _top_modules(paths: Mapping[str, object]) -> set[str]:
    """The modules and packages that an absolute import can begin with."""
    packages = {path.parent for path in map(PurePosixPath, paths) if path.name == "__init__.py"}
    tops = {package.name for package in packages if package.parent not in packages}
    return tops | {path.stem for path in map(PurePosixPath, paths) if path.parent not in packages}


def _imports(tree: ast.Module, tops: set[str]) -> tuple[set[str], set[str]]:
    """What a file imports from its repository, under its own name: (names, last parts of the modules' names)."""
    names: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.name.rpartition(".")[2] for a in node.names if a.name.split(".")[0] in tops and not a.asname}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in tops):
            plain = {alias.name for alias in node.names if alias.asname in (None, alias.name)}
            names |= plain
            modules |= plain | {(node.module or "").rpartition(".")[2]}
    return names, modules


def _draw(
    rng: random.Random,
    use: _Use,
    definition: _Definition,
    cut: Mapping[str, Sequence[Chunk]],
    pool: Sequence[Chunk],
    chunks: int,
) -> _Drawn | None:
    """The use as a case, None if it makes no good one."""
    here, gold = _chunk_at(cut[use.path], use.line), _chunk_at(cut[definition.path], definition.line)
    if here is None or gold is None or not re.search(rf"\b(?:def|class)\s+{use.name}\b", gold.text):
        return None
    lines = here.text.split("\n")
    before, line = lines[: use.line - here.start_line], lines[use.line - here.start_line]
    answer = line.lstrip()
    context = "\n".join([here.header, *before, line.removesuffix(answer)])
    if len(before) < _LINES_BEFORE or len(answer) > _LONGEST or re.match(r"(?:async\s+)?def\b", answer):
        return None
    if _has(context, use.name) or len(re.findall(rf"\b{use.name}\b", answer)) != 1:
        return None
    others = [c for c in pool if c.path != use.path and c != gold and not _has(c.encoded_text, use.name)]
    if len(others) < chunks - 1:
        return None
    drawn = rng.sample(others, chunks - 1)
    place = rng.randrange(chunks)
    return _Drawn(use, context, answer, (*drawn[:place], gold, *drawn[place:]), place)


def _chunk_at(chunks: Sequence[Chunk], line: int) -> Chunk | None:
    """The one chunk with this line, whole."""
    holding = [chunk for chunk in chunks if chunk.start_line <= line <= chunk.end_line]
    return holding[0] if len(holding) == 1 else None


def _has(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _with_control(drawn: Sequence[_Drawn]) -> Iterator[LineCase]:
    """Each with the chunks of the next one that say nothing of its name and are not of its file; without one, none."""
    for i, one in enumerate(drawn):
        use = one.use
        for other in (*drawn[i + 1 :], *drawn[:i]):
            if not any(c.path == use.path or _has(c.encoded_text, use.name) for c in other.chunks):
                texts, shuffled = ([c.encoded_text for c in own.chunks] for own in (one, other))
                start = one.line.index(use.name)
                head = one.line[:start].removesuffix(" ")  # a space is of the token behind it
                name = one.line[len(head) : start + len(use.name)]
                sample = Sample(tuple(texts), (one.gold,), "", one.line + "\n", context=one.context, kind="next_line")
                named = replace(sample, answer=name, context=one.context + head)
                yield LineCase(sample, named, tuple(shuffled), use.name, f"{use.path}:{use.line}")
                break
