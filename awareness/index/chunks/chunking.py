"""Text -> chunks: a file cut at its syntax into spans of whole lines, each small enough to be encoded as one latent.

Split, then merge, after cAST (arXiv 2506.15655). syntax.py and headings.py return the parts of a text. The caller
brings the tokenizer, as a function that returns the character offset of each token.

**Split.** From the top of the tree down, a part that fits stays whole: a function, a class, a section of a document.
Comments, attributes and decorators directly above a part (no blank line between) belong to it. A part that is too big
becomes its own lines (signature, docstring, fields, closing brace) and its members, recursively, down to single lines.
Plain code of more than half of `max_tokens` is split too, or the line above it (`def f():`) might end up alone.

**Merge.** Neighbours of one parent (functions of a module, methods of a class, statements of a function) are packed
together up to `max_tokens`. They are cut where the nesting is shallowest, then where the indentation is, then at a
blank line, then so that the chunks are of similar size. A definition of more than half of `max_tokens` stays alone;
only plain code of at most an eighth may join it (a constant, the line of its class), and such a line of a class joins a
method that had to be cut. Across the border of a parent (the end of a split class, and the function after it) two
chunks join only if together they stay under half of `max_tokens`, and never the end of one split parent and the start
of another. A file that fits is one chunk.

**Symbol.** The qualified name of a definition. For several pieces, the name that fills two thirds of the chunk, else
that of their common parent (`Class` for several of its methods), else the first one. Lines of a split function carry
its name; plain code of a module carries "". Names lose their first qualifiers beyond 100 characters, and where the
header would take more than half of `max_tokens`.

**Guarantees.** Chunks ascend and do not overlap. Every line that is not blank is in exactly one. `encoded_text` has at
most `max_tokens` tokens. A line that is too long becomes several chunks of that line (`start_line == end_line`), each a
substring of it; joined they give the line, without parts of only whitespace. Only a path whose header leaves no room
for one character exceeds the limit; a header that reaches `max_tokens` by itself is not counted.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, inf

from awareness.index.chunks.components import component_parts, is_component
from awareness.index.chunks.documents import Document, document_of
from awareness.index.chunks.headings import sections_of
from awareness.index.chunks.languages import PROSE, language_of
from awareness.index.chunks.outline import outline
from awareness.index.chunks.syntax import Part, syntax_parts
from awareness.types import TITLE, Chunk, last_name

MAX_SYMBOL = 100  # characters
_BRACKETS = r"[(){}\[\]<>;,]*"
_CLOSES = re.compile(rf"{_BRACKETS}(?:(?:end|fi|done|esac|then|do|#endif)\b)?{_BRACKETS}(?:(?<!^)\s*(?://|/\*|#).*)?$")

TokenStarts = Callable[[str], Sequence[int]]
"""Text -> the character offset at which each of its tokens starts, ascending; its length is the token count."""


def chunk_file(path: str, text: str, token_starts: TokenStarts, *, max_tokens: int = 256) -> list[Chunk]:
    """The chunks of one file, ascending, by the rules of the module's docstring. Line ends of `text` are kept."""
    return [chunk for chunk, _ in sized_chunks(path, text, token_starts, max_tokens=max_tokens)]


def sized_chunks(path: str, text: str, token_starts: TokenStarts, *, max_tokens: int = 256) -> list[tuple[Chunk, int]]:
    """As `chunk_file`, each chunk with the number of tokens of its `encoded_text`. Raises ValueError."""
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}, but must be at least 1")
    document = document_of(path, text)
    if not document.text.strip():
        return []
    cutter = _Cutter(path, document, token_starts, max_tokens)
    cells = document.cells or (component_parts(path, cutter.lines) if is_component(path) else ())
    if cells:
        cut = [cutter.split([cell], cell.start, cell.stop) for cell in cells]
    else:
        cut = [cutter.split(parts_of(path, document.text, cutter.lines), 0, len(cutter.lines))]
    return [sized for pieces in cut for group in cutter.merge(pieces) for sized in cutter.chunks(group)]


