"""Text -> chunks: what each language is cut into, and the promises that hold for any text."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awareness.index.chunks import languages
from awareness.index.chunks.chunking import TokenStarts, chunk_file, parts_of, sized_chunks
from awareness.index.chunks.documents import document_of
from awareness.index.chunks.languages import language_of
from awareness.index.chunks.syntax import Part
from awareness.types import Chunk

Spans = list[tuple[int, int, str]]


def words(text: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]


def blurred(text: str) -> list[int]:
    """Like a BPE: words in bits, white space joined over line ends, so that a part alone has other tokens."""
    return [match.start() for match in re.finditer(r"\s+|\w{1,4}|[^\w\s]{1,2}", text)]


def count(chunk: Chunk, token_starts: TokenStarts = words) -> int:
    return len(token_starts(chunk.encoded_text))


def spans(chunks: list[Chunk]) -> Spans:
    return [(chunk.start_line, chunk.end_line, chunk.symbol) for chunk in chunks]


def check_promises(chunks: list[Chunk], text: str, max_tokens: int, token_starts: TokenStarts = words) -> None:
    """Bounded, ascending, whole lines; every line that is not blank once, or in parts that give it when joined."""
    lines = document_of("", text).text.split("\n")  # a long line of data is shortened
    seen: dict[int, str] = {}
    last = 0
    for chunk in chunks:
        assert count(chunk, token_starts) <= max_tokens
        assert chunk.text.strip()
        whole = "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        if chunk.text == whole:
            assert chunk.start_line > last
            assert lines[chunk.start_line - 1].strip() and lines[chunk.end_line - 1].strip()
            seen |= {number: lines[number - 1] for number in range(chunk.start_line, chunk.end_line + 1)}
        else:
            assert chunk.start_line == chunk.end_line >= last
            assert chunk.text in whole
            seen[chunk.start_line] = seen.get(chunk.start_line, "") + chunk.text
        last = chunk.end_line
    expected = {number: "".join(line.split()) for number, line in enumerate(lines, 1) if line.strip()}
    assert {number: "".join(line.split()) for number, line in seen.items() if line.strip()} == expected


# file, max_tokens, text, [(start_line, end_line, symbol)]
SAMPLES = [
    (
        "a.py",
        40,
        '''\
"""Accounts."""
import os

LIMIT = 3


@cache
def load(path, mode):
    """Read it."""
    with open(path, mode) as file:
        return file.read().strip().upper()


class Account:
    """Holds money."""

    kind = "plain"

    def __init__(self, owner, balance):
        self.owner, self.balance = owner, balance

    # money goes out
    @checked
    def pay(self, amount):
        if amount > self.balance:
            raise ValueError(amount)
        self.balance -= amount
        return self.balance
''',
        [
            (1, 4, ""),
            (7, 9, "load"),
            (10, 11, "load"),
            (14, 17, "Account"),
            (19, 20, "Account.__init__"),
            (22, 24, "Account.pay"),
            (25, 28, "Account.pay"),
        ],
    ),
    (
        "a.js",
        40,
        """\
const fs = require("fs");

/** Adds up. */
export function total(items) {
  return items.reduce((sum, item) => sum + item.price, 0);
}

exports.close = async (db) => {
  await db.flush(); await db.close();
};

class Cart {
  items = [];
  add(item) {
    this.items.push(item); this.count = this.items.length;
    return this;
  }
  get size() {
    return this.items.length;
  }
}
""",
        [
            (1, 1, ""),
            (3, 4, "total"),
            (5, 6, "total"),
            (8, 10, "close"),
            (12, 13, "Cart"),
            (14, 17, "Cart.add"),
            (18, 21, "Cart.size"),
        ],
    ),
    (
        "a.ts",
        36,
        """\
export interface Shape {
  area(): number;
}
type Name = string | undefined;

namespace Geo {
  export class Circle implements Shape {
    constructor(private r: number) {}
    @memo()
    area(): number {
      return Math.PI * this.r ** 2 + this.offset(1, 2);
    }
  }
  export enum Unit { Meter, Foot }
}
""",
        [
            (1, 4, "Shape"),
            (6, 8, "Geo"),
            (9, 10, "Geo.Circle.area"),
            (11, 13, "Geo.Circle.area"),
            (14, 15, "Geo.Unit"),
        ],
    ),
    (
        "a.tsx",
        40,
        """\
