"""Callers, callees and tests of a name, in five languages: what imports prove, and what is another thing's name."""

from __future__ import annotations

import pytest

from awareness.errors import NothingFound
from awareness.index.structure.call_graph import CallGraph
from tests.index.structure.indexed import indexed

FILES = {
    "shop/__init__.py": "from shop.cart import total\n",
    "shop/cart.py": '''\
from .tax import rate as tax_rate
from .log import Log


class Base:
    def save(self):
        """Call save() here."""
        return self.check()

    def check(self):
        return True


class Cart(Base):
    def __init__(self, items):
        self.items = items
        self.log = Log()

    def check(self):
        self.log.write("check()")
        return super().check()

    def pay(self):
        return total(self.items) + tax_rate()


def total(items, key=None):
    return sum(items)
''',
    "shop/tax.py": "def rate():\n    return 0.2\n\n\ndef total(x):\n    return x\n\n\nONE = total(1)\n",
    "shop/log.py": "class Log:\n    def write(self, text):\n        print(text)\n",
    "shop/app.py": """\
import json
import shop
from shop import total
from shop.cart import Cart
from shop import cart as carts


def run(cart: Cart):
    cart.pay()
    return shop.total([]) + carts.total([1]) + total([2])


def make():
    cart = Cart([])
    return cart.check()


def dump(total):
    return json.dumps(total())


HANDLERS = {"t": total}
""",
    "tests/test_cart.py": """\
from shop.cart import Cart, total


def test_total():
    assert total([1]) == 1


def test_pay():
    assert Cart([1]).pay() > 1
""",
    "README.md": "Call `total()` to sum.\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with indexed(tmp_path_factory.mktemp("shop"), FILES) as (store, snapshot):
        yield CallGraph(store, snapshot)


def found(links) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(link.chunk.path, link.symbol, link.lines) for link in links]


def test_callers_by_imports(shop):
    links = shop.callers("shop/cart.py:total", top_k=20)
    assert found(links) == [
        ("shop/app.py", "run", (10,)),
        ("shop/cart.py", "Cart.pay", (24,)),
        ("tests/test_cart.py", "test_total", (5,)),
        ("shop/app.py", "", (22,)),
    ]
    assert all(link.is_proven and link.target == "shop/cart.py:total" for link in links)
    assert [link.how for link in links] == ["call", "call", "call", "value"]
    assert links[0].text == "return shop.total([]) + carts.total([1]) + total([2])"


def test_another_function_of_the_same_name_has_its_own_callers(shop):
    assert found(shop.callers("tax.total", top_k=20)) == [("shop/tax.py", "", (9,))]


def test_an_alias_is_the_same_function(shop):
    assert found(shop.callers("rate", top_k=20)) == [("shop/cart.py", "Cart.pay", (24,))]


def test_methods_by_the_class_of_the_receiver(shop):
    assert found(shop.callers("Cart.check", top_k=20)) == [
        ("shop/app.py", "make", (15,)),
        ("shop/cart.py", "Base.save", (8,)),
    ]
    assert [link.is_proven for link in shop.callers("Cart.check", top_k=20)] == [True, False]
    assert found(shop.callers("Base.check", top_k=20)) == [
        ("shop/cart.py", "Base.save", (8,)),
        ("shop/cart.py", "Cart.check", (21,)),
    ]
    assert found(shop.callers("Log.write", top_k=20)) == [("shop/cart.py", "Cart.check", (20,))]
    assert found(shop.callers("Cart.pay", top_k=20)) == [
        ("shop/app.py", "run", (9,)),
        ("tests/test_cart.py", "test_pay", (9,)),
    ]


def test_an_inherited_method_is_found_below_its_class(shop):
    assert shop.callers("Cart.save", top_k=20) == []  # known, and nothing calls it


def test_who_constructs_a_class(shop):
    constructed = [("shop/app.py", "make", (14,)), ("tests/test_cart.py", "test_pay", (9,))]
    assert found(shop.callers("Cart", top_k=20)) == constructed
    assert found(shop.callers("Cart.__init__", top_k=20)) == constructed


