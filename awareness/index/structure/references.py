"""Where a file of code uses a name: as a call, as a value, in an import or in a definition, told by its syntax.

A place in a comment or in a string is none. tree-sitter parses the file once; only the places of the name are looked
at, so that a large file costs little more than its parse. What has no grammar is read line by line, and marked so.
Rows count from 0. imports.py says what a name means that comes from another file.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from awareness.index.chunks.languages import PROSE, language_of
from awareness.index.chunks.syntax import Reader, parse

_SHARE = 0.2  # of the time that a parse may take when a file is indexed
_DEEPEST = 400  # nodes around a place; deeper ones are data, or an attack
_MOST = 5_000  # places of one name in a file, or definitions, or calls
_MOST_LOOKED_AT = 50_000  # places of the same letters
_MOST_NODES = 400_000  # of a tree that is walked; the rest of a larger file is not seen
_ABOVE = 60  # rows that are read for what stands in no function
_RECEIVER = 200  # characters that are kept of what a method is called on
_PLACE = re.compile(r"comment|string|content|fragment|heredoc|char|text|regex", re.IGNORECASE)
_MEMBER = re.compile(
    r"member|attribute|selector|field|scoped|navigation|qualified|dot|access|static|generic|suffix|^command_name$"
)
# Nodes that call -> fields of what they call; the first child with a name where none of them is there.
_CALLS: dict[str, tuple[str, ...]] = {
    "call": ("function", "method", "target", "name"),
    "call_expression": ("function", "name", "constructor"),
    "new_expression": ("constructor", "type"),
    "object_creation_expression": ("type",),
    "explicit_constructor_invocation": ("constructor",),
    "method_invocation": ("name",),
    "invocation_expression": ("function",),
    "macro_invocation": ("macro",),
    "function_call": ("name",),
    "function_call_expression": ("function",),
    "member_call_expression": ("name",),
    "nullsafe_member_call_expression": ("name",),
    "scoped_call_expression": ("name",),
    "method_call_expression": ("name",),
    "command": ("name", "command_name"),
    "decorator": (),
    "annotation": ("name",),
    "marker_annotation": ("name",),
    "jsx_opening_element": ("name",),
    "jsx_self_closing_element": ("name",),
    "apply": ("function",),
    "struct_expression": ("name",),
    "composite_literal": ("type",),
    "constructor_invocation": (),
    "instance_expression": (),
    "function_application": ("function",),
}
_VALUES = re.compile(
    r"argument|^pair$|^list$|^array|tuple|dictionary|^object$|^assignment|return|^lexical|variable_declarator"
    r"|expression_list|expression_statement|default_parameter|method_reference|^binary|^conditional|ternary|lambda"
    r"|arrow_function|literal_element|keyed_element|field_initializer|shorthand|jsx_expression|^let_declaration"
    r"|short_var|element_value|reference_expression|call_suffix"
)
_IMPORTS = re.compile(r"import|^use_|using_directive|^extern_crate|export_clause|export_specifier|^include|require_")
_DECLARES = re.compile(r"declarator|parameter|signature|pattern$|_spec$")
_LISTS = frozenset(["expression_list", "pattern_list", "variable_list", "tuple_pattern"])  # on the left, names
_CLASSES = re.compile(r"class|struct|impl_item|interface|trait|enum|object|record|protocol|union|extension|mixin|actor")
_DEFINED = {  # what stands right before a name that is defined
    "python": r"\b(?:def|class|type)[ \t]+\Z",
    "go": r"(?:func |\) |type |const |var |^[ \t]+)\Z",
    "rust": r"\b(?:fn|struct|enum|union|trait|type|const|static|mut|mod|macro_rules!)[ \t]+\Z",
    **dict.fromkeys(("javascript", "typescript", "tsx", "lua", "ruby", "cpp"), r"\Z"),
}
_matches_member = functools.cache(lambda kind: _MEMBER.search(kind) is not None)
_matches_import = functools.cache(lambda kind: _IMPORTS.search(kind) is not None)
_matches_class = functools.cache(lambda kind: _CLASSES.search(kind) is not None)
_matches_place = functools.cache(lambda kind: _PLACE.search(kind) is not None)
_SCRIPT = re.compile(r"<script\b[^<>]{0,1000}>", re.IGNORECASE)
_SCRIPT_END = re.compile(r"</script", re.IGNORECASE)
_AFTER = re.compile(r"\s*(?:::)?(?:<[\w\s,.:&'\[\]?]{0,80}>|\[[\w\s,.*]{0,80}\])?!?\(")
_BEFORE = re.compile(r"(?:[\w$.:>?-]|<[\w\s,:&']{0,60}>)*(?:\.|:|->)$")
_OPERATOR = re.compile(r"(?:\?|!)?(?:\.|::|->|:)$")
_COMMENT = re.compile(r"\s*(?:#|//|--|;|%|/\*|\*|\(\*|!|')")
_NAME = re.compile(r"\w+", re.UNICODE)


class Role(str, Enum):
    """What a name does at a place. call: also a decorator and `new`. value: it is passed, returned or assigned. bound:
    the place makes it a parameter or a variable. other: a type, a base class, an attribute that is only read."""

    definition = "definition"
    call = "call"
    value = "value"
    imported = "import"
    bound = "bound"
    other = "other"


@dataclass(frozen=True, slots=True)
class Scope:
    """A definition around a place. name: as in the symbol of a chunk. is_class: it holds methods."""

    name: str
    is_class: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A place of a name in a file.

    row: from 0. receiver: what stands before the name, as in
    `self.pool` for `self.pool.acquire()`, empty for a plain name. scopes: the definitions around it, the outermost
    first; of a definition without itself. stop: of a definition, the row after its last one. is_class: of a definition,
    it holds methods. is_guess: told by the line, since there is no grammar. by_path: `::` joins it to the receiver.
    around: the rows of the function that it stands in, else those right above it.
    """

    name: str
    row: int
    role: Role
    receiver: str = ""
    scopes: tuple[Scope, ...] = ()
    stop: int = 0
    is_class: bool = False
    is_guess: bool = False
    by_path: bool = False
    around: tuple[int, int] = (0, 0)

    @property
    def scope(self) -> str:
        """The qualified name of the definition around it; empty at the top of a file."""
        return ".".join(scope.name for scope in self.scopes)

    @property
    def symbol(self) -> str:
        """Of a definition: its qualified name."""
        return ".".join([*(scope.name for scope in self.scopes), self.name])

    @property
    def owner(self) -> str:
        """The class whose method it is, or in whose method it stands: its last name. Empty without one."""
        name = next((scope.name for scope in reversed(self.scopes) if scope.is_class), "")
        return name.rpartition(".")[2]

    @property
    def is_method(self) -> bool:
        """Of a definition: does it stand right in a class?"""
        return bool(self.scopes) and self.scopes[-1].is_class


