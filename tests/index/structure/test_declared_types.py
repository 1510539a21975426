"""The classes that single lines of code tell, in the languages whose calls are resolved."""

from __future__ import annotations

import pytest

from awareness.index.structure.declared_types import (
    bases_in,
    called_in,
    declared_types,
    last_identifier,
    returned_type,
)
from awareness.index.structure.references import CodeFile


@pytest.mark.parametrize(
    ("path", "text", "name", "types"),
    [
        (
            "a.py",
            "def f(x: m.Foo):\n    x = Bar(1)\n    with Baz(2) as x:\n        pass\n",
            "x",
            ["m.Foo", "Bar", "Baz"],
        ),
        ("a.py", 'def f(ctx):\n    """:param ctx: Current context."""\n', "ctx", []),  # no word of a docstring
        ("a.py", "class A:\n    def f(self):\n        self.pool = make_pool()\n", "pool", ["make_pool"]),
        ("a.go", "package p\nfunc (c *Ctx) M(x Foo) { y := New(1); z := &Bar{} }\n", "c", ["Ctx"]),
        ("a.go", "package p\nfunc (c *Ctx) M(x Foo) { y := p.New(1); z := &Bar{} }\n", "y", ["p.New"]),
        ("a.go", "package p\nfunc (c *Ctx) M(x Foo) { y := New(1); z := &Bar{} }\n", "z", ["Bar"]),
        ("a.rs", "fn f(x: &mut Foo) { let y = Bar::new(); }", "x", ["Foo"]),
        ("a.rs", "fn f(x: &mut Foo) { let y = Bar::new(); }", "y", ["Bar"]),
        ("A.java", "class A { void f(Map<K, V> x) { List<Foo> y = g(); var z = new Foo(); } }", "x", ["Map"]),
        ("A.java", "class A { void f(Map<K, V> x) { List<Foo> y = g(); var z = new Foo(); } }", "z", ["Foo"]),
        ("a.ts", "function f(x: Foo) { const y = new Bar(1) }", "x", ["Foo"]),
        ("a.ts", "function f(x: Foo) { const y = new Bar(1) }", "y", ["Bar"]),
    ],
)
def test_declared_types(path, text, name, types):
    assert [kind for _, kind in declared_types(CodeFile(path, text), name)] == types


@pytest.mark.parametrize(
    ("path", "text", "returned"),
    [
        ("a.py", "def f(x: int) -> 'm.Foo': pass\n", "Foo"),
        ("a.py", "def f(x) -> Optional[Foo]: pass\n", "Foo"),
        ("a.py", "def f(x): pass\n", ""),
        ("a.go", "package p\nfunc f(x func() int) (*Foo, error) { return nil, nil }\n", "Foo"),
        ("a.rs", "fn f(x: u8) -> Result<Foo, Error> { }", "Foo"),
        ("A.java", "class A { static Foo<K> f(int x) { } }", "Foo"),
        ("a.ts", "async function f(x: number): Promise<Foo> { }", "Foo"),
    ],
)
def test_returned_type(path, text, returned):
    file = CodeFile(path, text)
    assert returned_type(file, next(each for each in file.definitions() if each.name == "f")) == returned


@pytest.mark.parametrize(
    ("path", "text", "bases"),
    [
        ("a.py", "class C(A, m.B[T], metaclass=M): pass\n", ["A", "B"]),
        ("A.java", "class C<T> extends A<T> implements B, D { }", ["A", "B", "D"]),
        ("a.ts", "class C extends m.A implements B { }", ["A", "B"]),
        ("a.kt", "class C(val x: Int) : A(), B { }", ["A", "B"]),
        ("a.go", "package p\ntype C struct {\n\t*A\n\tx int\n\tm.B\n}\n", ["A", "B"]),
        ("a.rb", "class C < A\nend\n", ["A"]),
    ],
)
def test_bases(path, text, bases):
    file = CodeFile(path, text)
    found = bases_in(file, next(each for each in file.definitions() if each.name == "C"))
    assert [base for base in found if base in bases] == bases


def test_texts():
    assert called_in("a.Foo(x(1), [2])") == "a.Foo"
    assert called_in("b::Foo::new(1)") == "b::Foo"
    assert called_in("f(1)(2)") == called_in("x") == ""
    assert [last_identifier(text) for text in ("a.b", "$Gson$Types", "x!", "f()", "")] == [
        "b",
        "$Gson$Types",
        "x",
        "",
        "",
    ]
