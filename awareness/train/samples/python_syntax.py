"""What Python chunks define, as far as they parse: names, parameters, docstrings, constants, imports.

A chunk may be a part of a function. Its lines are parsed alone; last lines that do not parse without the next chunk are
left out.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from awareness.train.samples.pool import Pool

MAX_DROPPED = 6  # last lines of a chunk
PYTHON_SUFFIXES = (".py", ".pyi")
Function = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Definition:
    """A function or class that begins in the chunk with number `chunk`.

    name: qualified, as far as the chunk shows. parameters: name -> its default as written, or None; without `self`.
    returns: the only expression returned, or empty. raises, bases: names, each once.
    """

    chunk: int
    name: str
    noun: str
    doc: str = ""
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    returns: str = ""
    raises: Sequence[str] = ()
    bases: Sequence[str] = ()


@dataclass(frozen=True)
class Tree:
    """The part of a chunk that parses. scope: the class or function around its lines, or empty."""

    text: str
    root: ast.Module
    scope: str

    @cached_property
    def constants(self) -> list[tuple[str, str]]:
        """(name, literal as written) of the assignments of a module or a class."""
        constants = []
        for scope, node in _members(self.root, self.scope):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            literal = ast.get_source_segment(self.text, value) if value and _is_literal(value) else None
            if isinstance(target, ast.Name) and len(target.id) > 3 and literal:
                constants.append((f"{scope}.{target.id}" if scope else target.id, literal))
        return constants

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """(name, module) of `from module import name`."""
        nodes = [node for node in ast.walk(self.root) if isinstance(node, ast.ImportFrom)]
        return [
            (alias.name, "." * node.level + (node.module or ""))
            for node in nodes
            for alias in node.names
            if alias.name != "*" and alias.asname is None
        ]


def trees_of(pool: Pool) -> list[tuple[int, Tree]]:
    """(number, tree) of the Python chunks of a pool that parse."""
    python = ((i, chunk) for i, chunk in enumerate(pool.chunks) if chunk.path.endswith(PYTHON_SUFFIXES))
    return [(i, tree) for i, chunk in python if (tree := _tree(chunk.text, chunk.symbol))]


def _tree(text: str, symbol: str) -> Tree | None:
    lines = textwrap.dedent(text).split("\n")
    inside = text[:1].isspace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like
        for stop in range(len(lines), max(0, len(lines) - MAX_DROPPED), -1):
            part = "\n".join(lines[:stop])
            last = lines[stop - 1]
            indent = " " * (len(last) - len(last.lstrip()) + 4)
            for whole in (part, f"{part}\n{indent}pass") if last.rstrip().endswith(":") else (part,):
                try:
                    return Tree(whole, ast.parse(whole), symbol if inside else "")
                except (SyntaxError, ValueError):
                    continue
    return None


def _members(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.stmt]]:
    """(qualified name of the class around it, statement) of every statement in a module or a class."""
    for child in getattr(node, "body", []):
        yield scope, child
        if isinstance(child, ast.ClassDef):
            yield from _members(child, f"{scope}.{child.name}" if scope else child.name)


def _is_literal(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and node.value is not None and node.value is not Ellipsis


def definitions_of(pool: Pool) -> list[Definition]:
    definitions = []
    for number, tree in pool.once(trees_of):
        scope = tree.scope
        first = tree.root.body[0] if tree.root.body else None
        if scope and isinstance(first, DEFINITIONS) and scope.rpartition(".")[2] == first.name:
            scope = scope.rpartition(".")[0]  # the chunk's symbol is the definition's own
        for parent, node in _members(tree.root, scope):
            if isinstance(node, DEFINITIONS) and not node.name.startswith("__"):
                name = f"{parent}.{node.name}" if parent else node.name
                definition = (
                    _class(number, name, node) if isinstance(node, ast.ClassDef) else _function(number, name, node)
                )
                definitions.append(definition)
    return definitions


def _class(chunk: int, name: str, node: ast.ClassDef) -> Definition:
    bases = [ast.unparse(base) for base in node.bases]
    return Definition(chunk, name, "class", ast.get_docstring(node) or "", bases=bases)


def _function(chunk: int, name: str, node: Function) -> Definition:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    parameters = {
        argument.arg: None if default is None else ast.unparse(default)
        for argument, default in [
            *zip(positional, defaults, strict=True),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        if argument.arg not in ("self", "cls")
    }
    for argument in (arguments.vararg, arguments.kwarg):
        if argument is not None:
            parameters[f"{'*' if argument is arguments.vararg else '**'}{argument.arg}"] = None
    own = list(_own(node))
    returned = [statement.value for statement in own if isinstance(statement, ast.Return)]
    only = returned[0] if len(returned) == 1 else None
    raised = [statement.exc for statement in own if isinstance(statement, ast.Raise)]
    raises = [ast.unparse(exc.func if isinstance(exc, ast.Call) else exc) for exc in raised if exc is not None]
    return Definition(
        chunk,
        name,
        "method" if "." in name else "function",
        ast.get_docstring(node) or "",
        parameters,
        "" if only is None or _says_nothing(only) else ast.unparse(only),
        [name for name in dict.fromkeys(raises) if name.rpartition(".")[2][:1].isupper()],
    )


def _says_nothing(node: ast.expr) -> bool:
    """Whether a returned expression is a bare name or None, which mean nothing without the lines around them."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and node.value is None)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions and classes inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*DEFINITIONS, ast.Lambda)):
            yield child
            yield from _own(child)