def test_a_name_that_is_defined_elsewhere_has_callers_by_name(shop):
    links = shop.callers("dumps", top_k=20)
    assert found(links) == [("shop/app.py", "dump", (19,))]
    assert not links[0].is_proven and links[0].target == ""


def test_callees(shop):
    links = shop.callees("Cart.pay", top_k=20)
    assert [(link.symbol, link.line, link.lines) for link in links] == [("total", 27, (24,)), ("rate", 1, (24,))]
    assert [link.target for link in links] == ["shop/cart.py:total", "shop/tax.py:rate"]
    assert [link.symbol for link in shop.callees("Cart.check", top_k=20)] == ["Log.write", "Base.check"]
    assert shop.callees("tax.rate", top_k=20) == []


def test_tests_of(shop):
    links = shop.tests_of("cart.total", top_k=20)
    assert found(links)[0] == ("tests/test_cart.py", "test_total", (5,))
    assert [link.symbol for link in shop.tests_of("Cart", top_k=20)] == ["test_pay", "test_total"]
    assert shop.tests_of("Log.write", top_k=20) == []


def test_scope_and_number(shop, tmp_path):
    assert len(shop.callers("total", top_k=1)) == 1
    with indexed(tmp_path, FILES) as (store, snapshot):
        graph = CallGraph(store, snapshot, lambda path: path.startswith("tests/"))
        assert found(graph.callers("cart.total", top_k=20)) == [("tests/test_cart.py", "test_total", (5,))]


@pytest.mark.parametrize("ask", ["callers", "callees", "tests_of"])
@pytest.mark.parametrize("name", ["totel", "Card.pay", "nowhere.py:total", "Nothing.total", "", ":", "a'b\"c", "é"])
def test_an_unknown_name_is_refused_with_the_nearest_ones(shop, ask, name):
    with pytest.raises(NothingFound) as error:
        getattr(shop, ask)(name, top_k=5)
    assert name[:80] in error.value.message
    if name == "totel":
        assert error.value.hint == "one of total"
    if name == "Card.pay":
        assert error.value.hint == "one of shop/cart.py:Cart.pay"


