"""What the names of a file mean that come from other files: the imports of Python, JS/TS, Go, Rust and Java.

`imports_of` reads the imports of one file by their syntax; `Modules` tells which files of the repository a module is.
Other languages have no rules here: their names are compared as they are.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awareness.index.structure.references import CodeFile

JS = frozenset(["javascript", "typescript", "tsx"])
RULED = JS | {"python", "go", "rust", "java"}
"""The languages whose imports are read."""
ALL = "*"
"""The name of an import that brings every name of its module."""
_KEYWORDS = {
    "python": re.compile(r"\bimport\b"),
    "go": re.compile(r"\bimport\b"),
    "rust": re.compile(r"\buse\b"),
    "java": re.compile(r"\bimport\b"),
    **dict.fromkeys(JS, re.compile(r"\b(?:import|from|require)\b")),
}
_STATEMENTS = frozenset(
    "import_statement import_from_statement import_declaration use_declaration export_statement variable_declarator"
    " future_import_statement".split()
)
_MOST = 2_000  # imports of a file
_JS_ENDINGS = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts", ".vue", ".svelte", ".d.ts")
_JS_OWN = re.compile(r"\.[cm]?jsx?$")
_JAVA_IMPORT = re.compile(r"import\s+(static\s+)?([\w.]+?)(\.\*)?\s*;")
_RUST_TOPS = ("lib", "main")
_GO_MODULE = re.compile(r"^module\s+\"?([^\s\"]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Import:
    """local: the name in this file, or `ALL`. module: as it is written. name: what it is there; empty for the module
    itself. is_default: of JavaScript, the one thing that a module exports without a name."""

    local: str
    module: str
    name: str
    is_default: bool = False


def imports_of(file: CodeFile) -> list[Import]:
    """The imports of a file, in order; empty for a language without rules."""
    keyword = _KEYWORDS.get(file.language or "")
    if keyword is None or file.tree is None:
        return []
    seen: set[int] = set()
    found: list[Import] = []
    for first, last in file.spans(keyword):
        path = file.nodes_at(first, last)
        node = next((node for node in path or () if node.type in _STATEMENTS), None)
        if node is not None and node.id not in seen:
            seen.add(node.id)
            found += _READERS[file.language or ""](node, file.tree[1].source)
        if len(found) > _MOST:
            break
    return found


def _text(node: Any, source: bytes) -> str:
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace") if node is not None else ""


def _python(node: Any, source: bytes) -> Iterator[Import]:
    module = node.child_by_field_name("module_name")
    origin = _text(module, source)
    for child in node.children_by_field_name("name"):
        name, alias = child, None
        if child.type == "aliased_import":
            name, alias = child.child_by_field_name("name"), child.child_by_field_name("alias")
        dotted = _text(name, source)
        if module is not None:
            yield Import(_text(alias, source) or dotted, origin, dotted)
        elif alias is not None:
            yield Import(_text(alias, source), dotted, "")
        else:
            yield Import(dotted, dotted, "")
    if any(child.type == "wildcard_import" for child in node.named_children):
        yield Import(ALL, origin, ALL)


def _javascript(node: Any, source: bytes) -> Iterator[Import]:
    if node.type == "variable_declarator":
        yield from _required(node, source)
        return
    origin = _text(node.child_by_field_name("source"), source).strip("\"'`")
    if not origin:
        return
    if node.type == "export_statement" and not any(
        child.type in ("export_clause", "namespace_export") for child in node.named_children
    ):
        yield Import(ALL, origin, ALL)
        return
    stack = list(reversed(node.named_children))
    while stack:
        child = stack.pop()
        if child.type in ("import_specifier", "export_specifier"):
            name = _text(child.child_by_field_name("name"), source)
            local = _text(child.child_by_field_name("alias"), source) or name
            yield Import(local, origin, name, is_default=name == "default")
        elif child.type in ("namespace_import", "namespace_export"):
            yield Import(_text(child.named_children[0] if child.named_children else None, source), origin, "")
        elif child.type == "identifier":
            yield Import(_text(child, source), origin, "default", is_default=True)
        elif child.type in ("import_clause", "named_imports", "export_clause"):
            stack += reversed(child.named_children)


def _required(node: Any, source: bytes) -> Iterator[Import]:
    """`const x = require("m")`, `const { a, b: c } = require("m")`."""
    call, pattern = node.child_by_field_name("value"), node.child_by_field_name("name")
    match = re.match(r"require\(\s*[\"']([^\"']+)[\"']\s*\)(?:\.(\w+))?$", _text(call, source)[:500])
    if match is None or pattern is None:
        return
    if pattern.type == "identifier":
        yield Import(_text(pattern, source), match[1], match[2] or "", is_default=not match[2])
    for child in pattern.named_children if pattern.type == "object_pattern" else ():
        if child.type == "pair_pattern":
            name, local = child.child_by_field_name("key"), child.child_by_field_name("value")
            yield Import(_text(local, source), match[1], _text(name, source))
        else:
            yield Import(_text(child, source), match[1], _text(child, source))


def _go(node: Any, source: bytes) -> Iterator[Import]:
    stack = [node]
    while stack:
        child = stack.pop()
        if child.type == "import_spec":
            module = _text(child.child_by_field_name("path"), source).strip('"`')
            local = _text(child.child_by_field_name("name"), source)
            parts = module.split("/")
            last = parts[-2] if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]) else parts[-1]
            yield Import(ALL if local == "." else local or re.sub(r"^go-|\.v\d+$|[-.]go$", "", last), module, "")
        else:
            stack += reversed(child.named_children)


def _rust(node: Any, source: bytes) -> Iterator[Import]:
    argument = node.child_by_field_name("argument")
    stack = [(argument, "")] if argument is not None else []
    while stack:
        node, prefix = stack.pop()
        kind = node.type
        if kind in ("use_list", "scoped_use_list"):
            path = node.child_by_field_name("path")
            inner = node.child_by_field_name("list") if kind == "scoped_use_list" else node
            joined = "::".join(part for part in (prefix, _text(path, source)) if part)
            if inner is not None:
                stack += [(child, joined) for child in reversed(inner.named_children)]
        elif kind == "use_as_clause":
            whole = "::".join(part for part in (prefix, _text(node.child_by_field_name("path"), source)) if part)
            yield _rust_import(whole, _text(node.child_by_field_name("alias"), source))
        elif kind == "use_wildcard":
            inner = node.named_children[0] if node.named_children else None
            yield Import(ALL, "::".join(part for part in (prefix, _text(inner, source)) if part), ALL)
        elif kind in ("identifier", "scoped_identifier", "crate", "self", "super"):
            yield _rust_import("::".join(part for part in (prefix, _text(node, source)) if part), "")


def _rust_import(whole: str, alias: str) -> Import:
    whole = whole.removesuffix("::self")
    module, _, name = whole.rpartition("::")
    return Import(alias or name, module, name)


def _java(node: Any, source: bytes) -> Iterator[Import]:
    match = _JAVA_IMPORT.match(_text(node, source))
    if match is None:
        return
    if match[3]:
        yield Import(ALL, match[2], ALL)
    else:
        module, _, name = match[2].rpartition(".")
        yield Import(name, module, name)


_READERS: dict[str, Callable[[Any, bytes], Iterator[Import]]] = {
    "python": _python,
    "go": _go,
    "rust": _rust,
    "java": _java,
    **dict.fromkeys(JS, _javascript),
}


class Modules:
    """The files of a repository, found by the names that imports give them. read: path -> its text."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], str]) -> None:
        self.paths, self._read = frozenset(paths), read
        self._python: dict[str, list[str]] = defaultdict(list)  # last name of the module -> files
        self._folders: dict[str, list[str]] = defaultdict(list)  # folder -> files right in it
        for path in paths:
            folder, _, name = path.rpartition("/")
            self._folders[folder].append(path)
            stem, dot, ending = name.rpartition(".")
            if dot and ending in ("py", "pyi", "pyx"):
                self._python[folder.rpartition("/")[2] if stem == "__init__" else stem].append(path)
        self._packages = {folder for folder in self._folders if f"{folder}/package.json".lstrip("/") in self.paths}
        self._go: dict[str, str] | None = None

    def files(self, module: str, path: str, language: str) -> list[str]:
        """The files that may be this module, as `path` imports it; empty if it is from elsewhere."""
        if language == "python":
            return self._of_python(module, path)
        if language in JS:
            return self._of_javascript(module, path)
        if language == "go":
            return self._of_go(module)
        if language == "rust":
            return self._of_rust(module, path)
        return self._of_java(module)

    def _of_python(self, module: str, path: str) -> list[str]:
        folder = posixpath.dirname(path)
        dots = len(module) - len(module.lstrip("."))
        names = [name for name in module.split(".") if name]
        if dots:
            for _ in range(dots - 1):
                folder = posixpath.dirname(folder)
            base = "/".join(part for part in (folder, *names) if part)
            tried = (f"{base}.py", f"{base}.pyi", f"{base}.pyx", f"{base}/__init__.py".lstrip("/"))
            return [file for file in tried if file in self.paths]
        if not names:
            return []
        tail = "/".join(names)
        found = []
        for file in self._python.get(names[-1], ()):
            stem = file.rpartition(".")[0].removesuffix("/__init__")
            if stem == tail or stem.endswith(f"/{tail}"):
                root = stem[: -len(tail)].rstrip("/")
                if f"{root}/__init__.py".lstrip("/") not in self.paths or root == "":
                    found.append(file)
        return found

    def _of_javascript(self, module: str, path: str) -> list[str]:
        if module.startswith("."):
            return self._javascript_file(posixpath.normpath(posixpath.join(posixpath.dirname(path), module)))
        if module.startswith(("@/", "~/", "#/")):
            tail = module[2:]
            parents = path.split("/")[:-1]
            for depth in range(len(parents), -1, -1):
                for below in ("src", ""):
                    base = "/".join(part for part in (*parents[:depth], below, tail) if part)
                    if found := self._javascript_file(base):
                        return found
            return []
        parts = module.split("/")
        name, rest = ("/".join(parts[:2]), parts[2:]) if module.startswith("@") else (parts[0], parts[1:])
        last = name.rpartition("/")[2]
        found = []
        for folder in sorted(self._packages):
            if folder.rpartition("/")[2] == last:
                for below in ("src", ""):
                    base = "/".join(part for part in (folder, below, *rest) if part)
                    found += self._javascript_file(base)
        return found

    def _javascript_file(self, base: str) -> list[str]:
        bases = [base, _JS_OWN.sub("", base)]
        tried = [f"{each}{ending}" for each in bases for ending in _JS_ENDINGS]
        tried += [f"{base}/index{ending}".lstrip("/") for ending in _JS_ENDINGS if ending]
        return list(dict.fromkeys(file for file in tried if file in self.paths))

    def _of_go(self, module: str) -> list[str]:
        if self._go is None:
            self._go = {}
            for path in sorted(self.paths):
                if posixpath.basename(path) == "go.mod" and (match := _GO_MODULE.search(self._read(path))):
                    self._go[match[1]] = posixpath.dirname(path)
        found: list[str] = []
        for name in sorted(self._go, key=len, reverse=True):
            if module == name or module.startswith(f"{name}/"):
                folder = "/".join(part for part in (self._go[name], module[len(name) + 1 :]) if part)
                return [file for file in self._folders.get(folder, ()) if file.endswith(".go")]
        if not self._go:  # part of a repository: the folder whose path fits best
            fitting = [folder for folder in self._folders if folder and f"/{module}".endswith(f"/{folder}")]
            if fitting:
                found = [file for file in self._folders[max(fitting, key=len)] if file.endswith(".go")]
        return found

    def package(self, path: str) -> Sequence[str]:
        """The files in the folder of a file: in Go and Java they share their names."""
        return self._folders.get(posixpath.dirname(path), ())

    def _of_rust(self, module: str, path: str) -> list[str]:
        parts = [part for part in module.split("::") if part]
        root, inside = rust_module(path, self.paths)
        if not parts:
            return [path]
        if parts[0] == "crate":
            parts = parts[1:]
        elif parts[0] in ("self", "super"):
            here = list(inside)
            while parts and parts[0] in ("self", "super"):
                if parts[0] == "super":
                    here = here[:-1]
                parts = parts[1:]
            parts = here + parts
        else:
            local = self._rust_file(root, [*inside, *parts]) or self._rust_file(root, parts)
            if local:
                return local
            wanted = {parts[0], parts[0].replace("_", "-")}
            for folder in sorted(self._folders):
                name = folder.removesuffix("/src").rpartition("/")[2]
                is_crate = name in wanted or any(each.endswith(f"-{name}") for each in wanted)
                if folder.endswith("src") and is_crate and (found := self._rust_file(folder, parts[1:])):
                    return found
            return []
        return self._rust_file(root, parts)

    def _rust_file(self, root: str, parts: Sequence[str]) -> list[str]:
        """The file of a module, or of what holds it: `a::b` is a/b.rs, a/b/mod.rs, or a type or module in a.rs."""
        for count in range(len(parts), max(-1, len(parts) - 2), -1):
            base = "/".join([root, *parts[:count]]).strip("/")
            tried = (
                [f"{base}.rs", f"{base}/mod.rs"] if count else [f"{root}/{top}.rs".lstrip("/") for top in _RUST_TOPS]
            )
            found = [file for file in tried if file in self.paths]
            if count < len(parts) and not parts[count][:1].isupper():
                inline = re.compile(rf"\bmod\s+{re.escape(parts[count])}\s*\{{")
                found = [file for file in found if inline.search(self._read(file))]
            if found:
                return found
        return []

    def _of_java(self, module: str) -> list[str]:
        """module: a class, a class with its member, or a package."""
        parts = module.split(".")
        found: list[str] = []
        for count in (len(parts), len(parts) - 1, len(parts) - 2):
            if count < 1:
                break
            tail = "/".join(parts[:count])
            for folder in self._java_folders.get(parts[count - 2] if count > 1 else "", ()):
                file = f"{folder}/{parts[count - 1]}.java".lstrip("/")
                if file in self.paths and f"/{file}".endswith(f"/{tail}.java"):
                    found.append(file)
            if not found:
                for folder in self._java_folders.get(parts[count - 1], ()):
                    if f"/{folder}".endswith(f"/{tail}"):
                        found += [file for file in self._folders[folder] if file.endswith(".java")]
            if found:
                return found
        return found

    @property
    def _java_folders(self) -> Mapping[str, Sequence[str]]:
        """last name of a folder -> the folders."""
        if not hasattr(self, "_by_last"):
            by_last: dict[str, list[str]] = defaultdict(list)
            for folder in self._folders:
                by_last[folder.rpartition("/")[2]].append(folder)
            self._by_last = by_last
        return self._by_last


def rust_module(path: str, paths: frozenset[str]) -> tuple[str, list[str]]:
    """The top folder of the crate that a file belongs to, and the names of its module in it."""
    folder, _, _name = path.rpartition("/")
    above = folder
    while True:
        if any(f"{above}/{top}.rs".lstrip("/") in paths for top in _RUST_TOPS):
            break
        if not above:
            return folder, []
        above = posixpath.dirname(above)
    inside = path[len(above) :].strip("/").removesuffix(".rs").split("/")
    if inside[-1] in ("mod", "lib", "main"):
        inside = inside[:-1]
    return above, inside
