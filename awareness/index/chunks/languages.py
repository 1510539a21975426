"""What the languages look like: a table of their definitions, and a text as a tree of `Part`s.

Code is read by tree-sitter (one wheel a language, imported when the first file of that language comes by), Markdown and
reStructuredText by their headings; any other text, and any language whose wheel is not installed, has no parts. What
to do with the tree (sizes, cuts, chunks) is `chunking`'s. To add a language, add a row to `LANGUAGES`.

Rows count from 0 and spans are half-open; a row ends at "\\n" and nowhere else, for tree-sitter as for `split`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any


@dataclass(slots=True)  # not frozen: a file has a hundred thousand, and freezing triples the time to make one
class Part:
    """A node of a text: rows `[start, stop)`.

    `name` is not empty for a definition (or a section). `open` parts are always looked into, even where they fit:
    namespaces and `#ifdef`s say nothing themselves. A part that `leads` belongs to what starts right below it:
    comments, attributes, decorators. `children` is called at most once, and only where a part has to be cut.
    """

    start: int
    stop: int
    name: str = ""
    open: bool = False
    leads: bool = False
    children: Callable[[], list[Part]] = list


@dataclass(frozen=True)
class Language:
    """A row of the table: a grammar, and what its node types are.

    definitions: nodes that have a name. spaces: definitions that are always looked into. transparent: looked into, no
    name. wrappers: nodes that stand for the one definition in them (`export`, decorators). valued: definitions if their
    value is a function or, at the top of the file, has several lines; type -> field of the value.
    """

    module: str
    extensions: tuple[str, ...]
    function: str
    valued: Mapping[str, str]
    definitions: frozenset[str] = frozenset()
    spaces: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()


def _row(
    module: str,
    extensions: str,
    function: str = "language",
    valued: Mapping[str, str] | None = None,
    **types: str,
) -> Language:
    sets = {kind: frozenset(names.split()) for kind, names in types.items()}
    return Language(module, tuple(extensions.split()), function, valued or {}, **sets)


FUNCTIONS = frozenset(
    ["arrow_function", "function_expression", "generator_function", "anonymous_function", "class", "object"]
)
LEADS = frozenset(["attribute_item", "decorator", "access_specifier", "annotation"])

_JS: dict[str, Any] = {
    "definitions": "function_declaration generator_function_declaration class_declaration method_definition "
    "abstract_class_declaration abstract_method_signature interface_declaration type_alias_declaration "
    "enum_declaration function_signature",
    "spaces": "internal_module module",
    "wrappers": "export_statement lexical_declaration variable_declaration expression_statement ambient_declaration",
    "valued": {
        "variable_declarator": "value",
        "assignment_expression": "right",
        "pair": "value",
        "field_definition": "value",
        "public_field_definition": "value",
    },
}
_C: dict[str, Any] = {
    "definitions": "function_definition struct_specifier union_specifier enum_specifier class_specifier "
    "type_definition preproc_def preproc_function_def alias_declaration concept_definition",
    "spaces": "namespace_definition",
    "transparent": "preproc_ifdef preproc_if linkage_specification",
    "wrappers": "template_declaration declaration",
    "valued": {"init_declarator": "value"},
}

LANGUAGES: dict[str, Language] = {
    "python": _row(
        "tree_sitter_python",
        ".py .pyi .pyw",
        definitions="function_definition class_definition type_alias_statement",
        wrappers="decorated_definition",
    ),
    "javascript": _row("tree_sitter_javascript", ".js .mjs .cjs .jsx", **_JS),
    "typescript": _row("tree_sitter_typescript", ".ts .mts .cts", "language_typescript", **_JS),
    "tsx": _row("tree_sitter_typescript", ".tsx", "language_tsx", **_JS),
    "go": _row(
        "tree_sitter_go",
        ".go",
        definitions="function_declaration method_declaration type_spec type_alias const_spec var_spec",
        wrappers="type_declaration const_declaration var_declaration var_spec_list",
    ),
    "rust": _row(
        "tree_sitter_rust",
        ".rs",
        definitions="function_item function_signature_item struct_item enum_item union_item trait_item impl_item "
        "type_item const_item static_item macro_definition",
        spaces="mod_item",
    ),
    "java": _row(
        "tree_sitter_java",
        ".java",
        definitions="class_declaration interface_declaration enum_declaration record_declaration "
        "annotation_type_declaration method_declaration constructor_declaration compact_constructor_declaration",
    ),
    "c": _row("tree_sitter_c", ".c .h", **_C),
    "cpp": _row("tree_sitter_cpp", ".cc .cpp .cxx .c++ .hpp .hh .hxx .h++ .ipp .tpp .cu .cuh", **_C),
    "c_sharp": _row(
        "tree_sitter_c_sharp",
        ".cs .csx",
        definitions="class_declaration interface_declaration struct_declaration record_declaration enum_declaration "
        "method_declaration constructor_declaration destructor_declaration property_declaration delegate_declaration "
        "event_declaration local_function_statement",
        transparent="namespace_declaration",
    ),
    "ruby": _row(
        "tree_sitter_ruby",
        ".rb .rake .gemspec .ru",
        definitions="class method singleton_method",
        spaces="module",
        wrappers="call argument_list",  # private def f
    ),
    "bash": _row("tree_sitter_bash", ".sh .bash .zsh .ksh .bats", definitions="function_definition"),
    "php": _row(
        "tree_sitter_php",
        ".php .phtml .inc",
        "language_php",
        definitions="class_declaration interface_declaration trait_declaration enum_declaration function_definition "
        "method_declaration",
        transparent="namespace_definition",
        wrappers="expression_statement",
        valued={"assignment_expression": "right"},
    ),
    "kotlin": _row(
        "tree_sitter_kotlin",
        ".kt .kts",
        definitions="class_declaration object_declaration function_declaration type_alias",
    ),
    "swift": _row(
        "tree_sitter_swift",
        ".swift",
        definitions="class_declaration protocol_declaration function_declaration init_declaration "
        "protocol_function_declaration typealias_declaration",
    ),
    "scala": _row(
        "tree_sitter_scala",
        ".scala .sc",
        definitions="class_definition object_definition trait_definition enum_definition function_definition "
        "function_declaration type_definition given_definition",
    ),
    "lua": _row("tree_sitter_lua", ".lua", definitions="function_declaration"),
}


def parts_of(language: str | None, text: str, lines: list[str]) -> list[Part]:
    """The top parts of a text, ascending; empty if it can only be read by lines. `lines` is `text.split("\\n")`."""
    if language == "markdown":
        return _sections(lines, _markdown_headings(lines), fenced=True)
    if language == "rst":
        return _sections(lines, _rst_headings(lines), fenced=False)
    grammar = _grammar(language) if language in LANGUAGES else None
    if language is None or grammar is None:
        return []
    from tree_sitter import Parser

    source = text.encode("utf-8", "replace")  # a lone surrogate becomes "?": rows stay what they are
    tree = Parser(grammar).parse(source)
    return _children(tree.root_node, LANGUAGES[language], own=0, top=True)


# --- syntax ---


@cache
def _grammar(language: str) -> Any:
    """The tree-sitter grammar, or None if its wheel is not installed or is of an ABI that tree-sitter does not read."""
    row = LANGUAGES[language]
    try:
        from tree_sitter import Language as Grammar

        return Grammar(getattr(importlib.import_module(row.module), row.function)())
    except (ImportError, AttributeError, ValueError):
        return None


def _children(node: Any, language: Language, own: int, top: bool = False) -> list[Part]:
    """The children of a node as parts. `own`: id of the definition that a parent of theirs was already named after."""
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
    """The node itself if it is a definition, the one inside it if it is a wrapper, None if there is none or several."""
    kind = node.type
    if kind in language.definitions or kind in language.spaces:
        needs = "body" if kind.endswith("_specifier") else "value" if kind == "preproc_def" else ""
        return None if needs and _field(node, needs) is None else node  # `struct s x;`, `#define GUARD_H`
    if kind in language.valued:
        value = node.child_by_field_name(language.valued[kind])
        rows = value.end_point[0] - value.start_point[0] if value is not None else 0
        return node if value is not None and (value.type in FUNCTIONS or (top and rows)) else None
    if kind in language.wrappers and depth:
        inner = (_definition(child, language, top, depth - 1) for child in node.named_children)
        found = [definition for definition in inner if definition is not None]
        return found[0] if len(found) == 1 else None
    return None


_DECLARATORS = frozenset(["reference_declarator", "parenthesized_declarator"])
_GENERIC = re.compile(r"<[^<>]*>")
_NOISE = re.compile(r"^(?:module\.exports|exports|this)\.|\.prototype(?=\.)|^&\s*(?:'\w+\s+)?(?:mut\s+)?|[\"'`]")


def _field(node: Any, *names: str) -> Any:
    return next((child for name in names if (child := node.child_by_field_name(name)) is not None), None)


def _declared(node: Any) -> Any:
    """The name in C's declarators: `(*f(int))[3]` declares f."""
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
    """`f`, or `Class.method` where it is written so (Go's receiver, `Class::method`); "" if it has no plain name."""
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


