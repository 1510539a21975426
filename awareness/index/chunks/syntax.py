"""A text of code -> its parts, from tree-sitter. languages.yaml says which nodes of a language are definitions.

Rows count from 0 and spans are half-open. A row ends at "\\n" and nowhere else, for tree-sitter as for `str.split`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from awareness.index.chunks.languages import LANGUAGES, Language, grammar_of


@dataclass(slots=True)  # not frozen, which would triple the time to create one: a file may have 100,000
class Part:
    """A node of a text: rows `[start, stop)`.

    name: of a definition or a section, else empty. open: always split, even if it fits (namespaces, `#ifdef`). leads:
    belongs to the part that starts on the next row (comments, attributes, decorators). children: called at most once,
    and only if the part has to be split. prose: of a text for people, which stays whole if it fits; its name is a
    title. unread: the grammar does not understand these rows.
    """

    start: int
    stop: int
    name: str = ""
    open: bool = False
    leads: bool = False
    children: Callable[[], list[Part]] = list
    prose: bool = False
    unread: bool = False


FUNCTIONS = frozenset(
    ["arrow_function", "function_expression", "generator_function", "anonymous_function", "class", "object"]
)
LEADS = frozenset(["attribute_item", "decorator", "access_specifier", "annotation"])
SECONDS, SECONDS_PER_MIB = 1.0, 10.0  # of the processor, for one text: ten times of what a slow grammar needs
_READ = 1 << 16  # bytes that tree-sitter is given at a time
_DECLARATORS = frozenset(["reference_declarator", "parenthesized_declarator"])
_GENERIC = re.compile(r"<[^<>]*>")
_NOISE = re.compile(r"^(?:module\.exports|exports|this)\.|\.prototype(?=\.)|^&\s*(?:'\w+\s+)?(?:mut\s+)?|[\"'`]")


def syntax_parts(language: str, text: str) -> list[Part] | None:
    """The top-level parts of a text, ascending.

    None if its grammar is not installed, or takes too long: some grammars need hours for a text that is no code.
    """
    parsed = parse(language, text)
    if parsed is None:
        return None
    root, reader = parsed
    return reader.parts(root, own=0, top=True)


def parse(language: str, text: str, *, share: float = 1.0) -> tuple[Any, Reader] | None:
    """The root node of a text, and what reads its nodes; None as for `syntax_parts`. share: of the time limit."""
    grammar = grammar_of(language)
    if grammar is None:
        return None
    from tree_sitter import Parser

    source = text.encode("utf-8", "replace")  # a lone surrogate becomes "?", which keeps the rows
    limit = time.thread_time() + share * (SECONDS + SECONDS_PER_MIB * len(source) / (1 << 20))
    try:
        tree = Parser(grammar).parse(
            lambda at, _: source[at : at + _READ], progress_callback=lambda _, __: time.thread_time() > limit
        )
    except ValueError:  # stopped
        return None
    return tree.root_node, Reader(LANGUAGES[language], source)


class Reader:
    """Reads the parts of one text out of the nodes of its tree."""

    def __init__(self, language: Language, source: bytes) -> None:
        self.language, self.source = language, source

    def parts(self, node: Any, own: int, top: bool = False) -> list[Part]:
        """The children of a node as parts. own: id of the definition that an ancestor is already named after."""
        language = self.language
        parts: list[Part] = []
        kinds: list[str] = []  # of the definition of each part; empty for the others
        naming = {below.id for path in language.names.get(node.type, ()) for below in _step(node, path[0])}
        for child in self.children(node):
            (start, _), (end, column) = child.start_point, child.end_point
            if child.start_byte == child.end_byte:
                continue
            stop = end if column == 0 and end > start else end + 1
            kind, named = child.type, child.is_named
            definition = self.definition(child, top) if named and child.id not in naming else None
            if definition is not None and definition.id != own:
                name, inner, defines = self.name(definition), definition.id, definition.type
                is_open = defines in language.spaces
            else:
                name, inner, defines = "", own, ""
                is_open = kind in language.transparent or (kind in language.wrappers and definition is None and top)
            children = partial(self.parts, child, inner) if stop - start > 1 else list
            leads = named and ("comment" in kind or kind in LEADS or kind in language.leads)
            parts.append(Part(start, stop, name, is_open, leads, children, unread="ERROR" in (kind, node.type)))
            kinds.append(defines)
        if language.joined:
            parts, kinds = _joined(parts, kinds, language.joined)
        return _headed(parts, kinds, language.heads) if language.heads else parts

    def children(self, node: Any) -> Iterator[Any]:
        """The children of a node, with those of `flat` nodes in their place."""
        if not self.language.flat:
            yield from node.children
            return
        stack = node.children[::-1]
        while stack:
            child = stack.pop()
            if child.type in self.language.flat:
                stack += child.children[::-1]
            else:
                yield child

    def definition(self, node: Any, top: bool, depth: int = 5) -> Any:
        """The node if it is a definition; for a wrapper, the only definition inside it; else None."""
        kind, language = node.type, self.language
        if kind in language.definitions or kind in language.spaces:
            needs = "body" if kind.endswith("_specifier") else "value" if kind == "preproc_def" else ""
            return None if needs and _field(node, needs) is None else node  # `struct s x;`, `#define GUARD_H`
        if kind in language.valued:
            value = node.child_by_field_name(language.valued[kind])
            rows = value.end_point[0] - value.start_point[0] if value is not None else 0
            return node if value is not None and (value.type in FUNCTIONS or (top and rows)) else None
        if kind in language.holding:
            return node if any(_reached(node, path) for path in language.holding[kind]) else None
        if kind in language.calls:
            for field, words in language.calls[kind].items():
                callee = node.child_by_field_name(field)
                if callee is not None and self.text(callee) in words:
                    return node
            return None
        if kind in language.wrappers and depth:
            inner = (self.definition(child, top, depth - 1) for child in node.named_children)
            definitions = [definition for definition in inner if definition is not None]
            return definitions[0] if len(definitions) == 1 else None
        return None

    def text(self, node: Any, most: int = 500) -> str:
        """The text of a node on one line, cut to so many bytes."""
        cut = self.source[node.start_byte : min(node.end_byte, node.start_byte + most)]
        return " ".join(cut.decode("utf-8", "replace").split())

    def name(self, node: Any) -> str:
        """`f`, or `Class.method` for a Go receiver or `Class::method`; "" without a plain name."""
        paths = self.language.names.get(node.type)
        if paths is not None:
            if paths[0][0].startswith("="):
                return paths[0][0][1:]
            nodes = next((nodes for path in paths if (nodes := _reached(node, path))), None)
            if nodes is None:
                return ""
            text = ".".join(self.text(named).strip("\"'") for named in nodes)
        else:
            fields = ("type",) if node.type == "impl_item" else ("name", "property", "key", "left")
            named = _field(node, *fields) or _declared(node)
            if named is None:
                return ""
            text = self.text(named)
        if self.language.unnamed is not None and self.language.unnamed.match(text):
            return ""
        if self.language.literal:
            return text[:100].strip(" .")
        if "operator" in text:
            text = text.partition("(")[0] if "operator()" not in text.replace(" ", "") else text
        else:
            for _ in range(4):
                text = _GENERIC.sub("", text) or text  # `<+>` is a name
        text = _NOISE.sub("", text.replace("::", ".").replace("\\", ".").replace(":", "."))
        receiver = node.child_by_field_name("receiver") if node.type == "method_declaration" else None
        if receiver is not None:
            owner = self.text(receiver, receiver.end_byte).strip("() ").partition("[")[0].split()
            text = f"{owner[-1].lstrip('*')}.{text}" if owner else text
        return "" if text[:1] in "[{(" else text[:100].strip(" .")


def _joined(parts: list[Part], kinds: list[str], joined: frozenset[str]) -> tuple[list[Part], list[str]]:
    """Neighbours of one name become one part: the signature and the equations of a function."""
    merged: list[Part] = []
    members: list[list[Part]] = []
    merged_kinds: list[str] = []
    last = -1  # the last definition, if only what leads to another one stands below it
    for part, kind in zip(parts, kinds, strict=True):
        if last >= 0 and kind in joined and part.name and part.name == merged[last].name:
            run = [part for group in members[last:] for part in group] + [part]
            merged[last:] = [Part(merged[last].start, part.stop, part.name)]
            members[last:], merged_kinds[last:] = [run], [kind]
            continue
        merged.append(part)
        members.append([part])
        merged_kinds.append(kind)
        if kind in joined and part.name:
            last = len(merged) - 1
        elif not part.leads:
            last = -1
    for part, run in zip(merged, members, strict=True):
        if len(run) > 1:
            part.children = partial(_nameless, run)
    return merged, merged_kinds


def _nameless(run: list[Part]) -> list[Part]:
    """The same parts, without the name that their parent has."""
    return [Part(part.start, part.stop, "", part.open, part.leads, part.children) for part in run]


def _headed(parts: list[Part], kinds: list[str], heads: frozenset[str]) -> list[Part]:
    """What stands below a head belongs to it, up to the next head and what leads to that one."""
    headed: list[Part] = []
    inside: list[Part] = []  # the head and what belongs to it

    def close() -> None:
        if inside:
            leading = len(inside)
            while leading > 1 and inside[leading - 1].leads:
                leading -= 1
            own, below = inside[:leading], inside[leading:]
            stop = max(part.stop for part in own)
            headed.append(Part(own[0].start, stop, own[0].name, children=partial(_below, own)))
            headed.extend(below)
            inside.clear()

    for part, kind in zip(parts, kinds, strict=True):
        if kind in heads and part.name:
            close()
            inside.append(part)
        else:
            (inside if inside else headed).append(part)
    close()
    return headed


def _below(own: list[Part]) -> list[Part]:
    return [*_nameless(own[:1]), *own[1:]]


def _reached(node: Any, path: tuple[str, ...]) -> list[Any]:
    """The nodes that a path of languages.yaml leads to."""
    nodes = [node]
    for step in path:
        nodes = [below for each in nodes for below in _step(each, step)]
    return nodes


def _step(node: Any, step: str) -> list[Any]:
    if step[0] == "=":
        return []
    wanted = step.lstrip("^>").split("+")
    if step[0] in "^>":
        for _ in range(1 if step[0] == "^" else 20):
            node = next(iter(node.named_children), None)
            if node is None:
                break
            if node.type in wanted:
                return [node]
        return []
    if len(wanted) == 1:
        field = node.child_by_field_name(step)
        return [field] if field is not None else [child for child in node.named_children if child.type == step][:1]
    return [child for child in node.named_children if child.type in wanted]


def _field(node: Any, *names: str) -> Any:
    return next((child for name in names if (child := node.child_by_field_name(name)) is not None), None)


def _declared(node: Any) -> Any:
    """The node of the name in a declarator of C: `(*f(int))[3]` declares f."""
    named = _field(node, "declarator")
    for _ in range(20):
        if named is None or named.type == "operator_cast":
            break
        inner = _field(named, "declarator")
        if inner is None and named.type in _DECLARATORS and named.named_children:
            inner = named.named_children[0]
        if inner is None:
            break
        named = inner
    return named
