"""A text of code -> its parts, from tree-sitter. languages.yaml says which nodes of a language are definitions.

Rows count from 0 and spans are half-open. A row ends at "\\n" and nowhere else, for tree-sitter as for `str.split`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
    title.
    """

    start: int
    stop: int
    name: str = ""
    open: bool = False
    leads: bool = False
    children: Callable[[], list[Part]] = list
    prose: bool = False


FUNCTIONS = frozenset(
    ["arrow_function", "function_expression", "generator_function", "anonymous_function", "class", "object"]
)
LEADS = frozenset(["attribute_item", "decorator", "access_specifier", "annotation"])
_DECLARATORS = frozenset(["reference_declarator", "parenthesized_declarator"])
_GENERIC = re.compile(r"<[^<>]*>")
_NOISE = re.compile(r"^(?:module\.exports|exports|this)\.|\.prototype(?=\.)|^&\s*(?:'\w+\s+)?(?:mut\s+)?|[\"'`]")


def syntax_parts(language: str, text: str) -> list[Part]:
    """The top-level parts of a text, ascending; empty if its grammar is not installed."""
    grammar = grammar_of(language)
    if grammar is None:
        return []
    from tree_sitter import Parser

    source = text.encode("utf-8", "replace")  # a lone surrogate becomes "?", which keeps the rows
    return _children(Parser(grammar).parse(source).root_node, LANGUAGES[language], own=0, top=True)


def _children(node: Any, language: Language, own: int, top: bool = False) -> list[Part]:
    """The children of a node as parts. own: id of the definition that an ancestor is already named after."""
    parts = []
    for child in node.children:
        (start, _), (end, column) = child.start_point, child.end_point
        if child.start_byte == child.end_byte:
            continue
        stop = end if column == 0 and end > start else end + 1
        kind, named = child.type, child.is_named
        definition = _definition(child, language, top) if named else None
        if definition is not None and definition.id != own:
            name, inner = _name(definition), definition.id
            is_open = definition.type in language.spaces
        else:
            name, inner = "", own
            is_open = kind in language.transparent or (kind in language.wrappers and definition is None and top)
        children = partial(_children, child, language, inner) if stop - start > 1 else list
        parts.append(Part(start, stop, name, is_open, named and ("comment" in kind or kind in LEADS), children))
    return parts


def _definition(node: Any, language: Language, top: bool, depth: int = 5) -> Any:
    """The node if it is a definition; for a wrapper, the only definition inside it; else None."""
    kind = node.type
    if kind in language.definitions or kind in language.spaces:
        needs = "body" if kind.endswith("_specifier") else "value" if kind == "preproc_def" else ""
        return None if needs and _field(node, needs) is None else node  # `struct s x;`, `#define GUARD_H`
    if language.valued and kind in language.valued:
        value = node.child_by_field_name(language.valued[kind])
        rows = value.end_point[0] - value.start_point[0] if value is not None else 0
        return node if value is not None and (value.type in FUNCTIONS or (top and rows)) else None
    if kind in language.wrappers and depth:
        inner = (_definition(child, language, top, depth - 1) for child in node.named_children)
        definitions = [definition for definition in inner if definition is not None]
        return definitions[0] if len(definitions) == 1 else None
    return None


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


def _name(node: Any) -> str:
    """`f`, or `Class.method` for a Go receiver or `Class::method`; "" without a plain name."""
    fields = ("type",) if node.type == "impl_item" else ("name", "property", "key", "left")
    named = _field(node, *fields) or _declared(node)
    if named is None:
        return {"init_declaration": "init"}.get(node.type, "")
    text = " ".join(named.text[:500].decode("utf-8", "replace").split())
    if "operator" in text:
        text = text.partition("(")[0] if "operator()" not in text.replace(" ", "") else text
    else:
        for _ in range(4):
            text = _GENERIC.sub("", text)
    text = _NOISE.sub("", text.replace("::", ".").replace("\\", ".").replace(":", "."))
    receiver = node.child_by_field_name("receiver") if node.type == "method_declaration" else None
    if receiver is not None:
        owner = receiver.text.decode("utf-8", "replace").strip("() ").partition("[")[0].split()
        text = f"{owner[-1].lstrip('*')}.{text}" if owner else text
    return "" if text[:1] in "[{(" else text[:100].strip(" .")
