"""Code -> pairs (what someone says about it, the code without those words): what a router is trained on.

Three kinds, as far as a chunk has them: its doc comment (docstring, Javadoc, `///`, `#` above a definition), a comment
inside it, and its own name split into words. What is said is cut from the code, so that finding it again takes more
than the same words. Nothing is read but files that may hold source; nothing is run.
"""

from __future__ import annotations

import glob
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.config.routers import RouterData
from awareness.errors import UsageError
from awareness.index.chunks.chunking import chunk_file
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.terms import name_words
from awareness.train.data.archives import MAX_FILE
from awareness.train.data.data_sources import source_text
from awareness.types import Chunk, Progress, silent

MAX_WORDS = 32  # of what is said
MIN_WORDS = 3
_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
_DOCSTRING = re.compile(r'[rRbBuU]?("""|\'\'\')(.*?)\1', re.DOTALL)
_COMMENT = re.compile(r"^\s*(?:///?!?|#+|--|\*+(?!/)|/\*+)\s?(.*?)(?:\*+/)?\s*$")
_NOISE = re.compile(
    r"copyright|licen[sc]e|all rights reserved|SPDX|eslint|noqa|type:\s*ignore|pylint|prettier|istanbul|TODO|FIXME|XXX"
    r"|@ts-|region\b|https?://",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"<[^<>]{1,80}>|[`*_{}|]|\\[a-z]+|:[a-z]+:(?=`)|@(?:code|link)\b")
_REST = re.compile(
    r"^\s*(?:@\w+|:\w+[^:]*:|Args?:|Arguments|Parameters?|Returns?:?|Raises:?|Examples?:?|>>>|---|===|\.\. )"
)


@dataclass(frozen=True)
class Pair:
    """said: words about the chunk. chunk: the code, with those words cut out of its text (and, if they are its name,
    without a symbol)."""

    said: str
    chunk: Chunk


@dataclass(frozen=True)
class Trained:
    """What a training did. before, after: MRR of the code among that of its own folder, mean over held-out folders."""

    pairs: int
    folders: int
    held_out: int
    before: float
    after: float


def chosen_pairs(data: RouterData, seed: int, progress: Progress = silent) -> Iterator[list[Pair]]:
    """The pairs of each folder of `data`, as many and of the kinds that it asks for, none of them twice.

    Raises UsageError for a pattern that no folder has.
    """
    folders = _folders(data.folders)
    seen: set[tuple[str, str]] = set()  # packages hold built copies of their source
    for number, folder in enumerate(folders):
        progress("reading", number, len(folders))
        chosen = random.Random(f"{seed}:{folder.name}")
        found = [pair for pair in pairs_of_folder(folder) if pair.chunk.symbol or chosen.random() < data.names]
        found = [pair for pair in found if (pair.said, pair.chunk.text) not in seen]
        seen.update((pair.said, pair.chunk.text) for pair in found)
        yield chosen.sample(found, data.pairs_per_folder) if len(found) > data.pairs_per_folder else found


def _folders(patterns: Sequence[str]) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser())))]
        if not any(path.is_dir() for path in paths):
            raise UsageError(f"data.folders: there is no folder '{pattern}'", hint="--set 'data.folders=[PATH]'")
        found |= dict.fromkeys(path for path in paths if path.is_dir())
    return list(found)


def pairs_of_folder(root: Path) -> Iterator[Pair]:
    """The pairs of all source files under a folder; links, large and minified files, tests, documents and what others
    wrote (`vendor`, `node_modules`) are left."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if kind_of(name) is not FileKind.SOURCE or path.is_symlink() or not path.is_file():
            continue
        text = source_text(name, path.read_bytes()) if path.stat().st_size <= MAX_FILE else None
        if text is not None:
            yield from pairs_of(chunk_file(name, text, _token_starts))


def pairs_of(chunks: Iterable[Chunk]) -> Iterator[Pair]:
    """The pairs of some chunks; none of a chunk about which nothing is said."""
    for chunk in chunks:
        said, rest = _doc_comment(chunk.text)
        if worth_saying(said) and _has_code(rest):
            yield Pair(said, _with_text(chunk, rest))
        else:
            rest = chunk.text
        comment, left = _inner_comment(rest)
        if worth_saying(comment) and _has_code(left):
            yield Pair(comment, _with_text(chunk, left))
        name = chunk.symbol.rpartition(".")[2]
        words = name_words(name)
        if len(words) >= MIN_WORDS - 1 and _has_code(rest):
            text = re.sub(rf"\b{re.escape(name)}\b", " ", rest)
            yield Pair(" ".join(words), Chunk(chunk.path, chunk.start_line, chunk.end_line, "", text))


def worth_saying(said: str) -> bool:
    return len(_WORD.findall(said)) >= MIN_WORDS and not _NOISE.search(said)


def _doc_comment(text: str) -> tuple[str, str]:
    """The docstring, or the comment that a chunk begins with, and the text without it."""
    lines = text.split("\n")
    stop = 0
    while stop < len(lines) and (_COMMENT.match(lines[stop]) or not lines[stop].strip()):
        stop += 1
    if stop:
        return _first_paragraph(_uncommented(line) for line in lines[:stop]), "\n".join(lines[stop:])
    found = _DOCSTRING.search(text[:2000])
    if found and text[: found.start()].rstrip().endswith(":"):
        return _first_paragraph(found[2].split("\n")), text[: found.start()] + text[found.end() :]
    return "", text


def _inner_comment(text: str) -> tuple[str, str]:
    """The longest run of comment lines inside a text, and the text without it."""
    lines = text.split("\n")
    best, start = (0, 0), None
    for at, line in enumerate([*lines, ""]):
        inside = bool(_COMMENT.match(line)) and len(line.strip()) > 2
        if inside and start is None:
            start = at
        elif not inside and start is not None:
            best, start = max(best, (at - start, -start)), None
    count, first = best[0], -best[1]
    said = _first_paragraph(_uncommented(line) for line in lines[first : first + count])
    return said, "\n".join(lines[:first] + lines[first + count :])


def _uncommented(line: str) -> str:
    found = _COMMENT.match(line)
    return found[1] if found else ""


def _first_paragraph(lines: Iterable[str]) -> str:
    said: list[str] = []
    for line in lines:
        if (not line.strip() and said) or (_REST.match(line) and said):
            break
        if not _REST.match(line):
            said += _MARKUP.sub(" ", line).split()
    return " ".join(said[:MAX_WORDS])


def _has_code(text: str) -> bool:
    return sum(1 for line in text.split("\n") if line.strip() and not _COMMENT.match(line)) >= 2


def _with_text(chunk: Chunk, text: str) -> Chunk:
    return Chunk(chunk.path, chunk.start_line, chunk.end_line, chunk.symbol, text)


def _token_starts(text: str) -> list[int]:
    """About as many tokens as a model's tokenizer would find, without one."""
    return [found.start() for found in _TOKEN.finditer(text)]