type Props = { name: string; size: number };

export const Button = ({ name, size }: Props) => {
  return <button className={size > 3 ? "big" : "small"}>{name}</button>;
};

function App() { return <Button name="a" size={3} />; }
""",
        [
            (1, 1, "Props"),
            (3, 3, "Button"),
            (4, 5, "Button"),
            (7, 7, "App"),
        ],
    ),
    (
        "a.go",
        36,
        """\
package shop

import "fmt"

const (
	Small = 1
	Large = 2
)

// Cart holds items.
type Cart struct {
	items []Item
}

// Add puts one more in.
func (c *Cart) Add(item Item) error {
	c.items = append(c.items, item)
	return fmt.Errorf("full: %d", len(c.items))
}

func Empty() *Cart { return &Cart{} }
""",
        [
            (1, 8, "Small"),
            (10, 13, "Cart"),
            (15, 16, "Cart.Add"),
            (17, 17, "Cart.Add"),
            (18, 19, "Cart.Add"),
            (21, 21, "Empty"),
        ],
    ),
    (
        "a.rs",
        36,
        """\
use std::fmt;

/// A point.
#[derive(Debug, Clone)]
pub struct Point { x: f64, y: f64 }

impl fmt::Display for Point<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.x, self.y)
    }
}

mod tests {
    fn origin() -> Point { Point { x: 0.0, y: 0.0 } }
}
""",
        [
            (1, 1, ""),
            (3, 5, "Point"),
            (7, 7, "Point"),
            (8, 8, "Point.fmt"),
            (9, 11, "Point.fmt"),
            (13, 14, "tests.origin"),
            (15, 15, "tests"),
        ],
    ),
    (
        "A.java",
        40,
        """\
package a.b;

import java.util.List;

/** Greets. */
@Service
public class Greeter {
    private final String name;

    public Greeter(String name) { this.name = name; }

    @Override
    public String greet(List<String> others) {
        return "Hello " + String.join(", ", others) + " from " + name;
    }

    enum Mood { GOOD, BAD }
}
""",
        [
            (1, 3, ""),
            (5, 10, "Greeter"),
            (12, 13, "Greeter.greet"),
            (14, 15, "Greeter.greet"),
            (17, 18, "Greeter.Mood"),
        ],
    ),
    (
        "a.c",
        40,
        """\
#ifndef A_H
#define A_H
#include <stdio.h>

typedef struct { int x; } point_t;

struct list {
    struct list *next;
};

/* Counts. */
static int *count(struct list *head, int *n)
{
    for (; head; head = head->next)
        *n += 1;
    return n;
}
#endif
""",
        [
            (1, 9, "point_t"),
            (11, 13, "count"),
            (14, 18, "count"),
        ],
    ),
    (
        "a.cpp",
        36,
        """\
#include <vector>

namespace geo::flat {

template <class T>
class Box {
 public:
  // The area.
  T area() const { return width * height * scale(1, 2); }
  T width, height;
};

bool Box<int>::empty() const { return width == 0 || height == 0; }

}  // namespace geo::flat
""",
        [
            (1, 3, "geo.flat"),
            (5, 8, "geo.flat.Box"),
            (9, 9, "geo.flat.Box.area"),
            (10, 11, "geo.flat.Box"),
            (13, 13, "geo.flat.Box.empty"),
            (13, 13, "geo.flat.Box.empty"),
            (15, 15, "geo.flat"),
        ],
    ),
    (
        "a.cs",
        40,
        """\
using System;

namespace Shop
{
    [Serializable]
    public class Order
    {
        public int Count { get; set; }

        /// <summary>Sends.</summary>
        public void Send(string to)
        {
            if (Count == 0) { throw new Exception("empty"); }
            Console.WriteLine(to + Count);
        }
    }
}
""",
        [
            (1, 4, ""),
            (5, 8, "Order"),
            (10, 12, "Order.Send"),
            (13, 17, "Order.Send"),
        ],
    ),
    (
        "a.rb",
        32,
        """\
require "json"

module Shop
  class Order < Base
    attr_reader :items

    # Adds up.
    def total(rate)
      items.sum { |item| item.price * rate } + fee(items, 3)
    end

    def self.load(text)
      new(JSON.parse(text))
    end
  end