LANGUAGES = [
    (
        {
            "go.mod": "module example.org/app\n",
            "util/strings.go": "package util\n\nfunc Clean(s string) string { return s }\n",
            "other/strings.go": "package other\n\nfunc Clean(s string) string { return s }\n",
            "main.go": (
                'package main\n\nimport (\n\t"example.org/app/util"\n\to "example.org/app/other"\n)\n\n'
                "type App struct{}\n\nfunc New() *App { return &App{} }\n\n"
                'func (a *App) Run() { util.Clean(o.Clean("")) }\n'
            ),
            "main_test.go": "package main\n\nfunc TestRun(t *T) {\n\tapp := New()\n\tapp.Run()\n\tother().Run()\n}\n",
            "job.go": "package main\n\ntype Job struct{}\n\nfunc (j *Job) Run() { j.Run() }\n",
        },
        {
            "util/strings.go:Clean": [("main.go", "App.Run", True)],
            "other.Clean": [("main.go", "App.Run", True)],
            "App.Run": [("main_test.go", "TestRun", True)],
            "Job.Run": [("job.go", "Job.Run", True), ("main_test.go", "TestRun", False)],
            "New": [("main_test.go", "TestRun", True)],
        },
    ),
    (
        {
            "src/util.ts": "export function clean(s: string) { return s }\nexport default function main() {}\n",
            "src/index.ts": "export * from './util'\nexport { clean as tidy } from './util'\n",
            "src/other.ts": "export const clean = (s: string) => s\n",
            "src/a.ts": (
                "import { clean } from './index'\nimport go from './util'\n"
                "export class A { run() { clean(''); go() } }\n"
            ),
            "src/b.ts": (
                "import { clean } from './other'\nimport { tidy } from '.'\n"
                "function b(a: A) { clean(''); a.run() }\ntidy('')\n"
            ),
            "src/c.ts": "import { clean } from 'library'\nclean('')\n",
        },
        {
            "src/util.ts:clean": [("src/a.ts", "A.run", True), ("src/b.ts", "", True)],
            "other.clean": [("src/b.ts", "b", True)],
            "A.run": [("src/b.ts", "b", True)],
        },
    ),
    (
        {
            "src/lib.rs": "mod util;\nmod other;\npub use util::clean;\n",
            "src/util.rs": (
                "pub fn clean() {}\n\n#[cfg(test)]\nmod tests {\n    use super::*;\n    #[test]\n"
                "    fn cleans() { clean(); super::clean(); }\n}\n"
            ),
            "src/other.rs": (
                "use crate::clean;\n\npub struct Pool;\n\nimpl Pool {\n    pub fn new() -> Pool { Pool }\n"
                "    fn run(&self) { clean(); self.run(); Vec::<u8>::new(); }\n}\n\n"
                "fn f() { let pool = Pool::new(); pool.run(); x.clean(); }\n"
            ),
        },
        {
            "clean": [("src/other.rs", "Pool.run", True), ("src/util.rs", "tests.cleans", True)],
            "Pool::new": [("src/other.rs", "f", True)],
            "Pool.run": [("src/other.rs", "Pool.run", True), ("src/other.rs", "f", True)],
        },
    ),
    (
        {
            "src/main/java/org/x/Base.java": "package org.x;\nclass Base {\n  void run() { }\n}\n",
            "src/main/java/org/x/Job.java": (
                "package org.x;\npublic class Job extends Base {\n  public Job() { }\n  void go() { run(); }\n"
                "  static Job make() { return new Job(); }\n}\n"
            ),
            "src/main/java/org/y/Job.java": "package org.y;\npublic class Job {\n  void walk() { run(); }\n}\n",
            "src/main/java/org/z/Use.java": (
                "package org.z;\nimport org.x.Job;\nimport static org.x.Job.make;\nclass Use {\n  Job job;\n"
                "  void a() { job.run(); Job other = new Job(); make(); }\n}\n"
            ),
        },
        {
            "Base.run": [
                ("src/main/java/org/x/Job.java", "Job.go", True),
                ("src/main/java/org/z/Use.java", "Use.a", True),
            ],
            "make": [("src/main/java/org/z/Use.java", "Use.a", True)],
            "src/main/java/org/x/Job.java:Job": [
                ("src/main/java/org/x/Job.java", "Job.make", True),
                ("src/main/java/org/z/Use.java", "Use.a", True),
            ],
        },
    ),
    (
        {
            "a.rb": "def clean(s)\n  s\nend\n\ndef run\n  clean('x') # clean('y')\nend\n",
            "b.rb": "def go\n  clean 'z'\nend\n",
        },
        {"clean": [("a.rb", "run", True), ("b.rb", "go", False)]},
    ),
]


@pytest.mark.parametrize(("files", "callers"), LANGUAGES, ids=["go", "typescript", "rust", "java", "by-name"])
def test_callers_in_every_language_with_rules(tmp_path, files, callers):
    with indexed(tmp_path, files) as (store, snapshot):
        graph = CallGraph(store, snapshot)
        for name, expected in callers.items():
            links = graph.callers(name, top_k=20)
            assert sorted((link.chunk.path, link.symbol, link.is_proven) for link in links) == sorted(expected), name


def test_a_name_of_hundreds_of_definitions_and_calls_is_judged_quickly(tmp_path):
    files = {
        f"m{i}.py": f"class C{i}:\n    def get(self):\n        return self.get()\n\n    def g(x):\n        x.get()\n"
        for i in range(60)
    }
    with indexed(tmp_path, files) as (store, snapshot):
        links = CallGraph(store, snapshot).callers("C7.get", top_k=500)
        assert (links[0].chunk.path, links[0].is_proven) == ("m7.py", True)
        assert len(links) == 61 and not any(link.is_proven for link in links[1:])
