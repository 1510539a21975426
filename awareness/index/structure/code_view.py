"""The code of one snapshot, read out of the index: which files hold a name, their text, and what they define.

A file is put together from its chunks, so that it is the code that was indexed, of any commit. It is parsed when
something in it is asked for, and once.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.defining_lines import defines
from awareness.index.search.terms import terms_of_name
from awareness.index.store.store import Store, StoredChunk
from awareness.index.structure.imports import Import, Modules, imports_of
from awareness.index.structure.references import CodeFile, Reference, words_at
from awareness.index.unicode_forms import fold, plain
from awareness.types import last_name

_MOST_FILES = 4_000  # that are parsed for one name; the best known names of a large repository are in more
_NEAREST = 5
_FEW_CHUNKS = 200
DEFINED = re.compile(
    r"(?:^([ \t]*)|\b(?:export|pub|public|static|async|abstract|default|final)\b[ \t(\w)]{0,40})"
    r"(?:def|class|func|function|fn|fun|interface|struct|trait|enum|type|impl|module|object|record|protocol|const)"
    r"\s+(?:\([^()\n]{0,80}\)\s*)?([^\W\d]\w{0,80})",
    re.MULTILINE,
)
"""A definition that begins with a word, in most languages: its indentation, if it starts the line, and its name."""
_BEFORE_NAME = {  # ending of the file -> what stands before a name that it defines
    **dict.fromkeys(("py", "pyi"), r"\b(?:def|class|type)\s+"),
    "go": r"(?:\bfunc\s+(?:\([^()\n]*\)\s*)?|\b(?:type|const|var)\s+|^[ \t]+)",
    "rs": r"\b(?:fn|struct|enum|union|trait|type|const|static|mut|mod|macro_rules!)\s+",
}
_SEPARATORS = re.compile(r"::|[.#\\]|->")


@dataclass(frozen=True)
class Definition:
    """A definition and the file that holds it."""

    path: str
    reference: Reference

    @property
    def name(self) -> str:
        return self.reference.name

    @cached_property
    def symbol(self) -> str:
        return self.reference.symbol

    @property
    def line(self) -> int:
        """Of the file, from 1."""
        return self.reference.row + 1

    @cached_property
    def owner(self) -> str:
        """The class whose method it is, else empty."""
        return self.reference.owner if self.reference.is_method else ""


class CodeView:
    """Reads the code of one snapshot. Use it inside `store.reading()`."""

    def __init__(self, store: Store, snapshot: int) -> None:
        self.store, self.snapshot = store, snapshot
        self._parsed: dict[str, CodeFile] = {}
        self._chunks: dict[str, list[StoredChunk]] = {}
        self._holding: dict[str, list[str]] = {}
        self._defined: dict[str, list[Definition]] = {}
        self._imports: dict[str, list[Import]] = {}
        self._by_name: dict[str, dict[str, list[Import]]] = {}

    @cached_property
    def files(self) -> dict[str, int]:
        """path -> id of the file."""
        return {path: file_id for file_id, path, _ in self.store.files(self.snapshot)}

    @cached_property
    def modules(self) -> Modules:
        return Modules(list(self.files), lambda path: self.file(path).text)

    # --- files -------------------------------------------------------------------------------------------------

    def chunks(self, path: str) -> list[StoredChunk]:
        """The chunks of a file, ascending; empty for a path that is not in the snapshot."""
        self._load([path])
        return self._chunks.get(path, [])

    def _load(self, paths: Iterable[str]) -> None:
        missing = [path for path in paths if path not in self._chunks and path in self.files]
        if not missing:
            return
        self._chunks |= {path: [] for path in missing}
        ids = self.store.chunk_ids([self.files[path] for path in missing])
        for _, stored in sorted(self.store.chunks_by_id(ids).items()):
            self._chunks[stored.chunk.path].append(stored)
        for path in missing:
            self._chunks[path].sort(key=lambda stored: (stored.chunk.start_line, stored.id))

    def file(self, path: str) -> CodeFile:
        if path not in self._parsed:
            self._parsed[path] = CodeFile(path, _text_of(self.chunks(path)))
        return self._parsed[path]

    def chunk_at(self, path: str, line: int) -> StoredChunk | None:
        """The chunk on a line, else the nearest one above it, else the first; None for a file without chunks."""
        best = None
        for stored in self.chunks(path):
            if stored.chunk.start_line > line:
                break
            best = stored
        return best or next(iter(self.chunks(path)), None)

    def imports(self, path: str) -> list[Import]:
        if path not in self._imports:
            self._imports[path] = imports_of(self.file(path))
        return self._imports[path]

    def imports_by_name(self, path: str) -> dict[str, list[Import]]:
        """The first part of a local name (`a` of `a.b`) -> the imports of a file with it, the longest names first."""
        if path not in self._by_name:
            by_name: dict[str, list[Import]] = defaultdict(list)
            for each in sorted(self.imports(path), key=lambda each: -len(each.local)):
                by_name[each.local.partition(".")[0]].append(each)
            self._by_name[path] = dict(by_name)
        return self._by_name[path]

    # --- names -------------------------------------------------------------------------------------------------

    def _chunks_with(self, name: str) -> list[StoredChunk]:
        """The chunks of the snapshot whose text has the name as a whole word, by path and line."""
        postings = self.store.routing.postings
        terms = sorted(terms_of_name(name))
        if not terms:
            return []
        ids = set(postings.holding(terms[0]))
        for term in terms[1:]:
            ids &= set(postings.holding(term))
        shown = self.store.chunks_shown(self.snapshot, sorted(ids)).values()
        found = [stored for stored in shown if next(words_at(stored.chunk.text, name), -1) >= 0]
        return sorted(found, key=lambda stored: (stored.chunk.path, stored.chunk.start_line, stored.id))

    def files_with(self, name: str) -> list[CodeFile]:
        """The files of code that hold a name, by path."""
        if name not in self._holding:
            paths = list(dict.fromkeys(stored.chunk.path for stored in self._chunks_with(name)))[:_MOST_FILES]
            self._load(paths)
            self._holding[name] = [path for path in paths if self.file(path).is_code]
        return [self.file(path) for path in self._holding[name]]

    def definitions(self, name: str) -> list[Definition]:
        """What defines a name, by path and line."""
        if name not in self._defined:
            paths = dict.fromkeys(
                stored.chunk.path
                for stored in self._chunks_with(name)
                if last_name(stored.chunk.symbol) == name or _may_define(stored.chunk.path, stored.chunk.text, name)
            )
            self._load(paths)
            self._defined[name] = [
                Definition(path, reference)
                for path in paths
                if self.file(path).is_code
                for reference in self.file(path).definitions_of(name)
            ]
        return self._defined[name]

    def may_define(self, name: str) -> bool:
        """May the code define this name? Quick: a name that is in many chunks has to be the symbol of one."""
        terms = terms_of_name(name)
        frequency = min(self.store.routing.postings.frequencies(terms).values(), default=0) if terms else 0
        return frequency > 0 and (frequency <= _FEW_CHUNKS or self.store.routing.definitions.has(plain(name)))

    def named(self, name: str) -> list[Definition]:
        """The definitions that a user means by `func`, `Class.method`, `module.func` or `path/to/file.py:func`."""
        path, qualifiers, last = self.split(name)
        found = [each for each in self.definitions(last) if path is None or each.path == path]
        if not qualifiers:
            return found
        places = {each: [*_module_parts(each.path), *each.symbol.split(".")[:-1]] for each in found}
        exact = [each for each in found if places[each][-len(qualifiers) :] == qualifiers]
        return exact or [each for each in found if _in_order(qualifiers, places[each])]

    def split(self, name: str) -> tuple[str | None, list[str], str]:
        """(the file, the qualifiers, the last name) of a name as a user writes it."""
        name = name.strip().removesuffix("()")
        path: str | None = None
        head, colon, tail = name.rpartition(":")
        if colon and tail and not head.endswith(":"):
            normal = posixpath.normpath(head.replace("\\", "/"))
            fitting = [known for known in self.files if known == normal or known.endswith(f"/{normal}")]
            if fitting and (normal in self.files or len(fitting) == 1):
                path, name = normal if normal in self.files else fitting[0], tail
        parts = [part for part in _SEPARATORS.split(name) if part]
        return path, parts[:-1], parts[-1] if parts else ""

    def nearest(self, name: str) -> list[str]:
        """The names that the code defines which are most like this one, the best first."""
        _, _, last = self.split(name)
        same = [f"{each.path}:{each.symbol}" for each in self.definitions(last)]
        if same:
            return same[:_NEAREST]
        by_last: dict[str, str] = {}
        for stored in self.store.chunks(self.snapshot):
            if kind_of(stored.chunk.path) not in (FileKind.DOCS, FileKind.OTHER):
                parts = stored.chunk.symbol.split(".") if " " not in stored.chunk.symbol else []
                for part in [*parts, *(name for _, name in DEFINED.findall(stored.chunk.text))]:
                    by_last.setdefault(part.lower(), part)
        close = difflib.get_close_matches(last.lower()[:100], sorted(by_last), _NEAREST, 0.7)
        return [by_last[each] for each in close]


def _may_define(path: str, text: str, name: str) -> bool:
    """May a chunk define a name? A quick look at its text, before the file is parsed."""
    before = _BEFORE_NAME.get(path.rpartition(".")[2])
    if before is None and defines(text, fold(plain(name)), guess=True):
        return True
    return _defining_line(before, name).search(text) is not None


@lru_cache(maxsize=1024)
def _defining_line(before: str | None, name: str) -> re.Pattern[str]:
    """before: what stands before a name in its definition; None if no word has to: `int f(`, `f = function`."""
    word = re.escape(name)
    if before is not None:
        return re.compile(rf"{before}{word}\b", re.MULTILINE)
    value = rf"{word}[\"']?\s*[=:]\s*(?:async|function|\(|\w+\s*=>)"
    return re.compile(rf"^[^\n(=.]{{0,200}}\b{word}\s*\(|{value}", re.MULTILINE)


def _text_of(chunks: Sequence[StoredChunk]) -> str:
    """The text of a file as its chunks have it; what is between them is blank."""
    rows: list[str] = []
    for stored in chunks:
        chunk = stored.chunk
        own = chunk.text.split("\n")
        if rows and chunk.start_line == chunk.end_line == len(rows):
            rows[-1] += own[0]  # the next piece of a long line
            continue
        rows += [""] * (chunk.start_line - 1 - len(rows))
        rows += own
    return "\n".join(rows)


def _module_parts(path: str) -> list[str]:
    parts = path.split("/")
    stem = parts[-1].split(".")[0]
    return parts[:-1] if stem in ("__init__", "mod", "lib", "index") else [*parts[:-1], stem]


def _in_order(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    rest = iter(parts)
    return all(part in rest for part in wanted)
