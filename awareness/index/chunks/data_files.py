"""A large data file -> the lines that show how it is made: its first records, every key, every table and its columns.

A file of data says one thing thousands of times, and would fill an index with chunks that answer nothing. Lines are
kept as they are, so that they can be cited; each gap is one row that says how many lines are left out. Files that
people write (settings, workflows, API descriptions) are kept whole up to sizes that such files rarely reach.

The lines of one shape (indentation, key, kind of value) are counted, and the first of each are kept. Where one level
has very many keys, the keys are data too. What is still too large is cut to its outer levels, then at its end.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from awareness.index.files.file_kinds import FileKind, kind_of

_SMALL = 4_000  # characters of data that are kept whole
_WRITTEN = 40_000  # the same of YAML and XML, which people write
_SETTINGS = 200_000  # the same of files that are known to be settings or a description of an interface
_TEXT = 100_000  # the same of texts that may be prose
_KEPT = 24_000  # characters that are kept of anything else
_LINE = 400  # characters of a line that are looked at and counted
_EACH = 3  # lines of one shape
_KEYS = 60  # different keys at one level, beyond which they are data
_GAP = 3  # lines that are not worth leaving out alone
_WORTH = 0.5  # of the lines, at least, that a summary leaves out

_LEFT_OUT = re.compile(r"… ([0-9]{1,9}) lines? left out")  # what the row of a gap begins with

Shape = Callable[[Sequence[str]], Iterator[object]]
"""Lines -> the shape of each; None for a line that is always kept."""


@dataclass(frozen=True)
class Summary:
    """rows: of the summary. lines: the line of the file, from 1, of each row; for the row of a gap, its first one.
    gaps: first and last line that is left out, ascending."""

    rows: list[str]
    lines: list[int]
    gaps: list[tuple[int, int]]


@functools.lru_cache(maxsize=1 << 14)
def is_data(path: str) -> bool:
    """Is this a file of data, by its name, and neither prose nor code?"""
    stem, dot, ending = path[path.rfind("/") + 1 :].rpartition(".")  # a PurePosixPath takes ten times as long
    suffix = f".{ending}".lower() if stem and dot and ending else ""
    return suffix in _SHAPES and suffix not in _COMPLETE and suffix != ".txt"


def summarised(path: str, text: str) -> Summary | None:
    """The summary of a large data file; None for any other file, which is read whole."""
    suffix = PurePosixPath(path).suffix.lower()
    shape = _SHAPES.get(suffix)
    if shape is None or len(text) <= _SMALL or len(text) <= _whole(path, suffix, text):
        return None
    lines = text.split("\n")
    if lines[-1] == "":  # the end of the last line
        lines.pop()
    kept = _first_of_each(list(shape(lines)))
    if suffix not in _COMPLETE:
        kept = _outer(lines, kept)
    if sum(kept) > (1 - _WORTH) * len(lines):
        return None
    return _summary(lines, kept, _columns(lines, suffix) if suffix in _TABLES else "")


def _whole(path: str, suffix: str, text: str) -> int:
    """The number of characters up to which the file is kept whole."""
    if kind_of(path) is FileKind.TEST and suffix not in _COMPLETE:
        return _SMALL
    settings = _SETTINGS_NAME.search(path.lower()) or (suffix in _KEYED and _DESCRIPTION.search(text[:2000]))
    return _SETTINGS if settings else _LIMITS.get(suffix, _SMALL)


_SETTINGS_NAME = re.compile(
    r"(?:^|/)(?:package|composer|tsconfig[\w.-]*|jsconfig|angular|nx|turbo|lerna|deno|biome|app|project)\.jsonc?$"
    r"|(?:^|/)(?:[\w.-]*compose[\w.-]*|mkdocs|values[\w.-]*|\.[\w.-]+)\.ya?ml$|(?:^|/)\.(?:github|circleci|vscode)/"
    r"|(?:^|/)(?:pyproject|cargo)\.toml$|(?:^|/)pom\.xml$|\.config\.json$|(?:^|/)\.[\w.-]+$"
    r"|(?:^|/)(?:en|en[-_](?:us|gb))(?:/[^/]+)?\.(?:json|ya?ml)$"
)
_DESCRIPTION = re.compile(r"^\s*[\"']?(?:openapi|swagger|asyncapi|\$schema)[\"']?\s*:", re.MULTILINE)


def _first_of_each(shapes: Sequence[object]) -> list[bool]:
    """Which lines to keep: the first `_EACH` of a shape, and those between two that are kept with few in between."""
    seen: Counter[object] = Counter()
    kept = []
    for shape in shapes:
        seen[shape] += 1
        kept.append(shape is None or seen[shape] <= _EACH)
    for first, last in _gaps(kept):
        if last - first < _GAP:
            kept[first : last + 1] = [True] * (last + 1 - first)
    return kept


def _gaps(kept: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """First and last of each run of lines that are not kept, from 0."""
    start = None
    for at, keep in enumerate([*kept, True]):
        if not keep and start is None:
            start = at
        elif keep and start is not None:
            yield start, at - 1
            start = None


def _outer(lines: Sequence[str], kept: list[bool]) -> list[bool]:
    """Fewer lines, if those kept are over `_KEPT`: the outer levels that fit, then the first ones."""
    sizes: Counter[int] = Counter()
    levels = [len(line) - len(line.lstrip()) for line in lines]
    for line, level, keep in zip(lines, levels, kept, strict=True):
        if keep:
            sizes[level] += min(len(line), _LINE)
    deepest, size = -1, 0
    for level in sorted(sizes):
        size += sizes[level]
        if size > _KEPT and deepest >= 0:
            break
        deepest = level
    left, outer = _KEPT, []
    for line, level, keep in zip(lines, levels, kept, strict=True):
        keep = keep and level <= deepest and left > 0
        left -= min(len(line), _LINE) if keep else 0
        outer.append(keep)
    return outer


def count_lines(rows: Sequence[str]) -> int:
    """The lines of a file that some rows of its summary stand for; of other rows their number."""
    return sum(int(gap[1]) if (gap := _LEFT_OUT.match(row)) else 1 for row in rows)


def _summary(lines: Sequence[str], kept: Sequence[bool], about: str) -> Summary:
    rows, numbers = [], []
    gaps = list(_gaps(kept))
    ends = dict(gaps)
    row = 0
    while row < len(lines):
        numbers.append(row + 1)
        if row in ends:
            count = ends[row] - row + 1
            rows.append(f"… {count} {'line' if count == 1 else 'lines'} left out" + (f": {about}" if about else ""))
            row = ends[row]
        else:
            rows.append(lines[row])
        row += 1
    return Summary(rows, numbers, [(first + 1, last + 1) for first, last in gaps])


# --- shapes ---------------------------------------------------------------------------------------------------------

_KEY = re.compile(r"(\s*(?:- )?)([\"']?)([\w.$@/ \-]{1,80})\2\s*[:=]\s*(.?)")
_NUMBER = re.compile(r"\d+")


def _keyed(lines: Sequence[str]) -> Iterator[object]:
    """JSON, YAML, TOML, lock files: indentation, key and the kind of the value."""
    matches = [_KEY.match(line[:_LINE]) for line in lines]
    keys: defaultdict[str, set[str]] = defaultdict(set)
    for match in matches:
        if match and len(keys[match[1]]) <= _KEYS:
            keys[match[1]].add(match[3])
    for line, match in zip(lines, matches, strict=True):
        if match:
            key = match[3] if len(keys[match[1]]) <= _KEYS else ""
            yield match[1], key, _kind(match[4])
        else:
            text = line.lstrip()
            yield line[: min(len(line) - len(text), _LINE)], "", text.strip() if len(text) < 4 else _kind(text[0])


def _kind(first: str) -> str:
    """The kind of a value by its first character."""
    return "0" if first.isdigit() or first == "-" else "w" if first.isalpha() else first


_TAG = re.compile(r"(\s*)<(/?[\w:.-]+)")


def _tagged(lines: Sequence[str]) -> Iterator[object]:
    """XML: indentation, tag."""
    for line in lines:
        tag = _TAG.match(line[:_LINE])
        yield (tag[1], tag[2]) if tag else (len(line) - len(line.lstrip()), "")


def _worded(lines: Sequence[str]) -> Iterator[object]:
    """Logs and texts: the line without its numbers. Paragraphs stay, columns of numbers don't."""
    return (_NUMBER.sub("0", line[:_LINE]) for line in lines)