def parts_of(path: str, text: str, lines: list[str]) -> list[Part]:
    """The top-level parts of a text, ascending; empty if it can only be cut by lines. lines: `text.split("\n")`."""
    language = language_of(path, text)
    if language in PROSE:
        return sections_of(language, lines)
    parts = syntax_parts(language, text) if language else None
    if parts is None:
        return outline(path, lines)
    unread = [part for part in parts if part.unread]
    if 2 * sum(part.stop - part.start for part in unread) <= len(lines):
        return parts
    guessed = outline(path, lines)  # one line can confuse a grammar to the end of the file
    inside = [below for part in unread for below in part.children()]
    return guessed if _definitions(guessed) > _definitions([*parts, *inside]) else parts


def _definitions(parts: list[Part]) -> int:
    return sum(bool(part.name) for part in parts)


@dataclass(slots=True)
class _Piece:
    """Rows `[start, stop)` that stay together if they can. scope: qualified name of the parent."""

    start: int
    stop: int
    symbol: str
    scope: str
    definition: bool
    rank: tuple[float, int, bool]  # cost of a cut before it: depth, indentation, no blank line above


@dataclass(slots=True)
class _Group:
    """Parts that share rows or lead to the next one: rows `[start, stop)`, kept or split together."""

    start: int
    stop: int
    parts: list[Part]
    scope: str
    depth: int  # of the parts inside
    before: int  # depth of the cut before it; that of its parent for the first in it