end
""",
        [
            (1, 5, "Shop"),
            (7, 8, "Shop.Order.total"),
            (9, 9, "Shop.Order.total"),
            (10, 10, "Shop.Order.total"),
            (12, 16, "Shop.Order.load"),
        ],
    ),
    (
        "a.sh",
        36,
        """\
#!/bin/bash
set -eu
ROOT=/srv

# Prints and leaves.
die() {
  echo "$0: $*" >&2
  exit 1
}

build() {
  cd "$ROOT"
  make all || die "no build in $ROOT" "really" "not" "there"
}
build "$@"
""",
        [
            (1, 3, ""),
            (5, 9, "die"),
            (11, 12, "build"),
            (13, 14, "build"),
            (15, 15, ""),
        ],
    ),
    (
        "a.php",
        40,
        """\
<?php
namespace App\\Http;

use App\\User;

/** Logs in. */
final class Login extends Controller
{
    private $tries = 0;

    public function run(User $user): bool
    {
        $this->tries += 1;
        return $user->check($this->tries, 3) && $user->active();
    }
}

function helper($a) { return $a + 1; }
""",
        [
            (1, 4, ""),
            (6, 9, "Login"),
            (11, 13, "Login.run"),
            (14, 16, "Login.run"),
            (18, 18, "helper"),
        ],
    ),
    (
        "a.md",
        32,
        """\
---
layout: page
---
# Guide

Some words about the guide.

## Install

Run this first:

```sh
# not a heading

pip install thing --upgrade --no-deps
```

Then read on.

Usage
-----

