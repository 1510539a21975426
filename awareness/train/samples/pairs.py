"""Code -> pairs (a description, the code without its words): training data of the router.

A chunk gives up to five pairs: by the first paragraph of its doc comment (docstring, Javadoc, `///`, `#` above a
definition), by all of it, by its longest inner comment, by the longest sentence in a string, and by its name, split
into words. The description is cut out of the code, so that finding the code takes more than equal words. Only source
files are read; nothing is run.
"""

from __future__ import annotations

import glob
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from awareness.config.routers import RouterData
from awareness.errors import UsageError
from awareness.index.chunks.chunking import chunk_file
from awareness.index.search.terms import name_words
from awareness.train.data.archives import MAX_FILE
from awareness.train.data.data_sources import may_be_source, source_text
from awareness.train.samples.doc_comments import (
    COMMENT,
    MIN_WORDS,
    describes,
    doc_comment,
    inner_comment,
    whole_doc_comment,
)
from awareness.train.samples.sentences_in_code import sentence_in
from awareness.types import Chunk, Progress, silent

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LONGER = 8  # words that a whole doc comment must have more than its first paragraph
_NEARLY_ALL = 0.95  # of the source files of a folder


@dataclass(frozen=True)
class Pair:
    """description: words about the chunk. chunk: its text has those words no more; a pair made by a name has no
    symbol."""

    description: str
    chunk: Chunk


def chosen_pairs(data: RouterData, seed: int, progress: Progress = silent) -> Iterator[list[Pair]]:
    """The pairs of each folder of `data`, in the order of its files, as many and of the kinds that it asks for, no pair
    twice.

    Raises UsageError for a pattern that matches no folder.
    """
    folders = _folders(data.folders)
    seen: set[tuple[str, str]] = set()  # packages hold built copies of their source
    for number, folder in enumerate(folders):
        progress("reading", number, len(folders))
        rng = random.Random(f"{seed}:{folder.name}")
        pairs = [pair for pair in pairs_of_folder(folder) if pair.chunk.symbol or rng.random() < data.names]
        pairs = [pair for pair in pairs if (pair.description, pair.chunk.text) not in seen]
        seen.update((pair.description, pair.chunk.text) for pair in pairs)
        if len(pairs) > data.pairs_per_folder:
            pairs = [pairs[at] for at in sorted(rng.sample(range(len(pairs)), data.pairs_per_folder))]
        yield pairs


def _folders(patterns: Sequence[str]) -> list[Path]:
    folders: dict[Path, None] = {}
    for pattern in patterns:
        paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser())))]
        if not any(path.is_dir() for path in paths):
            raise UsageError(f"data.folders: there is no folder '{pattern}'", hint="--set 'data.folders=[PATH]'")
        folders |= dict.fromkeys(path for path in paths if path.is_dir())
    return list(folders)


def pairs_of_folder(root: Path) -> Iterator[Pair]:
    """The pairs of all source files under a folder, without links, large and minified files, tests, documents, and
    vendored code (`vendor`, `node_modules`). Paths are as in a repository: those of a package begin with the folder
    that holds nearly all its source, not with `usr/share`."""
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if not path.is_symlink()]
    names = [name for name in names if may_be_source(name) and (root / name).is_file()]
    top = source_root(names)
    for name in names:
        path = root / name
        text = source_text(name, path.read_bytes()) if path.stat().st_size <= MAX_FILE else None
        if text is not None:
            yield from pairs_of(chunk_file(name.removeprefix(top), text, token_starts))


def source_root(names: Sequence[str]) -> str:
    """The deepest folder that holds nearly all of these files, with a final `/`; empty for the folder of all."""
    top = ""
    while names:
        below = [name.removeprefix(top) for name in names if name.startswith(top)]
        folders = Counter(name.partition("/")[0] for name in below if "/" in name)
        name, count = folders.most_common(1)[0] if folders else ("", 0)
        if count < _NEARLY_ALL * len(names):
            break
        top += f"{name}/"
    return top


def pairs_of(chunks: Iterable[Chunk]) -> Iterator[Pair]:
    """The pairs of chunks; a chunk without a description gives none."""
    for chunk in chunks:
        text = chunk.text
        description, rest = doc_comment(text)
        if describes(description) and _has_code(rest):
            yield Pair(description, replace(chunk, text=rest))
            whole, _ = whole_doc_comment(text)
            if len(whole.split()) > len(description.split()) + _LONGER:
                yield Pair(whole, replace(chunk, text=rest))
            text = rest
        comment, rest = inner_comment(text)
        if describes(comment) and _has_code(rest):
            yield Pair(comment, replace(chunk, text=rest))
        sentence, rest = sentence_in(text)
        if describes(sentence) and _has_code(rest):
            yield Pair(sentence, replace(chunk, text=rest))
        name = chunk.symbol.rpartition(".")[2]
        words = name_words(name)
        if len(words) >= MIN_WORDS - 1 and _has_code(text):
            nameless = re.sub(rf"\b{re.escape(name)}\b", " ", text)
            yield Pair(" ".join(words), replace(chunk, symbol="", text=nameless))


def _has_code(text: str) -> bool:
    return sum(1 for line in text.split("\n") if line.strip() and not COMMENT.match(line)) >= 2


def token_starts(text: str) -> list[int]:
    """Offsets of words and signs: about as many tokens as a model's tokenizer makes, without a tokenizer."""
    return [match.start() for match in _TOKEN.finditer(text)]