class CodeFile:
    """One file of code, parsed when it is first asked. path: decides its language."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.language, self._code = _code_of(path, text)
        self._references: dict[str, list[Reference]] = {}
        self._names: dict[int, str | None] = {}

    @property
    def is_code(self) -> bool:
        """Can it call anything? Not if it is prose or in no known language."""
        return self.language is not None

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def tree(self) -> tuple[Any, Reader] | None:
        """The root node and its reader; None without a grammar, or for a text that takes too long."""
        return parse(self.language, self._code, share=_SHARE) if self.language else None

    @cached_property
    def _offsets(self) -> list[int] | None:
        """The byte at which each row starts, and the character; None for ASCII, where they are equal."""
        if self._code.isascii():
            return None
        offsets, at = [0], 0
        for row in self._code.split("\n"):
            at += len(row.encode("utf-8", "replace")) + 1
            offsets.append(at)
        return offsets

    @cached_property
    def _starts(self) -> list[int]:
        starts, at = [0], 0
        for row in self._code.split("\n"):
            at += len(row) + 1
            starts.append(at)
        return starts

    def row_of(self, start: int) -> int:
        """The row of a character."""
        return bisect_right(self._starts, start) - 1

    def _byte(self, start: int) -> int:
        """The byte at which a character starts."""
        if self._offsets is None:
            return start
        row = self.row_of(start)
        return self._offsets[row] + len(self._code[self._starts[row] : start].encode("utf-8", "replace"))

    # --- places ------------------------------------------------------------------------------------------------

    def references(self, name: str, rows: tuple[int, int] | None = None) -> list[Reference]:
        """The places of a name, ascending; none in comments and strings. rows: only those in `[start, stop)`."""
        if rows is None:
            if name not in self._references:
                self._references[name] = self._places(name, 0, len(self._code))
            return self._references[name]
        if name in self._references:
            return [each for each in self._references[name] if rows[0] <= each.row < rows[1]]
        start, stop = (self._starts[min(row, len(self._starts) - 1)] for row in rows)
        return self._places(name, start, stop)

    def definitions_of(self, name: str) -> list[Reference]:
        """The definitions of a name, ascending: of all its places, only those are parsed that may be one."""
        if name in self._references:
            places = self._references[name]
        else:
            before = _before_definition(self.language or "")
            places = self._places(name, 0, len(self._code), before)
        return [each for each in places if each.role is Role.definition]

    def _places(self, name: str, start: int, stop: int, before: re.Pattern[str] | None = None) -> list[Reference]:
        """before: a pattern of what the line must have before the name."""
        found: list[Reference] = []
        if not self.is_code:
            return found
        for at in islice(words_at(self._code, name, start, stop), _MOST_LOOKED_AT):
            if before is not None and not before.search(self._code, max(0, at - 40), at):
                continue
            reference = self._reference(name, at, at + len(name))
            if reference is not None:
                found.append(reference)
            if len(found) >= _MOST:
                break
        return found

    def _reference(self, name: str, start: int, stop: int) -> Reference | None:
        if self.tree is None:
            return self._guess(name, start, stop)
        first = self._byte(start)
        last = first + len(name.encode("utf-8", "replace"))
        path = self.nodes_at(first, last)
        if path is None:
            return None
        if not path:
            return self._guess(name, start, stop)
        leaf = path[-1]
        if (leaf.start_byte, leaf.end_byte) != (first, last) or _matches_place(leaf.type) or not leaf.is_named:
            return None
        return self._classified(name, path)

    def spans(self, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        """The bytes of each match of a pattern in the code."""
        for match in pattern.finditer(self._code):
            first = self._byte(match.start())
            yield first, first + len(match.group().encode("utf-8", "replace"))

    def nodes_at(self, first: int, last: int) -> list[Any] | None:
        """The nodes around these bytes, from the root down; None between nodes, empty if they are too deep."""
        assert self.tree is not None
        cursor = self.tree[0].walk()
        path = [cursor.node]
        while path[-1].child_count:
            if cursor.goto_first_child_for_byte(first) is None:
                return None
            node = cursor.node
            if node.start_byte > first or node.end_byte < last:
                return None
            path.append(node)
            if len(path) > _DEEPEST:
                return []
        return path

    def _classified(self, name: str, path: list[Any]) -> Reference:
        assert self.tree is not None
        reader = self.tree[1]
        row, leaf = path[-1].start_point[0], path[-1]
        scopes: list[Scope] = []
        defined: Any = None
        around: tuple[int, int] | None = None
        kinds = [self._named(node) for node in path[:-1]]
        for depth, node in enumerate(path[:-1]):
            own = kinds[depth]
            if own is None:
                continue
            is_class = _matches_class(node.type)
            if around is None and not is_class:
                around = node.start_point[0], node.end_point[0] + 1
            if _is_name_of(reader, node, own, name, leaf) and all(inner is None for inner in kinds[depth + 1 :]):
                defined = (node, own)
                continue
            if own and (not scopes or node.type != "impl_item" or scopes[-1].name != own):
                scopes.append(Scope(own, is_class))
        if defined is not None:
            node, own = defined
            *outer, _ = own.split(".")
            inside = tuple(scopes) + tuple(Scope(part, True) for part in outer)
            stop = node.end_point[0] + 1
            is_class = _matches_class(node.type) or node.type in ("type_spec", "type_alias")
            return Reference(name, row, Role.definition, "", inside, stop, is_class)
        role, receiver = self._role(path)
        by_path = reader.source[max(0, leaf.start_byte - 8) : leaf.start_byte].rstrip().endswith(b"::")
        rows = around or (max(0, row - _ABOVE), row + 1)
        return Reference(name, row, role, receiver, tuple(_split(scopes)), by_path=by_path, around=rows)

    def _named(self, node: Any) -> str | None:
        """The name of a definition, which may be empty; None for any other node."""
        if node.id not in self._names:
            assert self.tree is not None
            reader = self.tree[1]
            self._names[node.id] = reader.name(node) if _kind(reader, node) else None
        return self._names[node.id]

    def _role(self, path: list[Any]) -> tuple[Role, str]:
        """The role of the leaf of a path, and what stands before it."""
        leaf = path[-1]
        if any(_matches_import(node.type) for node in path[:-1]):
            return Role.imported, ""
        if path[-2].type == "token_tree":
            return self._in_macro(leaf)
        at = len(path) - 1  # of the expression that ends with the name
        while at > 0 and _matches_member(path[at - 1].type) and not self._is_left(path[at - 1], leaf):
            at -= 1
        whole, around = path[at], path[at - 1] if at else None
        if around is None:
            return Role.other, ""
        is_call = self._calls(around, whole)
        if not is_call and around.type in ("parenthesized_expression", "await_expression"):
            around = path[at - 2] if at > 1 else around
        begin = (
            around.start_byte if is_call and whole is leaf and around.start_byte < leaf.start_byte else whole.start_byte
        )
        receiver = self._before(begin, leaf.start_byte)
        if is_call:
            return Role.call, receiver
        if self._is_followed_by_arguments(leaf) and not _DECLARES.search(around.type):
            return Role.call, receiver or self._written_before(leaf)  # in a grammar whose calls are not in the table
        if _DECLARES.search(around.type):
            is_type = around.child_by_field_name("type") == whole or around.child_by_field_name("value") == whole
            return (Role.other if receiver or is_type else Role.bound), receiver
        if around.type.endswith("_type") and around.type != "pointer_type":
            return Role.other, receiver
        if around.type == "keyword_argument" and around.child_by_field_name("name") == whole:
            return Role.other, receiver
        if around.type in _LISTS and at > 1:
            outer = path[at - 2]
            if any(outer.child_by_field_name(field) == around for field in ("left", "name")):
                return (Role.other if receiver else Role.bound), receiver
        is_left = around.type.startswith(("assignment", "variable_declarator", "short_var", "pair", "let_decl"))
        if is_left and any(around.child_by_field_name(field) == whole for field in ("left", "name", "key", "pattern")):
            return (Role.other if receiver or around.type == "pair" else Role.bound), receiver
        return (Role.value if _VALUES.search(around.type) else Role.other), receiver

    def _is_left(self, node: Any, leaf: Any) -> bool:
        """Is the name the object of this member access, and not the member?"""
        if "generic" in node.type:
            return node.start_byte != leaf.start_byte and leaf.end_byte > node.start_byte + (
                node.named_children[0].end_byte - node.start_byte
            )
        return bool(node.end_byte != leaf.end_byte)

    def _calls(self, node: Any, callee: Any) -> bool:
        fields = _CALLS.get(node.type)
        if fields is None:
            return False
        for field in fields:
            child = node.child_by_field_name(field)
            if child is not None:
                return bool(
                    child == callee or (child.start_byte, child.end_byte) == (callee.start_byte, callee.end_byte)
                )
        return bool(node.named_children and node.named_children[0] == callee)

    def _is_followed_by_arguments(self, leaf: Any) -> bool:
        assert self.tree is not None
        after = self.tree[1].source[leaf.end_byte : leaf.end_byte + 100].decode("utf-8", "replace")
        return _AFTER.match(after) is not None

    def _in_macro(self, leaf: Any) -> tuple[Role, str]:
        return (Role.call if self._is_followed_by_arguments(leaf) else Role.value), self._written_before(leaf)

    def _written_before(self, leaf: Any) -> str:
        """What the name of a leaf is a member of, by the text alone."""
        assert self.tree is not None
        before = self.tree[1].source[max(0, leaf.start_byte - 100) : leaf.start_byte].decode("utf-8", "replace")
        match = _BEFORE.search(before)
        return _stripped(match.group()) if match else ""

    def _before(self, begin: int, end: int) -> str:
        assert self.tree is not None
        if end <= begin:
            return ""
        text = self.tree[1].source[begin:end].decode("utf-8", "replace")
        return _stripped(text)

    def _guess(self, name: str, start: int, stop: int) -> Reference | None:
        row = self.row_of(start)
        line = self._code[self._starts[row] : self._starts[row + 1] - 1]
        if _COMMENT.match(line[:200]):
            return None
        before = _BEFORE.search(self._code[max(self._starts[row], start - 100) : start])
        is_call = _AFTER.match(self._code, stop, stop + 100) is not None
        role = Role.call if is_call else Role.other
        return Reference(name, row, role, _stripped(before.group()) if before else "", is_guess=True)

    # --- what a definition holds -------------------------------------------------------------------------------

    def definitions(self) -> list[Reference]:
        """All definitions of the file that have a name, ascending."""
        found: list[Reference] = []
        if self.tree is None:
            return found
        root, reader = self.tree
        stack: list[tuple[Any, tuple[Scope, ...], int]] = [(root, (), 0)]
        nodes = 0
        while stack and len(found) < _MOST and nodes < _MOST_NODES:
            node, scopes, depth = stack.pop()
            nodes += 1
            kind = _kind(reader, node)
            if kind and (own := reader.name(node)):
                *outer, last = own.split(".")
                inside = scopes + tuple(Scope(part, True) for part in outer)
                is_class = _matches_class(node.type) or node.type in ("type_spec", "type_alias")
                if node.type != "impl_item":
                    row, stop = node.start_point[0], node.end_point[0] + 1
                    found.append(Reference(last, row, Role.definition, "", inside, stop, is_class))
                scopes = (*inside, Scope(last, is_class))
                if not is_class and node.type not in reader.language.spaces:
                    continue  # what a function defines inside is its own affair
            if depth < _DEEPEST:
                stack += [(child, scopes, depth + 1) for child in reversed(node.named_children) if child.child_count]
        return sorted(found, key=lambda definition: definition.row)

    def calls_in(self, start: int, stop: int) -> list[Reference]:
        """The calls in the rows `[start, stop)`, ascending, each name as often as it is called."""
        if self.tree is None:
            return []
        root, _ = self.tree
        source = self.tree[1].source
        found: dict[int, Reference] = {}
        stack = [(root, 0)]
        nodes = 0
        while stack and len(found) < _MOST and nodes < _MOST_NODES:
            node, depth = stack.pop()
            nodes += 1
            if node.end_point[0] < start or node.start_point[0] >= stop:
                continue
            if (node.type in _CALLS or node.type == "token_tree") and node.start_point[0] >= start:
                for leaf in self._callees(node):
                    name = source[leaf.start_byte : leaf.end_byte].decode("utf-8", "replace")
                    path = self.nodes_at(leaf.start_byte, leaf.end_byte)
                    if path and _NAME.match(name):
                        reference = self._classified(name, path)
                        if reference.role is Role.call:
                            found[leaf.start_byte] = reference
            if depth < _DEEPEST:
                stack += [(child, depth + 1) for child in node.named_children]
        return [found[start] for start in sorted(found)]

    def _callees(self, node: Any) -> Iterator[Any]:
        """The leaves that may name what a node calls."""
        if node.type == "token_tree":
            yield from (child for child in node.named_children if child.type == "identifier")
            return
        fields = _CALLS[node.type]
        children = (node.child_by_field_name(field) for field in fields)
        callee = next((child for child in children if child is not None), None)
        if callee is None:
            callee = next(iter(node.named_children), None)
        for _ in range(20):
            if callee is None or not callee.named_child_count:
                break
            inner = callee.named_children
            callee = inner[0] if "generic" in callee.type else inner[-1]
        if callee is not None and not callee.child_count:
            yield callee


def words_at(text: str, name: str, start: int = 0, stop: int | None = None) -> Iterator[int]:
    """The places of a name in a text where it is not part of a longer one."""
    stop = len(text) if stop is None else stop
    at = text.find(name, start, stop) if name else -1
    while at >= 0:
        end = at + len(name)
        if not (_in_word(text[at - 1 : at]) and _in_word(name[0])) and not (
            _in_word(text[end : end + 1]) and _in_word(name[-1])
        ):
            yield at
        at = text.find(name, end, stop)


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("_", "$")


@functools.cache
def _before_definition(language: str) -> re.Pattern[str]:
    return re.compile(_DEFINED.get(language, r"(?<![.>])\Z"), re.MULTILINE)


def _code_of(path: str, text: str) -> tuple[str | None, str]:
    """The language of a file, and its code: of a component only the scripts, on the same rows."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".ipynb":
        return "python", text
    if suffix in (".vue", ".svelte", ".astro"):
        code, done = [], 0
        while (begin := _SCRIPT.search(text, done)) and (end := _SCRIPT_END.search(text, begin.end())):
            code += [_blank(text[done : begin.end()]), text[begin.end() : end.start()]]
            done = end.start()
        return "tsx" if "tsx" in text[:2000] else "typescript", "".join(code)
    language = language_of(path, text)
    return (None if language in PROSE or language in ("css", "scss", "html") else language), text