Short. See [the page](http://x.y).
""",
        [
            (1, 3, ""),
            (4, 10, "Guide"),
            (12, 16, "Guide > Install"),
            (18, 18, "Guide > Install"),
            (20, 21, "Guide > Usage"),
            (23, 23, "Guide > Usage"),
        ],
    ),
    (
        "a.rst",
        24,
        """\
=====
Title
=====

Words that introduce the whole thing, at some length.

First
=====

Text of the first section, which goes on.

Deeper
------

More text down here, as before.
""",
        [
            (1, 3, "Title"),
            (5, 5, "Title"),
            (7, 8, "Title > First"),
            (10, 10, "Title > First"),
            (12, 13, "Title > First > Deeper"),
            (15, 15, "Title > First > Deeper"),
        ],
    ),
    (
        "a.yaml",
        24,
        """\
name: build
on: [push]

jobs:
  test:
    runs-on: linux
    steps:
      - run: make test

  lint:
    runs-on: linux
    steps:
      - run: make lint
""",
        [
            (1, 2, ""),
            (4, 8, ""),
            (10, 13, ""),
        ],
    ),
]


@pytest.mark.parametrize(("path", "max_tokens", "text", "expected"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_each_language_is_cut_at_its_definitions(path: str, max_tokens: int, text: str, expected: Spans) -> None:
    chunks = chunk_file(path, text, words, max_tokens=max_tokens)
    assert spans(chunks) == expected
    check_promises(chunks, text, max_tokens)


@pytest.mark.parametrize("path", [sample[0] for sample in SAMPLES if language_of(sample[0]) in languages.LANGUAGES])
def test_every_core_language_has_its_grammar(path: str) -> None:
    assert languages.grammar_of(language_of(path) or "") is not None


def test_no_language_has_two_rows() -> None:
    """YAML keeps the last of two equal keys and says nothing."""
    table = Path(languages.__file__).with_suffix(".yaml").read_text("utf-8")
    assert re.findall(r"^(\w+):", table, re.MULTILINE) == [*languages.LANGUAGES]


@pytest.mark.parametrize(("path", "max_tokens", "text", "expected"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_a_file_that_fits_is_one_chunk(path: str, max_tokens: int, text: str, expected: Spans) -> None:
    (whole,) = chunk_file(path, text, words, max_tokens=1000)
    (chunk,) = chunk_file(path, text, words, max_tokens=count(whole) + 4)  # the name may be another: 4 for the header
    assert len(chunk_file(path, text, words, max_tokens=count(whole) - 5)) > 1
    assert (chunk.start_line, chunk.end_line) == (1, text.count("\n"))
    assert chunk.text == text.removesuffix("\n")


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("a/b.PY", "", "python"),
        ("x.d.ts", "", "typescript"),
        ("a.h", "struct s { int class_; };", "c"),
        ("a.h", "#pragma once\n\nnamespace a {}\n", "cpp"),
        ("Rakefile", "", "ruby"),
        (".bashrc", "", "bash"),
        ("bin/run", "#!/usr/bin/env python3\n", "python"),
        ("bin/run", "#!/bin/sh -e\n", "bash"),
        ("bin/run", "#!/usr/bin/env -S node --flag\n", "javascript"),
        ("bin/run", "#!/usr/bin/perl\n", "perl"),
        ("bin/run", "print(1)\n#!/bin/sh\n", None),
        ("run.txt", "#!/bin/sh\n", None),
        ("README.md", "", "markdown"),
        ("index.rst", "", "rst"),
        ("Dockerfile", "", "dockerfile"),
        ("a.toml", "", None),
    ],
)
def test_language_of(path: str, text: str, language: str | None) -> None:
    assert language_of(path, text) == language


# --- what stays together ---


@pytest.mark.parametrize("token_starts", [words, blurred])
def test_a_function_that_fits_is_never_cut(token_starts: TokenStarts) -> None:
    """Whatever the budget: a function is in one chunk exactly if its own chunk is within it."""
    functions = [f"def f{n}(a):\n" + f"    a += {n}\n" * n + "    return a" for n in range(1, 14)]
    text = "\n\n\n".join(functions)
    for max_tokens in range(16, 70):
        chunks = chunk_file("a.py", text, token_starts, max_tokens=max_tokens)
        check_promises(chunks, text, max_tokens, token_starts)
        for n, function in enumerate(functions, 1):
            fits = count(Chunk("a.py", 1, 1, f"f{n}", function), token_starts) <= max_tokens
            assert any(function in chunk.text for chunk in chunks) == fits


def test_a_large_function_stays_alone_and_small_ones_share() -> None:
    small = "def {}(): return 1"
    large = "def large(a):\n" + "    a += 1\n" * 8 + "    return a"
    smalls = [small.format(name) for name in "abcd"]
    text = "\n\n\n".join([*smalls[:2], large, "LIMIT = 3", *smalls[2:]])
    chunks = chunk_file("x.py", text, words, max_tokens=64)
    assert spans(chunks) == [(1, 4, "a"), (7, 16, "large"), (19, 25, "c")]


def test_methods_share_a_chunk_of_their_class() -> None:
    body = "\n\n".join(f"    def m{n}(self):\n        return self.x + {n}" for n in range(8))
    chunks = chunk_file("x.py", f"class Box:\n    x = 1\n\n{body}\n", words, max_tokens=64)
    assert spans(chunks) == [(1, 14, "Box"), (16, 26, "Box")]


def test_the_end_of_a_class_does_not_join_the_next_one() -> None:
    one = "class {}:\n" + "\n".join(f"    def m{n}(self):\n        return self.x + {n}" for n in range(4))
    text = "\n\n\n".join(one.format(name) for name in ("First", "Second"))
    chunks = chunk_file("x.py", text, words, max_tokens=48)
    assert len(chunks) > 2
    assert all(("First" in chunk.symbol) != ("Second" in chunk.symbol) for chunk in chunks)


@pytest.mark.parametrize("max_tokens", [30, 40, 60])
def test_decorators_and_comments_stay_with_their_definition(max_tokens: int) -> None:
    one = "# about {0}\n@cache\n@other(1, 2)\ndef {0}(x):\n    return x + 1"
    text = "import os\n\n" + "\n\n".join(one.format(name) for name in "abcdef") + "\n"
    for chunk in chunk_file("x.py", text, words, max_tokens=max_tokens):
        for name in "abcdef":
            parts = [f"# about {name}", f"def {name}("]
            assert len({part in chunk.text for part in parts}) == 1


def test_a_comment_before_a_blank_line_is_not_part_of_the_definition() -> None:
    text = "# the license\n# of this file\n\n" + "def f(x):\n" + "    x += 1\n" * 5
    chunks = chunk_file("x.py", text, words, max_tokens=32)
    assert spans(chunks) == [(1, 2, ""), (4, 6, "f"), (7, 9, "f")]


def test_a_closing_brace_stays_with_what_it_closes() -> None:
    methods = "\n".join(f"  m{n}(a) {{\n    return a + {n} + {n};\n  }}" for n in range(4))
    chunks = chunk_file("a.js", f"class A {{\n{methods}\n}}\n", words, max_tokens=36)
    assert len(chunks) > 2
    assert [chunk.text.strip() for chunk in chunks if not re.search(r"\w", chunk.text)] == []


def test_a_markdown_fence_that_fits_is_not_cut() -> None:
    fence = "```py\na = 1\n\n# b\n\nc = 2\n```"
    text = f"# T\n\n{'word ' * 14}\n\n{fence}\n\n{'word ' * 14}\n"
    chunks = chunk_file("a.md", text, words, max_tokens=30)
    assert len(chunks) == 3
    assert [chunk.text for chunk in chunks if "`" in chunk.text] == [fence]
    assert {chunk.symbol for chunk in chunks} == {"T"}


# --- names ---


@pytest.mark.parametrize(
    ("path", "text", "symbol"),
    [
        ("a.py", "class A:\n    class B:\n        def f(self): pass\n", "A"),
        ("a.js", "A.prototype.run = function () { return 1 };", "A.run"),
        ("a.js", "module.exports = { a() {} };", "module.exports"),
        ("a.js", "const { a, b } = { a: 1, b: 2 };", ""),
        ("a.ts", "export default class $Box<T> {}", "$Box"),
        ("a.ts", "declare function foo(): void;", "foo"),
        ("a.go", "package p; func (Stack[T]) Pop() {}", "Stack.Pop"),
        ("a.rs", "impl<'a> Tr for &'a mut Vec<Box<T>> {}", "Vec"),
        ("a.c", "static struct node *(*find(int a))(void) { return 0; }", "find"),
        ("a.c", "struct point origin;", ""),
        ("a.c", "#define GUARD_H", ""),
        ("a.c", "#define LIMIT 3", "LIMIT"),
        ("a.cpp", "bool a::B<int>::operator<(const B& o) const { return true; }", "a.B<int>.operator<"),
        ("a.cpp", "A::~A() { }", "A.~A"),
        ("a.cs", "record Money(int Cents);", "Money"),
        ("a.rb", "private def secret; 1; end", "secret"),
        ("a.php", "<?php function go() {}", "go"),
        ("a.md", "# The `run` [page](http://x) ##", "The run page"),
        ("a.md", "Title\n=====", "Title"),
        ("a.md", "```\n# no\n```", ""),
        ("a.md", "---\n# no\ntitle: x\n---\n# Yes", "Yes"),
    ],
)
def test_names(path: str, text: str, symbol: str) -> None:
    (chunk,) = chunk_file(path, text, words)
    assert chunk.symbol == symbol


@pytest.mark.parametrize(
    ("path", "text", "symbols"),
    [
        ("a.kt", "class A {\n    fun f(): Int {\n        return 1\n    }\n}\n", {"A", "A.f"}),
        ("a.swift", "extension A: B {\n    func f() -> Int {\n        return 1\n    }\n}\n", {"A", "A.f"}),
        ("a.scala", "object A {\n  def f = {\n    1\n  }\n}\n", {"A", "A.f"}),
        ("a.lua", "function M.f(a)\n  return a\nend\n\nfunction M:g()\n  return 1\nend\n", {"M.f", "M.g"}),
        (
            "a.ex",
            "defmodule A.B do\n  def f(1), do: 1\n  def f(x), do: x + 2\n  defp g(x), do: x\nend\n",
            {"A.B.f", "A.B.g"},
        ),
        ("a.hs", "module A where\n\nadd :: Int -> Int\nadd 0 = 1\nadd n = n\n\ndata T = T Int\n", {"add", "T"}),
        ("a.pm", "package A::B;\n\nsub f {\n  return 1;\n}\n\nsub g {\n  return 2;\n}\n", {"A.B.f", "A.B.g"}),
        ("a.sol", "interface I {\n    /// Says.\n    error Shortfall(address a, uint b);\n}\n", {"I.Shortfall"}),
        (
            "a.tf",
            'resource "aws_x" "logs" {\n  bucket = "x"\n}\n\nvariable "v" {}\n',
            {"resource.aws_x.logs", "variable.v"},
        ),
        ("a.pas", "implementation\nfunction T.F: Integer;\nbegin\n  Result := 1;\nend;\nend.\n", {"T.F"}),
        ("a.sql", "CREATE TABLE IF NOT EXISTS shop.users (\n  id INT,\n  n INT,\n  m INT\n);\n", {"shop.users"}),
        ("a.clj", "(ns a)\n\n;; Adds.\n(defn add [a b]\n  (+ a b))\n\n(defn sub [a b]\n  (- a b))\n", {"add", "sub"}),
        ("a.R", "add <- function(a, b) {\n  a + b\n}\n\nsub <- function(a, b) {\n  a - b\n}\n", {"add", "sub"}),
        (
            "a.erl",
            "-module(shop).\n-export([add/2]).\n\n-spec add(a(), b()) -> b().\nadd(0, B) when B > 0 ->\n    B;\n"
            "add(A, B) ->\n    A + B.\n\nsub(A, B) -> A - B.\n",
            {"shop", "add", "sub"},
        ),
        ("a.proto", "message A {\n  string a = 1;\n  string b = 2;\n}\n\nenum B {\n  C = 0;\n}\n", {"A", "B"}),
        ("a.txt", "class struggle\n\ntype of thing (a)\n\nfunction keys (b) and so on and on\n", {""}),
        ("a.json", '{\n  "a": "function f() {",\n  "b": [1, 2, 3],\n  "c": [1, 2, 3]\n}\n', {""}),
    ],
)
def test_definitions_of_more_languages(path: str, text: str, symbols: set[str]) -> None:
    def names(parts: list[Part], scope: str = "") -> set[str]:
        found = set()
        for part in parts:
            name = ".".join(filter(None, [scope, part.name]))
            found |= {name} | (names(part.children(), name) if part.stop - part.start > 1 else set())
        return found

    check_promises(chunk_file(path, text, words, max_tokens=20), text, 20)
    found = names(parts_of(path, text, text.split("\n"))) | {""}
    assert symbols <= found
    assert symbols != {""} or found == {""}


def test_definitions_of_one_group_have_their_own_names() -> None:
    text = "package p\n\ntype (\n" + "".join(f"\tT{n} struct {{ a, b, c, d int }}\n" for n in range(3)) + ")\n"
    assert spans(chunk_file("a.go", text, words, max_tokens=24)) == [(1, 4, "T0"), (5, 5, "T1"), (6, 7, "T2")]


def test_a_node_that_ends_with_its_line_end_does_not_take_the_next_line() -> None:
    text = "#define ONE (1 + 2 + 3)\n#define TWO (1 + 2 + 3)\n"
    assert spans(chunk_file("a.c", text, words, max_tokens=24)) == [(1, 1, "ONE"), (2, 2, "TWO")]


def test_an_overline_belongs_to_its_title() -> None:
    text = "".join(f"===\n{name}\n===\n\nSome words of {name} itself.\n\n" for name in ("One", "Two"))
    assert spans(chunk_file("a.rst", text, words, max_tokens=24)) == [(1, 5, "One"), (7, 11, "Two")]


def test_a_continuation_carries_the_name_of_its_function() -> None:
    text = "class A:\n    def run(self):\n" + "        self.x += 1\n" * 40
    chunks = chunk_file("a.py", text, words, max_tokens=64)
    assert len(chunks) > 3
    assert {chunk.symbol for chunk in chunks} == {"A.run"}


def test_a_symbol_leaves_half_of_the_room_to_the_text() -> None:
    deep = "".join(" " * n + f"class Outer{n}Name:\n" for n in range(30)) + " " * 30 + "x = 1\n"
    chunks = chunk_file("a.py", deep, words, max_tokens=24)
    check_promises(chunks, deep, 24)
    assert all(len(chunk.symbol) <= 100 for chunk in chunks)
    assert all(len(words(chunk.header)) <= 12 for chunk in chunks)
    assert [chunk.symbol for chunk in chunks if "class Outer9N" in chunk.text] == ["Outer9Name"]


# --- robustness ---


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n\x0c\n\u2028\n"])
def test_an_empty_text_has_no_chunks(text: str) -> None:
    assert chunk_file("a.py", text, words) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(:\n    return ((\nclass\n\ndef g():\n    pass\n",
        "a = 1\x0c\nb = 2\x00\n\x00\nc\u2028d = 3\n\ud800 = 4\n",
        "def f():\r\n\treturn 1\r\n\r\nx = 2\r\n",
        "\ufeffimport os\n" + "x = 1\n" * 20,
    ],
)
@pytest.mark.parametrize("path", ["a.py", "a.js", "a.rb", "a.rs", "a.md", "a.rst", "a.txt"])
def test_the_guarantees_hold_for_unusual_text(path: str, text: str) -> None:
    for max_tokens in (12, 20, 256):
        check_promises(chunk_file(path, text, words, max_tokens=max_tokens), text, max_tokens)


@pytest.mark.parametrize("line_end", ["", "\n"])
def test_nesting_deeper_than_the_stack(line_end: str) -> None:
    depth = 5 * sys.getrecursionlimit()
    text = f"({line_end}" * depth + f"1{line_end}" + f"){line_end}" * depth
    chunks = chunk_file("a.py", text, words, max_tokens=256)
    check_promises(chunks, text, 256)
    assert len(chunks) >= 2 * depth // 256 if line_end else len(chunks) == 1, "a line of brackets is shortened"


def test_a_long_line_becomes_parts_of_that_line() -> None:
    text = "a = 1\nb = [" + ", ".join(map(str, range(100))) + "]\nc = 2\n"
    chunks = chunk_file("a.py", text, words, max_tokens=40)
    check_promises(chunks, text, 40)
    parts = [chunk for chunk in chunks if (chunk.start_line, chunk.end_line) == (2, 2)]
    assert len(parts) == 6
    assert "".join(part.text for part in parts) == text.split("\n")[1]


def test_a_path_longer_than_the_limit_still_gives_chunks() -> None:
    path = "/".join(["folder"] * 30) + "/a.py"
    chunks = chunk_file(path, "a = 1\nb = 2\n", words, max_tokens=16)
    assert spans(chunks) == [(1, 2, "")]


@pytest.mark.parametrize("each", [1, 2])
def test_a_line_with_no_room_is_cut_to_characters(each: int) -> None:
    """Room for one token: even if a character has two, every part has a character."""

    def characters(text: str) -> list[int]:
        return sorted([*range(len(text))] * each)

    chunks = chunk_file("a", "bcd", characters, max_tokens=each * len("# file: a\n\n") + 1)
    assert [chunk.text for chunk in chunks] == ["b", "c", "d"]


def test_white_space_in_a_long_line_is_not_a_chunk() -> None:
    text = "a" + " " * 9 + "b"
    chunks = chunk_file("a", text, lambda text: range(len(text)), max_tokens=len("# file: a\n\n") + 3)
    assert [chunk.text for chunk in chunks] == ["a  ", " b"]


def test_a_function_at_the_limit_is_counted_exactly() -> None:
    """In its file it has 4 tokens more than alone, too many; a BPE may do that, and the function still fits."""

    def crowded(text: str) -> list[int]:
        more = [] if text.startswith("# file") else [match.start() for match in re.finditer("\n", text)][:4]
        return sorted([*words(text), *more])

    function = "def f(a):\n" + "    a += 1\n" * 12 + "    return a"
    text = f"{function}\n\n\n{function.replace('f(', 'g(')}"
    limit = count(Chunk("a.py", 1, 1, "f", function))
    assert spans(chunk_file("a.py", text, crowded, max_tokens=limit)) == [(1, 14, "f"), (17, 30, "g")]


def test_a_limit_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        chunk_file("a.py", "x", words, max_tokens=0)


def test_a_grammar_that_is_not_installed_falls_back_to_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> object:
        raise ModuleNotFoundError(name)

    text = "def f():\n" + "    x = 1\n" * 9 + "\n" + "def g():\n" + "    y = 1\n" * 9
    assert {chunk.symbol for chunk in chunk_file("a.py", text, words, max_tokens=48)} == {"f", "g"}
    languages.grammar_of.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    try:
        chunks = chunk_file("a.py", text, words, max_tokens=48)
    finally:
        languages.grammar_of.cache_clear()
    check_promises(chunks, text, 48)
    assert {chunk.symbol for chunk in chunks} == {"f", "g"}
    assert chunks[1].text.startswith("def g():")


def test_the_whole_file_is_tokenized_once() -> None:
    seen: list[str] = []

    def token_starts(text: str) -> list[int]:
        seen.append(text)
        return words(text)

    text = "".join(f"def f{n}(a):\n    return a + {n}\n\n" for n in range(200))
    chunks = chunk_file("a.py", text, token_starts, max_tokens=64)
    assert seen.count(text) == 1
    assert sum(map(len, seen)) < 8 * len(text)
    assert len(chunks) < 60


@pytest.mark.parametrize("token_starts", [words, blurred])
def test_sized_chunks_come_with_their_tokens_counted_once(token_starts: TokenStarts) -> None:
    seen: list[str] = []

    def counted(text: str) -> Sequence[int]:
        seen.append(text)
        return token_starts(text)

    text = "".join(f"def f{n}(a):\n    return {' + '.join('a' * (n % 20 + 1))}\n\n" for n in range(90))
    sized = sized_chunks("a.py", text, counted, max_tokens=64)
    assert [chunk for chunk, _ in sized] == chunk_file("a.py", text, token_starts, max_tokens=64)
    assert [size for _, size in sized] == [count(chunk, token_starts) for chunk, _ in sized]
    assert {seen.count(chunk.encoded_text) for chunk, _ in sized} == {1}


# --- properties ---

LINES = st.text(alphabet="ab(){}[]:#=-*`'\"\\ \t\x0c\x00\r\u2028é\ud800", max_size=30)
TEXTS = st.lists(LINES, max_size=25).map("\n".join)
PATHS = st.sampled_from(["a.py", "a.js", "a.rs", "a.go", "a.cpp", "a.rb", "a.sh", "a.php", "a.md", "a.rst", "a.txt"])
BUDGETS = st.sampled_from([14, 16, 20, 33, 64, 256])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PATHS, TEXTS, BUDGETS, st.sampled_from([words, blurred]))
def test_the_guarantees_hold_for_any_text(path: str, text: str, max_tokens: int, token_starts: TokenStarts) -> None:
    check_promises(chunk_file(path, text, token_starts, max_tokens=max_tokens), text, max_tokens, token_starts)


KINDS = ["x = call(1, 2)", "class", "def", "if", "# note", "", "text", "long", "import os"]


@st.composite
def python_sources(draw: st.DrawFn, indent: str = "", depth: int = 0) -> str:
    """Nested classes, functions, statements, comments and blank lines, long and short."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS))
        if kind in ("class", "def", "if") and depth < 3:
            head = {"class": "class C{}(B):", "def": f"@d\n{indent}def f{{}}(a):", "if": "if a{}:"}[kind]
            lines.append(indent + head.format(draw(st.integers(0, 9))))
            lines.append(draw(python_sources(indent + "    ", depth + 1)))
        elif kind == "text":
            lines.append(f'{indent}"""Doc.\n\n{indent}  more: words\n{indent}"""')
        elif kind == "long":
            lines.append(f"{indent}y = [{', '.join('abc' * draw(st.integers(1, 40)))}]")
        else:
            lines.append(indent + kind if kind not in ("class", "def", "if") else f"{indent}pass")
    return "\n".join(lines)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(python_sources(), st.sampled_from([16, 24, 40, 64, 256]), st.sampled_from([words, blurred]))
def test_the_guarantees_hold_for_python_like_sources(text: str, max_tokens: int, token_starts: TokenStarts) -> None:
    check_promises(chunk_file("a.py", text, token_starts, max_tokens=max_tokens), text, max_tokens, token_starts)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(python_sources(), st.sampled_from([24, 64]))
def test_blank_lines_at_the_ends_change_no_text(text: str, max_tokens: int) -> None:
    plain = chunk_file("a.py", text, words, max_tokens=max_tokens)
    padded = chunk_file("a.py", f"\n\n{text}\n\n\n", words, max_tokens=max_tokens)
    assert [(chunk.symbol, chunk.text) for chunk in padded] == [(chunk.symbol, chunk.text) for chunk in plain]
    assert [chunk.start_line - 2 for chunk in padded] == [chunk.start_line for chunk in plain]
