"""Who calls a definition, what it calls, and which tests are about it: over one snapshot of an index.

The index tells which files hold the name; only those are parsed (code_view.py), and every place of the name is judged
(resolution.py). Nothing is stored. A caller is a definition, or the top of a file, with all of its calls; proven calls
come before those that are likely by the name alone, code before tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from awareness.errors import NothingFound
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.terms import name_words
from awareness.index.store.manifest import failures
from awareness.index.store.store import Store
from awareness.index.structure.code_view import CodeView, Definition
from awareness.index.structure.imports import ALL, JS
from awareness.index.structure.references import CodeFile, Reference, Role
from awareness.index.structure.resolution import Resolver, Verdict
from awareness.types import Chunk, printable

_PROVEN, _PASSED, _BY_NAME = 1.0, 0.9, 0.6  # scores
_OF_TEST = 0.95  # factor for a caller that is a test
_CONSTRUCTORS = frozenset(["__init__", "__new__", "constructor", "__construct", "initialize"])
_MOST_ALIASES = 8
_COMMON = 12  # definitions of a called name; names with more are left out where nothing tells which is meant
_TEST_NAME = re.compile(r"^(?:test_?|Test|it_|should_?|Benchmark|Example|Fuzz)|(?:_?tests?|Tests?|_?spec|Spec|IT)$")


@dataclass(frozen=True)
class Link:
    """A hit of the call graph.

    chunk: that holds the line. line: from 1, of the first call, of a definition that is called, or of a test. lines: of
    all calls in it. symbol: the qualified name of the caller, the callee or the test; empty at the top of a file. text:
    the line. how: `call`, `value` (passed or assigned, to be called elsewhere), `names` (a type, a base class) or
    `name` (a test that is named after it). is_proven: by an import, a scope or a class; else the names are equal.
    target: `path:symbol` of what is called, if that is proven. score: in [0, 1].
    """

    chunk: Chunk
    line: int
    lines: tuple[int, ...]
    symbol: str
    text: str
    how: str
    is_proven: bool
    target: str
    score: float


class CallGraph:
    """in_scope: path -> may it be a hit. Calls and definitions elsewhere count all the same."""

    def __init__(self, store: Store, snapshot: int, in_scope: Callable[[str], bool] | None = None) -> None:
        self.store, self.in_scope = store, in_scope
        self.code = CodeView(store, snapshot)
        self.resolver = Resolver(self.code)

    # --- questions ---------------------------------------------------------------------------------------------

    def callers(self, name: str, *, top_k: int) -> list[Link]:
        """The definitions that call a name, best first. Raises NothingFound for a name that the code does not have."""
        with self.store.reading(), failures(self.store.layout.manifest):
            return self._ranked(self._uses(name, (Role.call, Role.value)), top_k)

    def callees(self, name: str, *, top_k: int) -> list[Link]:
        """The definitions of this repository that a name calls, in the order of the calls; proven ones first. Raises
        NothingFound."""
        with self.store.reading(), failures(self.store.layout.manifest):
            links: dict[tuple[str, str], Link] = {}
            for target in self._targets(name):
                for link in self._called_by(target):
                    key = (link.chunk.path, link.symbol)
                    if key not in links or links[key].score < link.score:
                        links[key] = link
            return sorted(links.values(), key=lambda link: -link.score)[:top_k]

    def tests_of(self, name: str, *, top_k: int) -> list[Link]:
        """The tests that call a name, use it, or are named after it, best first. Raises NothingFound."""
        with self.store.reading(), failures(self.store.layout.manifest):
            targets = self._targets(name)
            roles = (Role.call, Role.value, Role.other)
            links = [link for link in self._uses(name, roles) if _is_test(link.chunk.path, link.symbol)]
            named = [_named_after(link, targets) for link in links]
            found = {(link.chunk.path, link.symbol): link for link in named}
            for link in self._tests_named(targets):
                found.setdefault((link.chunk.path, link.symbol), link)
            return self._ranked(found.values(), top_k)

    def _ranked(self, links: Iterable[Link], top_k: int) -> list[Link]:
        return sorted(links, key=lambda link: (-link.score, link.chunk.path, link.line))[:top_k]

    # --- what is asked about -----------------------------------------------------------------------------------

    def _targets(self, name: str) -> list[Definition]:
        """The definitions that a name means; none for one that is used but defined elsewhere. Raises NothingFound."""
        targets = self.code.named(name)
        path, qualifiers, last = self.code.split(name)
        if not targets and qualifiers and path is None:
            targets = self.resolver.inherited(qualifiers[-1], last)
        if not targets and (path or qualifiers or not self._is_used(last)):
            raise self._unknown(name)
        return targets

    def _is_used(self, name: str) -> bool:
        return any(
            reference.role in (Role.call, Role.value)
            for file in (self.code.files_with(name) if name else ())
            for reference in file.references(name)
        )

    def _unknown(self, name: str) -> NothingFound:
        nearest = [printable(each) for each in self.code.nearest(name)]
        hint = f"one of {', '.join(nearest)}" if nearest else "another name: awareness search WORDS"
        return NothingFound(f"the code defines nothing named '{printable(name[:80])}'", hint=hint)

    # --- callers -----------------------------------------------------------------------------------------------

    def _uses(self, name: str, roles: Sequence[Role]) -> list[Link]:
        targets = self._targets(name)
        last = self.code.split(name)[2]
        names = {last}
        for target in list(targets):
            if target.name in _CONSTRUCTORS and target.owner:
                owners = [each for each in self.code.definitions(target.owner) if each.path == target.path]
                targets, names = targets + owners, names | {target.owner}
        names |= self._aliases(last)
        rivals = len(self.code.definitions(last)) or 1
        found: dict[tuple[str, str], Link] = {}
        for each in sorted(names):
            own = [target for target in targets if target.name == each]
            of_name = own or [target for target in targets if target.name == last]
            for file in self.code.files_with(each):
                if self.in_scope is not None and not self.in_scope(file.path):
                    continue
                for link in self._in_file(file, each, of_name, roles, rivals):
                    key = (link.chunk.path, link.symbol)
                    before = found.get(key)
                    found[key] = link if before is None else _joined(before, link)
        return list(found.values())

    def _aliases(self, name: str) -> set[str]:
        """The other names that files give to a name they import, under which others may import it from them."""
        aliases = {
            each.local
            for file in self.code.files_with(name)
            if file.language in JS and any(place.role is Role.imported for place in file.references(name))
            for each in self.code.imports(file.path)
            if each.name == name and len(each.local) > 2
        }
        return set(sorted(aliases - {name, ALL, "default"})[:_MOST_ALIASES])

    def _in_file(
        self, file: CodeFile, name: str, targets: Sequence[Definition], roles: Sequence[Role], rivals: int
    ) -> Iterable[Link]:
        locals_ = {name}
        if any(reference.role is Role.imported for reference in file.references(name)):
            locals_ |= {each.local for each in self.code.imports(file.path) if each.name == name} - {ALL, "default"}
        judged: dict[tuple[object, ...], tuple[Verdict, Definition | None]] = {}
        for local in sorted(locals_):
            for reference in file.references(local):
                if reference.role not in roles:
                    continue
                key = (local, reference.receiver, reference.scopes, -1 if reference.scopes else reference.row)
                if key not in judged:
                    judged[key] = self._best(file, reference, targets)
                verdict, target = judged[key]
                if verdict is Verdict.other:
                    continue
                score = _PROVEN if verdict is Verdict.proven else _BY_NAME / max(1, rivals)
                if reference.role is Role.value:
                    score *= _PASSED
                elif reference.role is Role.other:
                    score *= _BY_NAME
                link = self._link(file, reference, score, verdict is Verdict.proven)
                if link is not None:
                    yield replace(link, target=f"{target.path}:{target.symbol}") if link.is_proven and target else link

    def _best(
        self, file: CodeFile, reference: Reference, targets: Sequence[Definition]
    ) -> tuple[Verdict, Definition | None]:
        """The target that a reference means most surely; by name alone where nothing here defines it."""
        best: tuple[Verdict, Definition | None] = (Verdict.other if targets else Verdict.by_name, None)
        for target in targets:
            verdict = self.resolver.verdict(file, reference, target)
            if verdict > best[0]:
                best = verdict, target
            if verdict is Verdict.proven:
                break
        return best

    def _link(self, file: CodeFile, reference: Reference, score: float, is_proven: bool) -> Link | None:
        line = reference.row + 1
        stored = self.code.chunk_at(file.path, line)
        if stored is None:
            return None
        how = {Role.call: "call", Role.value: "value"}.get(reference.role, "names")
        score *= _OF_TEST if kind_of(file.path) is FileKind.TEST else 1.0
        text = file.lines[reference.row].strip()[:200]
        return Link(stored.chunk, line, (line,), reference.scope, text, how, is_proven, "", round(score, 4))

    # --- callees -----------------------------------------------------------------------------------------------

    def _called_by(self, target: Definition) -> Iterable[Link]:
        file = self.code.file(target.path)
        lines: dict[tuple[str, str], list[int]] = {}
        calls: dict[tuple[str, str], Reference] = {}
        for call in file.calls_in(target.reference.row, target.reference.stop):
            if call.row == target.reference.row and call.name == target.name and not call.scopes:
                continue
            key = (call.name, call.receiver)
            calls.setdefault(key, call)
            lines.setdefault(key, []).append(call.row + 1)
        for key, call in calls.items():
            name = next(
                (each.name for each in self.code.imports(file.path) if each.local == call.name and each.name), ""
            )
            known = self.code.definitions(call.name) + (
                self.code.definitions(name) if name not in ("", call.name, "default", ALL) else []
            )
            judged = [(self.resolver.verdict(file, call, each), each) for each in known]
            proven = [each for verdict, each in judged if verdict is Verdict.proven]
            likely = [each for verdict, each in judged if verdict is Verdict.by_name]
            if not proven and len(likely) > _COMMON:
                continue
            for each in proven or likely:
                if self.in_scope is not None and not self.in_scope(each.path):
                    continue
                stored = self.code.chunk_at(each.path, each.line)
                if stored is None:
                    continue
                score = _PROVEN if proven else _BY_NAME / len(likely)
                score *= (
                    _OF_TEST if kind_of(each.path) is FileKind.TEST and kind_of(file.path) is not FileKind.TEST else 1
                )
                text = file.lines[call.row].strip()[:200]
                where = f"{each.path}:{each.symbol}"
                yield Link(
                    stored.chunk, each.line, tuple(dict.fromkeys(lines[key])), each.symbol, text, "call", bool(proven),
                    where if proven else "", round(score, 4),
                )  # fmt: skip

    # --- tests -------------------------------------------------------------------------------------------------

    def _tests_named(self, targets: Sequence[Definition]) -> Iterable[Link]:
        """The tests of files and definitions that are named after a target, such as `test_foo` and `FooTest`."""
        wanted = {tuple(name_words(each)) for target in targets for each in (target.name, target.owner) if each}
        for path in self.code.files:
            if kind_of(path) is not FileKind.TEST or (self.in_scope is not None and not self.in_scope(path)):
                continue
            stem = PurePosixPath(path).name.split(".")[0]
            is_file = _subject(stem) in wanted
            for stored in self.code.chunks(path) if is_file else ():
                symbol = stored.chunk.symbol
                if not symbol or not self.code.file(path).is_code:
                    continue
                line = stored.chunk.start_line
                first = next((row.strip() for row in stored.chunk.text.split("\n") if row.strip()), "")[:200]
                score = round(_BY_NAME * _OF_TEST * 0.5, 4)
                yield Link(stored.chunk, line, (line,), symbol, first, "name", False, "", score)


def _joined(link: Link, other: Link) -> Link:
    """Two links of one caller as one: the better with the lines of both."""
    best = link if (link.score, -link.line) >= (other.score, -other.line) else other
    return replace(best, lines=tuple(sorted({*link.lines, *other.lines})))


def _is_test(path: str, symbol: str) -> bool:
    """Is it a test: a definition in a file of tests, or one in a module of tests (Rust) or a test function?"""
    if kind_of(path) is FileKind.TEST:
        return True
    return any(part in ("tests", "test") or part.startswith("test_") for part in symbol.split("."))


def _subject(name: str) -> tuple[str, ...]:
    """The words of what a test is named after: `test_foo_bar`, `FooBarTest`, `foo_bar_test` -> foo, bar."""
    return tuple(name_words(_TEST_NAME.sub("", name)))


def _named_after(link: Link, targets: Sequence[Definition]) -> Link:
    """The link with a higher score if its test is named after a target."""
    words = name_words(link.symbol.rpartition(".")[2] or PurePosixPath(link.chunk.path).name.split(".")[0])
    joined = "_".join(words)
    is_named = any(f"_{'_'.join(name_words(target.name))}_" in f"_{joined}_" for target in targets)
    file_words = _subject(PurePosixPath(link.chunk.path).name.split(".")[0])
    is_file = any(file_words == tuple(name_words(each)) for t in targets for each in (t.name, t.owner) if each)
    factor = 1.0 if is_named else 0.9 if is_file else 0.8
    return replace(link, score=round(link.score * factor, 4))