def _tabular(lines: Sequence[str]) -> Iterator[object]:
    """CSV: the first line, then rows."""
    return (at > 0 for at in range(len(lines)))


_PO_ENTRIES = 12  # lines


def _catalogue(lines: Sequence[str]) -> Iterator[object]:
    """gettext: the header, then entries."""
    first = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
    return (None if at < first + _PO_ENTRIES else "" for at in range(len(lines)))


_INSERT = re.compile(
    r"\s*(INSERT|REPLACE)\b[^;]{0,80}?\bINTO\s+([^\s(;]{1,120})|\s*COPY\s+([^\s(;]{1,120}).*\bFROM\s+stdin",
    re.IGNORECASE,
)
_STATEMENT = re.compile(r"\s*(?:CREATE|ALTER|DROP|SET|LOCK|UNLOCK|BEGIN|COMMIT|SELECT|UPDATE|DELETE|--|/\*)", re.I)
_END_OF_COPY = "\\."


def _inserted(lines: Sequence[str]) -> Iterator[object]:
    """SQL: rows of data by their table; every other statement is kept."""
    table, is_copy = "", False
    for line in lines:
        start = line[:_LINE]
        insert = _INSERT.match(start)
        if insert:
            table, is_copy = insert[2] or insert[3], insert[3] is not None
        elif table and not is_copy and _STATEMENT.match(start):
            table = ""
        yield (table, bool(insert)) if table else None
        text = line.rstrip()
        if table and (text == _END_OF_COPY if is_copy else text.endswith(";")):
            table = ""