# --- prose ---


@dataclass(frozen=True)
class _Heading:
    start: int  # first row of the heading
    stop: int  # first row after it
    level: int
    title: str


def _sections(lines: list[str], headings: Iterable[_Heading], *, fenced: bool) -> list[Part]:
    """A section spans its heading up to the next one of its level; its parts: its paragraphs, then the subsections."""
    root: list[Part] = []
    open_sections: list[tuple[_Heading, list[Part]]] = []
    body = (0, 0)  # where the running text begins: row of its heading, row after the heading

    def close(level: int, row: int) -> None:
        siblings = open_sections[-1][1] if open_sections else root
        siblings.extend(_blocks(lines, *body, row, fenced=fenced))
        while open_sections and open_sections[-1][0].level >= level:
            heading, parts = open_sections.pop()
            outer = open_sections[-1][1] if open_sections else root
            outer.append(Part(heading.start, row, heading.title, children=partial(list, parts)))

    for heading in headings:
        close(heading.level, heading.start)
        open_sections.append((heading, []))
        body = (heading.start, heading.stop)
    close(0, len(lines))
    return root


def _blocks(lines: list[str], start: int, after: int, stop: int, *, fenced: bool) -> Iterator[Part]:
    """Paragraphs and fenced blocks of rows `[start, stop)`; those before `after` are a heading, kept with the next."""
    row = after
    while row < stop:
        while row < stop and not lines[row].strip():
            row += 1
        fence = ""
        while row < stop and (fence or lines[row].strip()):
            fence = _fence(lines[row], fence) if fenced else ""
            row += 1
        yield Part(start, row)
        start = row
    if start < after:
        yield Part(start, after)