class _Cutter:
    """Cuts one file. Holds its lines and the tokens of its rows."""

    def __init__(self, path: str, document: Document, token_starts: TokenStarts, max_tokens: int) -> None:
        self.path, self.document, self.token_starts = path, document, token_starts
        text = document.text
        self.titles: set[str] = set()  # the symbols that are titles, not names of code
        self.lines = text.split("\n")
        self.blank = [not line.strip() for line in self.lines]
        self.starts = token_starts(text)
        self.offsets, offset = [0], 0
        for line in self.lines:
            offset += len(line) + 1
            self.offsets.append(offset)
        self.counted = [bisect_left(self.starts, offset) for offset in self.offsets]  # tokens before each row
        self.labels: dict[str, tuple[str, int]] = {}
        self.exact: dict[tuple[int, int, str], int] = {}
        self.limit = max_tokens
        header = self.header_tokens("")
        if header >= max_tokens:
            self.limit += header

    # --- counting ---

    def tokens(self, start: int, stop: int) -> int:
        """Tokens of rows `[start, stop)` within the whole file; tokenized alone, they may have a few more or less."""
        return self.counted[stop] - self.counted[start]

    def header_tokens(self, symbol: str) -> int:
        return len(self.token_starts(Chunk(self.path, 1, 1, symbol, "").encoded_text))

    def label(self, symbol: str) -> tuple[str, int]:
        """The symbol, shortened so that half of the limit is left for the text, and the tokens of its header."""
        if symbol not in self.labels:
            last = last_name(symbol)
            for short in (symbol, last, ""):
                header = self.header_tokens(short)
                if header <= self.limit // 2:
                    break
            self.labels[symbol] = (short, header)
        return self.labels[symbol]

    def room(self, symbol: str) -> int:
        return max(1, self.limit - self.label(symbol)[1])

    def chunk(self, start: int, stop: int, symbol: str) -> Chunk:
        first, last = self.document.line_of(start), self.document.line_of(stop - 1)
        return Chunk(self.path, first, last, self.label(symbol)[0], "\n".join(self.lines[start:stop]))

    def fits(self, start: int, stop: int, symbol: str) -> bool:
        """Do these rows fit into a chunk? Counts exactly only near the limit, to not tokenize a line at every level."""
        estimate = self.tokens(start, stop) + self.label(symbol)[1]
        if estimate <= 0.9 * self.limit or estimate > 1.1 * self.limit + 4:
            return estimate <= self.limit
        return self.sized(start, stop, symbol)[1] <= self.limit

    def sized(self, start: int, stop: int, symbol: str) -> tuple[Chunk, int]:
        """The chunk of these rows and its exact number of tokens, counted once."""
        chunk = self.chunk(start, stop, symbol)
        key = (start, stop, chunk.symbol)
        if key not in self.exact:
            self.exact[key] = len(self.token_starts(chunk.encoded_text))
        return chunk, self.exact[key]

    def trim(self, start: int, stop: int) -> tuple[int, int]:
        while start < stop and self.blank[start]:
            start += 1
        while start < stop and self.blank[stop - 1]:
            stop -= 1
        return start, stop

    # --- split ---

    def split(self, parts: list[Part], first: int, last: int) -> list[_Piece]:
        """The leaves of the trees over rows `[first, last)`, opened as far as needed, in order. Trees can be deep."""
        pieces: list[_Piece] = []
        stack = [*self.groups(parts, first, last, "", 0, 0)][::-1]
        while stack:
            group = stack.pop()
            start, stop = self.trim(group.start, group.stop)
            if start == stop:
                continue
            named = next((part for part in group.parts if part.name), None)
            name = named.name if named else ""
            symbol = self.qualify(group.scope, name, title=named is not None and named.prose)
            several = stop - start > 1
            must_open = several and any(part.open for part in group.parts)
            prose = any(part.prose for part in group.parts)
            whole = bool(name) or prose or 2 * self.tokens(start, stop) <= self.limit
            if not several or (not must_open and whole and self.fits(start, stop, symbol)):
                pieces.append(self.piece(start, stop, symbol, group.scope, bool(name), group.before))
                continue
            depth, opened, inner = group.depth + 1, False, []
            for part in group.parts:
                children = part.children() if part.stop - part.start > 1 else []
                opened = opened or bool(children)
                inner.extend(children or [Part(part.start, part.stop, leads=part.leads)])
            if opened:
                stack += [*self.groups(inner, start, stop, symbol, depth, group.before)][::-1]
            else:
                pieces += self.by_line(start, stop, symbol, depth, group.before)
        return pieces

    def groups(self, parts: list[Part], start: int, stop: int, scope: str, depth: int, before: int) -> Iterator[_Group]:
        """Groups that cover every row of `[start, stop)`, also rows of no part (text that the grammar skipped)."""
        spans: list[tuple[int, int, list[Part]]] = []
        end, leading = start, False  # of the last span: its stop; do all of its parts lead?
        for part in parts:
            first, last = max(part.start, start), min(part.stop, stop)
            if first >= last:
                continue
            if spans and (first < end or (first == end and leading)):
                above, _, members = spans[-1]
                members.append(part)
                end, leading = max(end, last), leading and part.leads
                spans[-1] = (above, end, members)
            else:
                end, leading = last, part.leads
                spans.append((first, last, [part]))
        row = start
        for first, last, members in [*spans, (stop, stop, [])]:
            if row < first:
                yield _Group(row, first, [], scope, depth, before if row == start else depth)
            if members:
                yield _Group(first, last, members, scope, depth, before if first == start else depth)
            row = last

    def by_line(self, start: int, stop: int, symbol: str, depth: int, before: int) -> Iterator[_Piece]:
        for row in range(start, stop):
            if not self.blank[row]:
                yield self.piece(row, row + 1, symbol, symbol, False, before if row == start else depth)

    def piece(self, start: int, stop: int, symbol: str, scope: str, definition: bool, depth: int) -> _Piece:
        line = self.lines[start].expandtabs(4)
        rank = (
            inf if self.closes(start, stop) else depth,
            len(line) - len(line.lstrip()),
            start > 0 and not self.blank[start - 1],
        )
        return _Piece(start, stop, symbol, scope, definition, rank)

    def closes(self, start: int, stop: int) -> bool:
        """Is it one line of only brackets, an `end` or the like, which needs the line above it?"""
        line = self.lines[start].strip()
        return stop - start == 1 and len(line) < 80 and _CLOSES.match(line) is not None

    def qualify(self, scope: str, name: str, *, title: bool) -> str:
        """`Class.method`, but `Guide > Setup` and `cell 3 > train` where the name or its scope is a title."""
        if not name:
            return scope
        separator = TITLE if title or scope in self.titles else "."
        symbol = f"{scope}{separator}{name}" if scope else name
        while len(symbol) > MAX_SYMBOL and separator in symbol:
            symbol = symbol.partition(separator)[2]
        symbol = symbol[:MAX_SYMBOL]
        if title:
            self.titles.add(symbol)
        return symbol

    # --- merge ---

    def merge(self, pieces: list[_Piece]) -> list[list[_Piece]]:
        """Pieces -> the pieces of each chunk."""
        if self.group_fits(pieces):
            return [pieces]
        merged: list[list[_Piece]] = []
        for (_, large), run in groupby(pieces, key=lambda piece: (piece.scope, self.large(piece))):
            members = list(run)
            for group in [[piece] for piece in members] if large else self.pack(members):
                if merged and self.joinable(merged[-1], group):
                    merged[-1] = merged[-1] + group
                else:
                    merged.append(group)
        return merged

    def pack(self, run: list[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces of one parent, cut into as few chunks as fit, at the borders of least cost."""
        end, first = run[-1].stop, 0
        while first < len(run):
            start = run[first].start
            room = min(self.room(run[first].symbol), self.room(run[first].scope))
            left = self.tokens(start, end)
            cut = len(run)
            if left > room:
                even = left / ceil(left / room)
                cut, best = first + 1, None
                for border in range(first + 1, len(run)):
                    size = self.tokens(start, run[border - 1].stop)
                    if size > room:
                        break
                    lopsided = min(size, left - size) < even / 2
                    cost = (lopsided, run[border].rank, abs(size - even))
                    if best is None or cost < best:
                        cut, best = border, cost
            yield run[first:cut]
            first = cut

    def large(self, piece: _Piece) -> bool:
        return piece.definition and self.tokens(piece.start, piece.stop) > self.limit // 2

    def joinable(self, above: list[_Piece], below: list[_Piece]) -> bool:
        """Do two neighbouring chunks, of different parents or next to a large definition, become one?"""
        if not self.group_fits(above + below):
            return False
        if all(self.closes(piece.start, piece.stop) for piece in below):
            return True
        outer, inner = sorted((above[-1].scope, below[0].scope), key=len)
        if outer and inner != outer and not inner.startswith((f"{outer}.", f"{outer}{TITLE}")):
            return False
        if (outer == above[-1].scope and self.tiny(above)) or (outer == inner and self.tiny(below)):
            return True
        return self.tokens(above[0].start, below[-1].stop) <= self.limit // 2

    def tiny(self, group: list[_Piece]) -> bool:
        plain = not any(piece.definition for piece in group)
        return plain and self.tokens(group[0].start, group[-1].stop) <= self.limit // 8

    def group_fits(self, group: list[_Piece]) -> bool:
        return self.fits(group[0].start, group[-1].stop, self.symbol(group))

    def symbol(self, group: list[_Piece]) -> str:
        if len(group) == 1:
            return group[0].symbol
        total = self.tokens(group[0].start, group[-1].stop)
        share: Counter[str] = Counter()
        for piece in group:
            share[piece.symbol] += self.tokens(piece.start, piece.stop)
            if piece.symbol and 3 * share[piece.symbol] > 2 * total:
                return piece.symbol
        if len({piece.scope for piece in group}) == 1 and group[0].scope:
            return group[0].scope
        return next((piece.symbol for piece in group if piece.symbol), "")

    # --- chunks ---

    def chunks(self, group: list[_Piece]) -> Iterator[tuple[Chunk, int]]:
        """The chunk of a group, counted exactly, or of its halves if it is over the limit."""
        stack = [group]
        while stack:
            group = stack.pop()
            start, stop, symbol = group[0].start, group[-1].stop, self.symbol(group)
            chunk, size = self.sized(start, stop, symbol)
            if size <= self.limit:
                yield chunk, size
            elif len(group) > 1:
                middle = (self.counted[start] + self.counted[stop]) / 2
                borders = range(1, len(group))
                cut = min(borders, key=lambda i: (abs(self.counted[group[i].start] - middle), group[i].rank))
                stack += [group[cut:], group[:cut]]
            elif stop - start > 1:
                stack.append([*self.by_line(start, stop, symbol, 0, 0)])
            else:
                yield from self.cut_line(start, symbol)

    def cut_line(self, row: int, symbol: str) -> Iterator[tuple[Chunk, int]]:
        """A line that is too long, cut where tokens start, into parts of at least one character, counted exactly."""
        line, label, room = self.lines[row], self.label(symbol)[0], self.room(symbol)
        number = self.document.line_of(row)
        begin = 0
        while begin < len(line):
            last = bisect_left(self.starts, self.offsets[row] + begin) + room
            end = self.starts[last] - self.offsets[row] if last < len(self.starts) else len(line)
            end = max(begin + 1, min(end, len(line)))  # one character may be several tokens
            while True:
                chunk = Chunk(self.path, number, number, label, line[begin:end])
                size = len(self.token_starts(chunk.encoded_text))
                over = size - self.limit
                if over <= 0 or end - begin <= 1:
                    break
                end = max(begin + 1, min(end - 1, begin + (end - begin) * room // (room + over)))
            if chunk.text.strip():
                yield chunk, size
            begin = end