def _blank(text: str) -> str:
    """The same number of characters and rows, all blank."""
    return re.sub(r"[^\n]", " ", text)


def _kind(reader: Reader, node: Any) -> bool:
    """Is the node itself a definition, not a wrapper around one?"""
    definition = reader.definition(node, False)
    return definition is not None and definition.id == node.id


def _is_name_of(reader: Reader, node: Any, own: str, name: str, leaf: Any) -> bool:
    """Is the leaf the name of this definition: the first place of it in the node?"""
    if own.rpartition(".")[2] != name or node.type == "impl_item":
        return False
    head = reader.source[node.start_byte : leaf.end_byte].decode("utf-8", "replace")
    return next(words_at(head, name), -1) == len(head) - len(name)


def _split(scopes: Sequence[Scope]) -> Iterator[Scope]:
    """The scopes with `Class.method`, the name of a method in Go and C++, as two."""
    for scope in scopes:
        *outer, last = scope.name.split(".")
        yield from (Scope(part, True) for part in outer)
        yield Scope(last, scope.is_class)


def _stripped(text: str) -> str:
    """What a member belongs to, without the operator behind it: `self.pool.` -> `self.pool`."""
    text = " ".join(text[-_RECEIVER:].split()).lstrip("@#")
    text = re.sub(r"^(?:new|await|return|throw)\b\s*", "", text)
    return _OPERATOR.sub("", text.rstrip()).strip()