# --- columns --------------------------------------------------------------------------------------------------------

_SAMPLED = 200  # rows
_SHOWN = 30  # columns
_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,18}\s*$")
_ANY_NUMBER = re.compile(r"\s*[+-]?\d{0,18}\.?\d{0,18}(?:[eE][+-]?\d{1,4})?\s*$")


def _columns(lines: Sequence[str], suffix: str) -> str:
    """The columns of a table and what they hold, by its first rows; "" without a plain first line."""
    head = lines[0][: 4 * _LINE]
    mark = "\t" if suffix == ".tsv" else max(",;\t|", key=head.count)
    names = [name.strip().strip('"') for name in head.split(mark)]
    if len(names) < 2 or any(not name or _ANY_NUMBER.match(name) for name in names):
        return ""
    kinds = ["whole number"] * len(names)
    for line in lines[1:_SAMPLED]:
        for at, value in enumerate(line[: 10 * _LINE].split(mark)[: len(names)]):
            value = value.strip().strip('"')
            if value and not _WHOLE_NUMBER.match(value) and kinds[at] != "text":
                kinds[at] = "number" if _ANY_NUMBER.match(value) else "text"
    shown = [f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True)][:_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more columns" if len(names) > _SHOWN else "")


_KEYED = frozenset(
    ".json .json5 .jsonc .jsonl .ndjson .geojson .topojson .har .ipynb .webmanifest .yaml .yml .toml .lock .lockfile"
    " .snap .properties .arb .strings".split()
)
_TAGGED = frozenset(".xml .svg .gpx .kml .dae .plist .resx .xlf .xliff .xsd .rdf .rss .tmx .xmi .drawio".split())
_TABLES = frozenset([".csv", ".tsv", ".psv"])
_WORDED = frozenset(".log .txt .dat .data .out .dump .vtk .obj .ply .off .pdb .fasta .hex".split())
_COMPLETE = frozenset([".sql"])
"""Beside data they hold code, of which nothing is left out."""
_SHAPES: dict[str, Shape] = {
    **dict.fromkeys(_KEYED, _keyed),
    **dict.fromkeys(_TAGGED, _tagged),
    **dict.fromkeys(_TABLES, _tabular),
    **dict.fromkeys(_WORDED, _worded),
    ".po": _catalogue,
    ".pot": _catalogue,
    ".sql": _inserted,
}
_LIMITS = {
    **dict.fromkeys([".yaml", ".yml", ".xml", ".xsd", ".plist"], _WRITTEN),
    ".toml": _TEXT,
    ".txt": _TEXT,
}
