"""Which definition a reference means: proven by imports, scopes and classes, or likely by its name alone.

A name that stands alone means what its file defines or imports. A member (`x.name`) belongs to a module that is
imported, to the class around it (`self`), to a class that is named, or to the class of a variable (declared_types.py).
What none of this tells is likely by name; what one of them tells to be something else is excluded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import IntEnum

from awareness.index.structure.code_view import CodeView, Definition
from awareness.index.structure.declared_types import (
    bases_in,
    called_in,
    declared_types,
    last_identifier,
    returned_type,
)
from awareness.index.structure.imports import ALL, JS, RULED, Import
from awareness.index.structure.references import CodeFile, Reference, Role, Scope

_SELF = frozenset(["self", "cls", "this", "Self", "@", "static", "$this", "mcs"])
_SUPER = re.compile(r"^(?:super|parent|base)\b")
_ANY_TYPE = frozenset(
    "Any Self T K V S R P U Object object Optional Union Type Callable Iterable Iterator Sequence Mapping List Dict"
    " Tuple Option Box Arc Rc Vec Result Promise Array ReturnType typeof var let auto unknown any interface"
    " None".split()
)
_HOPS = 6  # re-exports and base classes that are followed
_MOST_RETURNS = 16  # definitions of one name whose result is asked for
_IDENTIFIER = re.compile(r"(?:[^\W\d]|\$)[\w$]*")
_GENERIC = re.compile(r"(?:::)?<[^<>]*>")
_FAMILIES = {
    **dict.fromkeys(JS, "js"),
    **dict.fromkeys(("c", "cpp", "objc"), "c"),
    **dict.fromkeys(("java", "kotlin", "scala"), "jvm"),
}


class Verdict(IntEnum):
    """How sure it is that a reference means a definition."""

    other = 0
    by_name = 1
    proven = 2


class Resolver:
    def __init__(self, code: CodeView) -> None:
        self.code = code
        self._bases: dict[str, list[str] | None] = {}
        self._kinds: dict[tuple[str, int, str], list[str]] = {}
        self._members: dict[tuple[str, str, str, str], Verdict] = {}
        self._untold: set[tuple[str, int, str, bool]] = set()
        self._calling: set[tuple[str | None, int, str]] = set()
        self._definers: dict[str, frozenset[str]] = {}
        self._bound: dict[tuple[str, str, tuple[int, int]], list[tuple[Scope, ...]]] = {}
        self._declared: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._follows: dict[tuple[str, str, str, str], Verdict] = {}

    def verdict(self, file: CodeFile, reference: Reference, target: Definition) -> Verdict:
        """Does a reference in a file mean the target? Its name may be another one that an import gave it."""
        language, other = file.language or "", self.code.file(target.path).language or ""
        if _FAMILIES.get(language, language) != _FAMILIES.get(other, other):
            return Verdict.other
        receiver = reference.receiver
        if receiver in _SELF and reference.owner:
            return self._of_own_class(reference.owner, file, target, reference.name)
        if receiver and _SUPER.match(receiver) and reference.owner:
            bases = self._bases_of(reference.owner) or []
            above = max((self._of_class(base, target, reference.name) for base in bases), default=Verdict.other)
            return above if above is Verdict.proven else Verdict.other  # never what overrides it
        if language not in RULED or reference.is_guess:
            return self._without_rules(file, reference, target)
        return self._member(file, reference, target) if receiver else self._plain(file, reference, target)

    def inherited(self, kind: str, name: str) -> list[Definition]:
        """The definitions of a member that a class has from its base classes, the nearest ones."""
        known = [each for each in self.code.definitions(name) if each.owner]
        owners = {each.owner for each in known}
        return [each for each in known if self._inherits(kind, each.owner, stop_at=owners - {each.owner})]

    def _without_rules(self, file: CodeFile, reference: Reference, target: Definition) -> Verdict:
        if not reference.receiver and not target.owner and file.path == target.path:
            return Verdict.proven
        if not reference.receiver and target.owner and reference.owner == target.owner:
            return Verdict.proven
        last = last_identifier(reference.receiver)
        if target.owner and last == target.owner:
            return Verdict.proven
        return Verdict.by_name

    # --- a name alone ------------------------------------------------------------------------------------------

    def _plain(self, file: CodeFile, reference: Reference, target: Definition) -> Verdict:
        language, path = file.language, file.path
        if language == "java":
            return self._plain_java(file, reference, target)
        own = file.references(reference.name)
        if language != "go" and self._is_variable(file, reference.name, reference):
            return Verdict.other
        visible = [
            each
            for each in own
            if each.role is Role.definition
            and _is_around(each, reference)
            and (not each.is_method or _in_class(each, reference))
        ]
        if target.owner and not (path == target.path and target.reference in visible):
            return Verdict.other
        if visible:
            nearest = max(len(each.scopes) for each in visible)
            is_it = path == target.path and any(
                each.symbol == target.symbol for each in visible if len(each.scopes) == nearest
            )
            if is_it or language != "rust":
                return Verdict.proven if is_it else Verdict.other
        if language == "go":
            if self._is_variable(file, reference.name, reference):
                return Verdict.other
            if target.path in self.code.modules.package(path):
                return Verdict.proven
        imports = self.code.imports(path)
        named = [each for each in imports if each.local == reference.name]
        if not named:
            named = [each for each in imports if each.local == ALL]
            if language in JS and not imports and not target.reference.scopes:
                return Verdict.by_name  # a script of a page
        return max((self._binds(each, path, language or "", target) for each in named), default=Verdict.other)

    def _plain_java(self, file: CodeFile, reference: Reference, target: Definition) -> Verdict:
        is_type = target.reference.is_class or target.owner == target.name  # a constructor
        imports = self.code.imports(file.path)
        if is_type:
            if file.path == target.path or any(
                each.local == target.name and self._binds(each, file.path, "java", target) for each in imports
            ):
                return Verdict.proven
            if any(each.local == target.name for each in imports):
                return Verdict.other
            if _java_package(file.path) == _java_package(target.path):
                return Verdict.proven
            wild = [each for each in imports if each.local == ALL]
            return max((self._binds(each, file.path, "java", target) for each in wild), default=Verdict.other)
        if reference.role is Role.value:
            return Verdict.other  # a variable: a method is never a plain value
        classes = [scope.name for scope in reversed(reference.scopes) if scope.is_class]
        verdicts = [self._of_own_class(name, file, target, reference.name) for name in classes]
        static = [each for each in imports if each.local in (ALL, target.name)]
        verdicts += [Verdict.proven for each in static if last_identifier(each.module) == target.owner]
        return max(verdicts, default=Verdict.other)

    def _is_variable(self, file: CodeFile, name: str, reference: Reference) -> bool:
        """Is a name a parameter or a variable of a function around the reference?"""
        key = (file.path, name, reference.around)
        if key not in self._bound:
            self._bound[key] = [
                each.scopes for each in file.references(name, key[2]) if each.role is Role.bound and each.scopes
            ]
        return any(scopes == reference.scopes[: len(scopes)] and not scopes[-1].is_class for scopes in self._bound[key])

    # --- imports -----------------------------------------------------------------------------------------------

    def _binds(self, imported: Import, path: str, language: str, target: Definition) -> Verdict:
        """Does an import in a file bring the target?"""
        name = target.name if imported.local == ALL else imported.name
        files = self.code.modules.files(imported.module, path, language)
        if language == "rust" and not imported.module:
            files = []
        if imported.is_default:
            name = "default"
        return self._follow(files, name, target, language)

    def _follow(self, files: Sequence[str], name: str, target: Definition, language: str, hops: int = _HOPS) -> Verdict:
        """Does a name of these files, perhaps imported by them, mean the target?"""
        if not files:
            return Verdict.other
        if target.path in files and (name == target.name or self._is_default(name, target)):
            return Verdict.proven
        if language in ("go", "java"):
            return Verdict.other
        best = Verdict.other
        for path in files[:8]:
            key = (path, name, target.path, target.symbol)
            if key not in self._follows:
                self._follows[key] = Verdict.other  # in a circle of imports
                self._follows[key] = self._follow_file(path, name, target, language, hops - 1)
            best = max(best, self._follows[key])
        return best

    def _follow_file(self, path: str, name: str, target: Definition, language: str, hops: int) -> Verdict:
        file = self.code.file(path)
        if path != target.path and any(
            each.role in (Role.definition, Role.bound) and not each.scopes for each in file.references(name)
        ):
            return Verdict.other
        if hops <= 0:
            return Verdict.by_name
        imports = self.code.imports(path)
        named = [each for each in imports if each.local == name] or [each for each in imports if each.local == ALL]
        best = Verdict.other if named else Verdict.by_name
        for each in named:
            if each.local == ALL and name == "default":
                continue
            inner = name if each.local == ALL else "default" if each.is_default else each.name
            files = self.code.modules.files(each.module, path, language)
            best = max(best, self._follow(files, inner, target, language, hops))
        return best

    def _is_default(self, name: str, target: Definition) -> bool:
        if name != "default":
            return False
        word = re.escape(target.name)
        function = rf"export\s+default\s+(?:async\s+)?function\s*\*?\s*{word}\b"
        value = rf"(?:export\s+default\s+(?:class\s+)?|module\.exports\s*=\s*){word}\b(?!\s*\()"
        renamed = rf"\b{word}\s+as\s+default\b"
        return re.search(f"{function}|{value}|{renamed}", self.code.file(target.path).text) is not None

    # --- a member ----------------------------------------------------------------------------------------------

    def _member(self, file: CodeFile, reference: Reference, target: Definition) -> Verdict:
        language, path, receiver = file.language or "", file.path, reference.receiver
        name = reference.name
        key = (path, reference.row, receiver, bool(target.owner))
        if key in self._untold:
            return self._by_name(language, target)
        for _ in range(3 if "<" in receiver else 0):
            receiver = _GENERIC.sub("", receiver)
        parts = [part for part in re.split(r"\.|::", receiver) if part]
        is_path = all(_IDENTIFIER.fullmatch(part) for part in parts)
        if is_path and language == "rust" and not reference.by_path:
            is_path = False  # a value, whatever modules are called
        if is_path and parts[0] == "super" and len(reference.scopes) > 1 and not reference.scopes[0].is_class:
            parts = ["self", *parts[1:]]  # in a module inside the file, such as its tests
        if is_path:
            imports = self.code.imports_by_name(path).get(parts[0], [])
            if language == "rust" or not (imports and self._is_variable(file, parts[0], reference)):
                verdict = self._of_module(imports, parts, file, name, target)
                if verdict is not None:
                    return verdict
        if language in JS and receiver in ("exports", "module.exports") and path == target.path and not target.owner:
            return Verdict.proven
        kinds = self._types(file, reference)
        if kinds:
            best = max(self._of_class(kind, target, name) for kind in kinds)
            return best if len(kinds) == 1 else min(best, Verdict.by_name)
        self._untold.add(key)
        return self._by_name(language, target)

    def _by_name(self, language: str, target: Definition) -> Verdict:
        """The verdict where nothing tells what the receiver is."""
        may_be = target.owner or (language in JS and not target.reference.is_class)
        return Verdict.by_name if may_be else Verdict.other

    def _of_module(
        self, imports: Sequence[Import], parts: Sequence[str], file: CodeFile, name: str, target: Definition
    ) -> Verdict | None:
        """The verdict for `parts.name` if they begin with something imported; None if that does not tell."""
        language, path, modules = file.language or "", file.path, self.code.modules
        whole = ".".join(parts)
        for each in imports:
            if not (whole == each.local or whole.startswith(f"{each.local}.")):
                continue
            rest = [part for part in whole[len(each.local) :].split(".") if part]
            if language == "go":
                if rest:
                    return None
                files = modules.files(each.module, path, language)
                return Verdict.proven if target.path in files and not target.owner else Verdict.other
            if language == "python":
                inside = (
                    each.module
                    if not each.name
                    else f"{each.module.rstrip('.')}.{each.name}"
                    if each.module.strip(".")
                    else f"{each.module}{each.name}"
                )
                files = modules.files(".".join([inside, *rest]), path, language)
                if files:
                    return Verdict.other if target.owner else self._follow(files, name, target, language)
                if not each.name and not modules.files(inside, path, language):
                    return Verdict.other  # a module from elsewhere
            elif language in JS and (not each.name or each.is_default) and not rest:
                files = modules.files(each.module, path, language)
                if not files:
                    return Verdict.other
                if not target.owner:
                    return self._follow(files, name, target, language)
            elif language == "rust":
                outer = "::".join(part for part in (each.module, each.name, *rest) if part)
                if not (rest or [each.name])[-1][:1].isupper():
                    return self._of_rust(outer, path, name, target)
            kind = rest[-1] if rest else each.name or each.local
            if _is_capital(kind) or self._is_class(kind):
                if not rest and self._is_from_elsewhere(each, path, language):
                    return Verdict.other
                return self._of_class(kind, target, name)
            if not rest and self._is_from_elsewhere(each, path, language):
                return Verdict.other
            return None
        if (
            language == "rust"
            and len(parts)
            and not _is_capital(parts[-1])
            and (len(parts) > 1 or parts[0] in ("crate", "super", "self"))
        ):
            return self._of_rust("::".join(parts), path, name, target)
        if language == "rust" and not _is_capital(parts[-1]) and modules.files(whole, path, language):
            return self._of_rust(whole, path, name, target)
        if _is_capital(parts[-1]) and (language in ("rust", "java") or self._is_class(parts[-1])):
            return self._of_class(parts[-1], target, name)
        return None

    def _is_from_elsewhere(self, imported: Import, path: str, language: str) -> bool:
        files = self.code.modules.files(imported.module, path, language)
        return not files and (bool(imported.module) or language != "rust")

    def _of_rust(self, module: str, path: str, name: str, target: Definition) -> Verdict:
        if target.owner:
            return Verdict.other
        return self._follow(self.code.modules.files(module, path, "rust"), name, target, "rust")

    # --- classes -----------------------------------------------------------------------------------------------

    def _of_class(self, kind: str, target: Definition, name: str) -> Verdict:
        """Does the member `name` of a class mean the target?"""
        if not target.owner:
            return Verdict.other
        key = (kind, target.path, target.symbol, name)
        if key not in self._members:
            self._members[key] = self._of_member(kind, target, name)
        return self._members[key]

    def _of_own_class(self, kind: str, file: CodeFile, target: Definition, name: str) -> Verdict:
        """As `_of_class`, for the class around a reference: another class of the same name is another one."""
        here = [each for each in self.code.definitions(kind) if each.path == file.path and each.reference.is_class]
        if not here or file.language in ("go", "rust"):
            return self._of_class(kind, target, name)
        if target.owner == kind:
            return Verdict.proven if target.path == file.path else Verdict.other
        verdict = Verdict.by_name if target.owner and self._inherits(target.owner, kind, stop_at=()) else Verdict.other
        if any(each.owner == kind and each.path == file.path for each in self.code.definitions(name)):
            return verdict
        bases = [base for each in here for base in bases_in(file, each.reference) if base != kind]
        return max((self._of_class(base, target, name) for base in bases), default=verdict)

    def _of_member(self, kind: str, target: Definition, name: str) -> Verdict:
        owner = target.owner
        if kind == owner:
            known = {each.path for each in self.code.definitions(owner) if each.reference.is_class}
            return Verdict.proven if len(known) <= 1 or target.path in known else Verdict.by_name
        if name not in self._definers:
            self._definers[name] = frozenset(each.owner for each in self.code.definitions(name) if each.owner)
        definers = self._definers[name]
        if self._inherits(kind, owner, stop_at=definers - {owner}):
            return Verdict.proven
        if self._inherits(owner, kind, stop_at=()):
            return Verdict.by_name  # an override may be called
        if kind not in definers and self._is_trait(owner) and self._bases_of(kind) is not None:
            return Verdict.by_name  # its classes are named elsewhere
        return Verdict.other

    def _inherits(self, kind: str, ancestor: str, stop_at: Iterable[str]) -> bool:
        """Is `ancestor` above a class, without a class of `stop_at` between them, the class itself among them?"""
        stops = set(stop_at)
        level, seen = [kind], {kind}
        for _ in range(_HOPS):
            above: list[str] = []
            for each in level:
                if each in stops:
                    continue
                bases = self._bases_of(each) or []
                if ancestor in bases:
                    return True
                above += [base for base in bases if base not in seen]
                seen.update(bases)
            level = above
        return False

    def _is_trait(self, kind: str) -> bool:
        """Is it a trait of Rust or an interface of Go, which classes have without naming it in their head?"""
        return any(
            re.search(r"\btrait\b|\binterface\s*\{", self.code.file(each.path).lines[each.reference.row])
            for each in self.code.definitions(kind)[:4]
        )

    def _is_class(self, kind: str) -> bool:
        return self.code.may_define(kind) and self._bases_of(kind) is not None

    def _bases_of(self, kind: str) -> list[str] | None:
        """The last names of the base classes of a class; None if no class of that name is defined here."""
        if kind not in self._bases:
            bases: list[str] | None = None
            for definition in self.code.definitions(kind)[:16]:
                if definition.reference.is_class:
                    bases = [*(bases or []), *bases_in(self.code.file(definition.path), definition.reference)]
            self._bases[kind] = bases
        return self._bases[kind]

    def _types(self, file: CodeFile, reference: Reference) -> list[str]:
        """The classes that the receiver of a reference may have, if its text or a declaration near it tells."""
        key = (file.path, reference.row, reference.receiver)
        if key not in self._kinds:
            self._kinds[key] = self._find_types(file, reference)
        return self._kinds[key]

    def _find_types(self, file: CodeFile, reference: Reference) -> list[str]:
        receiver = reference.receiver
        if receiver.endswith(")"):
            texts = [called_in(receiver)]
        elif receiver.endswith(("'", '"', "]", "}", "`")):
            return ["str"] if receiver.endswith(("'", '"')) and file.language == "python" else []
        else:
            name = last_identifier(receiver)
            if not name:
                return []
            if (file.path, name) not in self._declared:
                self._declared[file.path, name] = declared_types(file, name)
            declared = self._declared[file.path, name]
            start, _ = reference.around
            texts = [text for row, text in declared if start <= row <= reference.row]
            if not texts and (receiver != name or file.language == "java"):  # a field, of any class of the file
                texts = list(dict.fromkeys(text for _, text in declared))[:_MOST_RETURNS]
                return self._known(file, reference, texts)
        return self._known(file, reference, texts[-3:])[-1:]

    def _known(self, file: CodeFile, reference: Reference, texts: Sequence[str]) -> list[str]:
        kinds = (kind for text in texts for kind in self._kinds_of(file, reference, text))
        return [kind for kind in dict.fromkeys(kinds) if kind not in _ANY_TYPE]

    def _kinds_of(self, file: CodeFile, reference: Reference, text: str) -> list[str]:
        """The class that a text names, as a type or in `Foo(`, or that the function it names returns."""
        name = last_identifier(text)
        if not name or (_is_capital(name) and file.language != "go") or self._is_class(name):
            return [name] if name else []
        if (file.language, reference.row, text) in self._calling or not self.code.may_define(name):
            return []  # in a circle, or from elsewhere
        self._calling.add((file.language, reference.row, text))
        receiver = text[: len(text) - len(name)].rstrip(".:")
        call = replace(reference, name=name, receiver=receiver, role=Role.call, by_path="::" in text)
        found: list[str] = []
        for definition in self.code.definitions(name)[:_MOST_RETURNS]:
            if not definition.reference.is_class and self.verdict(file, call, definition) is Verdict.proven:
                returned = returned_type(self.code.file(definition.path), definition.reference)
                found += [definition.owner if returned == "Self" else returned] if returned else []
        self._calling.discard((file.language, reference.row, text))
        if not found and file.language == "go" and name.startswith("New") and name != "New":
            return [name[3:]]
        return found if found or not (_is_capital(name) and file.language == "go") else []


def _is_capital(name: str) -> bool:
    return name.lstrip("$_")[:1].isupper()


def _is_around(definition: Reference, reference: Reference) -> bool:
    """Is a definition in a scope that holds the reference?"""
    count = len(definition.scopes)
    return definition.scopes == reference.scopes[:count]


def _in_class(definition: Reference, reference: Reference) -> bool:
    """Does the reference stand in the body of the class itself, where a method is a plain name?"""
    return definition.scopes == reference.scopes


def _java_package(path: str) -> str:
    folder = path.rpartition("/")[0]
    for mark in ("/java/", "/kotlin/"):
        if mark in f"/{folder}/":
            return f"/{folder}/".rpartition(mark)[2].strip("/")
    return folder
