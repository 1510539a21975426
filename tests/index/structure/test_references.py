"""The places of a name in a file, by syntax: no comment, no string, and each with its role."""

from __future__ import annotations

import pytest

from awareness.index.structure.references import CodeFile, Role

PYTHON = '''\
from x import foo
# foo() in a comment
"""foo() in a docstring"""
class A(Base):
    def foo(self):
        return self.foo(1)
    @foo
    def bar(self):
        x = a.b.foo(2); map(foo, z); s = f"{foo()}"; t = "foo"
        return super().foo()
def foo(): pass
def baz(foo=1): await foo()
def qux(a: foo): return other(key=foo, foo=2)
'''


def roles(path: str, text: str, name: str) -> list[tuple[int, str, str, str]]:
    """(line, role, receiver, scope) of each place."""
    places = CodeFile(path, text).references(name)
    return [(place.row + 1, place.role.value, place.receiver, place.scope) for place in places]


def test_roles_in_python():
    assert roles("a.py", PYTHON, "foo") == [
        (1, "import", "", ""),
        (5, "definition", "", "A"),
        (6, "call", "self", "A.foo"),
        (7, "call", "", "A"),
        (9, "call", "a.b", "A.bar"),
        (9, "value", "", "A.bar"),
        (9, "call", "", "A.bar"),
        (10, "call", "super()", "A.bar"),
        (11, "definition", "", ""),
        (12, "bound", "", "baz"),
        (12, "call", "", "baz"),
        (13, "other", "", "qux"),
        (13, "value", "", "qux"),
        (13, "other", "", "qux"),
    ]


@pytest.mark.parametrize(
    ("path", "text", "calls"),
    [
        (
            "a.ts",
            "class A { m() { this.foo(); new foo(); a?.b.foo<T>(1); foo`x` } } // foo()",
            ["this", "", "a?.b", ""],
        ),
        ("a.jsx", "const C = () => <foo.bar x={foo()} />; const s = 'foo()'", [""]),
        ("a.go", "package p\nfunc (c *C) M() { c.foo(1); go p.x.foo(); foo[int](3) } // foo()", ["c", "p.x", ""]),
        (
            "a.rs",
            'impl B { fn m(&self) { self.foo(); Self::foo(); a::b::foo::<u8>(1); println!("foo() {}", c.foo(3)) } }',
            ["self", "Self", "a::b", "c"],
        ),
        (
            "A.java",
            "class A { void m() { this.foo(); b.c().foo(2); new foo(1); foo(); /* foo() */ } }",
            ["this", "b.c()", "", ""],
        ),
        ("a.rb", "def m\n  self.foo\n  foo(1)\n  a.foo 2\nend\n", ["self", "", "a"]),
        ("a.php", "<?php function m() { $a->foo(1); A::foo(2); foo(3); new foo(); }", ["$a", "A", "", ""]),
        ("a.c", "int foo(int);\nint m(int x) { return foo(2) + p->foo(1); }\n", ["", "p"]),
        ("a.cpp", "int m() { foo(1); this->foo(2); n::A::foo(3); a.foo<int>(4); }", ["", "this", "n::A", "a"]),
        ("a.cs", "class A { void m() { a.foo(1); foo(2); new foo(); this.foo<int>(3); } }", ["a", "", "", "this"]),
        ("a.kt", "fun m() { a.foo(1); foo(2) }", ["a", ""]),
        ("a.swift", "func m() { a.foo(1); foo(2) }", ["a", ""]),
        ("a.scala", "object A { def m(x: Int) = { foo(1); a.foo(2) } }", ["", "a"]),
        ("a.lua", "local function m() foo(1); a.foo(2); a:foo(3) end", ["", "a", "a"]),
        ("a.ex", "defmodule A do\n def m(x), do: foo(x)\n def b, do: B.foo(1)\nend", ["", "B"]),
        ("a.dart", "class A { void m() { foo(1); a.foo(2); } }", ["", "a"]),
        ("a.hs", "m x = foo 1 + bar (foo 2)\n", ["", ""]),
        ("a.sh", 'm() { foo 1; echo "foo"; }\n', [""]),
        ("a.zig", "fn m() void { foo(1); a.foo(2); }", ["", "a"]),
        ("A.vue", "<template>foo()</template>\n<script>\nexport default { m() { foo() } }\n</script>\n", [""]),
    ],
)
def test_calls_in_every_language(path, text, calls):
    places = CodeFile(path, text).references("foo")
    assert [place.receiver for place in places if place.role is Role.call] == calls
    assert not any(place.is_guess for place in places)


def test_the_scope_of_a_method_of_go_and_rust_has_its_type():
    assert roles("a.go", "package p\nfunc (c *Ctx) M() { foo() }", "foo") == [(2, "call", "", "Ctx.M")]
    assert roles("a.rs", "impl T for Bar { fn m() { foo() } }", "foo") == [(1, "call", "", "Bar.m")]


def test_definitions_and_the_calls_inside():
    file = CodeFile("a.py", PYTHON)
    assert [(d.symbol, d.row + 1, d.stop, d.is_class) for d in file.definitions()] == [
        ("A", 4, 10, True),
        ("A.foo", 5, 6, False),
        ("A.bar", 8, 10, False),
        ("foo", 11, 11, False),
        ("baz", 12, 12, False),
        ("qux", 13, 13, False),
    ]
    assert [(c.receiver, c.name) for c in file.calls_in(7, 10)] == [
        ("a.b", "foo"),
        ("", "map"),
        ("", "foo"),
        ("", "super"),
        ("super()", "foo"),
    ]
    assert [d.symbol for d in file.definitions_of("foo")] == ["A.foo", "foo"]


def test_names_beyond_ascii_and_with_quotes():
    assert roles("a.py", "é = 1; ß = grüße('ä'); x.grüße()\n", "grüße") == [(1, "call", "", ""), (1, "call", "x", "")]
    assert roles("a.py", "foo()\n", "fo'o\"") == []
    assert roles("a.py", "foo()\n", "(") == []


def test_a_file_that_is_nested_too_deeply_is_read_by_the_line():
    text = "f(" * 5_000 + "foo()" + ")" * 5_000
    places = CodeFile("a.py", text).references("foo")
    assert [(place.role, place.is_guess) for place in places] == [(Role.call, True)]


def test_prose_and_unknown_languages_have_no_places():
    assert CodeFile("README.md", "call `foo()`").references("foo") == []
    assert CodeFile("a.nim", "foo()").references("foo") == []


def test_unclosed_scripts_take_linear_time():
    file = CodeFile("a.vue", "<script>" * 200_000)
    assert file.references("script") == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "foo(1)\n" * 40_000),
        ("a.js", "foo(1);" * 40_000),
        ("a.py", '"foo" ' * 100_000),
        ("a.py", "foo(" * 20_000 + ")" * 20_000),
        ("a.ts", "foo" + "<" * 100_000),
        ("a.rs", "fn f() { foo" + "::<" * 50_000),
        ("a.go", "func foo(" + " " * 500_000 + ")"),
    ],
)
def test_hostile_files_are_read_in_bounds(path, text):
    file = CodeFile(path, text)
    assert len(file.references("foo")) <= 5_000
    assert len(file.calls_in(0, 1 << 30)) <= 5_000
    assert len(file.definitions()) <= 5_000
