"""The definitions that are found at the syntax of each language, and the limits of a parse."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from awareness.index.chunks import syntax
from awareness.index.chunks.chunking import parts_of
from awareness.index.chunks.languages import LANGUAGES, grammar_of, language_of
from awareness.index.chunks.syntax import Part, syntax_parts
from tests.index.chunks.test_chunking import SAMPLES as CUT

# file, text, the first line, last line and full name of each definition
SAMPLES = [
    (
        "A.kt",
        """\
package shop

/** Counts. */
@Serializable
data class Cart(val items: List<Int>) : Base() {
    val size get() = items.size

    constructor(a: Int) : this(listOf(a))

    fun add(item: Int): Cart {
        return Cart(items + item)
    }

    companion object {
        fun empty() = Cart(emptyList())
    }
}

object Registry {
    fun find(name: String) = 1
}
interface Shape { fun area(): Double }
enum class Mood { GOOD, BAD }
fun String.shout(): String = uppercase()
typealias Name = String
val handler = { x: Int ->
    x + 1
}
""",
        [
            "4-17 Cart",
            "10-12 Cart.add",
            "15-15 Cart.empty",
            "19-21 Registry",
            "20-20 Registry.find",
            "22-22 Shape",
            "23-23 Mood",
            "24-24 shout",
            "25-25 Name",
        ],
    ),
    (
        "a.swift",
        """\
import Foundation

/// A cart.
struct Cart: Codable {
    var items: [Int] = []
    init(items: [Int]) {
        self.items = items
    }
    @discardableResult
    mutating func add(_ item: Int) -> Int {
        items.append(item)
        return items.count
    }
    deinit { }
    subscript(i: Int) -> Int { items[i] }
}

extension Cart: Equatable {
    static func == (a: Cart, b: Cart) -> Bool { a.items == b.items }
    func total() -> Int { items.reduce(0, +) }
}
extension Array where Element == Int { func sum() -> Int { 0 } }
protocol Shape { func area() -> Double }
enum Mood: String { case good, bad }
actor Bank { func pay() async {} }
func helper(a: Int) -> Int { a + 1 }
typealias Name = String
""",
        [
            "4-16 Cart",
            "6-8 Cart.init",
            "9-13 Cart.add",
            "14-14 Cart.deinit",
            "15-15 Cart.subscript",
            "18-21 Cart",
            "20-20 Cart.total",
            "22-22 Array",
            "23-23 Shape",
            "24-24 Mood",
            "25-25 Bank",
            "26-26 helper",
            "27-27 Name",
        ],
    ),
    (
        "a.scala",
        """\
package shop

/** Doc. */
case class Cart(items: List[Int]) extends Base {
  def add(item: Int): Cart = {
    copy(items = items :+ item)
  }
  val size: Int = items.size
}

object Cart {
  def empty: Cart = Cart(Nil)
  implicit class Ops(c: Cart) { def twice = c }
}
trait Shape { def area: Double }
enum Mood { case Good, Bad }
given Ordering[Cart] = ???
extension (c: Cart) def total: Int = 1
type Name = String
""",
        [
            "4-9 Cart",
            "5-7 Cart.add",
            "11-14 Cart",
            "12-12 Cart.empty",
            "13-13 Cart.Ops",
            "15-15 Shape",
            "16-16 Mood",
            "17-17 Ordering[Cart]",
            "18-18 total",
            "19-19 Name",
        ],
    ),
    (
        "a.lua",
        """\
local M = {}

-- Adds.
function M.add(a, b)
  return a + b
end

function M:close()
  self.db = nil
end

local function helper(x)
  return x
end

M.sub = function(a, b)
  return a - b
end

local div = function(a, b) return a / b end
return M
""",
        [
            "4-6 M.add",
            "8-10 M.close",
            "12-14 helper",
            "16-18 M.sub",
            "20-20 div",
        ],
    ),
    (
        "a.dart",
        """\
import 'dart:io';

