"""Lines of code that use what another file defines: code to be continued with that definition in memory.

Training takes any such call in the chunks of a pool (`next_line`). The evaluation `perplexity` is stricter
(`make_cases`): nothing else in the repository has the name of the definition, the file imports it, and the name occurs
for the first time in its chunk. So the lines above say little about the name, and the chunk that defines it says all.
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
from awareness.train.samples.pool import Pool
from awareness.types import Chunk, Sample

MAX_LINE = 90  # characters of a line to be written, in training
_CALL = re.compile(r"(?<!\w)([A-Za-z_]\w{4,})\(")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LINES_BEFORE = 2  # fewest lines above a line of a case, in its chunk
_LONGEST = 160  # characters of a line of a case
_SHORTEST_NAME = 4
_BUILTIN = (str, bytes, int, float, list, tuple, dict, set, re.Pattern, re.Match, Path, io.TextIOWrapper, BaseException)
_COMMON = frozenset(dir(builtins)).union(*map(dir, _BUILTIN))  # names that any object could have


# --- training ---


@dataclass(frozen=True)
class Line:
    """A line of the chunk `user` that uses what the chunk `gold` defines: `context` is continued by `answer`."""

    user: int
    gold: int
    name: str
    context: str
    answer: str


def lines_of(pool: Pool) -> list[Line]:
    lines = []
    for user, chunk in enumerate(pool.chunks):
        rows = chunk.text.split("\n")
        for row, text in enumerate(rows):
            call = _CALL.search(text)
            if row == 0 or call is None or len(text.strip()) > MAX_LINE or re.match(r"\s*(?:def|class|func)\b", text):
                continue
            name = call[1]
            defining = pool.definitions.get(name, frozenset())
            if len(defining) != 1 or text.strip().startswith(("#", "//", "*", '"')):
                continue
            (gold,) = defining
            if pool.chunks[gold].path == chunk.path or not _defines(pool.chunks[gold].text, name):
                continue
            above = f"{chunk.header}\n" + "\n".join(rows[:row]) + "\n"
            indent = len(text) - len(text.lstrip())
            cuts = set() if _contains(above, name) else {indent, call.start(1)}
            cuts |= {call.end()} if len(text) - call.end() > 3 else set()
            lines += [Line(user, gold, name, above + text[:cut], text[cut:] + "\n") for cut in sorted(cuts)]
    return lines


def next_line(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """The kind of sample that continues code with what another file defines."""
    lines = pool.once(lines_of)
    if not lines:
        return None
    line = rng.choice(lines)
    texts, gold = pool.scattered(rng, [pool.texts[line.gold]], count, {line.user, line.gold})
    return Sample(texts, gold, "", line.answer, context=line.context)


def _defines(text: str, name: str) -> bool:
    return re.search(rf"\b(?:def|class|func|function|fn)\s+(?:\([^()\n]*\)\s*)?{re.escape(name)}\b", text) is not None


def _contains(text: str, name: str) -> bool:
    """Whether `name` occurs in `text` as a whole word."""
    return re.search(rf"\b{name}\b", text) is not None


# --- evaluation ---


@dataclass(frozen=True)
class LineCase:
    """sample: its answer is the line at `place` (path:line), without its indentation. named: the same, but its answer
    is the name alone. shuffled: the texts to read in the control, as many as `sample.texts`."""

    sample: Sample
    named: Sample
    shuffled: tuple[str, ...]
    name: str
    place: str


@dataclass(frozen=True)
class _Definition:
    """owner: the class of a method; empty for what a module defines."""

    path: str
    line: int
    owner: str


@dataclass(frozen=True)
class _Use:
    path: str
    line: int
    name: str


@dataclass(frozen=True)
class _Draft:
    """A use with the chunks to read for it, before its control is chosen."""

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
    drafts: dict[str, _Draft] = {}
    for use in uses:
        if use.name not in drafts and (draft := _draw(rng, use, definitions[use.name], cut, pool, chunks)):
            drafts[use.name] = draft
    cases = list(_with_control(list(drafts.values())[:samples]))
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
    """What the modules of `source` and their classes define under names that `trees` binds nowhere else."""
    bound: Counter[str] = Counter()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, _DEFINITIONS):
            bound[node.name] += 1
        elif isinstance(node, ast.Name | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            bound[node.id if isinstance(node, ast.Name) else node.attr] += 1
    definitions: dict[str, _Definition] = {}
    for path, tree in source.items():
        owned = [(node, "") for node in tree.body]
        owned += [(node, top.name) for top in tree.body if isinstance(top, ast.ClassDef) for node in top.body]
        for node, owner in owned:
            if isinstance(node, _DEFINITIONS) and _is_distinctive(node.name, bound):
                definitions[node.name] = _Definition(path, node.lineno, owner)
    return definitions


def _is_distinctive(name: str, bound: Mapping[str, int]) -> bool:
    return bound[name] == 1 and len(name) >= _SHORTEST_NAME and name not in _COMMON


def _uses(source: Mapping[str, ast.Module], definitions: Mapping[str, _Definition]) -> Iterator[_Use]:
    """Calls and attributes that mean a definition of another file, as far as the imports of the file show."""
    tops = _top_modules(source)
    for path, tree in source.items():
        imported, modules = _imports(tree, tops)
        arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name, line, owner = node.func.id, node.func.lineno, None
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                name, line, owner = node.attr, node.end_lineno or 0, node.value
            else:
                continue
            definition = definitions.get(name)
            if definition is None or definition.path == path:
                continue
            module = PurePosixPath(definition.path).stem
            if owner is None:
                is_known = not definition.owner and name in imported and name not in arguments
            elif definition.owner:
                is_known = definition.owner in imported or module in modules
            else:
                is_known = module in modules and module == getattr(owner, "id", getattr(owner, "attr", None))
            if is_known:
                yield _Use(path, line, name)


def _top_modules(paths: Mapping[str, object]) -> set[str]:
    """The modules and packages that an absolute import can begin with."""
    packages = {path.parent for path in map(PurePosixPath, paths) if path.name == "__init__.py"}
    tops = {package.name for package in packages if package.parent not in packages}
    return tops | {path.stem for path in map(PurePosixPath, paths) if path.parent not in packages}


def _imports(tree: ast.Module, tops: set[str]) -> tuple[set[str], set[str]]:
    """What a file imports from its repository without an alias: (names, last parts of the modules' names)."""
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
) -> _Draft | None:
    """The use with its chunks; None if it makes no good case."""
    here, gold = _chunk_at(cut[use.path], use.line), _chunk_at(cut[definition.path], definition.line)
    if here is None or gold is None or not re.search(rf"\b(?:def|class)\s+{use.name}\b", gold.text):
        return None
    lines = here.text.split("\n")
    before, line = lines[: use.line - here.start_line], lines[use.line - here.start_line]
    answer = line.lstrip()
    context = "\n".join([here.header, *before, line.removesuffix(answer)])
    if len(before) < _LINES_BEFORE or len(answer) > _LONGEST or re.match(r"(?:async\s+)?def\b", answer):
        return None
    if _contains(context, use.name) or len(re.findall(rf"\b{use.name}\b", answer)) != 1:
        return None
    others = [c for c in pool if c.path != use.path and c != gold and not _contains(c.encoded_text, use.name)]
    if len(others) < chunks - 1:
        return None
    drawn = rng.sample(others, chunks - 1)
    place = rng.randrange(chunks)
    return _Draft(use, context, answer, (*drawn[:place], gold, *drawn[place:]), place)


def _chunk_at(chunks: Sequence[Chunk], line: int) -> Chunk | None:
    """The chunk with this line; None if several chunks show parts of it."""
    holding = [chunk for chunk in chunks if chunk.start_line <= line <= chunk.end_line]
    return holding[0] if len(holding) == 1 else None


def _with_control(drafts: Sequence[_Draft]) -> Iterator[LineCase]:
    """Each draft with the chunks of the next draft that do not contain its name or its file; without one, none."""
    for i, draft in enumerate(drafts):
        use, line = draft.use, draft.line
        for other in (*drafts[i + 1 :], *drafts[:i]):
            if not any(c.path == use.path or _contains(c.encoded_text, use.name) for c in other.chunks):
                texts, shuffled = (tuple(c.encoded_text for c in own.chunks) for own in (draft, other))
                start = line.index(use.name)
                head = line[:start].removesuffix(" ")  # a space belongs to the token after it
                sample = Sample(texts, (draft.gold,), "", line + "\n", context=draft.context, kind="next_line")
                answer = line[len(head) : start + len(use.name)]
                named = replace(sample, answer=answer, context=draft.context + head)
                yield LineCase(sample, named, shuffled, use.name, f"{use.path}:{use.line}")
                break