_FENCE = re.compile(r"\s*(?:[-*+>]\s+)?(`{3,}|~{3,})([^\n]*)$")


def _fence(line: str, fence: str) -> str:
    """The fence that is open after this line: its marks, or "" outside of one."""
    found = _FENCE.match(line)
    if not found:
        return fence
    marks, info = found[1], found[2]
    if fence:
        return "" if marks[0] == fence[0] and len(marks) >= len(fence) and not info.strip() else fence
    return "" if "`" in info and marks[0] == "`" else marks


MAX_TITLE = 500  # characters of a line that are looked at: a megabyte of "# # # " must not take an hour
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t\r]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)\s*$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]+>|[`*]")


def _markdown_headings(lines: list[str]) -> Iterator[_Heading]:
    row, fence = 0, ""
    if lines[0].strip() == "---":  # front matter: its last line would underline a title
        row = next((i + 1 for i in range(1, len(lines)) if lines[i].strip() == "---"), 0)
    first = row
    for row in range(first, len(lines)):
        was, fence = fence, _fence(lines[row], fence)
        line = lines[row][:MAX_TITLE]
        if was or fence:
            continue
        if atx := _ATX.match(line):
            yield _Heading(row, row + 1, len(atx[1]), _title(atx[2] or ""))
        elif (underline := _SETEXT.match(line)) and row > first:
            title = lines[row - 1]
            alone = row - 1 == first or not lines[row - 2].strip()
            if alone and title.strip() and title[0] not in " \t>-*+|#<`~" and not _SETEXT.match(title):
                yield _Heading(row - 1, row + 1, 1 if underline[1][0] == "=" else 2, _title(title))


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*\s*$")


def _rst_headings(lines: list[str]) -> Iterator[_Heading]:
    """Underlined titles; levels are the order in which the adornments (with or without an overline) first appear."""
    levels: dict[tuple[str, bool], int] = {}
    for row in range(1, len(lines)):
        under, title = lines[row].rstrip(), lines[row - 1]
        if not _ADORNMENT.match(under) or not title.strip() or _ADORNMENT.match(title):
            continue
        over = row > 1 and lines[row - 2].rstrip() == under
        alone = over or row == 1 or not lines[row - 2].strip()
        if alone and len(under) >= max(3, len(title.strip())) and (over or not title[0].isspace()):
            level = levels.setdefault((under[0], over), len(levels) + 1)
            yield _Heading(row - 2 if over else row - 1, row + 1, level, _title(title))


def _title(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text[:MAX_TITLE]).split())[:60].strip()