/// A cart.
@immutable
class Cart extends Base with Mixin {
  final int size;
  Cart(this.size);
  Cart.empty() : size = 0;
  factory Cart.of(int n) { return Cart(n); }

  @override
  int add(int item) {
    return size + item;
  }
  int get total => size;
  set total(int x) {}
  static void run() async { }
  Cart operator +(Cart o) => this;
}

mixin Walker on Base { void walk() {} }
extension Shout on String { String shout() => toUpperCase(); }
enum Mood { good, bad }
typedef Handler = void Function(int);
int helper(int a) => a + 1;
void main() {
  print(1);
}
""",
        [
            "4-19 Cart",
            "7-7 Cart.Cart",
            "8-8 Cart.Cart.empty",
            "9-9 Cart.Cart.of",
            "12-12 Cart.add",
            "15-15 Cart.total",
            "16-16 Cart.total",
            "17-17 Cart.run",
            "21-21 Walker",
            "22-22 Shout",
            "23-23 Mood",
            "24-24 Handler",
            "25-25 helper",
            "26-26 main",
        ],
    ),
    (
        "a.ex",
        '''\
defmodule Shop.Cart do
  @moduledoc "Cart"
  use GenServer
  defstruct items: []

  @doc """
  Adds.
  """
  @spec add(t, integer) :: t
  def add(cart, item) when is_integer(item) do
    %{cart | items: [item | cart.items]}
  end

  def add(cart, _), do: cart

  defp helper(x), do: x + 1
  defmacro check(x) do
    quote do: unquote(x)
  end
  def zero, do: 0
  defmodule Inner do
    def deep(a), do: a
  end
end

defprotocol Size do
  def size(data)
end

defimpl Size, for: Map do
  def size(m), do: map_size(m)
end
''',
        [
            "1-24 Shop.Cart",
            "10-14 Shop.Cart.add",
            "16-16 Shop.Cart.helper",
            "17-19 Shop.Cart.check",
            "20-20 Shop.Cart.zero",
            "21-23 Shop.Cart.Inner",
            "22-22 Shop.Cart.Inner.deep",
            "26-32 Size",
            "27-27 Size.size",
            "31-31 Size.size",
        ],
    ),
    (
        "A.hs",
        """\
{-# LANGUAGE OverloadedStrings #-}
module Shop.Cart (add, Cart(..)) where

import Data.List (sort)

-- | A cart.
data Cart = Cart { items :: [Int] }
  deriving (Show)

newtype Name = Name String
type Alias = [Int]

class Shape a where
  area :: a -> Double
  area _ = 0

instance Shape Cart where
  area c = 1

-- | Adds.
add :: Int -> Cart -> Cart
add 0 c = c
add n c = c { items = n : items c }

total = sum . items
(<+>) :: Int -> Int -> Int
a <+> b = a + b
""",
        [
            "7-8 Cart",
            "10-10 Name",
            "11-11 Alias",
            "13-15 Shape",
            "14-15 Shape.area",
            "17-18 Shape",
            "18-18 Shape.area",
            "21-23 add",
            "25-25 total",
            "26-27 <+>",
        ],
    ),
    (
        "a.pl",
        """\
#!/usr/bin/perl
package Shop::Cart;
use strict;

=head1 NAME

Cart

=cut

# Adds.
sub add {
    my ($self, $item) = @_;
    return $self;
}

sub new { my $class = shift; return bless {}, $class; }

package Other;
sub find { 1 }
package Block { sub inner { 2 } }
1;
""",
        [
            "2-17 Shop.Cart",
            "12-15 Shop.Cart.add",
            "17-17 Shop.Cart.new",
            "19-20 Other",
            "20-20 Other.find",
            "21-22 Block",
        ],
    ),
    (
        "a.zig",
        """\
const std = @import("std");

/// A cart.
pub const Cart = struct {
    items: []u32,

    pub fn add(self: *Cart, item: u32) !void {
        self.items[0] = item;
    }
};
const Mood = enum { good, bad };
const Err = error{ Empty, Full };
pub fn helper(a: u32) u32 {
    return a + 1;
}
test "adds" {
    try std.testing.expect(true);
}
""",
        [
            "4-10 Cart",
            "7-9 Cart.add",
            "11-11 Mood",
            "12-12 Err",
            "13-15 helper",
            "16-18 adds",
        ],
    ),
    (
        "a.sol",
        """\
// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
import {X} from "./x.sol";

error TopLevel(uint a);

/// @title T
interface SluiceErrors {
    /// The caller wants more.
    error SluiceShortfall(address owner, uint256 held);
    event Closed(address indexed by);
    function f() external;
}
abstract contract Sluice is SluiceErrors {
    struct Lock { uint a; }
    enum State { Open, Shut }
    mapping(address => uint256) private held;
    uint public constant MAX = 3;
    type Id is uint256;
    constructor(uint a) { held[msg.sender] = a; }
    modifier only() { require(true); _; }
    /// Drains
    function drain(uint256 wanted) external only returns (uint) {
        if (held[msg.sender] < wanted) revert SluiceShortfall(msg.sender, 1);
        held[msg.sender] -= wanted;
    }
    receive() external payable {}
    fallback() external {}
}
library Math { function add(uint a) internal pure returns (uint) { return a; } }
function free(uint a) pure returns (uint) { return a; }
""",
        [
            "5-5 TopLevel",
            "8-13 SluiceErrors",
            "10-10 SluiceErrors.SluiceShortfall",
            "11-11 SluiceErrors.Closed",
            "12-12 SluiceErrors.f",
            "14-29 Sluice",
            "15-15 Sluice.Lock",
            "16-16 Sluice.State",
            "19-19 Sluice.Id",
            "20-20 Sluice.constructor",
            "21-21 Sluice.only",
            "23-26 Sluice.drain",
            "30-30 Math",
            "31-31 free",
        ],
    ),
    (
        "a.m",
        """\
#import "Cart.h"
#define LIMIT 3

@protocol Shape <NSObject>
- (double)area;
@end

@interface Cart : NSObject <Shape>
@property (nonatomic) int size;
- (void)addItem:(int)item count:(int)n;
+ (instancetype)cart;
@end

@implementation Cart
- (void)addItem:(int)item count:(int)n {
    self.size += n;
}
+ (instancetype)cart { return [Cart new]; }
@end

@implementation Cart (Extra)
- (int)total { return 1; }
@end
static int helper(int a) { return a + 1; }
""",
        [
            "2-2 LIMIT",
            "4-6 Shape",
            "5-5 Shape.area",
            "8-12 Cart",
            "10-10 Cart.addItem",
            "11-11 Cart.cart",
            "14-19 Cart",
            "15-17 Cart.addItem",
            "18-18 Cart.cart",
            "21-23 Cart",
            "22-22 Cart.total",
            "24-24 helper",
        ],
    ),
    (
        "a.css",
        """\
@import "x.css";
/* Buttons. */
.btn, .btn-primary:hover {
  color: red;
}
#main > p { margin: 0 }
@media (max-width: 600px) {
  .btn { color: blue; }
}
@keyframes spin { from { top: 0 } to { top: 1px } }
:root { --a: 1px; }
""",
        [
            "3-5 btn, .btn-primary:hover",
            "6-6 #main > p",
            "8-8 btn",
            "10-10 spin",
            "11-11 :root",
        ],
    ),
    (
        "a.scss",
        """\
@use "x";
$size: 3px;
@mixin big($a) { width: $a; }
@function double($n) { @return $n * 2; }
.card {
  color: red;
  &:hover { color: blue; }
  .title { @include big(3px); }
}
%ph { a: b }
@each $x in a, b { .#{$x} { c: d } }
""",
        [
            "3-3 big",
            "4-4 double",
            "5-9 card",
            "7-7 card.&:hover",
            "8-8 card.title",
            "10-10 %ph",
        ],
    ),
    (
        "a.tf",
        """\
terraform { required_version = ">= 1" }
# The bucket.
resource "aws_s3_bucket" "logs" {
  bucket = "x"
  lifecycle {
    prevent_destroy = true
  }
}
variable "region" { default = "eu" }
locals {
  a = 1
}
module "vpc" { source = "./vpc" }
data "aws_ami" "x" {}
output "id" { value = 1 }
provider "aws" {}
""",
        [
            "1-1 terraform",
            "3-8 resource.aws_s3_bucket.logs",
            "5-7 resource.aws_s3_bucket.logs.lifecycle",
            "9-9 variable.region",
            "10-12 locals",
            "13-13 module.vpc",
            "14-14 data.aws_ami.x",
            "15-15 output.id",
            "16-16 provider.aws",
        ],
    ),
    (
        "a.nix",
        """\
{ pkgs ? import <nixpkgs> {}, lib }:
let
  # Adds.
  add = a: b: a + b;
  name = "x";
in {
  services.nginx = {
    enable = true;
  };
  mkCart = { items, ... }:
    items;
  inherit name;
}
""",
        [
            "4-4 add",
            "7-9 services.nginx",
            "10-11 mkCart",
        ],
    ),
    (
        "Makefile",
        """\
CC = gcc
OBJS = a.o \\
  b.o

.PHONY: all clean
# Builds.
all: $(OBJS)
\t$(CC) -o x $(OBJS)
\techo done

clean:
\trm -f *.o

%.o: %.c
\t$(CC) -c $<

define RUN
echo 1
endef
ifdef DEBUG
debug: all
\techo
endif
""",
        [
            "7-10 all",
            "11-13 clean",
            "17-19 RUN",
            "21-22 debug",
        ],
    ),
    (
        "Dockerfile",
        """\
# syntax=docker/dockerfile:1
ARG V=1
FROM python:3.11 AS build
WORKDIR /a
RUN pip install x && \\
    echo y
COPY . .

FROM scratch
COPY --from=build /a /a
CMD ["x"]
FROM alpine as last
RUN <<EOF
echo a
EOF
""",
        [
            "3-7 build",
            "9-11 scratch",
            "12-15 last",
        ],
    ),
    (
        "a.f90",
        """\
module shop
  implicit none
  type, extends(base) :: cart
    integer :: n
  contains
    procedure :: add
  end type cart
  interface area
    module procedure area_a
  end interface
contains
  ! Adds.
  subroutine add(self, item)
    class(cart) :: self
    self%n = item
  end subroutine add
  pure real function total(x) result(y)
    y = x
  end function
end module shop
program main
  use shop
  print *, 1
end program main
""",
        [
            "1-20 shop",
            "3-7 shop.cart",
            "8-10 shop.area",
            "13-16 shop.add",
            "17-19 shop.total",
            "21-24 main",
        ],
    ),
    (
        "a.jl",
        '''\
module Shop
using Base
export add

"""
    add(a)
"""
function add(a::Int, b)
    a + b
end

sub(a, b) = a - b
abstract type Shape end
struct Cart <: Shape
    items::Vector{Int}
    Cart() = new([])
end
mutable struct Box{T}
    x::T
end
function Base.show(io::IO, c::Cart) where T
    print(io, 1)
end
macro check(x)
    x
end
const LIMIT = 3
area(s::Cart)::Int = 2
end
''',
        [
            "1-29 Shop",
            "8-10 Shop.add",
            "12-12 Shop.sub",
            "13-13 Shop.Shape",
            "14-17 Shop.Cart",
            "16-16 Shop.Cart.Cart",
            "18-20 Shop.Box",
            "21-23 Shop.Base.show",
            "24-26 Shop.check",
            "28-28 Shop.area",
        ],
    ),
    (
        "b.m",
        """\
% Adds.
function r = add(a, b)
    r = a + b;
end
function show()
    disp(1)
end
""",
        [
            "2-4 add",
            "5-7 show",
        ],
    ),
    (
        "C.m",
        """\
classdef Cart < handle
    properties
        n
    end
    methods
        function obj = Cart(n)
            obj.n = n;
        end
        function r = total(obj)
            r = obj.n;
        end
    end
end
""",
        [
            "1-13 Cart",
            "6-8 Cart.Cart",
            "9-11 Cart.total",
        ],
    ),
    (
        "a.ps1",
        """\
param([string]$Name)

<#
.SYNOPSIS Adds
#>
function Add-Item2 {
    [CmdletBinding()]
    param([int]$a)
    return $a + 1
}
filter Get-Odd { $_ }
class Cart : Base {
    [int]$n
    Cart([int]$n) { $this.n = $n }
    [int] Total([int]$x) {
        return $this.n
    }
}
enum Mood { Good; Bad }
Add-Item2 3
""",
        [
            "6-10 Add-Item2",
            "11-11 Get-Odd",
            "12-18 Cart",
            "14-14 Cart.Cart",
            "15-17 Cart.Total",
            "19-19 Mood",
        ],
    ),
    (
        "a.gd",
        """\
extends Node
class_name Player

signal died(by)
const MAX = 3
@export var speed: float = 1.0
enum Mood { GOOD, BAD }

## Ready.
func _ready() -> void:
    speed = 2
    print(1)

static func make(a): return a
class Inner:
    extends Reference
    func go():
        pass
""",
        [
            "2-2 Player",
            "4-4 died",
            "7-7 Mood",
            "10-12 _ready",
            "14-14 make",
            "15-18 Inner",
            "17-18 Inner.go",
        ],
    ),
    (
        "a.adb",
        """\
with Ada.Text_IO; use Ada.Text_IO;
package body Shop is
   type Cart is record
      N : Integer;
   end record;
   -- Adds.
   procedure Add (C : in out Cart; X : Integer) is
   begin
      C.N := X;
   end Add;
   function Total (C : Cart) return Integer is
   begin
      return C.N;
   end Total;
   task body Worker is
   begin
      null;
   end Worker;
end Shop;
""",
        [
            "2-19 Shop",
            "3-5 Shop.Cart",
            "7-10 Shop.Add",
            "11-14 Shop.Total",
            "15-18 Shop.Worker",
        ],
    ),
    (
        "a.ads",
        """\
package Shop is
   type Cart is private;
   procedure Add (C : in out Cart; X : Integer);
   function Total (C : Cart) return Integer;
   Empty : exception;
private
   type Cart is record
      N : Integer;
   end record;
end Shop;
""",
        [
            "1-10 Shop",
            "2-2 Shop.Cart",
            "3-3 Shop.Add",
            "4-4 Shop.Total",
            "5-5 Shop.Empty",
            "7-9 Shop.Cart",
        ],
    ),
    (
        "a.pas",
        """\
unit Shop;
interface
uses SysUtils;
type
  TCart = class(TBase)
  private
    FN: Integer;
  public
    constructor Create(n: Integer);
    function Total: Integer;
  end;
  TMood = (Good, Bad);
procedure Helper(a: Integer);
implementation
{ Adds. }
constructor TCart.Create(n: Integer);
begin
  FN := n;
end;
function TCart.Total: Integer;
begin
  Result := FN;
end;
procedure Helper(a: Integer);
var b: Integer;
begin
  b := a;
end;
end.
""",
        [
            "5-11 TCart",
            "9-9 TCart.Create",
            "10-10 TCart.Total",
            "12-12 TMood",
            "13-13 Helper",
            "16-19 TCart.Create",
            "20-23 TCart.Total",
            "24-28 Helper",
        ],
    ),
    (
        "a.vhd",
        """\
library ieee;
use ieee.std_logic_1164.all;
-- A counter.
entity counter is
  port (clk : in std_logic);
end entity;
architecture rtl of counter is
  signal n : integer;
  component foo is
  end component;
  function add(a : integer) return integer is
  begin
    return a;
  end function;
begin
  main : process (clk)
  begin
    n <= 1;
  end process;
end architecture;
package util is
  constant c : integer := 1;
end package;
""",
        [
            "4-6 counter",
            "7-20 rtl",
            "9-10 rtl.foo",
            "11-14 rtl.add",
            "16-19 rtl.main",
            "21-23 util",
        ],
    ),
    ("a.html", "<main>\n  <h1>Shop</h1>\n</main>\n", []),
]
INTEL_MAC = sys.platform == "darwin" and platform.machine() == "x86_64"  # which has no wheel for Perl


def definitions(parts: list[Part], scope: str = "") -> Iterator[str]:
    for part in parts:
        name = ".".join(filter(None, [scope, part.name]))
        if part.name:
            yield f"{part.start + 1}-{part.stop} {name}"
        if part.stop - part.start > 1:
            yield from definitions(part.children(), name)


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "perl" or not INTEL_MAC])
def test_the_grammar_of_each_language_is_installed(language: str) -> None:
    assert grammar_of(language) is not None


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_a_sample(language: str) -> None:
    samples = [*((path, text) for path, text, _ in SAMPLES), *((path, text) for path, _, text, _ in CUT)]
    assert language in [language_of(path, text) for path, text in samples]


def test_the_readme_says_how_many_languages_there_are() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    assert f"Code in {len(LANGUAGES) - 1} languages" in readme  # tsx is TypeScript


@pytest.mark.parametrize(("path", "text", "expected"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_definitions(path: str, text: str, expected: list[str]) -> None:
    language = language_of(path, text) or ""
    if language == "perl" and INTEL_MAC:
        pytest.skip("no wheel")
    assert syntax_parts(language, text) is not None
    assert list(definitions(parts_of(path, text, text.split("\n")))) == expected


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.scss", ".a {\n  --b: #{$c};\n  color: red;\n  &:hover {\n    top: 1px;\n  }\n}\n", ["1-7 a"]),
        ("Makefile", 'A = `f \\\n\t"b = v[:2]; \\\n\tg()"`\n\nall: b\n\techo\n', []),
    ],
)
def test_what_a_grammar_misreads_has_no_name(path: str, text: str, expected: list[str]) -> None:
    assert list(definitions(parts_of(path, text, text.split("\n")))) == expected


def test_a_text_that_confuses_its_grammar_is_read_without_it() -> None:
    text = (
        "package shop\n\nobject Registry { fun find(name: String) = 1 }\n\ninterface Shape { fun area(): Double }\n"
        "enum class Mood { GOOD, BAD }\n\ndata class Cart(val n: Int) {\n    fun add(item: Int): Cart {\n"
        "        return this\n    }\n}\n"
    )
    assert [part.unread for part in syntax_parts("kotlin", text) or []] == [False, True]
    assert list(definitions(parts_of("A.kt", text, text.split("\n")))) == [
        "1-1 shop",
        "3-3 Registry",
        "5-5 Shape",
        "6-6 Mood",
        "8-12 Cart",
        "9-11 Cart.add",
    ]


def test_a_grammar_that_finds_more_than_the_words_that_define_is_kept() -> None:
    text = "int a(void) { return 1; }\nint b(void) {\n  return 2;\n" * 9  # no word of C defines a function
    assert all(part.unread for part in syntax_parts("c", text) or [])
    assert "1-1 a" in definitions(parts_of("a.c", text, text.split("\n")))


def test_a_parse_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def f():\n    x = 1\n" * 20_000
    assert syntax_parts("python", text) is not None
    monkeypatch.setattr(syntax, "SECONDS", 0.0)
    monkeypatch.setattr(syntax, "SECONDS_PER_MIB", 0.0)
    assert syntax_parts("python", text) is None
    names = [part.name for part in parts_of("a.py", text, text.split("\n"))]
    assert names == ["f"] * 20_000  # found without the grammar
